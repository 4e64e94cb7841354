"""Encoder of discrete codes, which another model makes of images."""
from collections.abc import Sequence
from typing import Any

import numpy as np

from embeddings_jax.data.encoders.base import Batch, Encoder, check_size, check_some, ones
from embeddings_jax.errors import InputError


class CodeEncoder(Encoder):
  """Maps of whole numbers -> `tokens` int32 [n, 1 + rows * columns]: `num_codes`, which begins a row, and the codes.

  `origin` is the work directory of the run that makes the codes and decodes them, `checksum` that of its parameters:
  codes of another run mean other images.
  """

  kind = "codes"

  def __init__(self, num_codes: int, rows: int, columns: int, origin: str, checksum: str):
    for name, value in (("num_codes", num_codes), ("rows", rows), ("columns", columns)):
      check_size(name, value, 1, 1 << 24)
    self.num_codes, self.shape = num_codes, (rows, columns)
    self.origin, self.checksum = str(origin), str(checksum)

  @property
  def length(self) -> int:
    """Codes of an image."""
    return self.shape[0] * self.shape[1]

  def options(self) -> dict[str, Any]:
    return {"num_codes": self.num_codes, "rows": self.shape[0], "columns": self.shape[1], "origin": self.origin,
            "checksum": self.checksum}

  def encode(self, items: Sequence[Any]) -> Batch:
    check_some(items)
    for i, item in enumerate(items):
      if np.size(item) != self.length or not np.issubdtype(np.asarray(item).dtype, np.integer):
        raise InputError(f"row {i}: is {np.asarray(item).dtype} {list(np.shape(item))}, should be {self.length} "
                         "whole numbers")
    codes = np.stack([np.asarray(item).reshape(-1) for item in items]).astype(np.int64)
    if codes.min() < 0 or codes.max() >= self.num_codes:
      raise InputError(f"codes from {codes.min()} to {codes.max()}: must be from 0 to {self.num_codes - 1}")
    return {"tokens": with_start(codes, self.num_codes), "mask": ones(items)}

  def example(self) -> Batch:
    return self.encode(np.zeros((1, self.length), np.int32))


def with_start(codes: np.ndarray, start: int) -> np.ndarray:
  """Returns rows of codes with a token that begins them."""
  return np.concatenate([np.full((len(codes), 1), start), codes], 1).astype(np.int32)
