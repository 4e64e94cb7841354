"""Word vectors of a run or of a file, as functions of words."""
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from embeddings_jax.data.encoders.words import WordEncoder
from embeddings_jax.data.words import Vocabulary
from embeddings_jax.errors import InputError
from embeddings_jax.eval.word_similarity import known_form
from embeddings_jax.interop import word_vectors
from embeddings_jax.ops import sentence_vectors
from embeddings_jax.runs.run import Run
from embeddings_jax.train.mesh import make_mesh, placed, state_shardings
from embeddings_jax.types import Model


class Table(NamedTuple):
  """State of vectors that were read from a file."""

  vectors: jax.Array  # [num_words, dim]


def as_run(table: word_vectors.WordVectors, path: epath.Path | None = None) -> Run:
  """Returns word vectors as a run, whose `embed` looks words up and takes the mean over the words of a line."""


  def init(rng, batch):
    return Table(jnp.zeros(table.vectors.shape, table.vectors.dtype))

  def update(state, batch, rng):
    raise InputError("vectors of a file are not trained; start a run from the file by init_from")

  model = Model(init, update, lambda state, batch: sentence_vectors.mean(state.vectors, batch["tokens"]))
  layout = state_shardings(jax.eval_shape(lambda: init(None, None)), make_mesh(), ())
  vectors: Any = table.vectors  # Of the host: `placed` lays it out.
  state = placed(Table(vectors), layout)
  record = {"config": {"name": "vectors", "model": {}, "data": {}}}
  return Run(path, record, model, state, 0, encoder(table), lambda **options: model)


def of_run(run: Run) -> word_vectors.WordVectors:
  """Returns the words and vectors of a run of a model of words."""
  names = list(run.encoder.names)
  return word_vectors.WordVectors(names, run.embed(names))


def encoder(table: word_vectors.WordVectors) -> WordEncoder:
  """Returns the encoder of a file's words, lowercasing if all of them are in lower case; their counts are unknown."""
  cased = any(word != word.lower() for word in table.words)
  return WordEncoder(Vocabulary(table.words, np.zeros(len(table.words), np.int64)), "cased" if cased else "lower")


def embedder(table: word_vectors.WordVectors) -> Callable[[Sequence[str]], np.ndarray]:
  """`words -> [num_words, dim]`: a word as written, else in lower case, else zeros."""
  index = {word: i for i, word in enumerate(table.words)}

  def embed(words: Sequence[str]) -> np.ndarray:
    forms = [known_form(word, index) for word in words]
    rows = np.array([-1 if form is None else index[form] for form in forms])
    if np.array_equal(rows, np.arange(len(rows))):  # All, or the most frequent: not copied.
      return table.vectors[:len(rows)]
    vectors = table.vectors[rows]
    vectors[rows < 0] = 0
    return vectors

  return embed
