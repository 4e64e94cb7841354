"""Paragraph vectors (Le & Mikolov 2014, "Distributed Representations of Sentences and Documents", arXiv:1405.4053): a
document's vector predicts its words, by negative sampling (Mikolov et al. 2013b), alone (the distributed bag of
words, PV-DBOW) or with the words around each (the distributed memory, PV-DM).

  PV-DBOW  L = - 1/N sum_d [ sum_w n_dw ( log sigma(v_d . u_w) + k/K sum_m log sigma(-v_d . u_m) ) - r/2 |v_d|^2 ]
  PV-DM    L = - 1/N sum_d [ sum_i a_i ( log sigma(z_i . u_{w_i}) + k/K sum_m log sigma(-z_i . u_m) ) - r/2 |v_d|^2 ]
           z_i = (v_d + sum_{j in C_i} a_j x_{w_j}) / (1 + sum_{j in C_i} a_j)

in nats per occurrence. Frequent words are thinned as word2vec thins them, here by their expectation: an occurrence of
w weighs a = min(1, sqrt(t / f_w) + t / f_w), and n_dw are the counts of words times that. C_i are the words up to c
before and after position i of the document. K noise words m ~ P_n(w) = unigram(w)^{3/4} / Z are shared by an update,
one from each K-th of P_n (systematic sampling), which leaves the expectation as it is.

| symbol | code | shape |
|---|---|---|
| v_d | `documents`, `embed` | [num_documents, dim], [n, dim] |
| u_w | `output` | [V', dim], V' > V; rows past the vocabulary stay 0 |
| x_w | `input`, of PV-DM | [V', dim] |
| k, K, m | `num_negatives`, `num_noise`, `draw_noise` | [], [], [K] |
| P_n | `noise`: cumulative, in units of 2**-32 | [V'] |
| t | `subsample` | |
| c | `window` | |
| r | `ridge` | |

A batch is blocks of documents: of their counts (`data/bags.py`), as order does not matter to PV-DBOW and a
document then costs its different words; or of their words in order (`data/document_blocks.py`). Tables move by
Adagrad with one rate a row (Duchi et al. 2011): rows of the batch's documents, and all words.

Vectors of documents, seen or not, are inferred: the one minimum of the document's own part of L, which is convex in
v_d, with the words held and noise words at the middles of the K-ths (`ops/paragraph_vectors.py`). So a document has
one vector, whichever others are asked with it, where the sampled steps of word2vec's relatives give another each
time.

Deviations from the paper: negative sampling, as in gensim, for hierarchical softmax; r, without which a short
document's vector may have no end; of PV-DM the mean, not the concatenation, and words on both sides. Unlike in gensim
each term of the mean gets its share of the gradient.

Split: document | the document as a whole, or with the words around a word | each of its words.

Expected: `embeddings_jax/configs/doc2vec.py` and `doc2vec_dm.py`.
"""
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from embeddings_jax.ops import paragraph_vectors
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.paragraph_vectors import draw_noise
from embeddings_jax.ops.word_blocks import count_words, random_table
from embeddings_jax.types import Array, Fact, InputError, Model

CHUNK = 64  # Documents whose Hessians are held at the same time, at most.
POSITIONS = 1 << 15  # Positions that are scored with all noise words at the same time, but for a longer document.


class Doc2vecState(NamedTuple):
  """Tables, and what Adagrad has seen.

  Attributes:
    step: [] int32, updates made.
    documents: [num_documents, dim] vectors.
    output: [V', dim] vectors of words that are predicted.
    document_sums, word_sums: [num_documents], [V'] sums of mean squared gradients of rows.
    keep: [V'] probability that subsampling keeps an occurrence (above 1: always).
    noise: [V'] uint32, 2**32 sum_{u <= w} P_n(u).
    input, input_sums: [V', dim] vectors of context words and [V'] sums of PV-DM; () of PV-DBOW.
  """

  step: Array
  documents: Array
  output: Array
  document_sums: Array
  word_sums: Array
  keep: Array
  noise: Array
  input: Any = ()
  input_sums: Any = ()


