"""Nearest neighbors by cosine."""
import difflib
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from embeddings_jax.types import Array, InputError


def neighbors(
    vectors: np.ndarray | Array,
    names: Sequence[str],
    words: Sequence[str],
    *,
    k: int = 10,
    block: int = 256,
) -> dict[str, list[tuple[str, float]]]:
  """The k rows with the largest cosine to each given row, itself excluded, the nearest first.

  Ties go to the row that comes first; zero vectors have cosine 0 with all others. `block` words are looked up at a
  time, so that memory holds [block, V] cosines whatever the number of words.

  Args:
    vectors: [V, d].
    names: [V] of the rows.
    words: names to look up.
    k: neighbors per word (at most V - 1 are there).
    block: words per matrix product.

  Returns:
    word -> [(name, cosine), ...].
  """
  if len(names) != len(vectors):
    raise InputError(f"neighbors: {len(names)} names for {len(vectors)} vectors")
  row_of = {name: i for i, name in enumerate(names)}
  for word in words:
    _row(word, row_of)
  table = _normalized(jnp.asarray(vectors))
  k = min(k, len(names) - 1)
  nearest = {}
  for start in range(0, len(words), block):
    part = list(words[start:start + block])
    rows = np.array([row_of[word] for word in part])
    padded = np.resize(rows, block) if len(words) > block else rows  # One shape, one compilation.
    cosine, index = jax.device_get(_nearest(table, padded, k))
    for word, values, ids in zip(part, cosine, index):
      nearest[word] = [(names[i], float(value)) for value, i in zip(values, ids)]
  return nearest


def combination(
    vectors: np.ndarray | Array,
    names: Sequence[str],
    *,
    positive: Sequence[str],
    negative: Sequence[str] = (),
    k: int = 10,
) -> list[tuple[str, float]]:
  """The k rows with the largest cosine to the sum of the unit vectors of `positive` less those of `negative`.

  With b and c against a this is an analogy by 3CosAdd (`eval/analogies.py`). The rows asked with are left out; ties
  go to the row that comes first.

  Args:
    vectors: [V, d].
    names: [V] of the rows.
    positive, negative: names.
    k: at most as many as are left.

  Returns:
    [(name, cosine), ...].
  """
  if len(names) != len(vectors):
    raise InputError(f"neighbors: {len(names)} names for {len(vectors)} vectors")
  row_of = {name: i for i, name in enumerate(names)}
  rows = [_row(word, row_of) for word in (*positive, *negative)]
  if not rows:
    raise InputError("neighbors: no word is asked with")
  sign = jnp.array([1.0] * len(positive) + [-1.0] * len(negative))
  values, index = jax.device_get(_combined(jnp.asarray(vectors), jnp.array(rows), sign,
                                           min(k, len(names) - len(set(rows)))))
  return [(names[i], float(value)) for value, i in zip(values, index)]


def _row(word: str, index: Mapping[str, int]) -> int:
  if word not in index:
    close = [f"; the nearest name is {name!r}" for name in difflib.get_close_matches(word, index, 1)]
    raise InputError(f"{word!r} is not in the vocabulary" + "".join(close))
  return index[word]


@jax.jit(static_argnums=3)
def _combined(vectors: Array, rows: Array, sign: Array, k: int) -> tuple[Array, Array]:
  query = sign @ _normalized(vectors[rows])
  cosine = jnp.matmul(_normalized(vectors), query, precision="highest") / jnp.maximum(jnp.linalg.norm(query), 1e-30)
  values, index = jax.lax.top_k(cosine.at[rows].set(-jnp.inf), k)
  return values, index


@jax.jit
def _normalized(vectors: Array) -> Array:
  return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)


@jax.jit(static_argnums=2)
def _nearest(table: Array, rows: Array, k: int) -> tuple[Array, Array]:
  cosine = jnp.matmul(table[rows], table.T, precision="highest")
  cosine = cosine.at[jnp.arange(len(rows)), rows].set(-jnp.inf)
  values, index = jax.lax.top_k(cosine, k)
  return values, index
