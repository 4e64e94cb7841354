"""Word vectors for the commands, whether of a run or of a file."""
from absl import flags

from embeddings_jax.interop import word_vectors
from embeddings_jax.types import InputError

FLAGS = flags.FLAGS


def define_flags() -> None:
  """`--workdir`, `--vectors`, `--vectors_format` and `--errors`, from which `load` reads."""
  flags.DEFINE_string("workdir", "", "Work directory of a run.")
  flags.DEFINE_string("vectors", "", "File of word vectors, instead of a run's: word2vec, GloVe, or .npy.")
  flags.DEFINE_string("vectors_format", "", f"Of --vectors; else recognised: {', '.join(word_vectors.FORMATS)}.")
  flags.DEFINE_enum("errors", "strict", ["strict", "replace"],
                    "What to do with words of --vectors that are not UTF-8 or listed twice (replace: keep one).")


def load() -> tuple[word_vectors.WordVectors, str]:
  """The vectors that the flags name, and where they come from, in words."""
  if bool(FLAGS.workdir) == bool(FLAGS.vectors):
    raise InputError("--workdir or --vectors is missing" if not FLAGS.workdir else
                     "--workdir and --vectors: give one of them")
  if FLAGS.vectors:
    return word_vectors.read(FLAGS.vectors, FLAGS.vectors_format, FLAGS.errors), FLAGS.vectors
  from embeddings_jax.runs import build
  from embeddings_jax.runs.vectors import of_run

  run = build.load_run(FLAGS.workdir)
  if run.encoder.names is None:
    raise InputError(f"--workdir={FLAGS.workdir}: --model={run.record['config']['name']} learns no vectors of words")
  return of_run(run), f"step {run.step} of {FLAGS.workdir}"
