"""Checkpoints: saved asynchronously by Orbax, verified by our checksums before anything is restored.

Orbax restores a checkpoint with a flipped bit without a word, so after the commit of a checkpoint
the processes write the SHA-256 of its files beside them. Restoring verifies these, names what is
damaged, moves that checkpoint aside and goes back to the newest sound one.
"""
import hashlib
import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers as policies

from embeddings_jax.types import InputError, PyTree

CHECKSUMS = "checksums.{}.json"  # One for each process that hashed a part of the files.
DAMAGED = "damaged-{}"


class CheckpointError(RuntimeError):
  """A checkpoint could not be written or read; the message says which, where and why."""


class Checkpoints:
  """The checkpoints of one run. Saved states are never lost to a kill, a full disk or a NaN."""

  def __init__(
      self,
      directory: str,
      *,
      keep: int = 3,
      best_metric: str | None = None,
      lower_is_better: bool = False,
      metadata: Mapping[str, Any] | None = None,
      report: Callable[[str], None] = print,
  ):
    """Opens, or creates, a directory of checkpoints.

    Args:
      directory: local, or any that `etils.epath` reaches.
      keep: number of newest checkpoints to keep.
      best_metric: also keep the checkpoint with the best value of this evaluation metric.
      lower_is_better: how to read that metric.
      metadata: JSON to store with each checkpoint (config, fingerprints, versions).
      report: receives the lines that a person should see.
    """
    self._directory = epath.Path(directory).absolute()  # Orbax refuses relative paths.
    self._metadata, self._report = dict(metadata or {}), report
    self._best_metric = best_metric
    preserved, score = policies.LatestN(keep), None
    if best_metric:
      def score(metrics):
        value = metrics.get(best_metric, np.nan)
        return value if np.isfinite(value) else np.inf if lower_is_better else -np.inf
      best = policies.BestN(get_metric_fn=score, reverse=lower_is_better, n=1, keep_checkpoints_without_metrics=False)
      preserved = policies.AnyPreservationPolicy([preserved, best])
    self._options = ocp.CheckpointManagerOptions(
        preservation_policy=preserved, cleanup_tmp_directories=True, best_fn=score,
        best_mode="min" if lower_is_better else "max", enable_async_checkpointing=True)
    self._opened: ocp.CheckpointManager | None = None
    self._hasher = _Hasher(self._directory)

  @property
  def _manager(self) -> ocp.CheckpointManager:
    # Opened late: restoring first moves damaged checkpoints out of its sight.
    if self._opened is None:
      # Orbax logs for its developers, with a page of tracebacks for every error that it raises as well.
      logging.getLogger("absl").setLevel(logging.CRITICAL)
      # Orbax reads the metrics of all checkpoints, and gives up at one that is no JSON.
      for step in _committed_steps(self._directory) if self.keeps_best else ():
        self._set_aside_if_damaged(step, within="metrics/")
      self._opened = ocp.CheckpointManager(self._directory, options=self._options)
    return self._opened

  def latest(self) -> int | None:
    """The newest committed step, or None."""
    steps = _committed_steps(self._directory)
    return steps[-1] if steps else None

  @property
  def keeps_best(self) -> bool:
    """Whether a metric says which checkpoint is the best."""
    return self._best_metric is not None

  def best(self) -> int | None:
    """The step with the best value of `best_metric`; None where no checkpoint has one that is finite."""
    if not self.keeps_best or self.latest() is None:
      return None
    step = self._manager.best_step()
    value = np.nan if step is None else self._manager.metrics(step).get(self._best_metric, np.nan)
    return step if np.isfinite(value) else None

  def save(self, step: int, state: PyTree, converged_at: int | None = None,
           scores: Mapping[str, float] | None = None) -> None:
    """Starts to save; waits only while the previous save is still being written."""
    metadata = self._metadata | {"step": step, "converged_at": converged_at}
    scores = dict(scores or {}) if self.keeps_best else {}
    if scores and self._best_metric not in scores:
      raise InputError(f"best_metric={self._best_metric!r}: was not measured; there are {', '.join(sorted(scores))}")
    try:
      self._manager.save(step, metrics=scores or None, args=ocp.args.Composite(
          state=ocp.args.StandardSave(state), metadata=ocp.args.JsonSave(metadata)))
    except Exception as error:  # Orbax raises whatever its storage layer raised.
      raise self._error("save", step, error) from error
    self._hasher.expect(step)

  def wait(self) -> None:
    """Returns when everything is on disk, checksums too."""
    try:
      self._manager.wait_until_finished()
      self._manager.check_for_errors()
    except Exception as error:
      raise self._error("save", None, error) from error
    self._hasher.wait()

  def close(self) -> None:
    """Ends the background work; call it once the run is over, in whatever way."""
    self._hasher.close()
    if self._opened is not None:
      self._opened.close()
      self._opened = None

  def restore(self, abstract: PyTree, layout: PyTree,
              preferred: int | None = None) -> tuple[PyTree, int, int | None] | None:
    """The newest sound checkpoint as `(state, step, converged_at)`, or None where there is none.

    Args:
      abstract: shapes and dtypes of the state.
      layout: a sharding for every leaf; it need not be the one that was saved.
      preferred: the step to restore instead, if it is sound.
    """
    step = self._newest_sound_step(preferred)
    if step is None:
      return None
    target = jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), abstract, layout)
    try:
      saved = self._manager.restore(step, args=ocp.args.Composite(
          state=ocp.args.StandardRestore(target), metadata=ocp.args.JsonRestore()))
    except Exception as error:
      raise self._error("restore", step, error) from error
    return saved.state, step, saved.metadata["converged_at"]

  def _newest_sound_step(self, preferred: int | None) -> int | None:
    steps = sorted(_committed_steps(self._directory), key=lambda step: (step == preferred, step), reverse=True)
    return next((step for step in steps if not self._set_aside_if_damaged(step)), None)

  def _set_aside_if_damaged(self, step: int, within: str = "") -> bool:
    """Whether files of a checkpoint, of those whose names begin with `within`, do not have their checksums."""
    folder = self._directory / str(step)
    damage = find_damage(folder, jax.process_index(), jax.process_count(), within)
    damaged = bool(damage)
    if jax.process_count() > 1:
      damaged = bool(multihost_utils.process_allgather(np.array(damaged)).any())
    if not damaged:
      return False
    for line in damage:
      self._report(f"checkpoint {step} is damaged: {line}; it is set aside")
    if jax.process_index() == 0:
      aside = self._directory / DAMAGED.format(step)
      if aside.exists():
        aside.rmtree()
      folder.rename(aside)
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices(f"damaged {step}")
    return True

  def _error(self, verb: str, step: int | None, error: Exception) -> CheckpointError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    what = "a checkpoint" if step is None else f"checkpoint {step}"
    kept = _committed_steps(self._directory)
    return CheckpointError(f"could not {verb} {what} in {self._directory}: {reason}; "
                           f"{'complete: ' + ', '.join(map(str, kept)) if kept else 'there is no complete one'}")


