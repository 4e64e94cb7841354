"""Indices of faiss for nearest neighbors by cosine; needs the extra `faiss`."""
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from embeddings_jax.data.files.atomic import write_atomically
from embeddings_jax.data.files.names import format_names
from embeddings_jax.types import InputError


def write_index(path: str | os.PathLike, names: Sequence[str], vectors: np.ndarray) -> None:
  """Writes an exact index of unit vectors, whose inner products are cosines, and the names of its rows.

  Args:
    path: File of the index; NAME.vocabulary.txt beside it has the names, one a line, in the order of its rows.
    names: Names of the rows.
    vectors: `[num_rows, dim]`; rows of 0 stay 0.

  Raises:
    InputError: faiss is missing, names and vectors do not fit each other, or a number is not finite.
  """
  try:
    import faiss
  except ImportError as error:
    raise InputError(f"{path}: the package faiss is missing, which makes the index; pip install "
                     "'embeddings_jax[faiss]'") from error
  if vectors.ndim != 2 or len(names) != len(vectors) or not vectors.size:
    raise InputError(f"{path}: {len(names)} names for vectors of shape {list(vectors.shape)} cannot be written")
  if not np.isfinite(vectors).all():
    row = int(np.argwhere(~np.isfinite(vectors).all(1))[0, 0])
    raise InputError(f"{path}: the vector of {str(names[row])[:60]!r} is not finite and is not written")
  norms = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
  index = faiss.IndexFlatIP(vectors.shape[1])
  index.add(np.ascontiguousarray(vectors / norms, np.float32))
  path = Path(path)
  write_atomically(path.with_name(f"{path.stem}.vocabulary.txt"), format_names(names))
  write_atomically(path, faiss.serialize_index(index).tobytes())
