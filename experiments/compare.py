"""Compares runs: `python -m experiments.compare RUN RUN ...`, each a work directory.

Prints the keys in which their configs differ and a table of their metrics, and draws their training curves into one
figure.
"""
from collections.abc import Sequence

from absl import flags

from experiments import command

FLAGS = flags.FLAGS

flags.DEFINE_string("output", "comparison.png", "File for the curves, as .png; empty for none.")


def main(argv: Sequence[str]) -> int:
  paths = command.parse_paths(argv)
  if FLAGS.output:
    command.check_output(FLAGS.output)
  from embeddings_jax.runs import comparison

  runs = comparison.read(paths)
  print("\n".join(comparison.tables(runs)))
  logs, metrics = comparison.curves(runs)
  if FLAGS.output and metrics:
    from embeddings_jax.figures import comparison as figure

    figure.draw_curves(FLAGS.output, logs, metrics)
    print(f"{FLAGS.output}: {', '.join(metrics[:figure.MAX_PANELS])} by step")
  return 0


if __name__ == "__main__":
  command.call(main)
