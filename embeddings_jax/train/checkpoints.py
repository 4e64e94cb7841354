"""Checkpoints: saved asynchronously by Orbax, verified by our checksums before anything is restored.

Orbax restores a checkpoint with a flipped bit without an error. After each commit the processes therefore write the
SHA-256 of its files beside them. Reading verifies these, names the damaged files and falls back to the newest sound
checkpoint. Only the training process renames: a reader may look at a run that is being written.
"""
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers as policies

from embeddings_jax.data.files.json import read_json
from embeddings_jax.train.checksums import Hasher, committed_steps, inspect_checkpoint
from embeddings_jax.train.mesh import path_name
from embeddings_jax.types import InputError, PyTree

DAMAGED = "damaged-{}"


class CheckpointError(RuntimeError):
  """A checkpoint could not be written or read; the message says which, where and why."""


class CheckpointReader:
  """Reads the checkpoints of a run, which may be training: cleans, renames and creates nothing."""

  def __init__(
      self,
      directory: str,
      *,
      best_metric: str | None = None,
      lower_is_better: bool = False,
      report: Callable[[str], None] = print,
  ):
    """Describes a directory of checkpoints.

    Args:
      directory: Local path or gs://; it need not exist.
      best_metric: Evaluation metric that selects the best checkpoint.
      lower_is_better: Direction of that metric.
      report: Receives the lines that a person should see.
    """
    location = epath.Path(directory)
    # Orbax refuses relative paths; of gs://bucket `absolute` would make a local one.
    self._directory = location if "://" in str(directory) else location.absolute()
    self._report = report
    self._best_metric, self._lower_is_better = best_metric, lower_is_better
    self._sound: dict[int, bool] = {}  # Steps that were verified.
    self._unverified: set[int] = set()

  @property
  def keeps_best(self) -> bool:
    """Returns whether a metric selects the best checkpoint."""
    return self._best_metric is not None

  def latest(self) -> int | None:
    """Returns the newest committed step, without verifying it, or None."""
    steps = committed_steps(self._directory)
    return steps[-1] if steps else None

  def newest_sound(self) -> int | None:
    """Returns the newest committed step that passes verification, or None; damaged ones are reported."""
    return next((step for step in reversed(committed_steps(self._directory)) if self._is_sound(step)), None)

  def rejected(self) -> list[str]:
    """Returns the names of the entries that were set aside as damaged, by this or an earlier process."""
    if not self._directory.exists():
      return []
    return sorted(path.name for path in self._directory.iterdir() if path.name.startswith(DAMAGED.format("")))

  def best(self) -> int | None:
    """Returns the step with the best value of `best_metric`; None if no checkpoint has a finite one."""
    if not self.keeps_best:
      return None
    sign = -1 if self._lower_is_better else 1
    values = {step: sign * self._score(step) for step in committed_steps(self._directory)}
    return max((step for step, value in values.items() if np.isfinite(value)),
               key=lambda step: (values[step], step), default=None)

  def restore(self, abstract: PyTree, layout: PyTree, preferred: int | None = None,
              sizes: Mapping[str, Sequence[int]] | None = None) -> tuple[PyTree, int, int | None] | None:
    """Returns the newest sound checkpoint as `(state, step, converged_at)`, or None if there is none.

    Args:
      abstract: Shapes and dtypes of the state.
      layout: A sharding for every leaf; it may differ from the one that was saved.
      preferred: Step to restore instead, if it is sound.
      sizes: Path -> shape without padding, of leaves of `abstract` that have some; see `padding.py`.

    Raises:
      CheckpointError: A verified checkpoint does not fit `abstract`, or cannot be read.
    """
    target = jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), abstract, layout)
    tried: set[int] = set()
    # Listed again each time: a run that trains saves new ones and removes old ones.
    while steps := set(committed_steps(self._directory)) - tried:
      step = preferred if preferred in steps else max(steps)
      tried.add(step)
      if not self._is_sound(step):
        continue
      failure = None
      try:
        with _QuietOrbax(), ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
          padded = self._is_padded(step, abstract, sizes or {})
          saved = reader.restore(self._directory / str(step), args=ocp.args.Composite(
              state=ocp.args.StandardRestore(target, strict=not padded), metadata=ocp.args.JsonRestore()))
        return saved.state, step, saved.metadata["converged_at"]
      except Exception as error:  # noqa: BLE001 - Orbax raises whatever its storage layer raised
        failure = error
      if not (self._directory / str(step)).exists():
        continue
      if step not in self._unverified:
        raise self._error("restore", step, failure) from failure
      self._reject(step, [f"it has no checksums and cannot be restored ({_first_line(failure)})"])
    return None

  def _is_padded(self, step: int, abstract: PyTree, sizes: Mapping[str, Sequence[int]]) -> bool:
    """Returns whether leaves have other padding than they were saved with, and all are the same without it."""
    path = self._directory / str(step) / "metadata" / "metadata"
    saved_sizes = read_json(path).get("padded") or {} if path.exists() else {}
    if not (sizes or saved_sizes):
      return False
    with ocp.StandardCheckpointer() as reader:
      saved = reader.metadata(self._directory / str(step) / "state").item_metadata.tree
    shapes = {path_name(path): tuple(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(saved)}
    differ = False
    for path, leaf in jax.tree_util.tree_leaves_with_path(abstract):
      name = path_name(path)
      stored = shapes.get(name, tuple(leaf.shape))
      whole, wanted = list(saved_sizes.get(name, stored)), list(sizes.get(name, leaf.shape))
      if whole != wanted:
        raise ValueError(f"{name} is {whole}, and {wanted} is needed")
      differ |= stored != tuple(leaf.shape)
    return differ

  def _is_sound(self, step: int) -> bool:
    if step not in self._sound:
      folder = self._directory / str(step)
      try:
        damage, unverified = inspect_checkpoint(folder, jax.process_index(), jax.process_count())
      except OSError as error:
        damage, unverified = [f"{error.filename or folder}: {error.strerror or error}"], False
      self._sound[step] = not _any_process(bool(damage))
      if not self._sound[step]:
        self._reject(step, damage)
      elif unverified:
        self._unverified.add(step)
        self._report(f"checkpoint {step} has no complete checksums, as after a kill: its content cannot be verified")
    return self._sound[step]

  def _reject(self, step: int, damage: list[str]) -> None:
    self._sound[step] = False
    for line in damage if (self._directory / str(step)).exists() else ():  # Else the run has removed it meanwhile.
      self._report(f"checkpoint {step} is damaged: {line}; it is skipped")

  def _score(self, step: int) -> float:
    path = self._directory / str(step) / "metrics" / "metrics"
    try:
      value = read_json(path).get(self._best_metric) if path.exists() else None
    except InputError:  # Named when the checkpoint is verified.
      value = None
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else np.nan

  def _error(self, verb: str, step: int | None, error: Exception) -> CheckpointError:
    what = "a checkpoint" if step is None else f"checkpoint {step}"
    kept = committed_steps(self._directory)
    return CheckpointError(f"could not {verb} {what} in {self._directory}: {_first_line(error)}; "
                           f"{'complete: ' + ', '.join(map(str, kept)) if kept else 'there is no complete one'}")


class Checkpoints(CheckpointReader):
  """The checkpoints of the run that this process trains. Saved states survive a kill, a full disk or a NaN."""

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
    """Opens, or creates, a directory of checkpoints; no other process may write into it.

    Args:
      directory: Local path or gs://.
      keep: Number of newest checkpoints to keep.
      best_metric: Also keep the checkpoint with the best value of this evaluation metric.
      lower_is_better: Direction of that metric.
      metadata: JSON to store with each checkpoint (config, fingerprints, versions).
      report: Receives the lines that a person should see.
    """
    super().__init__(directory, best_metric=best_metric, lower_is_better=lower_is_better, report=report)
    self._metadata = dict(metadata or {})
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
    self._quiet = _QuietOrbax()
    self._hasher = Hasher(self._directory, report)

  @property
  def _manager(self) -> ocp.CheckpointManager:
    # Opened late: damaged checkpoints are first moved out of its sight. It reads the metrics of all of them, and
    # fails at one that is incomplete or is not JSON.
    if self._opened is None:
      for step in committed_steps(self._directory):
        damage, _ = inspect_checkpoint(self._directory / str(step), jax.process_index(), jax.process_count(),
                                       within="metrics/")
        if _any_process(bool(damage)):
          self._reject(step, damage)
      self._quiet.__enter__()
      self._opened = ocp.CheckpointManager(self._directory, options=self._options)
    return self._opened

  def save(self, step: int, state: PyTree, converged_at: int | None = None,
           scores: Mapping[str, float] | None = None, sizes: Mapping[str, Sequence[int]] | None = None) -> None:
    """Starts to save; waits only while the previous save is still being written. `sizes`: see `restore`."""
    metadata = self._metadata | {"step": step, "converged_at": converged_at}
    if sizes:
      metadata["padded"] = {name: list(shape) for name, shape in sizes.items()}
    scores = dict(scores or {}) if self.keeps_best else {}
    if scores and self._best_metric not in scores:
      raise InputError(f"best_metric={self._best_metric!r}: was not measured; there are {', '.join(sorted(scores))}")
    try:
      self._manager.save(step, metrics=scores or None, args=ocp.args.Composite(
          state=ocp.args.StandardSave(state), metadata=ocp.args.JsonSave(metadata)))
    except Exception as error:  # Orbax raises whatever its storage layer raised.
      raise self._error("save", step, error) from error
    self._sound.pop(step, None)
    self._hasher.expect(step)

  def wait(self) -> None:
    """Returns when everything is on disk, checksums included."""
    try:
      self._manager.wait_until_finished()
      self._manager.check_for_errors()
    except Exception as error:
      raise self._error("save", None, error) from error
    self._hasher.wait()

  def close(self) -> None:
    """Ends the background work; call it when the run is over, in whatever way."""
    if self._opened is not None:
      opened, self._opened = self._opened, None
      try:
        opened.close()
      except Exception as error:  # noqa: BLE001 - of a save that nobody waited for
        self._report(str(self._error("save", None, error)))
      self._quiet.__exit__(None, None, None)
    self._hasher.close()

  def _reject(self, step: int, damage: list[str]) -> None:
    """Renames a damaged checkpoint, on which all processes agree."""
    self._sound[step] = False
    for line in damage:
      self._report(f"checkpoint {step} is damaged: {line}; it is set aside")
    if jax.process_index() == 0:
      names = set(self.rejected())
      aside = DAMAGED.format(step)
      while aside in names:  # An earlier checkpoint of the same step was damaged as well.
        aside += "+"
      (self._directory / str(step)).rename(self._directory / aside)
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices(f"damaged {step}")


def _any_process(damaged: bool) -> bool:
  if jax.process_count() == 1:
    return damaged
  return bool(multihost_utils.process_allgather(np.array(damaged)).any())


def _first_line(error: BaseException | None) -> str:
  return (str(error).strip().splitlines() or [type(error).__name__])[0]


class _QuietOrbax(logging.Filter):
  """While entered, drops what Orbax logs for its developers: a page of traceback for every error it also raises."""

  def filter(self, record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname

  def __enter__(self) -> "_QuietOrbax":
    logging.getLogger("absl").addFilter(self)
    return self

  def __exit__(self, *exc: object) -> None:
    logging.getLogger("absl").removeFilter(self)
