"""Paragraph vectors, distributed bag of words (PV-DBOW; Le & Mikolov 2014, "Distributed Representations of Sentences
and Documents", arXiv:1405.4053): a document's vector predicts its words, by negative sampling (Mikolov et al. 2013b).

  L = - 1/N sum_d [ sum_w n_dw ( log sigma(v_d . u_w) + k/K sum_m log sigma(-v_d . u_m) ) - r/2 |v_d|^2 ]

in nats per occurrence, where n_dw are the counts of words, thinned as word2vec thins frequent words, here by their
expectation: n_dw = count min(1, sqrt(t / f_w) + t / f_w). K noise words m ~ P_n(w) = unigram(w)^{3/4} / Z are shared
by an update, one from each K-th of P_n (systematic sampling), which leaves the expectation as it is.

| symbol | code | shape |
|---|---|---|
| v_d | `documents`, `embed` | [num_documents, dim], [n, dim] |
| u_w | `output` | [V', dim], V' > V; rows past the vocabulary stay 0 |
| k, K, m | `num_negatives`, `num_noise`, `draw_noise` | [], [], [K] |
| P_n | `noise`: cumulative, in units of 2**-32 | [V'] |
| t | `subsample` | |
| r | `ridge` | |

A batch is blocks of documents (`data/bags.py`): order does not matter here, so that a document costs its different
words. Tables move by Adagrad with one rate a row (Duchi et al. 2011): rows of the batch's documents, and all words.

Vectors of documents, seen or not, are inferred: the one minimum of the document's own part of L, which is convex in
v_d, with the words held and noise words at the middles of the K-ths. So a document has one vector, whichever others
are asked with it, where the sampled steps of word2vec's relatives give another each time. Its Hessian is at most
1/4 sum n u u' + r, which a step of Newton's method with that bound uses once factorized (Bohning & Lindsay 1988): no
step raises the objective.

Deviations from the paper: negative sampling, as in gensim, for hierarchical softmax; r, without which a short
document's vector may have no end. PV-DM, which reads the order of words, is left out.

Split: document | the document as a whole | each of its words.

Expected: `embeddings_jax/configs/doc2vec.py`.
"""
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Float, Int

from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.word_blocks import count_words
from embeddings_jax.types import Array, Fact, InputError, Model

CHUNK = 64  # Documents whose Hessians are held at the same time.


class Doc2vecState(NamedTuple):
  """Tables, and what Adagrad has seen.

  Attributes:
    step: [] int32, updates made.
    documents: [num_documents, dim] vectors.
    output: [V', dim] vectors of words.
    document_sums, word_sums: [num_documents], [V'] sums of mean squared gradients of rows.
    keep: [V'] probability that subsampling keeps an occurrence (above 1: always).
    noise: [V'] uint32, 2**32 sum_{u <= w} P_n(u).
  """

  step: Array
  documents: Array
  output: Array
  document_sums: Array
  word_sums: Array
  keep: Array
  noise: Array


