"""Writes word vectors for other programs: `python -m experiments.export --workdir=W --format=word2vec --output=FILE`.

Formats: word2vec (text), word2vec-binary, glove (text without its first line), npy (with FILE's .vocabulary.txt). A
name that ends in .gz is compressed. With --vectors=FILE instead of --workdir one format is turned into another.
"""
from collections.abc import Sequence

from absl import flags

from embeddings_jax.interop import word_vectors
from embeddings_jax.types import InputError
from experiments import command, vectors

FLAGS = flags.FLAGS

vectors.define_flags()
flags.DEFINE_string("format", "", f"One of {', '.join(word_vectors.FORMATS)}.")
flags.DEFINE_string("output", "", "File to write.")


def main(argv: Sequence[str]) -> int:
  command.parse(argv)
  for name in ("format", "output"):
    if not FLAGS[name].value:
      raise InputError(f"--{name} is missing")
  command.check_choice("--format", FLAGS.format, word_vectors.FORMATS)
  found, origin = vectors.load()
  word_vectors.write(FLAGS.output, found.words, found.vectors, FLAGS.format)
  print(f"{FLAGS.output}: {found.vectors.shape[0]} words x {found.vectors.shape[1]}, {FLAGS.format}, from {origin}")
  return 0


if __name__ == "__main__":
  command.call(main)
