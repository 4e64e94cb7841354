"""Checksums of checkpoints: written beside the files after each commit, verified before anything is restored."""
import hashlib
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import orbax.checkpoint as ocp
from etils import epath

from embeddings_jax.data.files.atomic import write_atomically
from embeddings_jax.data.files.json import read_json
from embeddings_jax.types import InputError

CHECKSUMS = "checksums.{}.json"  # One for each process that hashed a share of the files.
REQUIRED = ("metadata/metadata", "state/_METADATA")  # Files without which nothing can be restored.


class Inspection(NamedTuple):
  """The result of verifying a checkpoint.

  Attributes:
    damage: A line for each file that is missing or does not have its checksum.
    unverified: Whether some files have no checksum, as after a kill between the commit and the checksums.
  """

  damage: list[str]
  unverified: bool


def inspect_checkpoint(folder: epath.Path, share: int = 0, shares: int = 1, within: str = "") -> Inspection:
  """Verifies the files of a committed checkpoint.

  Args:
    folder: The checkpoint.
    share: Index of the share of the files to hash, for several processes.
    shares: Number of shares.
    within: Prefix of the names to verify.
  """
  if not folder.is_dir():
    return Inspection([f"{folder} is not a directory"], True)
  expected: dict[str, str] = {}
  for path in sorted(folder.glob(CHECKSUMS.format("*"))):
    try:
      expected |= read_json(path)
    except InputError as error:
      return Inspection([f"{error}"], True)
  files = {str(path.relative_to(folder)) for path in _files(folder)}
  damage = [f"{folder / name} is missing" for name in sorted((expected.keys() | set(REQUIRED)) - files)
            if name in REQUIRED or name.startswith(within)]
  for name in sorted(name for name in files & expected.keys() if name.startswith(within))[share::shares]:
    if (actual := _size_and_hash(folder / name)) != expected[name]:
      damage.append(f"{folder / name} does not have its checksum (size and SHA-256 {actual}, expected "
                    f"{expected[name]})")
  if "metrics/metrics" in files - expected.keys():
    try:
      read_json(folder / "metrics" / "metrics")
    except InputError as error:
      damage.append(f"{error}")
  unverified = any(not _is_checksum(name) for name in files - expected.keys())
  return Inspection(damage, unverified)


def committed_steps(directory: epath.Path) -> list[int]:
  """Returns the steps whose checkpoints were committed, sound or not, in order."""
  if not directory.exists():
    return []
  paths = [path for path in directory.iterdir() if path.name.isdecimal() and str(int(path.name)) == path.name]
  return sorted(int(path.name) for path in paths if not path.is_dir() or ocp.utils.is_checkpoint_finalized(path))


def _is_checksum(name: str) -> bool:
  return name.removeprefix(".").startswith("checksums.")  # Or the draft of one.


def _files(folder: epath.Path) -> Iterator[epath.Path]:
  for path in folder.iterdir():
    if path.is_dir():
      yield from _files(path)
    else:
      yield path


def _size_and_hash(path: epath.Path) -> str:
  digest, size = hashlib.sha256(), 0
  with path.open("rb") as file:
    while block := file.read(1 << 20):
      digest.update(block)
      size += len(block)
  return f"{size}:{digest.hexdigest()}"


class Hasher:
  """Writes the checksums of checkpoints as they are committed, in a thread."""

  def __init__(self, directory: epath.Path, report: Callable[[str], None]):
    self._directory, self._report = directory, report
    self._steps: queue.Queue[int | None] = queue.Queue()
    self._thread: threading.Thread | None = None
    self._closed = threading.Event()

  def expect(self, step: int) -> None:
    """Hashes the checkpoint of a step once it is committed."""
    if self._thread is None:
      self._closed.clear()
      self._thread = threading.Thread(target=self._work, name="checksums", daemon=True)
      self._thread.start()
    self._steps.put(step)

  def wait(self) -> None:
    self._steps.join()

  def close(self) -> None:
    self._closed.set()
    if self._thread is not None:
      self._steps.put(None)
      self._thread.join()
      self._thread = None

  def _work(self) -> None:
    while (step := self._steps.get()) is not None:
      folder = self._directory / str(step)
      try:
        while True:
          if folder.exists() and ocp.utils.is_checkpoint_finalized(folder):
            self._write(folder)
            break
          # A save that failed is never committed; a later one that was shows it.
          if self._closed.is_set() or (committed_steps(self._directory) or [-1])[-1] > step:
            break
          time.sleep(0.01)
      except Exception as error:  # noqa: BLE001 - the thread must live on; the checkpoint counts as unverified
        if folder.exists():  # Else the retention removed it meanwhile.
          self._report(f"checkpoint {step} has no checksums: {folder}: {getattr(error, 'strerror', None) or error}")
      finally:
        self._steps.task_done()

  def _write(self, folder: epath.Path) -> None:
    files = sorted(str(path.relative_to(folder)) for path in _files(folder)
                   if not _is_checksum(path.name))
    share = files[jax.process_index()::jax.process_count()]
    text = json.dumps({name: _size_and_hash(folder / name) for name in share}, indent=1)
    write_atomically(folder / CHECKSUMS.format(jax.process_index()), text)
