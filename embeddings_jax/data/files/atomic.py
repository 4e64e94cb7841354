"""Atomic replacement of files."""
import bz2
import contextlib
import errno
import gzip
import lzma
import os
import pathlib
import secrets
from collections.abc import Iterator
from typing import BinaryIO

from etils import epath

from embeddings_jax.errors import InputError

# Gzip's header has no time, so that the same content is the same file.
_COMPRESSED = {".gz": lambda file: gzip.GzipFile("", "wb", fileobj=file, mtime=0),
               ".bz2": lambda file: bz2.open(file, "wb"), ".xz": lambda file: lzma.open(file, "wb")}


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
  """Opens a draft that replaces `path` when the block ends; an error or a kill leaves the old file.

  The draft lies beside `path` under a new random name and is created exclusively, so that a link planted at a
  predictable name is never followed and two writers never share a draft.

  Args:
    path: The file to replace, local or any that `etils.epath` reaches.

  Raises:
    OSError: The file cannot be written; `filename` is `path`, also on a full disk.
  """
  path = epath.Path(path)
  draft = path.parent / f".{path.name}.{secrets.token_hex(8)}.draft"
  local = "://" not in str(path)
  try:
    if local:
      flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
      with open(os.open(draft, flags, 0o666), "wb") as file:
        yield file
      os.replace(draft, path)  # That of `etils` hides the number of an error.
    else:
      with draft.open("wb") as file:
        yield file
      draft.replace(path)
  except BaseException as error:
    with contextlib.suppress(OSError):
      draft.unlink(missing_ok=True)
    if isinstance(error, OSError) and error.errno is None:  # As NumPy's of a full disk.
      raise OSError(errno.EIO, str(error), os.fspath(path)) from error
    # A write to a full disk names no file.
    if isinstance(error, OSError) and error.filename in (None, os.fspath(draft)):
      error.filename = os.fspath(path)
    raise


def write_atomically(path: str | os.PathLike, content: bytes | str) -> None:
  """Replaces the content of a file at once; see `replacing`. Text is written as UTF-8."""
  with replacing(path) as file:
    file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing_compressed(path: str | os.PathLike) -> Iterator[BinaryIO]:
  """Opens a draft as `replacing` does; what is written is compressed where the name ends in .gz, .xz or .bz2.

  Raises:
    InputError: The name ends in .zst.
  """
  suffix = pathlib.Path(path).suffix
  if suffix == ".zst":
    raise InputError(f"{path}: is written plain or as .gz, .xz or .bz2, not as .zst")
  with replacing(path) as draft:
    opener = _COMPRESSED.get(suffix)
    with opener(draft) if opener else contextlib.nullcontext(draft) as file:
      yield file
