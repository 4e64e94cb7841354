"""Writes random walks on a graph as a corpus for any word model.

  python -m experiments.walks --data=GRAPH --output=walks.txt.gz [--num_walks=10 --walk_length=80 --p=.25 --q=.25]
  python -m experiments.run --model=sgns --data=walks.txt.gz --config.data.normalize=spaces \
      --config.data.boundaries=line --config.data.min_count=1

A walk is a line of node names. The defaults are DeepWalk's (Perozzi et al. 2014): 80 walks of 40 nodes from each
node, by weight where the graph has weights; `--p` and `--q` make them node2vec's (Grover & Leskovec 2016). GRAPH is
an edge list, an adjacency list, a `.mat` or an `.npz` (`embeddings_jax/data/files/graphs.py`). A walk depends on
--seed and its number alone: the same command writes the same file on any machine.
"""
from collections.abc import Sequence

from absl import flags

from embeddings_jax.errors import InputError
from embeddings_jax.runs import presets
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
flags.DEFINE_integer("seed", 0, "Random seed of the walks and of their order.", lower_bound=0,
                     upper_bound=presets.MAX_SEED)


def main(argv: Sequence[str]) -> int:
  command.parse(argv)
  for name in ("data", "output"):
    if not FLAGS[name].value:
      raise InputError(f"--{name} is missing")
  command.check_output(FLAGS.output, FLAGS.data)
  from embeddings_jax.data.files.graphs import read_graph
  from experiments.walk_corpus import write_walks

  table = read_graph(FLAGS.data, directed=FLAGS.directed, loops=FLAGS.loops, repeated=FLAGS.repeated,
                     variable=FLAGS.variable)
  if not FLAGS.weighted:
    table = table._replace(weights=None)
  print(f"{FLAGS.data}: {len(table.names):,} nodes, {len(table.indices):,} directed edges"
        + (", weighted" if table.weights is not None else "")
        + f"; {table.num_loops:,} loops ({FLAGS.loops}), {table.num_repeated:,} repeated edges ({FLAGS.repeated}), "
          f"{len(table.isolated):,} isolated nodes")
  number = write_walks(table, FLAGS.output, num_walks=FLAGS.num_walks, length=FLAGS.walk_length, p=FLAGS.p, q=FLAGS.q,
                       seed=FLAGS.seed)
  print(f"{FLAGS.output}: {FLAGS.num_walks * len(table.names):,} walks, {number:,} nodes")
  return 0


if __name__ == "__main__":
  command.call(main)
