"""Puts figures of runs side by side, as on the first page.

`python -m experiments.gallery --figures=runs/gmm/figures/mixture.png,runs/sgns/figures/words.png --output=FILE.png`
"""
import math
import pathlib
from collections.abc import Sequence

from absl import flags

from embeddings_jax.errors import InputError
from embeddings_jax.figures import canvas
from experiments import command

FLAGS = flags.FLAGS
flags.DEFINE_list("figures", [], "Image files, separated by commas.")
flags.DEFINE_list("titles", [], "Titles of the figures, separated by commas.")
flags.DEFINE_string("output", "", "File to write, as .png.")
flags.DEFINE_integer("columns", 3, "Figures of a row.", lower_bound=1)


def main(argv: Sequence[str]) -> int:
  command.parse(argv)
  missing = [path for path in FLAGS.figures if not pathlib.Path(path).is_file()]
  if missing or not FLAGS.figures:
    raise InputError(f"--figures={','.join(missing)}: {'no such file' if missing else 'name at least one'}")
  if FLAGS.titles and len(FLAGS.titles) != len(FLAGS.figures):
    raise InputError(f"--titles: {len(FLAGS.titles)} titles for {len(FLAGS.figures)} figures")
  command.check_output(FLAGS.output, *FLAGS.figures)
  plt = canvas.pyplot()
  rows = math.ceil(len(FLAGS.figures) / FLAGS.columns)
  figure, axes = plt.subplots(rows, FLAGS.columns, figsize=(4 * FLAGS.columns, 3.4 * rows), squeeze=False)
  for axis in axes.flat:
    axis.axis("off")
  for axis, path, title in zip(axes.flat, FLAGS.figures, FLAGS.titles or [""] * len(FLAGS.figures)):
    axis.imshow(plt.imread(path))
    axis.set_title(title)
  canvas.save(plt, figure, pathlib.Path(FLAGS.output))
  return 0


if __name__ == "__main__":
  command.call(main)
