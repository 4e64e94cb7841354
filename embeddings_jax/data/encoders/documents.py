"""Encoder of documents as their words in order."""
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from embeddings_jax.data import features
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders.bags import BagEncoder
from embeddings_jax.data.encoders.base import Batch
from embeddings_jax.data.encoders.words import WordEncoder


class DocumentEncoder(WordEncoder):
  """Documents -> `tokens` int32 `[n, length]`, padded with -1; words out of the vocabulary are dropped."""

  kind = "documents"
  names = None
  embedded_at_once = 1 << 17  # Words, each of which is scored with all noise words.

  def lengths(self, batch: Batch) -> np.ndarray:
    return (batch["tokens"] >= 0).sum(1)

  def baselines(self, dataset: Dataset) -> dict[str, Callable[[Sequence[Any]], Any]]:
    # Frequencies are of the training split, as far as the dataset itself is embedded.
    fit = lambda items: dataset.split.get("train") if items is dataset.items else None
    bags = BagEncoder(self.vocabulary, self.normalize)
    return {"tf_idf": lambda items: features.tf_idf(items, bags.encode, len(self.vocabulary), fit=fit(items))}
