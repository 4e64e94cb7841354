"""Small tables of numbers from a user's file."""
import os

import numpy as np

from embeddings_jax.types import InputError


def read_table(path: str | os.PathLike, name: str) -> np.ndarray:
  """Returns the two-dimensional array of a `.npy` file, or of a text file with a row in each line.

  Args:
    path: File; pickled objects are refused.
    name: Argument that names it, for error messages.
  """
  try:
    table = np.load(path, allow_pickle=False) if str(path).endswith(".npy") else np.loadtxt(path, ndmin=2)
  except (OSError, ValueError, EOFError) as error:
    raise InputError(f"{name}={path}: cannot be read as a table of numbers ({error})") from error
  if table.dtype.kind not in "fiu" or table.ndim != 2 or not table.size or not np.isfinite(table).all():
    raise InputError(f"{name}={path}: holds {table.dtype} {list(table.shape)}, expected finite numbers in rows")
  return table
