"""Edges held out for link prediction (Grover & Leskovec 2016, section 4.4): removed before anything is trained."""
from typing import NamedTuple

import numpy as np

from embeddings_jax.data.files.graphs import GraphTable
from embeddings_jax.errors import InputError

MAX_PAIRS = 1 << 18


class Links(NamedTuple):
  """Pairs of nodes, int32 [k, 2] each, k at most `MAX_PAIRS`, in random order; of the held-out ones the first half is
  for validation, the second for tests.

  Attributes:
    positive: Edges removed from the graph, or a sample of them.
    negative: As many pairs without an edge in the whole graph.
    train_positive: Edges that stayed.
    train_negative: As many further pairs without an edge.
  """

  positive: np.ndarray
  negative: np.ndarray
  train_positive: np.ndarray
  train_negative: np.ndarray


def hold_out(table: GraphTable, fraction: float, seed: int = 0, where: str = "graph") -> tuple[GraphTable, Links]:
  """Removes edges such that every component stays connected.

  A random spanning forest stays whole, the held-out edges are drawn from the others. Loops stay.

  Args:
    table: An undirected graph.
    fraction: Fraction of all edges to remove.
    seed: Random seed.
    where: Name of the graph for error messages.

  Returns:
    The graph without the edges, and the pairs.

  Raises:
    InputError: The graph is directed, or has not so many edges outside of a spanning forest.
  """
  from scipy import sparse
  from scipy.sparse.csgraph import minimum_spanning_tree

  if table.directed:
    raise InputError(f"{where}: held_out={fraction}: link prediction asks for undirected edges; give directed=False")
  if not 0 < fraction < 1:
    raise InputError(f"held_out={fraction}: must be between 0 and 1")
  noise, size = np.random.default_rng(seed), len(table.names)
  source = np.repeat(np.arange(size), np.diff(table.indptr))
  upper = source < table.indices
  edges = np.stack([source[upper], table.indices[upper]], 1)
  count = round(fraction * len(edges))
  forest = minimum_spanning_tree(sparse.coo_array((noise.uniform(1, 2, len(edges)), edges.T), (size, size)).tocsr())
  row, column = (part.astype(np.int64) for part in forest.nonzero())
  code = edges[:, 0] * size + edges[:, 1]
  free = np.flatnonzero(~_contains(np.sort(np.minimum(row, column) * size + np.maximum(row, column)), code))
  if not 1 < count <= len(free):
    raise InputError(f"{where}: held_out={fraction}: asks for {count:,} of {len(edges):,} edges, and {len(free):,} "
                     "can go without taking a component apart; at least 2 are needed")
  chosen = noise.permutation(free)[:count]
  gone = np.zeros(len(edges), bool)
  gone[chosen] = True
  stays = ~_contains(code[gone], np.minimum(source, table.indices) * size + np.maximum(source, table.indices))
  indptr = np.concatenate([[0], np.cumsum(np.bincount(source[stays], minlength=size))])
  rest = table._replace(indptr=indptr, indices=table.indices[stays],
                        weights=None if table.weights is None else table.weights[stays])
  count = min(count, MAX_PAIRS)
  kept = noise.permutation(np.flatnonzero(~gone))[:count]
  others = _without_edge(code, size, count + len(kept), noise, where)
  pairs = (edges[chosen[:count]], others[:count], edges[kept], others[count:])
  return rest, Links(*(part.astype(np.int32) for part in pairs))


def _without_edge(code: np.ndarray, size: int, number: int, noise: np.random.Generator, where: str) -> np.ndarray:
  """Draws different pairs a < b without an edge, uniformly; `code` is a * size + b of the edges, sorted."""
  if number > size * (size - 1) // 2 - len(code):
    raise InputError(f"{where}: held_out asks for {number:,} pairs without an edge, which the graph lacks; hold out "
                     "fewer")
  absent = np.zeros(0, np.int64)
  while len(absent) < number:
    pairs = np.sort(noise.integers(0, size, (2 * number + 64, 2)), 1)
    drawn = pairs[:, 0] * size + pairs[:, 1]
    drawn = drawn[(pairs[:, 0] < pairs[:, 1]) & ~_contains(code, drawn)]
    absent = np.concatenate([absent, drawn])
    absent = absent[np.sort(np.unique(absent, return_index=True)[1])]
  return np.stack(np.divmod(absent[:number], size), 1)


def _contains(codes: np.ndarray, values: np.ndarray) -> np.ndarray:
  """Returns whether each value is among the sorted codes; `np.isin` would sort all values."""
  if not len(codes):
    return np.zeros(len(values), bool)
  return codes[np.minimum(np.searchsorted(codes, values), len(codes) - 1)] == values
