"""Rows of numbers that are read a block at a time and kept on the disk where there are many."""
import logging
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from embeddings_jax.data.files.arrays import as_float32
from embeddings_jax.errors import PROGRESS, InputError

IN_MEMORY_BYTES = 1 << 28
_SECONDS = 10.0  # Between messages of progress.


class RowBuffer:
  """Collects blocks of rows; more than `IN_MEMORY_BYTES` are written to an unnamed file.

  Attributes:
    num_rows: Rows so far.
  """

  def __init__(self, folder: str | os.PathLike | None = None):
    """Initializes the buffer.

    Args:
      folder: Folder of the file, which has no name there and ends with the process; None: the system's.
    """
    self.num_rows = 0
    self._folder, self._blocks, self._file = folder, [], None
    self._width = self._bytes = 0
    self._single = True

  def add(self, rows: np.ndarray) -> None:
    """Appends rows `[num_rows, num_columns]`."""
    self._width = rows.shape[1]
    self.num_rows += len(rows)
    self._bytes += 8 * rows.size
    self._single = self._single and (rows.dtype == np.float32 or bool(
        np.array_equal(as_float32(rows).astype(np.float64), rows, equal_nan=True)))
    if not len(rows):
      return
    self._blocks.append(rows.astype(np.float64))
    if self._bytes > IN_MEMORY_BYTES:
      self._spill()

  def finish(self) -> np.ndarray:
    """Returns all rows: float32 if that holds every value exactly, else float64; memory-mapped if there are many."""
    dtype = np.dtype(np.float32 if self._single else np.float64)
    if self._file is None:
      rows = np.concatenate(self._blocks).astype(dtype) if self._blocks else np.zeros((0, self._width), dtype)
      self._blocks = []
      return rows
    self._file.flush()
    rows = np.memmap(self._file, np.float64, "r", shape=(self.num_rows, self._width))
    if dtype == np.float64:
      return rows
    file, step = self._opened(), max(1, (1 << 22) // self._width)
    for start in range(0, len(rows), step):
      self._write(file, rows[start:start + step].astype(dtype))
    file.flush()
    self._file.close()
    return np.memmap(file, dtype, "r", shape=rows.shape)

  def _spill(self) -> None:
    if self._file is None:
      self._file = self._opened()
    for block in self._blocks:
      self._write(self._file, block)
    self._blocks = []

  def _opened(self):
    try:
      if self._folder is not None:
        Path(self._folder).mkdir(parents=True, exist_ok=True)
      return tempfile.TemporaryFile(dir=self._folder)
    except OSError as error:
      raise InputError(f"{self._folder}: cannot be written ({error.strerror}); choose another folder with cache_dir "
                       "or $EMBEDDINGS_CACHE") from error

  def _write(self, file, block: np.ndarray) -> None:
    try:
      file.write(np.ascontiguousarray(block).data)
    except OSError as error:
      raise InputError(f"{self._folder}: no space for {self._bytes:,} bytes of rows ({error.strerror}); choose "
                       "another folder with cache_dir or $EMBEDDINGS_CACHE") from error


def joined(tables: Iterable[np.ndarray], folder: str | os.PathLike | None = None) -> np.ndarray:
  """Returns the rows of several tables below each other; many stay on the disk."""
  buffer = RowBuffer(folder)
  for rows in tables:
    step = max(1, (1 << 22) // rows.shape[1])
    for start in range(0, len(rows), step):
      buffer.add(rows[start:start + step])
  return buffer.finish()


class Progress:
  """Logs how far the reading of a large file is, every ten seconds."""

  def __init__(self, path: str | os.PathLike, unit: str):
    """Initializes the clock.

    Args:
      path: The file.
      unit: Name of what is counted, in the plural.
    """
    self._path, self._unit, self._last = path, unit, time.monotonic()

  def show(self, number: int) -> None:
    """Logs a number, unless it is too early."""
    if time.monotonic() - self._last > _SECONDS:
      self._last = time.monotonic()
      logging.getLogger(PROGRESS).info("%s: %s %s are read", self._path, f"{number:,}", self._unit)
