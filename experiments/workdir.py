"""The work directory of a run: what it is called, what it holds, and who may continue it."""
import datetime
import hashlib
import importlib.metadata
import json
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from embeddings_jax.types import InputError

# What the parameters after n steps depend on; all else (mesh, logging, checkpoints, evaluations,
# directories, and how many steps) may change between one start of a run and the next.
TRAJECTORY = ("name", "model", "data", "optimizer", "batch_size", "seed", "steps_per_dispatch")
VERSIONS = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def trajectory(config: Mapping[str, Any], fingerprint: str, init_from: str = "") -> dict[str, Any]:
  """The part of a config that determines the trained parameters, with the fingerprint of the data and, where there
  are any, of the parameters to start from."""
  course = json.loads(json.dumps({key: config[key] for key in TRAJECTORY} | {"fingerprint": fingerprint}))
  if init_from:
    course["init_from"] = init_from
    course["data"].pop("tokenizer", None)  # Of the same network, wherever it lies.
  if not course["data"].get("documents"):  # The default, which older runs do not record.
    course["data"].pop("documents", None)
  course["data"].pop("memory", None)  # A limit for counting, which gives the same counts whatever it is.
  return course


def default_path(config: Mapping[str, Any], preset: str, course: Mapping[str, Any]) -> epath.Path:
  digest = hashlib.sha256(json.dumps(course, sort_keys=True).encode()).hexdigest()[:8]
  return epath.Path("runs") / f"{config['name']}-{preset}-{digest}"


def prepare(path: epath.Path, course: Mapping[str, Any], *, overwrite: bool) -> None:
  """Makes the directory, or checks that what is in it is the same run.

  Raises:
    InputError: it cannot be written, or holds another trajectory; the differing keys are named.
  """
  if overwrite and path.exists():
    aside = path.parent / f"{path.name}.{datetime.datetime.now():%Y%m%d-%H%M%S}"
    path.rename(aside)
    print(f"the old run is kept in {aside}")
  if (path / "config.json").exists():
    old = read_json(path / "config.json")["trajectory"]
    differing = sorted(_differences(old, course))
    if differing:
      raise InputError(f"--workdir={path} holds another run: {'; '.join(differing)}; use another directory, or "
                       "--overwrite, which moves the old run aside")
  try:
    path.mkdir(parents=True, exist_ok=True)
    probe = path / ".writable"
    probe.write_text("")
    probe.unlink()
  except OSError as error:
    raise InputError(f"--workdir={path}: cannot be written: {error.strerror or error}") from error


def _differences(old: Any, new: Any, name: str = "") -> list[str]:
  if isinstance(old, dict) and isinstance(new, dict):
    return [line for key in sorted(old.keys() | new.keys())
            for line in _differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)]
  return [] if old == new else [f"{name} was {old!r}, now {new!r}"]


def is_finished(path: epath.Path, step: int | None, steps: int) -> bool:
  """Whether a run whose newest checkpoint is `step` has ended, with its results written."""
  if step is None or not (path / "results.json").exists():
    return False
  results = read_json(path / "results.json")
  converged = results.get("training", {}).get("converged", 0) > 0
  return step >= steps or (converged and results["steps"] == step)


def best_of(config: Mapping[str, Any]) -> dict[str, Any]:
  """The arguments of `Checkpoints` that say which one is the best."""
  return {"best_metric": config["best_metric"] or None, "lower_is_better": config["lower_is_better"]}


def read_json(path: epath.Path) -> Any:
  try:
    return json.loads(path.read_text())
  except FileNotFoundError as error:
    raise InputError(f"{path}: no such file; is {path.parent} the work directory of a run?") from error
  except ValueError as error:
    raise InputError(f"{path}: not JSON: {error}") from error


def write_json(path: epath.Path, value: Any) -> None:
  """Writes by way of a draft: a kill leaves the old file or the new one."""
  draft = path.parent / f".{path.name}.draft"
  draft.write_text(json.dumps(value, indent=1) + "\n")
  draft.replace(path)


def _summary_writer() -> Any:
  """TensorBoard's writer, whose library imports torch where that is installed: two seconds for what is not used."""
  absent = sys.modules.setdefault("torch", None) is None
  try:
    from tensorboardX import SummaryWriter
  finally:
    if absent:
      del sys.modules["torch"]
  return SummaryWriter


class MetricsLog:
  """`metrics.jsonl` and TensorBoard events; after a resume they read as if nothing had happened."""

  def __init__(self, path: epath.Path):
    self._path = path
    self._file = self._events = None
    self._begun, self._seconds_before = time.perf_counter(), 0.0

  def start(self, step: int) -> None:
    """Opens the log of a run that goes on from `step`: what was logged past it is dropped."""
    records = [record for record in read_metrics(self._path) if record["step"] <= step]
    draft = self._path / ".metrics.jsonl.draft"
    draft.write_text("".join(json.dumps(record) + "\n" for record in records))
    draft.replace(self._path / "metrics.jsonl")
    self._seconds_before = max((record.get("seconds", 0.0) for record in records), default=0.0)
    self._file = (self._path / "metrics.jsonl").open("a")
    self._events = _summary_writer()(str(self._path / "tensorboard"), purge_step=step + 1 if step else None)

  def seconds(self) -> float:
    """Wall time of the run, interruptions not counted."""
    return self._seconds_before + time.perf_counter() - self._begun

  def write(self, step: int, record: Mapping[str, float]) -> None:
    record = {"step": step, **record, "seconds": round(self.seconds(), 3)}
    self._file.write(json.dumps(record) + "\n")
    self._file.flush()
    for name, value in record.items():
      if name != "step":
        self._events.add_scalar(name, value, step)

  def close(self) -> None:
    if self._file:
      self._file.close()
      self._events.close()


def read_metrics(path: epath.Path) -> list[dict[str, Any]]:
  """The records of `metrics.jsonl`; a last line that a kill cut short is left out."""
  file = path / "metrics.jsonl"
  records = []
  if file.exists():
    for line in file.read_text().splitlines():
      try:
        records.append(json.loads(line))
      except ValueError:
        break
  return records


def versions() -> dict[str, str]:
  return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in VERSIONS}


def commit() -> str:
  """The commit of the code, with a + where it was changed since; "" outside a checkout."""
  folder = epath.Path(__file__).parent
  try:
    git = ["git", "-C", str(folder), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
  except (OSError, subprocess.CalledProcessError):
    return ""


def described_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
  """Facts as JSON: what is an array by shape and dtype alone, for its values are in the state."""
  described = {}
  for name, value in facts.items():
    if isinstance(value, np.ndarray):
      described[name] = {"shape": list(value.shape), "dtype": str(value.dtype)}
    else:
      described[name] = value.item() if isinstance(value, np.generic) else value
  return described


def stand_in_facts(described: Mapping[str, Any]) -> dict[str, Any]:
  """Facts of the right shapes, from which a model's state can be described but not initialised."""
  return {name: np.ones(value["shape"], value["dtype"]) if isinstance(value, dict) else value
          for name, value in described.items()}
