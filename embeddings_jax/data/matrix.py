"""A user's own sparse matrix, as `scipy.sparse.save_npz` writes it: a square one is of similarities between words, a
rectangular one has a row for every document and a column for every word (`bags.py`)."""
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import sparse

from embeddings_jax.data import bags, formats
from embeddings_jax.data.cooccurrence import Cooccurrence
from embeddings_jax.data.dataset import Dataset, content_digest
from embeddings_jax.data.encoders.words import WordEncoder
from embeddings_jax.data.files.arrays import integer
from embeddings_jax.data.words import Vocabulary
from embeddings_jax.types import InputError

_AXES = {"csr": 1, "csc": 1, "coo": 1, "dia": 2, "bsr": 3}  # Format -> axes of its values.
_MOST_ROWS = (1 << 31) - 1  # Indices are int32.
_MANY_ROWS = 1 << 20  # From here on a file that is much smaller than its rows is damaged.


class Matrix(Sequence):
  """The names of a square matrix's rows.

  Attributes:
    cells: its non-zero cells.
  """

  def __init__(self, names: Sequence[str], cells: Cooccurrence):
    self._names, self.cells = list(names), cells

  def __len__(self) -> int:
    return len(self._names)

  def __getitem__(self, index):
    return self._names[index]


def load_matrix(path: str, files: Sequence[Path]) -> Dataset:
  """One `.npz` file; `vocabulary.txt` beside it names the columns, one a line, else their numbers do.

  Raises:
    InputError: not a sparse matrix, not finite, empty, with another number of names, or negative counts in a
      rectangular one.
  """
  if len(files) > 1:
    raise InputError(f"{path}: {len(files)} matrices; choose one")
  file = files[0]
  table = read_sparse(file)
  if not table.nnz:
    raise InputError(f"{file}: the matrix has no cell that is not 0")
  bad = np.flatnonzero(~np.isfinite(table.data))
  if len(bad):
    row = int(np.searchsorted(table.indptr, bad[0], side="right")) - 1
    raise InputError(f"{file}: row {row}, column {table.indices[bad[0]]} (from 0): {table.data[bad[0]]} is not a "
                     "finite number")
  listed = file.parent / "vocabulary.txt"
  if listed.exists():
    names = list(formats.read_lines(listed))
    if len(names) != table.shape[1] or len(set(names)) != len(names):
      raise InputError(f"{listed}: {len(set(names))} different names for {table.shape[1]} columns of {file.name}")
  else:
    bags.check_width(file, table.shape[1], table.nnz)
    names = [str(i) for i in range(table.shape[1])]
  if table.shape[0] != table.shape[1]:
    return bags.from_matrix(path, table, names)
  rows = np.repeat(np.arange(table.shape[0], dtype=np.int32), np.diff(table.indptr))
  facts = {"vocab_size": table.shape[0], "num_cells": table.nnz, "symmetric": (abs(table - table.T) > 0).nnz == 0,
           "marginals": table.sum(1), "context_marginals": table.sum(0), "total": float(table.sum())}
  columns, values = table.indices.astype(np.int32), table.data.astype(np.float32)
  fingerprint = content_digest([rows, columns, values, np.array(names)])
  cells = Cooccurrence(rows, columns, values, table.indptr.astype(np.int64), facts, fingerprint)
  return Dataset(path, "matrix", Matrix(names, cells), names=names, fingerprint=fingerprint)


