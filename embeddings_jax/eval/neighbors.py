"""Nearest neighbors by cosine."""
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from embeddings_jax.types import Array, InputError

LARGE = 1 << 26  # Bytes of a table that devices share.


def neighbors(
    vectors: np.ndarray | Array,
    names: Sequence[str],
    words: Sequence[str],
    *,
    k: int = 10,
    block: int = 256,
    devices: Sequence[jax.Device] | None = None,
) -> dict[str, list[tuple[str, float]]]:
  """The k rows with the largest cosine to each given row, itself excluded, the nearest first.

  Ties go to the row that comes first; zero vectors have cosine 0 with all others. `block` words are looked up at a
  time, so that memory holds [block, V] cosines whatever the number of words. Of a large table each device holds some
  of the rows, with their cosines, and gives its k nearest.

  Args:
    vectors: [V, d].
    names: [V] of the rows.
    words: names to look up.
    k: neighbors per word (at most V - 1 are there).
    block: words per matrix product.
    devices: Devices of this process that share the table; None: all where it is large, else the first.

  Returns:
    word -> [(name, cosine), ...].
  """
  if len(names) != len(vectors):
    raise InputError(f"neighbors: {len(names)} names for {len(vectors)} vectors")
  row_of = {name: i for i, name in enumerate(names)}
  for word in words:
    _row(word, row_of)
  mesh = _mesh(vectors, devices)
  table = _normalized(_spread(vectors, mesh))
  k = min(k, len(names) - 1)
  nearest = {}
  for start in range(0, len(words), block):
    part = list(words[start:start + block])
    rows = np.array([row_of[word] for word in part])
    padded = np.resize(rows, block) if len(words) > block else rows  # One shape, one compilation.
    cosine, index = jax.device_get(_nearest(table, padded, k, len(names), mesh))
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
  table = _spread(vectors, _mesh(vectors, None))
  values, index = jax.device_get(_combined(table, np.array(rows), sign, min(k, len(names) - len(set(rows))),
                                           len(names)))
  return [(names[i], float(value)) for value, i in zip(values, index)]


def _row(word: str, index: Mapping[str, int]) -> int:
  if word not in index:
    close = [f"; the nearest name is {name!r}" for name in difflib.get_close_matches(word, index, 1)]
    raise InputError(f"{word!r} is not in the vocabulary" + "".join(close))
  return index[word]


def _mesh(vectors: Any, devices: Sequence[jax.Device] | None) -> Mesh:
  """A mesh of one axis over this process's devices, or some of them."""
  if devices is None:
    devices = jax.local_devices() if vectors.nbytes >= LARGE else jax.local_devices()[:1]
  return Mesh(np.array(devices), ("rows",))


def _spread(vectors: Any, mesh: Mesh) -> Array:
  """The table with rows of zeros added, of which each device of the mesh has as many."""
  if mesh.size == 1:
    return jnp.asarray(vectors)
  rows = np.asarray(vectors)
  share = -(-len(rows) // mesh.size)
  shape = (share * mesh.size, *rows.shape[1:])

  def part(index):
    piece = rows[index]
    return np.pad(piece, [(0, share - len(piece))] + [(0, 0)] * (rows.ndim - 1))

  return jax.make_array_from_callback(shape, NamedSharding(mesh, P("rows")), part)


@jax.jit(static_argnums=(3, 4))
def _combined(vectors: Array, rows: Array, sign: Array, k: int, num_rows: int) -> tuple[Array, Array]:
  query = sign @ _normalized(vectors[rows])
  cosine = jnp.matmul(_normalized(vectors), query, precision="highest") / jnp.maximum(jnp.linalg.norm(query), 1e-30)
  cosine = jnp.where(jnp.arange(len(cosine)) < num_rows, cosine, -jnp.inf)
  values, index = jax.lax.top_k(cosine.at[rows].set(-jnp.inf), k)
  return values, index


@jax.jit
def _normalized(vectors: Array) -> Array:
  return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)


@jax.jit(static_argnums=(2, 3, 4))
def _nearest(table: Array, rows: Array, k: int, num_rows: int, mesh: Mesh) -> tuple[Array, Array]:
  if mesh.size == 1:
    cosine = jnp.matmul(table[rows], table.T, precision="highest")
    cosine = cosine.at[jnp.arange(len(rows)), rows].set(-jnp.inf)
    values, index = jax.lax.top_k(cosine, k)
    return values, index

  def local(table, rows):
    """The nearest among a device's rows, those of all devices one after another, so that ties stay in order."""
    first = jax.lax.axis_index("rows") * len(table)
    owned = (rows >= first) & (rows < first + len(table))
    query = jnp.where(owned[:, None], table[jnp.where(owned, rows - first, 0)], 0)
    cosine = jnp.matmul(jax.lax.psum(query, "rows"), table.T, precision="highest")
    number = first + jnp.arange(len(table))
    cosine = jnp.where((number == rows[:, None]) | (number >= num_rows), -jnp.inf, cosine)
    values, index = jax.lax.top_k(cosine, min(k, len(table)))
    return values, first + index

  values, index = jax.shard_map(local, mesh=mesh, in_specs=(P("rows"), P()), out_specs=P(None, "rows"))(table, rows)
  values, place = jax.lax.top_k(values, k)
  return values, jnp.take_along_axis(index, place, 1)
