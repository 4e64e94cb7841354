"""Word vectors of a run or of a file, as functions of words."""
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from embeddings_jax.data.encoders import WordEncoder
from embeddings_jax.data.words import Vocabulary
from embeddings_jax.eval.word_similarity import known_form
from embeddings_jax.interop import word_vectors
from embeddings_jax.runs import inference


def of_run(run: Any) -> word_vectors.WordVectors:
  """The vectors of a `build.Run` of a model of words."""
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
