"""Derived data (token ids, decoded text) built by one process while others wait, and never half built."""
import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from embeddings_jax.types import InputError


def cache_root(cache_dir: str | os.PathLike | None = None) -> Path:
  """The folder of derived data: the argument, else `$EMBEDDINGS_CACHE`, else `~/.cache/embeddings_jax`."""
  return Path(cache_dir or os.environ.get("EMBEDDINGS_CACHE") or "~/.cache/embeddings_jax").expanduser()


def digest(*parts: Any) -> str:
  """SHA-256 (hex) of JSON-able values: the key of what is derived from them."""
  return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def cached(path: str | os.PathLike, build: Callable[[Path], None]) -> Path:
  """Returns `path`, which is first made by `build(temporary_path)` if it is not there.

  `build` makes a file or a folder under the name it is given, which is renamed when it is complete:
  so whoever sees `path` sees all of it, whenever a process was killed. The lock belongs to the open
  file, so the kernel frees it with its process, and what a dead builder left is swept away.

  Raises:
    InputError: the folder cannot be written or locked, or the disk is full.
  """
  path = Path(path)
  if path.exists():
    return path
  advice = "choose another folder with --cache_dir or $EMBEDDINGS_CACHE"
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = open(path.with_name(path.name + ".lock"), "w")
  except OSError as e:
    raise InputError(f"{path.parent}: the cache cannot be written ({e.strerror}); {advice}") from e
  with lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as e:
      raise InputError(f"{path.parent}: the cache cannot be locked ({e.strerror}); {advice}") from e
    if path.exists():  # Another process built it while this one waited.
      return path
    temporary = path.with_name(path.name + ".partial")
    _remove(temporary)
    logging.info("building %s", path)
    try:
      build(temporary)
      os.rename(temporary, path)
    except OSError as e:
      # NumPy says "N requested and M written" of a full disk, without an errno.
      if e.errno in (errno.ENOSPC, errno.EDQUOT) or "requested and" in str(e):
        raise InputError(f"{path.parent}: no space left for the cache; {advice}") from e
      raise
    finally:
      _remove(temporary)
  return path


def _remove(path: Path) -> None:
  if path.is_dir():
    shutil.rmtree(path)
  else:
    path.unlink(missing_ok=True)
