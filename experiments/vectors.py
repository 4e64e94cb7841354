"""Flags of the commands that read word vectors, of a run or of a file."""
from typing import Any

from absl import flags

from embeddings_jax.errors import InputError

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Defines `--workdir`, `--vectors`, `--vectors_format` and `--errors`, which `load` reads."""
  flags.DEFINE_string("workdir", "", "Work directory of a run.")
  flags.DEFINE_string("vectors", "", "File of word vectors, instead of a run's: word2vec, GloVe, "
                      "fastText, or .npy; or a name, as glove-wiki-gigaword-100.")
  flags.DEFINE_string("vectors_format", "", "Format of --vectors (default: recognized): word2vec, word2vec-binary, "
                      "glove, fasttext or npy.")
  flags.DEFINE_integer("limit", 0, "Number of words of --vectors to read, the first ones (default: all).",
                       lower_bound=0)
  flags.DEFINE_enum("errors", "strict", ["strict", "replace"],
                    "What to do with words of --vectors that are not UTF-8 or listed twice (replace: keep one).")


def load() -> tuple[Any, str]:
  """Returns the run that the flags name, and its origin in words."""
  if bool(FLAGS.workdir) == bool(FLAGS.vectors):
    raise InputError("--workdir or --vectors is missing" if not FLAGS.workdir else
                     "--workdir and --vectors: give one of them")
  from embeddings_jax.interop import vector_catalog, word_vectors
  from embeddings_jax.runs import vectors
  from embeddings_jax.runs.load import load_run

  if FLAGS.vectors:
    path = vector_catalog.located(FLAGS.vectors)
    return vectors.as_run(word_vectors.read(path, FLAGS.vectors_format, FLAGS.errors, FLAGS.limit)), FLAGS.vectors
  run = load_run(FLAGS.workdir)
  return run, f"step {run.step} of {FLAGS.workdir}"
