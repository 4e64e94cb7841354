"""Compares runs: `python -m experiments.compare RUN RUN ...`, each a work directory.

Prints the keys in which their configs differ and a table of their metrics, and draws their training curves into one
figure. With --codes=FILE.png two-dimensional codes of images, as of an autoencoder and a VAE, are drawn one below the
other, with what a grid of codes is decoded to.
"""
from collections.abc import Sequence

from absl import flags

from experiments import command

FLAGS = flags.FLAGS

flags.DEFINE_string("output", "comparison.png", "File for the curves, as .png; empty for none.")
flags.DEFINE_string("codes", "", "File for the two-dimensional codes of all runs, as .png.")
flags.DEFINE_string("data_dir", None, "Directory of the catalog's files, for --codes (default: $EMBEDDINGS_DATA).")
flags.DEFINE_string("cache_dir", None,
                    "Directory of derived data (default: $EMBEDDINGS_CACHE, ~/.cache/embeddings_jax).")


def main(argv: Sequence[str]) -> int:
  paths = command.parse_paths(argv)
  for file in filter(None, (FLAGS.output, FLAGS.codes)):
    command.check_output(file)
  from embeddings_jax.runs import comparison

  runs = comparison.read(paths)
  print("\n".join(comparison.tables(runs)))
  logs, metrics = comparison.curves(runs)
  if FLAGS.output and metrics:
    from embeddings_jax.figures import comparison as figure

    figure.draw_curves(FLAGS.output, logs, metrics)
    print(f"{FLAGS.output}: {', '.join(metrics[:figure.MAX_PANELS])} by step")
  if FLAGS.codes:
    from embeddings_jax.figures import canvas, codes

    plt = canvas.pyplot()
    canvas.save(plt, codes.planes(plt, comparison.planes(runs, paths, FLAGS.data_dir, FLAGS.cache_dir)), FLAGS.codes)
    print(f"{FLAGS.codes}: codes of {len(paths)} runs")
  return 0


if __name__ == "__main__":
  command.call(main)
