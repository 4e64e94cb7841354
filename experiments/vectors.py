"""Word vectors for the commands, whether of a run or of a file."""
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import flags

from embeddings_jax.data.encoders import WordEncoder
from embeddings_jax.data.words import Vocabulary
from embeddings_jax.eval.word_similarity import known_form
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
  from experiments import pipeline

  run = pipeline.load_run(FLAGS.workdir)
  if run.encoder.names is None:
    raise InputError(f"--workdir={FLAGS.workdir}: --model={run.record['config']['name']} learns no vectors of words")
  return of_run(run), f"step {run.step} of {FLAGS.workdir}"


def of_run(run: Any) -> word_vectors.WordVectors:
  """The vectors of a `pipeline.Run` of a model of words."""
  from experiments import inference

  names = run.encoder.names
  return word_vectors.WordVectors(list(names), inference.embedder(run.model, run.state, run.encoder)(names))


def encoder(found: word_vectors.WordVectors) -> WordEncoder:
  """Of sentences: words in lower case if all of the file are; how often they occurred is not known."""
  cased = any(word != word.lower() for word in found.words)
  return WordEncoder(Vocabulary(found.words, np.zeros(len(found.words), np.int64)), "cased" if cased else "lower")


def embedder(found: word_vectors.WordVectors) -> Callable[[Sequence[str]], np.ndarray]:
  """`words -> [num_words, dim]`: a word as written, else in lower case, else zeros."""
  place = {word: i for i, word in enumerate(found.words)}

  def embed(words: Sequence[str]) -> np.ndarray:
    forms = [known_form(word, place) for word in words]
    rows = np.array([-1 if form is None else place[form] for form in forms])
    if np.array_equal(rows, np.arange(len(rows))):  # All, or the most frequent: not copied.
      return found.vectors[:len(rows)]
    vectors = found.vectors[rows]
    vectors[rows < 0] = 0
    return vectors

  return embed
