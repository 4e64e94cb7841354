"""Encoder of strings as bytes."""
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from embeddings_jax.data import features
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders.base import Batch, TextEncoder, check_size, signals


class ByteEncoder(TextEncoder):
  """Strings -> `signal` uint8 `[n, num_bytes]` of UTF-8, cut at `max_length`, padded with 0; `length` int32 `[n]`."""

  kind = "bytes"

  def __init__(self, max_length: int):
    check_size("max_length", max_length)
    self.max_length = max_length

  def options(self) -> dict[str, Any]:
    return {"max_length": self.max_length}

  def for_task(self, max_length: int) -> "ByteEncoder":
    """Returns the encoder for a task, which cuts texts at `max_length` bytes."""
    return ByteEncoder(max_length)

  def baselines(self, dataset: Dataset) -> dict[str, Callable[[Sequence[Any]], Any]]:
    return {"byte_ngrams": features.byte_ngrams}

  def encode(self, items: Sequence[str]) -> Batch:
    # A character has at most four bytes, so a long text need not be encoded to its end.
    data = [item[:self.max_length].encode("utf-8", "replace")[:self.max_length] for item in items]
    return signals([np.frombuffer(item, np.uint8) for item in data], np.uint8, self.max_length)
