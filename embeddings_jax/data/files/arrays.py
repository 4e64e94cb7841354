"""Arrays in .npy, .npz and idx files. Headers are checked against the size of the file before allocation."""
import io
import math
import os
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from embeddings_jax.data.files.streams import opened, refusing
from embeddings_jax.types import InputError

IN_MEMORY_BYTES = 1 << 30
_CHUNK = 1 << 22  # Elements that are looked at together.
_IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_MAX_HEADER = 1 << 16  # Bytes of the description in a .npy file; NumPy itself refuses more than 10,000.
_MAX_AXES = 8  # Of idx files; MNIST has 3.
_MOST_COMPRESSION = 1100  # Deflate makes 1032 bytes of one at most.


def load_npy(path: str | os.PathLike, mode: str = "r") -> np.ndarray:
  """Maps a .npy file into memory, whatever its numbers or strings are. Nothing is unpickled.

  Args:
    path: The file.
    mode: `r` or `r+`, as for `numpy.memmap`.

  Raises:
    InputError: It cannot be read, is no .npy file, holds objects, or is shorter than its header says.
  """
  try:
    with open(path, "rb") as file, refusing(path, "not a .npy file"):
      dtype, shape, fortran = _header(file)
      start, size = file.tell(), os.fstat(file.fileno()).st_size
  except OSError as error:
    raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
  _check_size(path, size - start, dtype, shape)
  with refusing(path, "not a .npy file"):
    if not math.prod(shape):
      return np.zeros(shape, dtype)
    return np.memmap(path, dtype, mode, start, shape, "F" if fortran else "C")


def parse_npy(data: bytes, where: object) -> np.ndarray:
  """Parses the content of a .npy file; see `load_npy`. The result is in memory and writable."""
  with refusing(where, "not a .npy file"):
    file = io.BytesIO(data)
    dtype, shape, fortran = _header(file)
  _check_size(where, len(data) - file.tell(), dtype, shape)
  with refusing(where, "not a .npy file"):
    values = np.frombuffer(data, dtype, math.prod(shape), file.tell()) if math.prod(shape) else np.zeros(0, dtype)
    return values.reshape(shape, order="F" if fortran else "C").copy()


