"""Writes a page to explore embeddings with: `python -m experiments.explore --workdir=W`, or `--vectors=FILE`.

`OUTPUT/index.html` opens in any browser, without a network: a map, a search, the nearest neighbors of what is clicked
(those of `experiments.neighbors`), colors by label. Beside it are the files of TensorBoard's projector:
`tensorboard --logdir=OUTPUT`.
"""
import pathlib
from collections.abc import Sequence

from absl import flags

from experiments import command, vectors

FLAGS = flags.FLAGS

vectors.define_flags()
flags.DEFINE_string("output", "", "Directory to write (default: explore in --workdir, or beside --vectors).")
flags.DEFINE_integer("max_items", 20000, "Number of rows to show, 0 for all: the first words, or a sample.",
                     lower_bound=0)
flags.DEFINE_integer("k", 10, "Number of neighbors.", lower_bound=1, upper_bound=100)
flags.DEFINE_enum("projection", "pca", ["pca", "tsne"], "Map to two dimensions; tsne takes minutes for 20,000 rows.")
flags.DEFINE_integer("seed", 0, "Random seed of the sample and of tsne.", lower_bound=0)


def main(argv: Sequence[str]) -> int:
  command.parse(argv)
  run, origin = vectors.load()
  from embeddings_jax.runs import explore

  if FLAGS.vectors:
    points = explore.of_run(run)._replace(title=pathlib.Path(FLAGS.vectors).name)
    output = FLAGS.output or f"{FLAGS.vectors}.explore"
  else:
    points, output = explore.of_run(run), FLAGS.output or f"{FLAGS.workdir}/explore"
  files = explore.write(points, output, max_items=FLAGS.max_items, k=FLAGS.k, projection=FLAGS.projection,
                        seed=FLAGS.seed, report=lambda line: print(f"{origin}: shows {line}"))
  print(f"{output}: {', '.join(files)}; open {output}/index.html in a browser")
  return 0


if __name__ == "__main__":
  command.call(main)
