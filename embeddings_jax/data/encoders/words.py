"""Encoder of words and lines."""
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from embeddings_jax.data.encoders.base import Batch, TextEncoder, ones, padded
from embeddings_jax.data.files.arrays import parse_npy
from embeddings_jax.data.files.names import format_names, read_names
from embeddings_jax.data.words import Vocabulary, split_words
from embeddings_jax.errors import InputError


class WordEncoder(TextEncoder):
  """Words or lines -> `tokens` int32 `[n, length]`, padded with -1; words out of the vocabulary are dropped.

  An item that is itself in the vocabulary is that word, so that imported names like `New_York` are found.
  """

  kind = "words"

  def __init__(self, vocabulary: Vocabulary, normalize: str):
    self.vocabulary = vocabulary
    self.normalize = normalize

  @property
  def names(self) -> list[str]:
    return self.vocabulary.words

  def options(self) -> dict[str, Any]:
    return {"normalize": self.normalize}

  def files(self) -> dict[str, bytes]:
    counts = io.BytesIO()
    np.save(counts, self.vocabulary.counts)
    return {"vocabulary.txt": format_names(self.vocabulary.words).encode(), "counts.npy": counts.getvalue()}

  @classmethod
  def from_files(cls, options: Mapping[str, Any], folder: epath.Path) -> "WordEncoder":
    words = read_names(folder / "vocabulary.txt")
    encoder = cls(Vocabulary(words, _read_counts(folder / "counts.npy", len(words))), **options)
    split_words("", encoder.normalize)  # Raises for an unknown one.
    return encoder

  def encode(self, items: Sequence[str]) -> Batch:
    index = self.vocabulary.index
    indices = []
    for item in items:
      words = [item] if item in index else split_words(item, self.normalize)
      indices.append(np.array([index[word] for word in words if word in index], np.int32))
    return {"tokens": padded(indices, np.int32, -1), "mask": ones(items)}


def _read_counts(path: epath.Path, number: int) -> np.ndarray:
  """int64 [number], none negative, of a `.npy` file."""
  counts = parse_npy(path.read_bytes(), path)
  if counts.shape != (number,) or counts.dtype != np.int64 or counts.min(initial=0) < 0:
    raise InputError(f"{path}: does not hold the counts of {number} words as int64")
  return counts
