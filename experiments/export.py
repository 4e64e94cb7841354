"""Writes what was learnt for other programs: `python -m experiments.export --workdir=W --format=glove --output=FILE`.

Transformers: huggingface, with the directory --output=DIR, which `transformers` loads with its tokenizer, or for
images with its preprocessor, and sentence-transformers with its pooling, where that gives the run's vectors.
Word vectors: word2vec (text), word2vec-binary, glove (text without its first line), npy (with FILE's
.vocabulary.txt). Words, documents or rows: faiss, an index for nearest neighbors by cosine, with FILE's
.vocabulary.txt; needs the extra `faiss`. A name that ends in .gz is compressed. With --vectors=FILE instead of
--workdir one format is turned into another.
"""
from collections.abc import Sequence

from absl import flags

from embeddings_jax.errors import InputError, check_choice
from experiments import command, vectors

FLAGS = flags.FLAGS

vectors.define_flags()
flags.DEFINE_string("format", "", "word2vec, word2vec-binary, glove, npy, faiss or huggingface.")
flags.DEFINE_string("output", "", "File to write; for huggingface a directory.")


def main(argv: Sequence[str]) -> int:
  command.parse(argv)
  for name in ("format", "output"):
    if not FLAGS[name].value:
      raise InputError(f"--{name} is missing")
  from embeddings_jax.runs import export

  check_choice("format", FLAGS.format, export.FORMATS)
  if FLAGS.format == "huggingface" and not FLAGS.workdir:
    raise InputError("--workdir is missing")
  if FLAGS.format != "huggingface":
    command.check_output(FLAGS.output, FLAGS.vectors)
  run, origin = vectors.load()
  written = export.export(run, FLAGS.output, FLAGS.format, report=print)
  print(f"{FLAGS.output}: {written}, {FLAGS.format}, from {origin}")
  return 0


if __name__ == "__main__":
  command.call(main)