def read_sparse(file: str | os.PathLike) -> sparse.csr_array:
  """Reads what `scipy.sparse.save_npz` wrote of an array or a matrix, in any of its formats, as float64.

  SciPy's compiled code trusts the indices of a matrix and writes wherever they say, so all are checked before.
  Nothing is unpickled.

  Returns:
    The matrix with sorted columns, without duplicates and zeros.

  Raises:
    InputError: No such file, damaged, or not of real numbers in two axes.
  """
  arrays = formats.load_npz(file)
  if "format" not in arrays or "shape" not in arrays:
    raise InputError(f"{file}: not a matrix of scipy.sparse.save_npz (it has no 'format' and 'shape')")
  data, kind = arrays.get("data"), arrays["format"].reshape(-1)[:1].tolist()
  kind = kind[0].decode("ascii", "replace") if kind and isinstance(kind[0], bytes) else str((kind or [""])[0])
  shape = integer(arrays, "shape", 1, file).tolist()
  if data is None or data.dtype.kind not in "fiub" or len(shape) != 2:
    what = "no values" if data is None else data.dtype
    raise InputError(f"{file}: a matrix of {what} {shape[:8]}; it must have two axes and real numbers")
  if kind not in _AXES or data.ndim != _AXES[kind]:
    raise InputError(f"{file}: its format {kind[:20]!r} with values {list(data.shape)} is not read; save .tocsr()")
  if min(shape) < 1 or max(shape) > _MOST_ROWS or max(shape) > max(_MANY_ROWS, 64 * os.path.getsize(file)):
    raise InputError(f"{file}: damaged, it has the shape {shape}")
  data = data.astype(np.float64)
  if kind in ("coo", "dia"):
    row, column, data = _cells(file, arrays, data, shape, kind)
    _check_indices(file, "row", row, shape[0])
    _check_indices(file, "column", column, shape[1])
    table = sparse.coo_array((data, (row, column)), shape=tuple(shape)).tocsr()
  else:
    indptr, indices = integer(arrays, "indptr", 1, file), integer(arrays, "indices", 1, file)
    major, minor = (1, 0) if kind == "csc" else (0, 1)
    block = data.shape[1:] or (1, 1)
    if 0 in block or any(length % size for length, size in zip(shape, block)):
      raise InputError(f"{file}: damaged, blocks of {list(block)} for the shape {shape}")
    if len(indptr) != shape[major] // block[0] + 1 or indptr[0] or (np.diff(indptr) < 0).any() or (
        indptr[-1] > min(len(indices), len(data))):
      raise InputError(f"{file}: damaged, its 'indptr' does not fit {len(data)} values of the shape {shape}")
    indices, data = indices[:indptr[-1]], data[:indptr[-1]]
    _check_indices(file, ("row", "column")[minor], indices, shape[minor] // block[minor])
    make = {"csr": sparse.csr_array, "csc": sparse.csc_array, "bsr": sparse.bsr_array}[kind]
    table = make((data, indices, indptr), shape=tuple(shape)).tocsr()
  table.sum_duplicates()
  table.eliminate_zeros()
  return table


def _cells(file: str | os.PathLike, arrays: Mapping[str, np.ndarray], data: np.ndarray, shape: Sequence[int],
           kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Rows, columns and values of a matrix in the format `coo` or `dia`."""
  if kind == "dia":
    offsets = integer(arrays, "offsets", 1, file)
    if len(offsets) != len(data) or len(set(offsets.tolist())) < len(offsets) or np.abs(offsets).max() > _MOST_ROWS:
      raise InputError(f"{file}: damaged, its 'offsets' do not fit {len(data)} diagonals")
    column = np.arange(data.shape[1]) + np.zeros((len(offsets), 1), np.int64)
    row = column - offsets[:, None]
    inside = (row >= 0) & (row < shape[0]) & (column < shape[1])
    return row[inside], column[inside], data[inside]
  row, column = (integer(arrays, name, 1, file) for name in ("row", "col"))
  if not len(row) == len(column) == len(data):
    raise InputError(f"{file}: damaged, {len(row)} rows and {len(column)} columns for {len(data)} values")
  return row, column, data


def _check_indices(file: str | os.PathLike, what: str, indices: np.ndarray, length: int) -> None:
  outside = indices[(indices < 0) | (indices >= length)]
  if len(outside):
    raise InputError(f"{file}: damaged, it has a value in {what} {outside[0]} of {length}")


def encoder(items: Matrix) -> WordEncoder:
  """Looks up a matrix's names; what stands for the counts of words is the number of cells in each row."""
  return WordEncoder(Vocabulary(items, np.diff(items.cells.indptr)), "spaces")
