"""Encoder of documents as bags of words."""
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from embeddings_jax.data import features
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders.base import Batch, ones, padded
from embeddings_jax.data.encoders.words import WordEncoder
from embeddings_jax.data.words import split_words
from embeddings_jax.errors import InputError


class BagEncoder(WordEncoder):
  """Documents -> `words` int32 `[n, length]`, sorted, padded with -1, and `counts` float32 `[n, length]`.

  An item is a text, or a mapping from words to counts. Words out of the vocabulary are dropped; a document without a
  known word is all padding.
  """

  kind = "bags"
  names = None

  def tokens(self, text: str) -> np.ndarray:
    """The known words of a text in their order: int32 `[num_tokens]`."""
    index = self.vocabulary.index
    return np.array([index[word] for word in split_words(text, self.normalize) if word in index], np.int32)

  def encode(self, items: Sequence[str | Mapping[str, float]]) -> Batch:
    words, counts = zip(*(self.bag(item, i) for i, item in enumerate(items))) if len(items) else ((), ())
    return {"words": padded(words, np.int32, -1), "counts": padded(counts, np.float32, 0), "mask": ones(items)}

  def lengths(self, batch: Batch) -> np.ndarray:
    return (batch["words"] >= 0).sum(1)

  def baselines(self, dataset: Dataset) -> dict[str, Callable[[Sequence[Any]], Any]]:
    # Frequencies are of the training split, as far as the dataset itself is embedded.
    fit = lambda items: dataset.split.get("train") if items is dataset.items else None
    return {"tf_idf": lambda items: features.tf_idf(items, self.encode, len(self.vocabulary), fit=fit(items))}

  def bag(self, item: str | Mapping[str, float], i: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The known words of one item, sorted, and their counts; `i` is what an error calls it."""
    if isinstance(item, str):
      return np.unique(self.tokens(item), return_counts=True)
    index = self.vocabulary.index
    for word, count in item.items():
      if not 0 <= count < np.inf:
        raise InputError(f"document {i}: a count of {count} for {word!r}; it must be a number and not negative")
    known = sorted((index[word], count) for word, count in item.items() if count and word in index)
    return np.array([word for word, _ in known], np.int32), np.array([count for _, count in known], np.float32)
