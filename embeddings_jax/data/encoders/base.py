"""The interface of encoders: items to batches of NumPy arrays, saved as plain files beside a run.

The leading axis of every array is the items'; the second is padded to the longest item rounded up to
a power of two, so that a compiled function sees few shapes. `mask` is 1 for every item.
"""
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from etils import epath

from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.files.atomic import write_atomically
from embeddings_jax.errors import InputError

Batch = dict[str, np.ndarray]


class Encoder:
  """Base class of encoders; an encoder is fully described by its files.

  A subclass has a `kind`, `encode(items)`, `files()` and `from_files(options, folder)`.
  """

  kind: ClassVar[str]
  embedded_at_once: ClassVar[int] = 1 << 21  # Elements of encoded items that a model is given at once, about.
  encoded_at_once: ClassVar[int] = 1024  # Items.
  num_widths: ClassVar[int] = 0  # Lengths that rows are padded to, chosen by the items; 0: by `bucket`.
  padding: ClassVar[Mapping[str, int]] = {"tokens": -1, "words": -1}  # What rows are filled up with, else 0.
  names: Sequence[str] | None = None  # One per row of the table that is learnt, where there is one.

  def encode(self, items: Sequence[Any]) -> Batch:
    raise NotImplementedError

  def lengths(self, batch: Batch) -> np.ndarray | None:
    """Returns the unpadded lengths of rows that may be cut to `bucket`s, int `[n]`, or None."""
    return None

  def bucket(self, length: int) -> int:
    """The length that rows of up to `length` elements are padded to."""
    return bucket(length)

  def read(self, path: str, errors: str = "strict") -> list[Any]:
    """Reads a user's file, or a folder or glob of files, as items in order; each becomes one row of the result.

    Args:
      path: The file, folder or glob.
      errors: `strict` refuses text that is not UTF-8, `replace` puts replacement characters.
    """
    raise NotImplementedError

  def read_indexed(self, path: str, errors: str = "strict") -> tuple[list[Any], list[str]]:
    """Reads as `read` does; returns the items, and a name for each: its file, line, or number."""
    items = self.read(path, errors)
    return items, [str(item) if isinstance(item, (str, os.PathLike)) else str(i) for i, item in enumerate(items)]

  def example(self) -> Batch:
    """Returns a batch of one item, for its shapes."""
    raise NotImplementedError

  def adapt(self, dataset: Dataset, cache_dir: str | os.PathLike | None = None) -> Dataset:
    """Returns another dataset with items that `encode` takes."""
    return dataset

  def baselines(self, dataset: Dataset) -> dict[str, Callable[[Sequence[Any]], Any]]:
    """Returns features without learning by name, `items -> [num_items, dim]`, for the items of a dataset."""
    return {}

  def options(self) -> dict[str, Any]:
    """Returns the content of `preprocess.json` beside the kind."""
    raise NotImplementedError

  def files(self) -> dict[str, bytes]:
    """Further files, by name."""
    return {}

  @classmethod
  def from_files(cls, options: Mapping[str, Any], folder: epath.Path) -> "Encoder":
    return cls(**options)

  def save(self, folder: str | os.PathLike) -> None:
    """Writes the files; `preprocess.json` comes last, so a folder that has it is complete."""
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in self._all_files().items():
      write_atomically(folder / name, data)

  @classmethod
  def load(cls, folder: str | os.PathLike) -> "Encoder":
    from embeddings_jax.data.encoders import load_encoder

    encoder = load_encoder(folder)
    if not isinstance(encoder, cls):
      raise InputError(f"{folder}: holds an encoder of {encoder.kind}, not of {cls.kind}")
    return encoder

  @property
  def fingerprint(self) -> str:
    """SHA-256 (hex) over the names and bytes of the files."""
    content = hashlib.sha256()
    for name, data in sorted(self._all_files().items()):
      content.update(f"{name}\0{len(data)}\0".encode() + data)
    return content.hexdigest()

  def _all_files(self) -> dict[str, bytes]:
    options = json.dumps({"kind": self.kind, **self.options()}, indent=2, sort_keys=True) + "\n"
    return self.files() | {"preprocess.json": options.encode()}


class TextEncoder(Encoder):
  """Encoders of texts, of which a file holds one a line."""

  def read(self, path: str, errors: str = "strict") -> list[str]:
    """See `Encoder.read`; a blank line is an empty item, so that rows stay aligned with lines."""
    return self.read_indexed(path, errors)[0]

  def read_indexed(self, path: str, errors: str = "strict") -> tuple[list[str], list[str]]:
    from embeddings_jax.data import own, own_text

    items, places = own_text.read_texts(own.list_files(path), errors)
    if not any(items):
      raise InputError(f"{path}: is empty, it has no text")
    return items, places

  def example(self) -> Batch:
    return self.encode(["a"])


def check_size(name: str, value: Any, least: int = 1, most: int = 1 << 31) -> None:
  """Raises unless an option is an integer within bounds."""
  if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not least <= value <= most:
    raise InputError(f"{name}={str(value)[:40]}: expected an integer from {least} to {most}")


def bucket(length: int) -> int:
  """The least power of two that is not below `length`, at least 1."""
  return 1 << max(0, length - 1).bit_length()


def part_of(limit: int, length: int) -> int:
  """The least of `limit` / 8, / 4, / 2, / 1 (rounded up) that is not below `length`, at most `limit`."""
  return next(size for size in (-(-limit >> i) for i in (3, 2, 1, 0)) if size >= min(length, limit))


def best_widths(lengths: np.ndarray, number: int, step: int = 8) -> list[int]:
  """The at most `number` widths, multiples of `step`, to which rows of these lengths are padded with least waste."""
  widths, counts = np.unique(-(-np.maximum(lengths, 1) // step) * step, return_counts=True)
  below = np.concatenate([[0], np.cumsum(counts)]).tolist()
  widths = widths.tolist()
  best = {0: (0, ())}  # How many of the widths are dealt with -> (elements, buckets).
  for _ in range(number):
    best |= {j: min(([best[j]] if j in best else []) + [
        (cost + (below[j] - below[i]) * widths[j - 1], (*chosen, widths[j - 1]))
        for i, (cost, chosen) in best.items() if i < j]) for j in range(1, len(widths) + 1)}
  return list(best[len(widths)][1])


def check_some(items: Sequence[Any]) -> None:
  if not len(items):
    raise InputError("no items to encode: the input is empty")


def ones(items: Sequence[Any]) -> np.ndarray:
  return np.ones(len(items), np.float32)


def padded(rows: Sequence[np.ndarray], dtype: Any, pad: int, limit: int | None = None) -> np.ndarray:
  check_some(rows)
  length = bucket(max(map(len, rows)))
  table = np.full((len(rows), length if limit is None else min(length, limit)), pad, dtype)
  for target, row in zip(table, rows):
    target[:len(row)] = row
  return table


def signals(rows: Sequence[np.ndarray], dtype: Any, limit: int | None = None) -> Batch:
  signal = padded(rows, dtype, 0, limit)
  return {"signal": signal, "length": np.array([len(row) for row in rows], np.int32), "mask": ones(rows)}