@takes(words=2, counts=2, document=None, row=None, col=None, count=None)
def doc2vec(
    *,
    vocab_size: Fact[int],
    num_documents: Fact[int],
    counts: Fact[Any],
    dim: int = 100,
    num_negatives: int = 5,
    num_noise: int = 256,
    negative_power: float = 0.75,
    subsample: float = 1e-3,
    ridge: float = 20.0,
    learning_rate: float = 0.2,
    infer_steps: int = 20,
) -> Model:
  """Vectors of documents. A training batch is what `data/bags.py: bag_source` says.

  Args:
    vocab_size, num_documents: V and the number of documents.
    counts: [V] occurrences of each word.
    dim: Dimension of the vectors.
    num_negatives: k, weight of the noise words for each occurrence.
    num_noise: K, noise words of an update and of inference.
    negative_power: Exponent of the unigram distribution for noise words.
    subsample: t, the relative frequency above which occurrences count for less; 0: all count.
    ridge: r. Below some 5 vectors fit their own documents and stop being alike by subject.
    learning_rate: Learning rate of Adagrad.
    infer_steps: Steps of inference.

  Returns:
    A `Model`. `embed` infers [n, dim] of `words` [n, L] int32, padded with -1, and `counts` [n, L]; without a known
    word it is 0. Outputs: `loss` of such batches after inference, and `components`: `documents`, `output`.
  """
  for name, value, least in (("dim", dim, 1), ("num_noise", num_noise, 2), ("infer_steps", infer_steps, 1)):
    if value < least:
      raise InputError(f"doc2vec: {name}={value}: must be at least {least}")
  if not (ridge > 0 and learning_rate > 0 and num_negatives > 0 and subsample >= 0):
    raise InputError(f"doc2vec: ridge={ridge}, learning_rate={learning_rate}, num_negatives={num_negatives}, "
                     f"subsample={subsample}: must be above 0, and subsample at least 0")
  words = count_words("doc2vec", vocab_size, counts, subsample, negative_power)
  weight = num_negatives / num_noise

  def init(rng, batch):
    del batch
    start = jax.random.uniform(rng, (num_documents, dim), jnp.float32, -0.5 / dim, 0.5 / dim)
    return Doc2vecState(
        step=jnp.zeros((), jnp.int32), documents=start, output=jnp.zeros((words.num_rows, dim)),
        document_sums=jnp.zeros(num_documents), word_sums=jnp.zeros(words.num_rows), keep=jnp.asarray(words.keep),
        noise=jnp.asarray(words.noise))

  def update(state, batch, rng):
    place = jnp.where(row_mask(batch)[:, None] > 0, batch["document"], -1)
    known = place >= 0
    place = jnp.where(known, place, num_documents)
    rows = state.documents.at[place].get(mode="fill", fill_value=0)
    count = jnp.where(row_mask(batch)[:, None] > 0, batch["count"] * jnp.minimum(1, state.keep[batch["col"]]), 0)
    drawn = draw_noise(state.noise, num_noise, jax.random.uniform(rng, ()))
    loss, (of_rows, of_words) = jax.value_and_grad(objective, (0, 1))(
        rows, state.output, batch["row"], batch["col"], count, drawn, weight, ridge)
    squares = jnp.where(known, jnp.square(of_rows).mean(-1), 0)
    sums = state.document_sums.at[place].add(squares, mode="drop")
    own = sums.at[place].get(mode="fill", fill_value=1)
    rows -= learning_rate * of_rows / jnp.sqrt(own + 1e-20)[..., None]
    word_sums = state.word_sums + jnp.square(of_words).mean(-1)
    new = state._replace(
        step=state.step + 1, document_sums=sums, word_sums=word_sums,
        documents=state.documents.at[place].set(rows, mode="drop", unique_indices=False),
        output=state.output - learning_rate * of_words / jnp.sqrt(word_sums + 1e-20)[:, None])
    return new, {"loss": loss, "occurrences": count.sum(), "document_norm": _mean_norm(rows, known)}

  def inferred(state, batch):
    """Vectors [n, dim], and the rest of what their objective needs."""
    known = (batch["words"] >= 0) & (batch["words"] < vocab_size)
    col = jnp.where(known, batch["words"], vocab_size)
    count = jnp.where(known, batch["counts"] * jnp.minimum(1, state.keep[col]), 0)
    drawn = draw_noise(state.noise, num_noise, jnp.float32(0.5))
    one = lambda part: infer(state.output[part[0]], part[1], state.output[drawn], weight, ridge, infer_steps)
    vectors = jax.lax.map(one, (col, count), batch_size=CHUNK)
    return vectors, col, count, drawn

  def loss(state, batch):
    vectors, col, count, drawn = inferred(state, batch)
    rows = jnp.broadcast_to(jnp.arange(len(col))[:, None], col.shape)
    count = count * row_mask(batch)[:, None]
    cells = (x.reshape(1, -1) for x in (rows, col, count))
    return objective(vectors[None], state.output, *cells, drawn, weight, ridge)

  def components(state):
    return {"documents": state.documents, "output": state.output[:vocab_size]}

  rules = ((r"(^|/)output$", P("model", None)),)
  return Model(init, update, lambda state, batch: inferred(state, batch)[0], {"loss": loss, "components": components},
               rules)


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


def _mean_norm(rows: Array, known: Array) -> Array:
  norms = jnp.where(known, jnp.linalg.norm(rows, axis=-1), 0)
  return norms.sum() / jnp.maximum(known.sum(), 1)
