"""`init_from` of word vectors, of a run or of a file: the first embeddings of a network's tokens."""
import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from embeddings_jax.data import encoders
from embeddings_jax.eval.word_similarity import known_form
from embeddings_jax.interop import vector_catalog, word_vectors
from embeddings_jax.runs import workdir
from embeddings_jax.runs.load import load_run
from embeddings_jax.runs.vectors import of_run
from embeddings_jax.train.mesh import path_name
from embeddings_jax.types import InputError, PyTree

TABLE = "token_embedding"


class WordStart(NamedTuple):
  """Words and their vectors; where they come from, and the SHA-256 (hex) of both."""

  path: epath.Path
  words: list[str]
  vectors: np.ndarray
  fingerprint: str


def find(name: str) -> WordStart | None:
  """The word vectors of a work directory or of a file; None where the directory holds something else.

  Raises:
    InputError: there is neither, or the file is none of word vectors.
  """
  path = epath.Path(vector_catalog.located(name))
  if not path.exists():
    raise InputError(f"init_from={name}: no such directory or file")
  if path.is_file():
    words, vectors = word_vectors.read(path)
  else:
    if not (path / "config.json").exists() or "trajectory" not in workdir.read_json(path / "config.json"):
      return None
    workdir.read_record(path)
    if encoders.load_encoder(path / "encoder").names is None:
      return None
    words, vectors = of_run(load_run(name))
  content = hashlib.sha256("\n".join(words).encode())
  content.update(np.ascontiguousarray(vectors).data)
  return WordStart(path, words, vectors, content.hexdigest())


def has_read(start: WordStart, fingerprint: str) -> bool:
  """Returns whether word vectors come from a run on a dataset, given by its fingerprint: on all of its documents."""
  return start.path.is_dir() and workdir.read_record(start.path)["trajectory"].get("fingerprint") == fingerprint


def initial(word_start: WordStart, encoder: Any, report: Callable[[str], None] = print) -> Callable[[PyTree], PyTree]:
  """`state -> state` in which the tokens that are words begin with those words' vectors; others stay as they are.

  The vectors are centered, given the length that embeddings have on average, and turned into the network's dimensions
  by an isometry, which leaves their inner products alone: random, so that none of the dimensions is empty.

  Args:
    word_start: the vectors.
    encoder: Encoder of the network, a `SubwordEncoder`.
    report: is told how many tokens are words, where a state begins with them.

  Raises:
    InputError: the network has no embeddings of tokens, or fewer dimensions than the vectors; no token is a word.
  """
  where = f"init_from={word_start.path}"
  if not hasattr(encoder, "tokenizer"):
    raise InputError(f"{where}: holds vectors of words, and the model has no embeddings of tokens to begin with them")
  ids, rows = _words_of(encoder, word_start.words)
  if not len(ids):
    raise InputError(f"{where}: none of its {len(word_start.words)} words is a token of the model")
  vectors = word_start.vectors[rows] - word_start.vectors[rows].mean(0)
  vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

  def put(state: PyTree) -> PyTree:
    report(f"{word_start.path}: {len(ids)} of {encoder.facts['vocab_size']} tokens begin with the vectors of words")

    def choose(path, leaf):
      if path_name(path).rsplit("/", 1)[-1] != TABLE:
        return leaf
      dim, width = vectors.shape[1], leaf.shape[1]
      if dim > width:
        raise InputError(f"{where}: its vectors have {dim} dimensions, and the model's embeddings only {width}")
      projected = vectors @ np.linalg.qr(np.random.default_rng(0).normal(size=(width, dim)))[0].T.astype(np.float32)
      # Compiled, as processes may have a part of the table each.
      return jax.jit(lambda table: table.at[ids].set(jnp.linalg.norm(table, axis=1).mean() * projected))(leaf)

    return state._replace(params=jax.tree_util.tree_map_with_path(choose, state.params),
                          average=jax.tree_util.tree_map_with_path(choose, state.average))

  return put


def _words_of(encoder: Any, words: list[str]) -> tuple[np.ndarray, np.ndarray]:
  """Ids of the tokens that are words of the vectors, and those words' rows."""
  index = {word: i for i, word in enumerate(words)}
  continues, special = encoder.continues, set(encoder.facts["special_ids"])
  whole_words = []
  for i in encoder.vocabulary.values():
    if i not in special and (continues is None or not continues[i]):
      form = known_form(encoder.tokenizer.decode([i]).strip(), index)
      if form is not None:
        whole_words.append((i, index[form]))
  ids, rows = np.array(sorted(whole_words), np.int64).reshape(-1, 2).T
  return ids, rows
