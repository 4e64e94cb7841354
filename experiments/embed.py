"""Embeds a file with a trained model: `python -m experiments.embed --workdir=W --input=FILE --output=OUT.npy`."""
from collections.abc import Sequence

from absl import flags

from embeddings_jax.types import InputError
from experiments import command

FLAGS = flags.FLAGS

flags.DEFINE_string("workdir", "", "Work directory of the run.")
flags.DEFINE_string("input", "", "Words or lines of text; .npy or .csv rows; a wav, or a text file that lists them.")
flags.DEFINE_string("output", "", "Where to write [num_items, dim] float32, as .npy.")
flags.DEFINE_enum("errors", "strict", ["strict", "replace"], "What to do with text that is not UTF-8.")


def main(argv: Sequence[str]) -> int:
  command.parse(argv)
  for name in ("workdir", "input", "output"):
    if not FLAGS[name].value:
      raise InputError(f"--{name} is missing")
  import numpy as np

  from embeddings_jax.data.inputs import read_items
  from experiments import pipeline

  run = pipeline.load_run(FLAGS.workdir)
  items = read_items(FLAGS.input, run.encoder.kind, FLAGS.errors)
  vectors = pipeline.embedder(run.model, run.state, run.encoder)(items)
  with open(FLAGS.output, "wb") as file:  # Not by name: NumPy would add .npy to it.
    np.save(file, vectors)
  print(f"{FLAGS.output}: {vectors.shape[0]} x {vectors.shape[1]} {vectors.dtype}, from step {run.step} "
        f"of {FLAGS.workdir}")
  unknown = int((~vectors.any(axis=1)).sum())
  if unknown:
    print(f"{unknown} rows are 0: the encoder knows nothing of these items")
  return 0


if __name__ == "__main__":
  command.call(main)