def find_damage(folder: epath.Path, part: int = 0, parts: int = 1, within: str = "") -> list[str]:
  """What is wrong with the files of a committed checkpoint, a line each; [] if nothing is.

  Of `parts` processes each looks at a part of the files, of those whose names begin with `within`.

  A checkpoint without checksums was committed an instant before its process was killed: it has
  nothing to be held against and counts as sound.
  """
  expected: dict[str, str] = {}
  for path in sorted(folder.glob(CHECKSUMS.format("*"))):
    try:
      expected |= json.loads(path.read_text())
    except ValueError:
      return [f"{path} is not readable"]
  damage = []
  for name in sorted(name for name in expected if name.startswith(within))[part::parts]:
    path = folder / name
    if not path.exists():
      damage.append(f"{path} is missing")
    elif (size := _size_and_hash(path)) != expected[name]:
      damage.append(f"{path} does not have its checksum (size and SHA-256 {size}, expected {expected[name]})")
  return damage


def _committed_steps(directory: epath.Path) -> list[int]:
  if not directory.exists():
    return []
  return sorted(int(p.name) for p in directory.iterdir() if p.name.isdigit() and ocp.utils.is_checkpoint_finalized(p))


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


class _Hasher:
  """Writes the checksums of checkpoints as they are committed, in a thread."""

  def __init__(self, directory: epath.Path):
    self._directory = directory
    self._steps: queue.Queue[int | None] = queue.Queue()
    self._thread: threading.Thread | None = None
    self._closed = threading.Event()

  def expect(self, step: int) -> None:
    if self._thread is None:
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
        while not self._closed.is_set():
          if folder.exists() and ocp.utils.is_checkpoint_finalized(folder):
            self._write(folder)
            break
          # A save that failed is never committed; a later one that was shows it.
          if (_committed_steps(self._directory) or [-1])[-1] > step:
            break
          time.sleep(0.01)
      except Exception as error:  # noqa: BLE001 - the thread must live on; a checkpoint counts without checksums
        if folder.exists():  # Else the retention removed it meanwhile.
          logging.warning("no checksums for %s: %s", folder, error)
      finally:
        self._steps.task_done()

  def _write(self, folder: epath.Path) -> None:
    files = sorted(str(path.relative_to(folder)) for path in _files(folder) if not path.name.startswith("checksums."))
    mine = files[jax.process_index()::jax.process_count()]
    text = json.dumps({name: _size_and_hash(folder / name) for name in mine}, indent=1)
    path = folder / CHECKSUMS.format(jax.process_index())
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(path)  # So that a kill leaves no half of it.
