"""One reader per file format. Whatever is wrong with a file becomes one line that names the file and the place."""
import array
import bz2
import contextlib
import csv
import gzip
import hashlib
import io
import lzma
import math
import os
import struct
import tarfile
import wave
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from embeddings_jax.types import InputError


class _Zstandard(io.RawIOBase):
  """The bytes of a .zst file, one frame after another. Unlike zstandard's reader it tells of one cut short."""

  def __init__(self, path: str | os.PathLike, mode: str):
    try:
      import zstandard
    except ImportError as e:
      raise InputError(f"{path}: the package zstandard is missing, which reads .zst; pip install zstandard") from e
    self._zstandard, self._file = zstandard, open(path, mode)
    self._frame, self._data, self._found = None, b"", memoryview(b"")

  def readable(self) -> bool:
    return True

  def readinto(self, buffer: memoryview) -> int:
    while not self._found:
      self._data = self._data or self._file.read(1 << 14)
      if not self._data:
        if self._frame is not None:
          raise EOFError("it ends within a frame")
        return 0
      if self._frame is None:
        # Frames of `zstd --ultra --long=31` have windows of 2 GB.
        self._frame = self._zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
      try:
        self._found = memoryview(self._frame.decompress(self._data))
      except self._zstandard.ZstdError as e:
        raise zlib.error(str(e)) from e
      self._data = b""
      if self._frame.eof:
        self._data, self._frame = self._frame.unused_data, None
    size = min(len(buffer), len(self._found))
    buffer[:size] = self._found[:size]
    self._found = self._found[size:]
    return size

  def close(self) -> None:
    if not self.closed:
      self._file.close()
    super().close()


_OPENERS = {".gz": gzip.open, ".tgz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open,
            ".zst": lambda path, mode: io.BufferedReader(_Zstandard(path, mode), 1 << 16)}
_IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
IN_MEMORY_BYTES = 1 << 30
GAPS = ("", "na", "nan", "null", "?")  # Cells without a value, in small letters.
_CHUNK = 1 << 22  # Elements looked at together when a big array is checked.


def sha256(path: str | os.PathLike) -> str:
  """SHA-256 (hex) of a file's bytes."""
  with opened(path, decompress=False) as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def checked_file(data_dir: str | os.PathLike | None, name: str, checksum: str) -> Path:
  """The path of a catalog file below `data_dir` (default `$EMBEDDINGS_DATA`), its SHA-256 verified."""
  data_dir = data_dir or os.environ.get("EMBEDDINGS_DATA")
  if not data_dir:
    raise InputError(f"{name}: needs the folder of data sets; give it with --data_dir or $EMBEDDINGS_DATA")
  path = Path(data_dir).expanduser() / name
  if not path.is_file():
    raise InputError(f"{path}: no such file; point --data_dir or $EMBEDDINGS_DATA to the folder that has {name}")
  got = sha256(path)
  if got != checksum:
    raise InputError(f"{path}: damaged or another version, SHA-256 is {got} and should be {checksum}; get it again")
  return path


@contextlib.contextmanager
def opened(path: str | os.PathLike, decompress: bool = True) -> Iterator[BinaryIO]:
  """A binary file, decompressed by its suffix (.gz, .xz, .bz2, .zst); errors while it is read name it."""
  opener = _OPENERS.get(Path(path).suffix, open) if decompress else open
  try:
    with opener(path, "rb") as file:
      yield file
  except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as e:
    raise InputError(f"{path}: broken compressed file ({e}); get it again") from e
  except OSError as e:  # bz2 says only "Invalid data stream", without an errno.
    raise InputError(f"{path}: cannot be read ({e.strerror or e})") from e


def read_lines(path: str | os.PathLike, errors: str = "strict") -> Iterator[str]:
  """The lines of a UTF-8 file, without their ends. `errors` is `strict` or `replace`."""
  if errors not in ("strict", "replace"):
    raise InputError(f"--config.data.errors={errors}: must be 'strict' or 'replace'")
  offset = 0
  with opened(path) as file:
    for raw in file:
      try:
        line = raw.decode("utf-8", errors)
      except UnicodeDecodeError as e:
        raise InputError(f"{path}: not UTF-8 at byte {offset + e.start}; convert it, or go on with replacement "
                         "characters by --config.data.errors=replace") from e
      yield (line if offset else line.removeprefix("\ufeff")).rstrip("\r\n")
      offset += len(raw)


def tar_members(path: str | os.PathLike) -> Iterator[tuple[str, bytes]]:
  """Names and bytes of the files of a tar archive, of which nothing is written to the disk."""
  try:
    with opened(path) as file, tarfile.open(fileobj=file, mode="r|") as archive:
      for member in archive:
        if member.isfile():
          yield member.name, archive.extractfile(member).read()
  except tarfile.TarError as e:
    raise InputError(f"{path}: damaged archive ({e}); get it again") from e


