"""A user's own sparse matrix, as `scipy.sparse.save_npz` writes it: a square one is of similarities between words, a
rectangular one has a row for every document and a column for every word (`bags.py`)."""
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import sparse

from embeddings_jax.data import bags
from embeddings_jax.data.cooccurrence import Cooccurrence
from embeddings_jax.data.dataset import Dataset, content_digest
from embeddings_jax.data.encoders import WordEncoder
from embeddings_jax.data.words import Vocabulary
from embeddings_jax.types import InputError


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
  try:
    table = sparse.load_npz(file).tocsr()  # Does not unpickle.
  except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, zipfile.BadZipFile,
          zlib.error) as error:
    raise InputError(f"{file}: not a matrix of scipy.sparse.save_npz ({str(error).splitlines()[0]})") from error
  if table.ndim != 2 or table.dtype.kind not in "fiub":
    raise InputError(f"{file}: a matrix of {table.dtype} {list(table.shape)}; it must have two axes and real numbers")
  table = table.astype(np.float64)
  table.sum_duplicates()
  table.eliminate_zeros()
  if not table.nnz:
    raise InputError(f"{file}: the matrix has no cell that is not 0")
  bad = np.flatnonzero(~np.isfinite(table.data))
  if len(bad):
    row = int(np.searchsorted(table.indptr, bad[0], side="right")) - 1
    raise InputError(f"{file}: row {row}, column {table.indices[bad[0]]} (from 0): {table.data[bad[0]]} is not a "
                     "finite number")
  names = [str(i) for i in range(table.shape[1])]
  listed = file.parent / "vocabulary.txt"
  if listed.exists():
    try:
      names = listed.read_bytes().decode().removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
      raise InputError(f"{listed}: not UTF-8 at byte {error.start}") from error
    if len(names) != table.shape[1] or len(set(names)) != len(names):
      raise InputError(f"{listed}: {len(set(names))} different names for {table.shape[1]} columns of {file.name}")
  if table.shape[0] != table.shape[1]:
    return bags.from_matrix(path, table, names)
  rows = np.repeat(np.arange(table.shape[0], dtype=np.int32), np.diff(table.indptr))
  facts = {"vocab_size": table.shape[0], "num_cells": table.nnz, "symmetric": (abs(table - table.T) > 0).nnz == 0,
           "marginals": table.sum(1), "context_marginals": table.sum(0), "total": float(table.sum())}
  columns, values = table.indices.astype(np.int32), table.data.astype(np.float32)
  fingerprint = content_digest([rows, columns, values, np.array(names)])
  cells = Cooccurrence(rows, columns, values, table.indptr.astype(np.int64), facts, fingerprint)
  return Dataset(path, "matrix", Matrix(names, cells), names=names, fingerprint=fingerprint)


def encoder(items: Matrix) -> WordEncoder:
  """Looks up a matrix's names; what stands for the counts of words is the number of cells in each row."""
  return WordEncoder(Vocabulary(items, np.diff(items.cells.indptr)), "spaces")
