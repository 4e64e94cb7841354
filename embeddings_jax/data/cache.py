"""Derived data (token ids, decoded text): built by one process while others wait, never half built, and verified."""
import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock

from embeddings_jax.data.files.atomic import write_atomically
from embeddings_jax.data.files.json import read_json
from embeddings_jax.types import InputError

_ADVICE = "choose another folder with cache_dir or $EMBEDDINGS_CACHE"
_SUMMED = 1 << 24  # Bytes at the beginning of a file whose sum is compared: headers, and small files whole.


def cache_root(cache_dir: str | os.PathLike | None = None) -> Path:
  """The folder of derived data: the argument, else `$EMBEDDINGS_CACHE`, else `~/.cache/embeddings_jax`."""
  return Path(cache_dir or os.environ.get("EMBEDDINGS_CACHE") or "~/.cache/embeddings_jax").expanduser()


def digest(*parts: Any) -> str:
  """SHA-256 (hex) of JSON-able values: the key of what is derived from them."""
  return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def cached(path: str | os.PathLike, build: Callable[[Path], None]) -> Path:
  """Returns `path` after building it with `build(temporary_path)`, unless it exists and is sound.

  `build` makes a file or a folder under the name it is given, which is renamed when it is complete: whoever sees
  `path` sees all of it, whenever a process was killed. The lock belongs to the open file, so the kernel frees it with
  its process; what a dead builder left is removed. A manifest beside `path` has the size of every file and the sum of
  its beginning; an entry that differs from it is named, removed and built again.

  Raises:
    InputError: The folder cannot be written or locked, or the disk is full.
  """
  path = Path(path)
  if path.exists() and not _damage(path):
    return path
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(path.name + ".lock").touch()
  except OSError as e:
    raise InputError(f"{path.parent}: the cache cannot be written ({e.strerror}); {_ADVICE}") from e
  lock = filelock.FileLock(path.with_name(path.name + ".lock"))
  try:
    held = lock.acquire()
  except (OSError, NotImplementedError) as e:
    raise InputError(f"{path.parent}: the cache cannot be locked ({e}); {_ADVICE}") from e
  with held:
    if path.exists():  # Another process built it while this one waited.
      if not (damage := _damage(path)):
        return path
      logging.warning("%s: %s; the entry is removed and built again", path, damage)
      _remove(path)
    temporary = path.with_name(path.name + ".partial")
    _remove(temporary)
    logging.info("building %s", path)
    try:
      with naming_full_disks(path.parent):
        build(temporary)
        write_atomically(_manifest(path), json.dumps(_contents(temporary)))
        os.rename(temporary, path)
    finally:
      _remove(temporary)
  return path


@contextlib.contextmanager
def naming_full_disks(folder: Path) -> Iterator[None]:
  """Turns the error of a full disk into an `InputError` that names the folder of the cache."""
  try:
    yield
  except OSError as error:
    # NumPy says "N requested and M written" of a full disk, without an errno.
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "requested and" in str(error):
      raise InputError(f"{folder}: no space left for the cache; {_ADVICE}") from error
    raise


def _manifest(path: Path) -> Path:
  return path.with_name(path.name + ".manifest")


def _contents(path: Path) -> dict[str, list[int]]:
  """Size, and the sum of the beginning, of a file or of every file of a folder, by relative path."""
  files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
  contents = {}
  for file in files:
    value = 0
    with open(file, "rb") as opened:
      while opened.tell() < _SUMMED and (data := opened.read(1 << 16)):
        value = zlib.crc32(data, value)
    contents[file.relative_to(path).as_posix()] = [file.stat().st_size, value]
  return contents


def _damage(path: Path) -> str:
  """Returns how an entry differs from its manifest, or "". An entry of an older version gets a manifest."""
  try:
    contents = _contents(path)
    if not _manifest(path).exists():
      with contextlib.suppress(OSError):  # Nobody may write to a shared cache.
        write_atomically(_manifest(path), json.dumps(contents))
      return ""
    for name, expected in read_json(_manifest(path)).items():
      size = contents.get(name, [None])[0]
      file = f"{name!r} " if name != "." else ""
      if size is None:
        return f"{file}is missing"
      if contents[name] != expected:
        return f"{file}is damaged ({size} bytes)"
  except (OSError, InputError) as error:
    return f"it cannot be verified ({error})"
  return ""


def _remove(path: Path) -> None:
  if path.is_dir():
    shutil.rmtree(path)
  else:
    path.unlink(missing_ok=True)
