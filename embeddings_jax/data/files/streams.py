"""Bytes, lines and archive members of files that may be compressed, and the conversion of foreign errors."""
import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from embeddings_jax.types import InputError


class _Zstandard(io.RawIOBase):
  """The bytes of a .zst file, frame after frame. Unlike zstandard's own reader it notices a truncated frame."""

  def __init__(self, path: str | os.PathLike, mode: str):
    try:
      import zstandard
    except ImportError as e:
      raise InputError(f"{path}: the package zstandard is missing, which reads .zst; pip install zstandard") from e
    self._zstandard, self._file = zstandard, open(path, mode)
    self._frame, self._data, self._decoded = None, b"", memoryview(b"")

  def readable(self) -> bool:
    return True

  def readinto(self, buffer: memoryview) -> int:
    while not self._decoded:
      self._data = self._data or self._file.read(1 << 14)
      if not self._data:
        if self._frame is not None:
          raise EOFError("it ends within a frame")
        return 0
      if self._frame is None:
        # Frames of `zstd --ultra --long=31` have windows of 2 GB.
        self._frame = self._zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
      try:
        self._decoded = memoryview(self._frame.decompress(self._data))
      except self._zstandard.ZstdError as e:
        raise zlib.error(str(e)) from e
      self._data = b""
      if self._frame.eof:
        self._data, self._frame = self._frame.unused_data, None
    size = min(len(buffer), len(self._decoded))
    buffer[:size] = self._decoded[:size]
    self._decoded = self._decoded[size:]
    return size

  def close(self) -> None:
    if not self.closed:
      self._file.close()
    super().close()


_OPENERS = {".gz": gzip.open, ".tgz": gzip.open, ".xz": lzma.open, ".txz": lzma.open,
            ".bz2": bz2.open, ".tbz2": bz2.open,
            ".zst": lambda path, mode: io.BufferedReader(_Zstandard(path, mode), 1 << 16)}
_LINE = re.compile("[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def quoted(value: object, length: int = 60) -> str:
  """Returns the `repr` of a value from a file, shortened for an error message of one line."""
  text = repr(value[:length + 1] if isinstance(value, (str, bytes)) else value)
  return text if len(text) <= length + 3 else f"{text[:length]}..."


def summary(error: BaseException, length: int = 120) -> str:
  """Returns the first line of an exception's message, or its type if there is none, for an error of one line."""
  text = " ".join(str(error).split("\n")[0].split())
  return (text if len(text) <= length else f"{text[:length]}...") or type(error).__name__


@contextlib.contextmanager
def refusing(where: object, what: str) -> Iterator[None]:
  """Turns any exception of a foreign parser into an `InputError`.

  Damaged files make parsers raise whatever their authors did not think of, so no list of types is complete.

  Args:
    where: Name of the file in the message.
    what: What is wrong with it, such as "not a .npy file".

  Raises:
    InputError: The block raised an exception. `InputError` and `MemoryError` pass.
  """
  try:
    yield
  except (InputError, MemoryError):
    raise
  except Exception as error:
    raise InputError(f"{where}: {what} ({summary(error)})") from error


def sha256(path: str | os.PathLike) -> str:
  """Returns the SHA-256 (hex) of a file's bytes."""
  with opened(path, decompress=False) as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def checked_file(data_dir: str | os.PathLike | None, name: str, checksum: str) -> Path:
  """Returns the path of a catalog file below `data_dir` (default `$EMBEDDINGS_DATA`) after verifying its SHA-256."""
  data_dir = data_dir or os.environ.get("EMBEDDINGS_DATA")
  if not data_dir:
    raise InputError(f"{name}: needs the folder of datasets; give it with data_dir or $EMBEDDINGS_DATA")
  path = Path(data_dir).expanduser() / name
  if not path.is_file():
    raise InputError(f"{path}: no such file; point data_dir or $EMBEDDINGS_DATA to the folder that has {name}")
  actual = sha256(path)
  if actual != checksum:
    raise InputError(f"{path}: damaged or another version, SHA-256 is {actual} and should be "
                     f"{checksum}; get it again")
  return path


@contextlib.contextmanager
def opened(path: str | os.PathLike, decompress: bool = True) -> Iterator[BinaryIO]:
  """Opens a binary file, decompressed by its suffix (.gz, .xz, .bz2, .zst); errors while reading name it."""
  opener = _OPENERS.get(Path(path).suffix, open) if decompress else open
  try:
    with opener(path, "rb") as file:
      yield file
  except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as e:
    raise InputError(f"{path}: broken compressed file ({summary(e)}); get it again") from e
  except OSError as e:  # bz2 says only "Invalid data stream", without an errno.
    raise InputError(f"{path}: cannot be read ({e.strerror or summary(e)})") from e


def text_lines(path: str | os.PathLike, errors: str = "strict") -> Iterator[str]:
  r"""Yields the lines of a UTF-8 file with their ends, which are \n, \r\n or \r.

  A byte order mark is skipped, also at the beginning of a later line, where `cat` leaves it.

  Args:
    path: The file, perhaps compressed.
    errors: `strict` or `replace`.

  Raises:
    InputError: The file cannot be read, or not as UTF-8.
  """
  if errors not in ("strict", "replace"):
    raise InputError(f"errors={errors}: must be 'strict' or 'replace'")
  offset = 0
  with opened(path) as file:
    for raw in file:
      if not offset and raw.startswith(_UTF_16):
        raise InputError(f"{path}: is UTF-16; convert it, as by iconv -f UTF-16 -t UTF-8")
      try:
        line = raw.decode("utf-8", errors)
      except UnicodeDecodeError as e:
        raise InputError(f"{path}: not UTF-8 at byte {offset + e.start}; convert it, or go on with replacement "
                         "characters by errors=replace") from e
      offset += len(raw)
      if "\r" not in line:
        yield line.removeprefix("\ufeff")
      else:
        yield from (part.removeprefix("\ufeff") for part in _LINE.findall(line))


def read_lines(path: str | os.PathLike, errors: str = "strict") -> Iterator[str]:
  """Yields the lines of a UTF-8 file without their ends; see `text_lines`."""
  for line in text_lines(path, errors):
    yield line.rstrip("\r\n")


def tar_members(path: str | os.PathLike, largest: int = 0) -> Iterator[tuple[str, bytes]]:
  """Yields names and bytes of the files in a tar archive. Nothing is extracted to the disk.

  Args:
    path: The archive, perhaps compressed.
    largest: Bytes that a file may have; 0: any number.

  Raises:
    InputError: It is damaged, or a file is sparse or too large.
  """
  with opened(path) as file:
    try:
      with tarfile.open(fileobj=file, mode="r|") as archive:
        for member in archive:
          if member.issparse():  # Its holes, which take no room in the archive, would be read as zeros.
            raise InputError(f"{path}: the member {quoted(member.name)} is sparse; pack it without --sparse")
          if largest and member.isfile() and member.size > largest:
            raise InputError(f"{path}: the member {quoted(member.name)} has {member.size:,} bytes, too many")
          if member.isfile():
            yield member.name, archive.extractfile(member).read()
    except (InputError, MemoryError, EOFError, OSError, lzma.LZMAError, zlib.error):
      raise  # `opened` names what is wrong with the compressed file.
    except Exception as e:  # Parsers raise over damaged files whatever their authors did not think of.
      raise InputError(f"{path}: damaged archive ({summary(e)}); get it again") from e
