"""Writes random walks on a graph as a corpus for any word model.

  python -m experiments.walks --data=GRAPH --output=walks.txt.gz [--num_walks=10 --walk_length=80 --p=.25 --q=.25]
  python -m experiments.run --model=sgns --data=walks.txt.gz --config.data.normalize=spaces \
      --config.data.boundaries=line --config.data.min_count=1

A walk is a line of node names. The defaults are DeepWalk's (Perozzi et al. 2014): 80 walks of 40 nodes from each
node, by weight where the graph has weights; `--p` and `--q` make them node2vec's (Grover & Leskovec 2016). GRAPH is
an edge list, an adjacency list, a `.mat` or an `.npz` (`embeddings_jax/data/files/graphs.py`). A walk depends on
--seed and its number alone: the same command writes the same file on any machine.
"""
import bz2
import contextlib
import gzip
import lzma
import pathlib
from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np
from absl import flags

from embeddings_jax.data.files.atomic import replacing
from embeddings_jax.data.files.graphs import GraphTable, read_graph
from embeddings_jax.types import InputError
from experiments import command

FLAGS = flags.FLAGS

flags.DEFINE_string("data", "", "Graph: an edge list, an adjacency list, a .mat or an .npz.")
flags.DEFINE_string("output", "", "Text file to write, a walk a line; compressed by .gz, .xz or .bz2.")
flags.DEFINE_integer("num_walks", 80, "Walks from each node.", lower_bound=1)
flags.DEFINE_integer("walk_length", 40, "Nodes of a walk.", lower_bound=1)
flags.DEFINE_float("p", 1.0, "Return parameter of node2vec: the larger, the rarer a walk returns at once.")
flags.DEFINE_float("q", 1.0, "In-out parameter of node2vec: the larger, the closer a walk stays.")
flags.DEFINE_bool("directed", False, "Whether edges lead one way only.")
flags.DEFINE_bool("weighted", True, "Whether walks go by the edges' weights, if there are any.")
flags.DEFINE_enum("loops", "keep", ["keep", "drop"], "What to do with edges from a node to itself.")
flags.DEFINE_enum("repeated", "largest", ["largest", "sum"], "Weight of an edge that is listed more than once.")
flags.DEFINE_string("variable", "", "Name of the matrix in a .mat file.")
flags.DEFINE_integer("seed", 0, "Random seed of the walks and of their order.", lower_bound=0)

WALKERS = 1 << 17  # Walks drawn at a time.
# Gzip's header has no time, so that the same walks are the same file.
_OPENERS = {".gz": lambda file: gzip.GzipFile("", "wb", fileobj=file, mtime=0),
            ".bz2": lambda file: bz2.open(file, "wb"), ".xz": lambda file: lzma.open(file, "wb")}


def main(argv: Sequence[str]) -> int:
  command.parse(argv)
  for name in ("data", "output"):
    if not FLAGS[name].value:
      raise InputError(f"--{name} is missing")
  table = read_graph(FLAGS.data, directed=FLAGS.directed, loops=FLAGS.loops, repeated=FLAGS.repeated,
                     variable=FLAGS.variable)
  if not FLAGS.weighted:
    table = table._replace(weights=None)
  spaced = next((name for name in table.names if name.split() != [name]), None)
  if spaced is not None:
    raise InputError(f"--data={FLAGS.data}: node {spaced!r} has white space in its name, which separates nodes in "
                     "the output; rename it")
  print(f"{FLAGS.data}: {len(table.names):,} nodes, {len(table.indices):,} directed edges"
        + (", weighted" if table.weights is not None else "")
        + f"; {table.num_loops:,} loops ({FLAGS.loops}), {table.num_repeated:,} repeated edges ({FLAGS.repeated}), "
          f"{len(table.isolated):,} isolated nodes")
  walks = draw(table, num_walks=FLAGS.num_walks, length=FLAGS.walk_length, p=FLAGS.p, q=FLAGS.q, seed=FLAGS.seed)
  names = np.array(table.names, object)
  number = 0
  with replacing(FLAGS.output) as draft, _compressed(draft, FLAGS.output) as file:
    for part in walks:
      lines = (" ".join(names[nodes[nodes >= 0]]) for nodes in part)
      file.write(("\n".join(lines) + "\n").encode())
      number += int((part >= 0).sum())
  print(f"{FLAGS.output}: {FLAGS.num_walks * len(table.names):,} walks, {number:,} nodes")
  return 0


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
  import jax
  import jax.numpy as jnp

  from embeddings_jax.ops.walks import Graph, random_walks, weight_thresholds

  if len(table.indices) >= 2**31:
    raise InputError(f"the graph has {len(table.indices):,} edges; at most {2**31 - 1:,} are supported")
  thresholds = None if table.weights is None else jnp.asarray(weight_thresholds(table.indptr, table.weights))
  graph = Graph(jnp.asarray(table.indptr.astype(np.int32)), jnp.asarray(table.indices), thresholds)
  max_degree = int(np.diff(table.indptr).max())
  program = jax.jit(lambda graph, starts, numbers, rng: random_walks(
      graph, starts, numbers, rng, length=length, max_degree=max_degree, p=p, q=q))
  root, size = jax.random.key(seed), len(table.names)
  at_once = min(WALKERS, num_walks * size)
  for first in range(0, num_walks * size, at_once):
    numbers = np.arange(first, min(first + at_once, num_walks * size))
    passes, ranks = np.divmod(numbers, size)
    starts = np.concatenate([np.random.default_rng((seed, k)).permutation(size)[ranks[passes == k]]
                             for k in np.unique(passes)])
    missing = at_once - len(numbers)  # Filled up, so that one program serves all parts.
    drawn = program(graph, np.pad(starts, (0, missing)), np.pad(numbers, (0, missing)).astype(np.int32), root)
    yield np.asarray(drawn)[:len(numbers)]


def _compressed(file: IO[bytes], name: str) -> contextlib.AbstractContextManager[IO[bytes]]:
  opener = _OPENERS.get(pathlib.Path(name).suffix)
  return opener(file) if opener else contextlib.nullcontext(file)


if __name__ == "__main__":
  command.call(main)
