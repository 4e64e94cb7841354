"""Objectives of paragraph vectors (Le & Mikolov 2014) and the inference of a document's vector, which is convex.

Documents stand in blocks. PV-DBOW reads the cells of their counts. PV-DM reads their words in order: position i of
document d asks by the mean of the document's vector and of those of its context C_i, the words up to c before and
after i, each weighted by the probability a_j with which subsampling keeps it,

  z_i = (v_d + sum_{j in C_i} a_j x_j) / (1 + sum_{j in C_i} a_j).

Where the words' vectors are held, z_i is linear in v_d. So both objectives are convex in it, with a Hessian of at
most 1/4 sum n u u' + r, of PV-DM with u scaled as v_d is in z_i. A step of Newton's method with that bound, which is
factorized once, never raises them (Bohning & Lindsay 1988).
"""
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from embeddings_jax.ops.word_blocks import window_masks, window_sums
from embeddings_jax.types import Array


def objective(
    vectors: Float[Array, "blocks R dim"], output: Float[Array, "V dim"], row: Int[Array, "blocks M"],
    col: Int[Array, "blocks M"], count: Float[Array, "blocks M"], drawn: Int[Array, " K"], weight: float,
    ridge: float,
) -> Float[Array, ""]:
  """Returns L of some blocks of documents, given by the cells of their counts: nats per occurrence.

  Args:
    vectors: v of the documents.
    output: u of the words.
    row, col, count: The document in its block, the word and n_dw of each cell; a count of 0 is padding.
    drawn: Noise words.
    weight: k / K.
    ridge: r.
  """
  def one_block(v, row, col, count):
    scores = (v[row] * output[col]).sum(-1)
    length = jnp.zeros(len(v)).at[row].add(count)
    noise = jax.nn.softplus(v @ output[drawn].T).sum(1)
    nats = (count * jax.nn.softplus(-scores)).sum() + (length * weight * noise).sum()
    return nats + ridge / 2 * jnp.square(v).sum()

  return jax.vmap(one_block)(vectors, row, col, count).sum() / jnp.maximum(count.sum(), 1)


def infer(
    rows: Float[Array, "L dim"], count: Float[Array, " L"], noise_rows: Float[Array, "K dim"], weight: float,
    ridge: float, steps: int,
) -> Float[Array, " dim"]:
  """Returns the vector of one document, the minimum of its part of the objective, from 0.

  Args:
    rows: u of its words.
    count: n of its words; 0 is padding.
    noise_rows: u of the noise words.
    weight, ridge: k / K and r.
    steps: Steps of Newton's method with a bound of the Hessian.
  """
  of_noise = weight * count.sum()
  bound = (jnp.einsum("l,li,lj->ij", count, rows, rows) + of_noise * noise_rows.T @ noise_rows) / 4
  factor = jax.scipy.linalg.cho_factor(bound + ridge * jnp.eye(rows.shape[1]))

  def step(_, v):
    slope = -rows.T @ (count * jax.nn.sigmoid(-rows @ v)) + of_noise * noise_rows.T @ jax.nn.sigmoid(noise_rows @ v)
    return v - jax.scipy.linalg.cho_solve(factor, slope + ridge * v)

  return jax.lax.fori_loop(0, steps, step, jnp.zeros(rows.shape[1]))


def draw_noise(noise: Array, num: int, offset: Array) -> Int[Array, " num"]:
  """Returns a word of each `num`-th of the distribution, at `offset` in [0, 1) of it."""
  # In integers: float32 would distort the words whose share is near 2**-24.
  width = 2**32 // num
  share = jnp.arange(num, dtype=jnp.uint32) * jnp.uint32(width) + (offset * np.float32(width * (1 - 2**-20))).astype(
      jnp.uint32)
  return jnp.searchsorted(noise, share, side="right").astype(jnp.int32)


def dm_contexts(
    inputs: Float[Array, "B T dim"], row: Int[Array, "B T"], weight: Float[Array, "B T"], window: int,
) -> tuple[Float[Array, "B T dim"], Float[Array, "B T"]]:
  """Returns sum_j a_j x_j over the context of each position, and 1 / (1 + sum_j a_j).

  Args:
    inputs: x of the words, in their order.
    row: The document of each position; -1 is padding.
    weight: a of each position; 0 of padding.
    window: c.
  """
  masks = window_masks(row, jnp.full_like(row, window), window=window)
  sums = window_sums(masks, weight[..., None] * inputs)
  return sums, 1 / (1 + window_sums(masks, weight[..., None])[..., 0])


def dm_objective(
    vectors: Float[Array, "B R dim"], contexts: tuple[Float[Array, "B T dim"], Float[Array, "B T"]],
    output: Float[Array, "V dim"], row: Int[Array, "B T"], tokens: Int[Array, "B T"], weight: Float[Array, "B T"],
    drawn: Int[Array, " K"], noise_weight: float, ridge: float,
) -> Float[Array, ""]:
  """Returns L of PV-DM for some blocks of documents: nats per position, weighted by a.

  Args:
    vectors: v of the documents.
    contexts: As `dm_contexts` returns them.
    output: u of the words.
    row, tokens, weight: The document in its block, the word, and a of each position; an a of 0 is padding.
    drawn: Noise words.
    noise_weight: k / K.
    ridge: r.
  """
  sums, scale = contexts
  of_document = jnp.take_along_axis(vectors, jnp.maximum(row, 0)[..., None], 1)
  query = scale[..., None] * (of_document + sums)
  nats = jax.nn.softplus(-(query * output[tokens]).sum(-1))
  nats += noise_weight * jax.nn.softplus(query @ output[drawn].T).sum(-1)
  return ((weight * nats).sum() + ridge / 2 * jnp.square(vectors).sum()) / jnp.maximum(weight.sum(), 1)


def dm_infer(
    contexts: tuple[Float[Array, "T dim"], Float[Array, " T"]], rows: Float[Array, "T dim"],
    weight: Float[Array, " T"], noise_rows: Float[Array, "K dim"], noise_weight: float, ridge: float, steps: int,
) -> Float[Array, " dim"]:
  """Returns the vector of one document, the minimum of its part of PV-DM's objective, from 0.

  Args:
    contexts: As `dm_contexts` returns them, of one document.
    rows: u of its words.
    weight: a of its positions; 0 is padding.
    noise_rows: u of the noise words.
    noise_weight, ridge: k / K and r.
    steps: Steps of Newton's method with a bound of the Hessian.
  """
  sums, scale = contexts
  squares = weight * scale**2
  bound = (rows.T @ (squares[:, None] * rows) + noise_weight * squares.sum() * noise_rows.T @ noise_rows) / 4
  factor = jax.scipy.linalg.cho_factor(bound + ridge * jnp.eye(rows.shape[1]))

  def step(_, v):
    query = scale[:, None] * (v + sums)
    missed = weight * scale * jax.nn.sigmoid(-(query * rows).sum(-1))
    fooled = noise_weight * (weight * scale) @ jax.nn.sigmoid(query @ noise_rows.T)
    return v - jax.scipy.linalg.cho_solve(factor, fooled @ noise_rows - missed @ rows + ridge * v)

  return jax.lax.fori_loop(0, steps, step, jnp.zeros(rows.shape[1]))