def load_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Reads the arrays of a .npz file into memory. Nothing is unpickled.

  Raises:
    InputError: It cannot be read, is no .npz file, is damaged, or an array is unlike its header.
  """
  try:
    file = open(path, "rb")
  except OSError as error:
    raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
  arrays = {}
  with file, refusing(path, "not a .npz file"):
    with zipfile.ZipFile(file) as archive:
      size = os.fstat(file.fileno()).st_size
      for member in archive.infolist():
        if not member.filename.endswith(".npy"):
          continue
        packed = member.compress_type == zipfile.ZIP_DEFLATED
        if not packed and member.compress_type != zipfile.ZIP_STORED:
          raise InputError(f"{path}: {member.filename[:60]!r} is compressed by an unknown method")
        if member.file_size > min(member.compress_size, size) * (_MOST_COMPRESSION if packed else 1) + 100:
          raise InputError(f"{path}: damaged, {member.filename[:60]!r} cannot have {member.file_size} bytes")
        arrays[member.filename.removesuffix(".npy")] = parse_npy(archive.read(member), path)
  return arrays


def read_rows(path: str | os.PathLike, gaps: bool = False) -> np.ndarray:
  """Reads rows `[num_rows, num_features]` of a .npy file without loss; trailing axes are flattened.

  Args:
    path: The file.
    gaps: NaN is a missing value.

  Returns:
    Float32 if that holds every value exactly, else float64, or int64 beyond 2**53. Arrays of more than
    `IN_MEMORY_BYTES` stay memory-mapped, in the type of the file.

  Raises:
    InputError: No .npy file of numbers, no rows, or a value that float32 cannot hold after all.
  """
  rows = load_npy(path)
  if rows.dtype.kind not in "fiub":
    raise InputError(f"{path}: holds {rows.dtype}, should hold numbers")
  if rows.ndim < 2 or not rows.size:
    raise InputError(f"{path}: has shape {rows.shape}, should be [rows, features] and not empty")
  rows = rows.reshape(len(rows), -1)
  if rows.nbytes <= IN_MEMORY_BYTES:
    rows = lossless(rows)
  bad = first_not_finite(rows, gaps)
  if bad:
    raise InputError(f"{path}: row {bad[0]}, column {bad[1]} (from 0): {as_float32(rows[bad])} is not a finite "
                     "number")
  return rows


def read_npy(path: str | os.PathLike, gaps: bool = False) -> np.ndarray:
  """Reads rows of a .npy file as float32; see `read_rows`. Float32 rows that do not fit stay memory-mapped."""
  rows = read_rows(path, gaps)
  return rows if rows.dtype == np.float32 else as_float32(rows)


def lossless(values: np.ndarray) -> np.ndarray:
  """Returns numbers as float32 if that is exact, else as float64, else as the integers that they are; in memory."""
  if values.dtype == np.float32:
    return np.array(values)
  # Beyond float32's range the result is infinite, which callers report.
  single = as_float32(values)
  if values.dtype.kind == "b" or values.dtype.itemsize <= 2 or _same(single, values):
    return single
  double = values.astype(np.float64)
  if values.dtype.kind == "f" or _same(double, values):
    return double
  return values.astype(values.dtype.newbyteorder("="))


def as_float32(values: np.ndarray) -> np.ndarray:
  """Returns numbers as float32; too great ones become infinite without a warning."""
  with np.errstate(over="ignore"):
    return np.asarray(values).astype(np.float32)


def first_not_finite(rows: np.ndarray, gaps: bool = False) -> tuple[int, int] | None:
  """Returns row and column of the first entry that is infinite as float32 or, without `gaps`, NaN."""
  step = max(1, _CHUNK // rows.shape[1])
  for start in range(0, len(rows), step):
    part = as_float32(rows[start:start + step])
    bad = np.argwhere(np.isinf(part) if gaps else ~np.isfinite(part))
    if len(bad):
      return start + int(bad[0, 0]), int(bad[0, 1])
  return None


def create_npy(path: str | os.PathLike, dtype: np.dtype | type, shape: tuple[int, ...]) -> np.memmap:
  """Creates a .npy file and maps it for writing, with all its space allocated.

  A page that finds the disk full while it is written kills the process; allocation fails with an error instead.

  Raises:
    OSError: The disk is full.
  """
  table = np.lib.format.open_memmap(path, "w+", dtype, shape)
  size = table.offset + table.nbytes
  with open(path, "r+b") as file:
    if hasattr(os, "posix_fallocate"):
      os.posix_fallocate(file.fileno(), 0, size)
    else:
      file.seek(table.offset)
      for start in range(0, table.nbytes, 1 << 20):
        file.write(bytes(min(1 << 20, table.nbytes - start)))
  return table


def read_idx(path: str | os.PathLike) -> np.ndarray:
  """Reads the array of an idx file, the format of MNIST."""
  with opened(path) as file:
    data = file.read()
  if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX_TYPES or not 1 <= data[3] <= _MAX_AXES:
    raise InputError(f"{path}: not an idx file")
  dtype, num_axes = np.dtype(_IDX_TYPES[data[2]]), data[3]
  start = 4 + 4 * num_axes
  shape = struct.unpack(f">{num_axes}I", data[4:start]) if len(data) >= start else (0,)
  expected = start + math.prod(shape) * dtype.itemsize
  if len(data) != expected or not math.prod(shape):
    raise InputError(f"{path}: broken idx file, {len(data)} bytes and should be {expected}")
  values = np.frombuffer(data, dtype, offset=start).reshape(shape)
  return values.astype(dtype.newbyteorder("="))


def integer(arrays: Mapping[str, np.ndarray], name: str, axes: int, where: Path | str) -> np.ndarray:
  """Returns an array of whole numbers with so many axes from the content of a .npz file, as int64.

  Raises:
    InputError: It is missing, or of another kind.
  """
  values = arrays.get(name)
  if values is None or values.dtype.kind not in "iu" or values.ndim != axes:
    kind = "is missing" if values is None else f"is {values.dtype} {list(values.shape)}"
    raise InputError(f"{where}: the array {name!r} {kind}, expected whole numbers with {axes} axes")
  if values.dtype.kind == "u" and values.size and values.max() >= 1 << 63:
    raise InputError(f"{where}: the array {name!r} has numbers beyond 63 bits")
  return values.astype(np.int64)


def _header(file: BinaryIO) -> tuple[np.dtype, tuple[int, ...], bool]:
  version = np.lib.format.read_magic(file)
  if version not in ((1, 0), (2, 0)):
    raise ValueError(f"format {version[0]}.{version[1]}")
  read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
  start, length = file.tell(), int.from_bytes(file.read(2 if version == (1, 0) else 4), "little")
  if length > _MAX_HEADER:  # NumPy allocates it before it reads.
    raise ValueError(f"a header of {length} bytes")
  file.seek(start)
  shape, fortran, dtype = read(file)
  return dtype, shape, fortran


def _check_size(where: object, size: int, dtype: np.dtype, shape: tuple[int, ...]) -> None:
  if dtype.hasobject:
    raise InputError(f"{where}: not a .npy file of numbers (it holds Python objects, which are never unpickled)")
  if dtype.fields or not dtype.itemsize or len(shape) > 32 or any(length < 0 for length in shape):
    raise InputError(f"{where}: not a .npy file of numbers (it holds {str(dtype)[:60]} {str(shape)[:60]})")
  needed = math.prod(shape) * dtype.itemsize
  if needed > size:
    raise InputError(f"{where}: not a .npy file of numbers (truncated: {size} bytes of values, the header says "
                     f"{needed if needed < 1 << 64 else 'more than 2**64'})")


def _same(values: np.ndarray, others: np.ndarray) -> bool:
  """Returns whether numbers are equal after a conversion, NaN included; a chunk at a time."""
  step = max(1, _CHUNK // max(1, math.prod(values.shape[1:])))
  for start in range(0, len(values), step):
    one, other = values[start:start + step], others[start:start + step]
    if other.dtype.kind in "iu":
      # Comparing integers with floats would convert them; the conversion back tells.
      inside = np.abs(one.astype(np.float64)) < 2.0**63
      if not inside.all() or (one.astype(np.int64) != other).any():
        return False
    elif not np.array_equal(one.astype(np.float64), other.astype(np.float64), equal_nan=True):
      return False
  return True
