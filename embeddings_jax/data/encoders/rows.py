"""Encoder of numeric rows."""
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from embeddings_jax.data import formats
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders.base import Batch, Encoder, check_size, check_some, ones
from embeddings_jax.data.images import as_rows
from embeddings_jax.errors import InputError

_EPSILON, _TOLERANCE = 2.0**-24, 1e-3  # Rounding of float32, and how much of a standard deviation it may be.
_ROWS_AT_ONCE = 1 << 22  # Elements.


class RowEncoder(Encoder):
  """Numeric rows -> `x` float32 `[n, num_features]`, shifted by `mean` and divided by `std` if they are given.

  Rows of other types than float32 are shifted and divided in float64, and rounded last: of the seconds since 1970
  float32 alone keeps one number for two minutes. With `gaps`, entries may be NaN: missing values, which stay so.
  `columns` are the names of the features, by which tables are read.
  """

  kind = "rows"

  def __init__(self, num_features: int, mean: Sequence[float] | None = None, std: Sequence[float] | None = None,
               gaps: bool = False, columns: Sequence[str] | None = None):
    check_size("num_features", num_features)
    if columns is not None and not (isinstance(columns, (list, tuple)) and len(columns) == num_features
                                    and all(isinstance(name, str) for name in columns)):
      raise InputError(f"columns: expected the names of {num_features} features")
    self.columns = None if columns is None else list(columns)
    self.num_features = num_features
    self.mean, self.std = (None if values is None else np.asarray(values, np.float64) for values in (mean, std))
    for name, values in (("mean", self.mean), ("std", self.std)):
      if values is not None and (values.shape != (num_features,) or not np.isfinite(values).all()):
        raise InputError(f"{name}: expected {num_features} finite numbers")
    if self.std is not None and not (self.std > 0).all():
      raise InputError("std: expected numbers above 0")
    self.gaps = gaps

  @classmethod
  def standardizing(cls, rows: np.ndarray, gaps: bool = False) -> "RowEncoder":
    """Gives every feature of `rows` mean 0 and standard deviation 1; constant features keep their scale."""
    mean, std = _moments(rows, gaps)
    # Float32 is enough but for features that lie far from 0.
    near = np.abs(mean) * _EPSILON <= _TOLERANCE * std
    std = np.where(std > 0, std, 1)
    return cls(rows.shape[1], np.where(near, mean.astype(np.float32), mean), std.astype(np.float32), gaps)

  @classmethod
  def centering(cls, rows: np.ndarray, gaps: bool = False) -> "RowEncoder":
    """Shifts the features to mean 0 whose values float32 cannot tell apart; the others stay as they are."""
    if rows.dtype == np.float32:
      return cls(rows.shape[1], gaps=gaps)
    mean, std = _moments(rows, gaps)
    far = np.abs(mean) * _EPSILON > _TOLERANCE * std
    return cls(rows.shape[1], np.where(far & (std > 0), mean, 0) if (far & (std > 0)).any() else None, gaps=gaps)

  def options(self) -> dict[str, Any]:
    listed = {k: None if v is None else [float(x) for x in v] for k, v in (("mean", self.mean), ("std", self.std))}
    return {"num_features": self.num_features, **listed, **({"gaps": True} if self.gaps else {}),
            **({"columns": self.columns} if self.columns else {})}

  def encode(self, items: Sequence[Any]) -> Batch:
    check_some(items)
    for i, item in enumerate(items):
      if np.shape(item) != (self.num_features,):
        raise InputError(f"row {i}: has shape {np.shape(item)}, should have {self.num_features} features")
    return {"x": self.encode_rows(np.asarray(items)), "mask": ones(items)}

  def read(self, path: str, errors: str = "strict") -> list[np.ndarray]:
    return self.read_indexed(path, errors)[0]

  def read_indexed(self, path: str, errors: str = "strict") -> tuple[list[np.ndarray], list[str]]:
    """See `Encoder.read`: a .csv, .tsv or .npy file.

    A table with a header gives the columns of the run in their order, whatever its own is; it may have further ones.
    """
    from embeddings_jax.data import own

    file, *others = own.list_files(path)
    if others:
      raise InputError(f"{path}: {1 + len(others)} files, give one")
    table = own.read_rows(file, self.gaps, errors, formats.TableOptions(wanted=self.columns or ()))
    names = list(table.names or map(str, range(len(table.rows))))
    if not self.columns or not table.columns or list(self.columns) == list(table.columns):
      return list(table.rows), names
    missing = [name for name in self.columns if name not in table.columns]
    if missing or len(set(table.columns)) < len(table.columns):
      what = f"has no column {formats.quoted(missing[0])}" if missing else "has two columns of one name"
      raise InputError(f"{file}: {what}; the run's columns are {', '.join(self.columns)[:200]}")
    return list(table.rows[:, [table.columns.index(name) for name in self.columns]]), names

  def example(self) -> Batch:
    return self.encode(np.zeros((1, self.num_features), np.float32))

  def adapt(self, dataset: Dataset, cache_dir: str | os.PathLike | None = None) -> Dataset:
    return as_rows(dataset)

  def encode_rows(self, rows: np.ndarray) -> np.ndarray:
    """Returns `x` of an array `[n, num_features]`, some at a time: rows may be memory-mapped."""
    x = np.empty(rows.shape, np.float32)
    step = max(1, _ROWS_AT_ONCE // rows.shape[1])
    for start in range(0, len(rows), step):
      part = rows[start:start + step]
      bad = ~np.isfinite(part) & ~(self.gaps & np.isnan(part))
      if bad.any():
        row, column = np.argwhere(bad)[0]
        raise InputError(f"row {start + row}, column {column} (from 0): {part[row, column]} is not a finite number")
      # Float32 stays float32 where the shift is one too.
      exact = part.dtype == np.float32 and (self.mean is None or (self.mean == self.mean.astype(np.float32)).all())
      part = part.astype(np.float32 if exact else np.float64)
      if self.mean is not None:
        part = part - self.mean.astype(part.dtype)
      if self.std is not None:
        part = part / self.std.astype(part.dtype)
      with np.errstate(over="ignore"):
        x[start:start + step] = part
      if np.isinf(x[start:start + step]).any():
        row, column = np.argwhere(np.isinf(x[start:start + step]))[0]
        raise InputError(f"row {start + row}, column {column} (from 0): {part[row, column]} is beyond float32")
    return x


def _moments(rows: np.ndarray, gaps: bool) -> tuple[np.ndarray, np.ndarray]:
  """Mean and standard deviation of each column in float64, some rows at a time."""
  if gaps and np.isnan(rows).all(0).any():
    raise InputError(f"column {np.isnan(rows).all(0).argmax()} (from 0): has no value in any row; leave it out")
  add, step = (np.nansum if gaps else np.sum), max(1, _ROWS_AT_ONCE // rows.shape[1])
  parts = [slice(start, start + step) for start in range(0, len(rows), step)]
  number = sum((~np.isnan(rows[part])).sum(0) for part in parts) if gaps else len(rows)
  mean = sum(add(rows[part], 0, dtype=np.float64) for part in parts) / number
  square = sum(add((rows[part] - mean) ** 2, 0) for part in parts)
  return mean, np.sqrt(square / number)