@takes(words=2, counts=2, tokens=2, document=None, row=None, col=None, count=None)
def doc2vec(
    *,
    vocab_size: Fact[int],
    num_documents: Fact[int],
    counts: Fact[Any],
    dim: int = 100,
    dm: bool = False,
    window: int = 5,
    num_negatives: int = 5,
    num_noise: int = 256,
    negative_power: float = 0.75,
    subsample: float = 1e-3,
    ridge: float = 20.0,
    learning_rate: float = 0.2,
    infer_steps: int = 20,
) -> Model:
  """Vectors of documents.

  Args:
    vocab_size, num_documents: V and the number of documents.
    counts: [V] occurrences of each word.
    dim: Dimension of the vectors.
    dm: PV-DM, which reads words in order (`pipeline=document_words`); by default PV-DBOW (`pipeline=bags`).
    window: c, context words of PV-DM on each side.
    num_negatives: k, weight of the noise words for each occurrence.
    num_noise: K, noise words of an update and of inference.
    negative_power: Exponent of the unigram distribution for noise words.
    subsample: t, the relative frequency above which occurrences count for less; 0: all count.
    ridge: r. Of PV-DBOW below some 5 vectors fit their own documents and stop being alike by subject.
    learning_rate: Learning rate of Adagrad.
    infer_steps: Steps of inference.

  Returns:
    A `Model`. `embed` infers [n, dim] of `words` [n, L] int32, padded with -1, and `counts` [n, L]; of PV-DM it
    reads `tokens` [n, T] int32. Without a known word a vector is 0. Outputs: `loss` of such batches after inference,
    and `components`: `documents`, `output` and `input`.
  """
  for name, value, least in (("dim", dim, 1), ("window", window, 1), ("num_noise", num_noise, 2),
                             ("infer_steps", infer_steps, 1)):
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
    state = Doc2vecState(
        step=jnp.zeros((), jnp.int32), documents=start, output=jnp.zeros((words.num_rows, dim)),
        document_sums=jnp.zeros(num_documents), word_sums=jnp.zeros(words.num_rows), keep=jnp.asarray(words.keep),
        noise=jnp.asarray(words.noise))
    return state._replace(input=random_table(jax.random.fold_in(rng, 1), words.num_rows, vocab_size, dim),
                          input_sums=jnp.zeros(words.num_rows)) if dm else state

  def occurrences(state, batch):
    """Returns documents, the words they predict and weights, each [blocks, M]; `col` is V for padding."""
    valid = row_mask(batch)[:, None] > 0
    if not dm:
      col = batch["col"]
      return batch["row"], col, jnp.where(valid, batch["count"] * jnp.minimum(1, state.keep[col]), 0)
    valid &= (batch["tokens"] >= 0) & (batch["tokens"] < vocab_size)
    col = jnp.where(valid, batch["tokens"], vocab_size)
    return jnp.where(valid, batch["row"], -1), col, jnp.minimum(1, state.keep[col])

  def total(tables, row, col, count, drawn):
    rows, output, *inputs = tables
    if not dm:
      return paragraph_vectors.objective(rows, output, row, col, count, drawn, weight, ridge)
    contexts = paragraph_vectors.dm_contexts(inputs[0][col], row, count, window)
    return paragraph_vectors.dm_objective(rows, contexts, output, row, col, count, drawn, weight, ridge)

  def update(state, batch, rng):
    place = jnp.where(row_mask(batch)[:, None] > 0, batch["document"], -1)
    known = place >= 0
    place = jnp.where(known, place, num_documents)
    rows = state.documents.at[place].get(mode="fill", fill_value=0)
    row, col, count = occurrences(state, batch)
    drawn = draw_noise(state.noise, num_noise, jax.random.uniform(rng, ()))
    tables = (rows, state.output, *((state.input,) if dm else ()))
    loss, (of_rows, *of_words) = jax.value_and_grad(total)(tables, row, col, count, drawn)
    squares = jnp.where(known, jnp.square(of_rows).mean(-1), 0)
    sums = state.document_sums.at[place].add(squares, mode="drop")
    own = sums.at[place].get(mode="fill", fill_value=1)
    rows -= learning_rate * of_rows / jnp.sqrt(own + 1e-20)[..., None]
    new = state._replace(step=state.step + 1, document_sums=sums,
                         documents=state.documents.at[place].set(rows, mode="drop", unique_indices=False))
    for names, slope in zip((("output", "word_sums"), ("input", "input_sums")), of_words):
      sums = getattr(state, names[1]) + jnp.square(slope).mean(-1)
      table = getattr(state, names[0]) - learning_rate * slope / jnp.sqrt(sums + 1e-20)[:, None]
      new = new._replace(**dict(zip(names, (table, sums))))
    return new, {"loss": loss, "occurrences": count.sum(), "document_norm": _mean_norm(rows, known)}

  def inferred(state, batch):
    """Vectors [n, dim], and the rest of what their objective needs."""
    ids = batch["tokens"] if dm else batch["words"]
    known = (ids >= 0) & (ids < vocab_size)
    col = jnp.where(known, ids, vocab_size)
    count = jnp.where(known, (1 if dm else batch["counts"]) * jnp.minimum(1, state.keep[col]), 0)
    drawn = draw_noise(state.noise, num_noise, jnp.float32(0.5))
    settings = state.output[drawn], weight, ridge, infer_steps

    def one(part):
      col, count = part
      if not dm:
        return paragraph_vectors.infer(state.output[col], count, *settings)
      contexts = paragraph_vectors.dm_contexts(
          state.input[col][None], jnp.where(col < vocab_size, 0, -1)[None], count[None], window)
      return paragraph_vectors.dm_infer(jax.tree.map(lambda x: x[0], contexts), state.output[col], count, *settings)

    at_once = min(CHUNK, max(1, POSITIONS // ids.shape[1])) if dm else CHUNK
    return jax.lax.map(one, (col, count), batch_size=at_once), col, count, drawn

  def loss(state, batch):
    vectors, col, count, drawn = inferred(state, batch)
    count = count * row_mask(batch)[:, None]
    tables = state.output, *((state.input,) if dm else ())
    if dm:  # Each document is a block.
      return total((vectors[:, None], *tables), jnp.where(col < vocab_size, 0, -1), col, count, drawn)
    rows = jnp.broadcast_to(jnp.arange(len(col))[:, None], col.shape)
    return total((vectors[None], *tables), *(x.reshape(1, -1) for x in (rows, col, count)), drawn)

  def components(state):
    return {"documents": state.documents, "output": state.output[:vocab_size]} | (
        {"input": state.input[:vocab_size]} if dm else {})

  rules = ((r"(^|/)(input|output)$", P("model", None)),)
  return Model(init, update, lambda state, batch: inferred(state, batch)[0], {"loss": loss, "components": components},
               rules)


def _mean_norm(rows: Array, known: Array) -> Array:
  norms = jnp.where(known, jnp.linalg.norm(rows, axis=-1), 0)
  return norms.sum() / jnp.maximum(known.sum(), 1)
