"""Encoder of words and lines, of which words out of the vocabulary are read by their character n-grams."""
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embeddings_jax.data import ngrams
from embeddings_jax.data.encoders.base import Batch, bucket, ones, padded
from embeddings_jax.data.encoders.words import WordEncoder
from embeddings_jax.data.words import Vocabulary, split_words

UNSEEN = -2  # Token of a word out of the vocabulary that has n-grams.


class OpenVocabulary(dict):
  """The words of a vocabulary in their order; it contains every word that has an n-gram."""

  def __init__(self, encoder: "NgramEncoder"):
    super().__init__(dict.fromkeys(encoder.vocabulary.words))
    self._encoder = encoder

  def __contains__(self, word: object) -> bool:
    return super().__contains__(word) or isinstance(word, str) and len(self._encoder.ngrams(word)) > 0


class NgramEncoder(WordEncoder):
  """Words or lines -> `tokens` int32 `[n, length]`, and `ngrams` int32 `[n, length, num_ngrams]` of unseen words.

  Tokens are padded with -1; a word out of the vocabulary is -2, and its n-grams, padded with -1, stand beside it.
  Such a word without n-grams is dropped.
  """

  kind = "ngrams"
  padding: Mapping[str, int] = {**WordEncoder.padding, "ngrams": -1}  # type: ignore[misc]

  def __init__(self, vocabulary: Vocabulary, normalize: str, min_n: int = 3, max_n: int = 6, bucket: int = 2_000_000):
    super().__init__(vocabulary, normalize)
    ngrams.check_ngrams(min_n, max_n, bucket)
    self.min_n, self.max_n, self.num_buckets = min_n, max_n, bucket

  @property
  def known_words(self) -> OpenVocabulary:
    """The vocabulary, as a container of every word that gets a vector."""
    return OpenVocabulary(self)

  def options(self) -> dict[str, Any]:
    return {**super().options(), "min_n": self.min_n, "max_n": self.max_n, "bucket": self.num_buckets}

  def ngrams(self, word: str) -> np.ndarray:
    """Returns the n-grams of a word, int32 [num_ngrams]."""
    return ngrams.ngrams_of(word, self.min_n, self.max_n, self.num_buckets)

  def encode(self, items: Sequence[str]) -> Batch:
    index = self.vocabulary.index
    tokens, unseen = [], []
    for i, item in enumerate(items):
      row: list[int] = []
      for word in [item] if item in index else split_words(item, self.normalize):
        if word in index:
          row.append(index[word])
        elif len(parts := self.ngrams(word)):
          unseen.append((i, len(row), parts))
          row.append(UNSEEN)
      tokens.append(np.array(row, np.int32))
    table = padded(tokens, np.int32, -1)
    width = bucket(max([1, *(len(parts) for *_, parts in unseen)]))
    listed = np.full((*table.shape, width), -1, np.int32)
    for i, place, parts in unseen:
      listed[i, place, :len(parts)] = parts
    return {"tokens": table, "ngrams": listed, "mask": ones(items)}
