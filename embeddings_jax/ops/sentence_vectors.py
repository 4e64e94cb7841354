"""Sentence vectors from word vectors.

A sentence is a row of `tokens`, int32 [n, length]: rows of a table of word vectors [V, d], -1 where there is no
word. What stands at -1 changes nothing. A sentence without words is a zero vector.
"""
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Num

from embeddings_jax.types import Array


def mean(
    table: Float[Array, "V d"], tokens: Int[Array, "n length"], weights: Float[Array, " V"] | None = None,
) -> Float[Array, "n d"]:
  """1/|s| sum_{w in s} a_w v_w: the mean of a sentence's vectors, each times its word's weight, [n, d].

  Args:
    table: [V, d].
    tokens: [n, length].
    weights: [V]; by default 1.
  """
  if weights is not None:
    table = table * weights[:, None]
  number = (tokens >= 0).sum(1, keepdims=True)
  return _rows(table, tokens).sum(1) / jnp.maximum(number, 1)


def document_frequency(tokens: Int[Array, "n length"], num_words: int) -> Int[Array, " V"]:
  """In how many sentences each word occurs, int32 [num_words]; the counts of several batches add up."""
  ordered = jnp.sort(tokens, 1)
  first = jnp.pad(ordered[:, 1:] != ordered[:, :-1], [(0, 0), (1, 0)], constant_values=True) & (ordered >= 0)
  return jnp.zeros(num_words, jnp.int32).at[jnp.where(first, ordered, num_words)].add(1, mode="drop")


def idf_weights(frequency: Num[Array, " V"], num_sentences: int) -> Float[Array, " V"]:
  """log(n / n_w), [V] (Sparck Jones 1972), for `document_frequency` n_w among n sentences; log n for unseen words."""
  return jnp.log(num_sentences / jnp.maximum(frequency, 1))


def sif_weights(counts: Num[Array, " V"], a: float = 1e-3) -> Float[Array, " V"]:
  """a / (a + p(w)), [V] (Arora et al. 2017, algorithm 1), p the words' shares of `counts` [V]; their a is 1e-3."""
  counts = counts.astype(jnp.float32)
  return a / (a + counts / jnp.maximum(counts.sum(), 1))


def first_component(vectors: Float[Array, "n d"]) -> Float[Array, " d"]:
  """The unit vector u, [d], for which sum_s (u . v_s)² is greatest; its sign makes the sum of u . v_s positive.

  Of the vectors [n, d] as they are, not centered: the first right singular vector.
  """
  # By the [d, d] products: n may be large, and the others' rounding does not reach the largest.
  direction = jnp.linalg.eigh(jnp.matmul(vectors.T, vectors, precision="highest"))[1][:, -1]
  return jnp.where(direction @ vectors.sum(0) < 0, -1, 1) * direction


def remove_component(vectors: Float[Array, "n d"], direction: Float[Array, " d"]) -> Float[Array, "n d"]:
  """v_s - u (u . v_s): vectors [n, d] without their part along a unit vector [d]."""
  return vectors - jnp.matmul(vectors, direction, precision="highest")[:, None] * direction


def sif(
    table: Float[Array, "V d"], tokens: Int[Array, "n length"], counts: Num[Array, " V"], a: float = 1e-3,
) -> Float[Array, "n d"]:
  """Smooth inverse frequency (Arora et al. 2017, algorithm 1), [n, d].

  The mean weighted by `sif_weights`, less the first component of all n sentences, which says what they have in
  common. One sentence alone is therefore a zero vector. To treat new sentences like old ones, call the four steps
  one by one and keep the component.
  """
  vectors = mean(table, tokens, sif_weights(counts, a))
  return remove_component(vectors, first_component(vectors))


def concatenation(
    table: Float[Array, "V d"], tokens: Int[Array, "n length"], length: int,
) -> Float[Array, "n length_d"]:
  """The vectors of a sentence's first `length` words one after another, 0 where it is shorter, [n, length * d]."""
  tokens = tokens[:, :length]
  tokens = jnp.pad(tokens, [(0, 0), (0, length - tokens.shape[1])], constant_values=-1)
  return _rows(table, tokens).reshape(len(tokens), -1)


def components(table: Float[Array, "V d"], tokens: Int[Array, "n length"], number: int) -> Float[Array, "n number_d"]:
  """The first principal components of a sentence's word vectors one after another, [n, number * d].

  The subspace that a sentence spans (Mu et al. 2017): unit vectors u_1, ..., u_k that catch most of sum_w (u .
  v_w)², not centered, the largest first. Each has the sign for which the sum of u . v_w is positive; where the words
  span fewer dimensions the rest is 0.
  """
  return jax.vmap(lambda rows: _components(rows, number))(_rows(table, tokens)).reshape(len(tokens), -1)


def _rows(table: Array, tokens: Array) -> Array:
  return table.at[tokens].get(mode="fill", fill_value=0, wrap_negative_indices=False)


def _components(rows: Array, number: int) -> Array:
  """[n, d] -> [number, d]."""
  _, size, directions = jnp.linalg.svd(rows, full_matrices=False)
  nonzero = size > size[0] * max(rows.shape) * jnp.finfo(rows.dtype).eps
  sign = jnp.where(jnp.matmul(directions, rows.sum(0), precision="highest") < 0, -1, 1)
  directions = jnp.where(nonzero[:, None], sign[:, None] * directions, 0)[:number]
  return jnp.pad(directions, [(0, number - len(directions)), (0, 0)])
