"""Discrete codes: nearest rows of a codebook that moves by running averages, and rounded scalars.

Codebook (van den Oord et al. 2017, arXiv:1711.00937, appendix A.1), with decay g, over all vectors z of a batch:

  N_k <- g N_k + (1 - g) n_k,   m_k <- g m_k + (1 - g) sum of the z with code k,   e_k = m_k / N_k

N and m begin with 0, so that their ratio needs no correction. Sums are over the whole batch, on whichever devices.

Finite scalar quantization (Mentzer et al. 2024, arXiv:2309.15505): each unit of z is squeezed to L numbers by tanh
and rounded; a code is the tuple of them, so that there are L_1 L_2 ... codes and nothing to learn or to die.
"""
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

TINY = 1e-12


def nearest_codes(z: Float[Array, "n dim"], codebook: Float[Array, "k dim"]) -> Int[Array, " n"]:
  """Returns the number of the nearest row of the codebook, int32; of equally near ones the first."""
  return (jnp.square(codebook).sum(1) - 2 * z @ codebook.T).argmin(1).astype(jnp.int32)


def straight_through(z: Float[Array, "*shape"], quantized: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
  """Returns the quantized values; their gradient is handed on to z as it is."""
  return z + jax.lax.stop_gradient(quantized - z)


def moved_codebook(
    counts: Float[Array, " k"], sums: Float[Array, "k dim"], codebook: Float[Array, "k dim"],
    z: Float[Array, "n dim"], codes: Int[Array, " n"], weight: Float[Array, " n"], decay: float,
) -> tuple[Float[Array, " k"], Float[Array, "k dim"], Float[Array, "k dim"]]:
  """Returns N, m and e after a batch; a code that was never used stays where it is.

  Args:
    counts, sums, codebook: N, m and e.
    z: Vectors.
    codes: Their codes.
    weight: 1 for valid vectors.
    decay: g.
  """
  member = jax.nn.one_hot(codes, len(counts)) * weight[:, None]
  counts = decay * counts + (1 - decay) * member.sum(0)
  sums = decay * sums + (1 - decay) * jnp.matmul(member.T, z, precision="highest")
  used = counts[:, None] > TINY
  return counts, sums, jnp.where(used, sums / jnp.where(used, counts[:, None], 1), codebook)


def revived(
    rng: Array, counts: Float[Array, " k"], sums: Float[Array, "k dim"], codebook: Float[Array, "k dim"],
    z: Float[Array, "n dim"], weight: Float[Array, " n"], least: float,
) -> tuple[Float[Array, " k"], Float[Array, "k dim"], Float[Array, "k dim"], Float[Array, ""]]:
  """Returns N, m and e in which dead codes are random vectors of the batch, and the number of dead codes.

  Args:
    rng: Key.
    counts, sums, codebook: N, m and e.
    z: Vectors.
    weight: 1 for valid vectors.
    least: A code with less than this share of the mean count is dead; it begins again with that count.
  """
  start = least * counts.mean()
  chosen = jax.random.randint(rng, (len(counts),), 0, len(z))
  dead = counts < start
  moved = dead & (weight[chosen] > 0)
  rows = z[chosen]
  counts = jnp.where(moved, start, counts)
  sums = jnp.where(moved[:, None], start * rows, sums)
  return counts, sums, jnp.where(moved[:, None], rows, codebook), dead.sum().astype(jnp.float32)


def perplexity(counts: Float[Array, " k"]) -> Float[Array, ""]:
  """Returns exp of the entropy of the codes' frequencies: the number of codes, were they equally frequent."""
  share = counts / jnp.maximum(counts.sum(), TINY)
  return jnp.exp(-(share * jnp.log(jnp.maximum(share, TINY))).sum())


def bounded(z: Float[Array, "*shape dim"], levels: Sequence[int]) -> Float[Array, "*shape dim"]:
  """Returns units squeezed so that rounding gives `levels` whole numbers around 0, of even ones one more below it."""
  levels = jnp.asarray(levels)
  half = (levels - 1) * (1 - 1e-3) / 2
  offset = jnp.where(levels % 2 == 0, 0.5, 0.0)
  return half * jnp.tanh(z + jnp.arctanh(offset / half)) - offset


def scalar_values(numbers: Float[Array, "*shape dim"], levels: Sequence[int]) -> Float[Array, "*shape dim"]:
  """Returns rounded numbers as values in [-1, 1]."""
  return numbers / (jnp.asarray(levels) // 2)


def nearest_numbers(values: Float[Array, "*shape dim"], levels: Sequence[int]) -> Float[Array, "*shape dim"]:
  """Returns the whole numbers that are nearest to values in [-1, 1]."""
  half = jnp.asarray(levels) // 2
  return jnp.clip(jnp.round(values * half), -half, jnp.asarray(levels) - 1 - half)


def numbers_to_codes(numbers: Float[Array, "*shape dim"], levels: Sequence[int]) -> Int[Array, "*shape"]:
  """Returns the codes of whole numbers, int32: the first unit counts fastest."""
  steps = [math.prod(levels[:i]) for i in range(len(levels))]
  digits = jnp.round(numbers + jnp.asarray(levels) // 2).astype(jnp.int32)
  return (digits * jnp.asarray(steps, jnp.int32)).sum(-1)


def codes_to_numbers(codes: Int[Array, "*shape"], levels: Sequence[int]) -> Float[Array, "*shape dim"]:
  """Returns the whole numbers that codes stand for."""
  steps = jnp.asarray([math.prod(levels[:i]) for i in range(len(levels))], jnp.int32)
  levels = jnp.asarray(levels, jnp.int32)
  return ((codes[..., None] // steps) % levels - levels // 2).astype(jnp.float32)
