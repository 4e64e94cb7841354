"""Random walks on a graph as lines of text, a corpus for any word model."""
import os
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from embeddings_jax.data.files.atomic import replacing_compressed
from embeddings_jax.data.files.graphs import GraphTable
from embeddings_jax.data.files.streams import quoted
from embeddings_jax.data.graphs import weight_thresholds
from embeddings_jax.errors import InputError
from embeddings_jax.ops.walks import Graph, random_walks

WALKERS = 1 << 16  # Walks drawn at a time.


def write_walks(table: GraphTable, output: str | os.PathLike, **options) -> int:
  """Writes walks to a text file, a walk a line, and returns the number of nodes written.

  Args:
    table: The graph.
    output: The file; compressed by .gz, .xz or .bz2.
    **options: Of `draw`.

  Raises:
    InputError: A node's name has white space, which separates nodes in the output, or `output` ends in .zst; or as in
      `random_walks`.
  """
  spaced = next((name for name in table.names if name.split() != [name] or "\0" in name), None)
  if spaced is not None:
    raise InputError(f"node {quoted(spaced)} has white space or a NUL character in its name, which separates nodes "
                     "in the output; rename it")
  names, number = np.array(table.names, object), 0
  with replacing_compressed(output) as file:
    for part in draw(table, **options):
      lines = (" ".join(names[nodes[nodes >= 0]]) for nodes in part)
      file.write(("\n".join(lines) + "\n").encode())
      number += int((part >= 0).sum())
  return number


def draw(table: GraphTable, *, num_walks: int, length: int, p: float = 1.0, q: float = 1.0,
         seed: int = 0) -> Iterator[np.ndarray]:
  """Yields walks [at most `WALKERS`, length], -1 behind their end; each pass visits all nodes in a random order.

  Args:
    table: The graph.
    num_walks: Walks from each node.
    length: Nodes of a walk.
    p, q: Return and in-out parameter, see `ops/walks.py`.
    seed: Random seed of the walks and of the nodes' order.
  """
  if len(table.indices) >= 2**31:
    raise InputError(f"the graph has {len(table.indices):,} edges; at most {2**31 - 1:,} are supported")
  if num_walks * len(table.names) >= 2**31:
    raise InputError(f"num_walks={num_walks}: at most {(2**31 - 1) // len(table.names)} walks from each of "
                     f"{len(table.names):,} nodes are supported")
  thresholds = None if table.weights is None else jnp.asarray(weight_thresholds(table.indptr, table.weights))
  graph = Graph(jnp.asarray(table.indptr.astype(np.int32)), jnp.asarray(table.indices), thresholds)
  max_degree = int(np.diff(table.indptr).max())
  program = jax.jit(lambda graph, starts, numbers, rng: random_walks(
      graph, starts, numbers, rng, length=length, max_degree=max_degree, p=p, q=q))
  root, size = jax.random.key(seed), len(table.names)
  total = num_walks * size
  at_once = -(-total // -(-total // WALKERS))  # Equal parts, so that few walks are drawn in vain.
  for first in range(0, total, at_once):
    numbers = np.arange(first, min(first + at_once, total))
    epochs, ranks = np.divmod(numbers, size)
    starts = np.concatenate([np.random.default_rng((seed, k)).permutation(size)[ranks[epochs == k]]
                             for k in np.unique(epochs)])
    missing = at_once - len(numbers)  # Filled up, so that one program serves all parts.
    drawn = program(graph, np.pad(starts, (0, missing)), np.pad(numbers, (0, missing)).astype(np.int32), root)
    yield np.asarray(drawn)[:len(numbers)]