def read_csv(path: str | os.PathLike, gaps: bool = False) -> tuple[np.ndarray, list[str] | None]:
  """Numeric rows of a .csv or .tsv file: `(float32 [num_rows, num_columns], header or None)`.

  The first line is a header if it has words only; a line that mixes words and numbers is an error. With `gaps`, a
  cell that is empty, NA, NaN, null or ? is a missing value, NaN.
  """
  delimiter = "\t" if ".tsv" in Path(path).suffixes else ","
  reader = csv.reader(read_lines(path), delimiter=delimiter)
  columns, width, values, places = None, None, array.array("f"), array.array("q")
  try:
    for cells in reader:
      if not any(cell.strip() for cell in cells):
        continue
      if width is None:
        width = len(cells)
        if not any(is_number(cell) for cell in cells):
          columns = [cell.strip() for cell in cells]
          continue
      if len(cells) != width:
        raise InputError(f"{path}: line {reader.line_num} has {len(cells)} columns, the lines before have {width}")
      try:
        if gaps:
          cells = ["nan" if cell.strip().lower() in GAPS else cell for cell in cells]
        values.extend(map(float, cells))
      except ValueError:
        at = next(i for i, cell in enumerate(cells) if not is_number(cell))
        what = f"{cells[at]!r} is not a number" if cells[at].strip() else "the value is missing"
        raise InputError(f"{path}: line {reader.line_num}, column {at + 1}: {what}") from None
      places.append(reader.line_num)
  except csv.Error as e:
    raise InputError(f"{path}: line {reader.line_num}: {e}") from e
  if not places:
    raise InputError(f"{path}: is empty, it has no row of numbers")
  rows = np.array(values, np.float32).reshape(-1, width)
  bad = _first_not_finite(rows, gaps)
  if bad:
    row, column = bad
    raise InputError(f"{path}: line {places[row]}, column {column + 1}: {rows[bad]} is not a finite number")
  return rows, columns


def read_npy(path: str | os.PathLike, gaps: bool = False) -> np.ndarray:
  """Rows `[num_rows, num_features]` of a .npy file as float32; trailing axes are flattened.

  With `gaps`, NaN is a missing value. More than `IN_MEMORY_BYTES` of float32 rows stay memory-mapped.
  """
  try:
    rows = np.load(path, mmap_mode="r", allow_pickle=False)
  except OSError as e:
    raise InputError(f"{path}: cannot be read ({e.strerror or e})") from e
  except (ValueError, EOFError, SyntaxError) as e:
    raise InputError(f"{path}: not a .npy file of numbers ({str(e).splitlines()[0]})") from e
  if not isinstance(rows, np.ndarray):
    raise InputError(f"{path}: holds several arrays; save the rows alone with np.save")
  if rows.dtype.kind not in "fiub":
    raise InputError(f"{path}: holds {rows.dtype}, should hold numbers")
  if rows.ndim < 2 or not rows.size:
    raise InputError(f"{path}: has shape {rows.shape}, should be [rows, features] and not empty")
  rows = rows.reshape(len(rows), -1)
  if rows.dtype != np.float32:
    with np.errstate(over="ignore"):  # A number too great for float32 is reported as infinite below.
      rows = rows.astype(np.float32)
  bad = _first_not_finite(rows, gaps)
  if bad:
    raise InputError(f"{path}: row {bad[0]}, column {bad[1]} (from 0): {rows[bad]} is not a finite number")
  return rows if rows.nbytes > IN_MEMORY_BYTES else np.array(rows)


def read_idx(path: str | os.PathLike) -> np.ndarray:
  """The array of an idx file (the format of MNIST)."""
  with opened(path) as file:
    data = file.read()
  if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX_TYPES or not 1 <= data[3] <= 8:
    raise InputError(f"{path}: not an idx file")
  dtype, num_axes = np.dtype(_IDX_TYPES[data[2]]), data[3]
  start = 4 + 4 * num_axes
  shape = struct.unpack(f">{num_axes}I", data[4:start]) if len(data) >= start else (0,)
  expected = start + math.prod(shape) * dtype.itemsize
  if len(data) != expected or not math.prod(shape):
    raise InputError(f"{path}: broken idx file, {len(data)} bytes and should be {expected}")
  values = np.frombuffer(data, dtype, offset=start).reshape(shape)
  return values.astype(dtype.newbyteorder("="))


def read_wav(file: str | os.PathLike | bytes, name: str = "") -> tuple[np.ndarray, int]:
  """A PCM wav (8 or 16 bit; channels are averaged): `(int16 [num_samples], samples per second)`."""
  name = name or str(file)
  if not isinstance(file, bytes):
    with opened(file) as handle:
      file = handle.read()
  if not file:
    raise InputError(f"{name}: is empty")
  try:
    with wave.open(io.BytesIO(file)) as clip:
      channels, width, rate, length = clip.getparams()[:4]
      if width not in (1, 2):
        raise InputError(f"{name}: {8 * width} bit samples; convert it to 16 bit PCM")
      data = clip.readframes(length)
  except (wave.Error, EOFError, struct.error) as e:
    raise InputError(f"{name}: not a PCM wav ({str(e) or 'it ends too early'}); convert it to 16 bit PCM") from e
  if not length or not rate:
    raise InputError(f"{name}: has no samples")
  if len(data) != length * channels * width:
    raise InputError(f"{name}: truncated wav, {len(data)} of {length * channels * width} bytes of samples")
  if width == 1:  # 8 bit samples are unsigned, around 128.
    samples = (np.frombuffer(data, np.uint8).astype(np.int16) - 128) * 256
  else:
    samples = np.frombuffer(data, "<i2").astype(np.int16)
  if channels > 1:
    samples = np.rint(samples.reshape(-1, channels).mean(1)).astype(np.int16)
  return samples, rate


def is_number(cell: str) -> bool:
  """Whether a cell of a table can be read as a number, nan and inf among them."""
  try:
    float(cell)
  except ValueError:
    return False
  return True


def _first_not_finite(rows: np.ndarray, gaps: bool = False) -> tuple[int, int] | None:
  """Row and column of the first infinite or, without `gaps`, NaN entry."""
  step = max(1, _CHUNK // rows.shape[1])
  for start in range(0, len(rows), step):
    part = rows[start:start + step]
    bad = np.argwhere(np.isinf(part) if gaps else ~np.isfinite(part))
    if len(bad):
      return start + int(bad[0, 0]), int(bad[0, 1])
  return None
