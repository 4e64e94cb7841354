"""The work directory of a run: what it is called, what it holds, and who may continue it."""
import contextlib
import datetime
import errno
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import FieldReference

from embeddings_jax.data.files.atomic import replacing, write_atomically
from embeddings_jax.data.files.json import json_field, read_json
from embeddings_jax.eval import metric
from embeddings_jax.runs import metrics_log, presets
from embeddings_jax.runs.presets import DEFAULTS
from embeddings_jax.types import InputError

# What the parameters after n steps depend on; all else (mesh, logging, checkpoints, evaluations,
# directories, and how many steps) may change between one start of a run and the next.
TRAJECTORY = ("name", "model", "pipeline", "data", "optimizer", "batch_size", "seed", "steps_per_dispatch")
VERSIONS = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy", "scikit-learn")
PATIENCE = 120.0  # Seconds that a run waits for another one in the same directory.
FORMAT = 3  # Of `config.json`: raised when records of before cannot be read.
MAX_FACT = 1 << 28  # Bytes of an array among a record's facts, as counts of a vocabulary.


def trajectory(config: Mapping[str, Any], fingerprint: str, init_from: str = "") -> dict[str, Any]:
  """The part of a config that determines the trained parameters, with the fingerprint of the data and, where there
  are any, of the parameters to start from."""
  record = json.loads(json.dumps({key: config[key] for key in TRAJECTORY} | {"fingerprint": fingerprint}))
  record |= {key: config[key] for key in ("factory", "precision", "gradient_dtype") if config.get(key)}
  if init_from:
    record["init_from"] = init_from
    record["data"].pop("tokenizer", None)  # Of the same network, wherever it lies.
  record["data"].pop("memory", None)  # A limit for counting, which gives the same counts whatever it is.
  return record


def default_path(config: Mapping[str, Any], preset: str, trajectory: Mapping[str, Any]) -> epath.Path:
  """Returns `runs/MODEL-PRESET-HASH`; the hash leaves defaults out, so that a new option keeps the name."""
  changed = dict(trajectory)
  for name, values in _defaults(trajectory).items():
    changed[name] = {key: value for key, value in trajectory[name].items() if (key, json.dumps(value)) not in values}
  digest = hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:8]
  return epath.Path("runs") / f"{config['name']}-{preset}-{digest}"


def _defaults(trajectory: Mapping[str, Any]) -> dict[str, set[tuple[str, str]]]:
  """Returns, for `data` and `model` of a trajectory, the options with defaults, and these as JSON."""
  if "pipeline" not in trajectory:
    return {}
  plain = lambda value: value.get() if isinstance(value, FieldReference) else value  # A placeholder of None.
  return {name: {(key, json.dumps(plain(value))) for key, value in values.items()}
          for name, values in presets.defaults(trajectory).items() if name in trajectory}


def located(path: str | os.PathLike) -> epath.Path:
  """Returns the path of a work directory.

  Raises:
    InputError: It is neither local nor in a bucket of Google's, or what reaches the latter is not installed.
  """
  scheme, remote, _ = str(path).partition("://")
  if remote and scheme != "gs":
    raise InputError(f"workdir={path}: must be a local directory, or begin with gs://")
  if remote and importlib.util.find_spec("gcsfs") is None:
    raise InputError(f"workdir={path}: needs gcsfs, which pip install 'embeddings_jax[gcs]' brings")
  return epath.Path(path)


@contextlib.contextmanager
def prepared(path: epath.Path, trajectory: Mapping[str, Any], *, overwrite: bool,
             report: Callable[[str], None] = print) -> Iterator[None]:
  """Creates the directory, or checks that it holds the same run; it is locked while the block runs.

  Raises:
    InputError: The directory cannot be written, is in use, or holds another trajectory; differing keys are named.
  """
  lock = Lock(path, report)
  lock.acquire()
  try:
    if overwrite and any(entry.name != lock.path.name for entry in path.iterdir()):
      aside = path.parent / f"{path.name}.{datetime.datetime.now():%Y%m%d-%H%M%S}"
      path.rename(aside)
      lock.release()
      report(f"the old run is kept in {aside}")
      lock.acquire()
    if (path / "config.json").exists():
      old = read_record(path)
      old["trajectory"].setdefault("horizon", old["horizon"] if "horizon" in trajectory else None)
      if "factory" in trajectory:  # Earlier records have the name alone.
        old["trajectory"].setdefault("factory", trajectory["factory"])
      for name, values in _defaults(trajectory).items():  # An option that the code of then did not have.
        if isinstance(old["trajectory"].get(name), dict):
          old["trajectory"][name] = {key: json.loads(value) for key, value in values} | old["trajectory"][name]
      differing = sorted(_differences(old["trajectory"], trajectory))
      if differing:
        raise InputError(f"workdir={path} holds another run: {'; '.join(differing)}; use another directory, or "
                         "overwrite=True, which moves the old run aside")
    check_writable(path)
    yield
  finally:
    lock.release()


def recorded_horizon(path: epath.Path) -> int | None:
  """Returns the horizon of the run in a directory, if there is one."""
  return read_record(path)["horizon"] if (path / "config.json").exists() else None


def check_writable(path: epath.Path) -> None:
  """Raises unless files can be written into the directory."""
  probe = path / f".writable.{secrets.token_hex(4)}"
  try:
    probe.write_text("")
    probe.unlink()
  except OSError as error:
    raise InputError(f"workdir={path}: cannot be written: {error.strerror or error}") from error


class Lock:
  """Excludes other runs from a work directory.

  The lock belongs to the open file: the kernel frees it with its process, however that ends.
  """

  def __init__(self, path: epath.Path, report: Callable[[str], None] = print):
    self.path = path / ".lock"
    self._report = report
    self._file: int | None = None

  def acquire(self, patience: float | None = None) -> None:
    """Creates and locks the directory; where the file system has no locks, says so and continues.

    Args:
      patience: Seconds to wait for the process that holds it; by default `PATIENCE`.

    Raises:
      InputError: The directory cannot be written, or another process holds it.
    """
    directory = self.path.parent
    patience = PATIENCE if patience is None else patience
    try:
      directory.mkdir(parents=True, exist_ok=True)
      if "://" in str(directory):
        raise OSError(errno.ENOTSUP, "remote storage has no locks")
      deadline, said = time.monotonic() + patience, False
      while not self._try():
        holder = self._holder()
        if time.monotonic() >= deadline:
          raise InputError(f"workdir={directory}: is in use by {holder}; wait for its end, or use another "
                           "directory")
        if not said:
          self._report(f"{directory}: in use by {holder}; waiting up to {patience:.0f} s")
          said = True
        time.sleep(min(0.2, patience))
    except OSError as error:
      if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
        raise InputError(f"workdir={directory}: cannot be written: {error.strerror or error}") from error
      self._report(f"{directory}: cannot be locked ({error.strerror}); make sure that no other run uses it")

  def release(self) -> None:
    if self._file is not None:
      os.close(self._file)
      self._file = None

  def _try(self) -> bool:
    file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      # The directory may have been moved aside since.
      if not os.path.samestat(os.fstat(file), os.stat(self.path)):
        raise BlockingIOError
      now = datetime.datetime.now()
      holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": f"{now:%Y-%m-%d %H:%M}"}
      os.ftruncate(file, 0)
      os.pwrite(file, json.dumps(holder).encode(), 0)
    except (BlockingIOError, FileNotFoundError):
      os.close(file)
      return False
    except OSError as error:
      if error.errno in (errno.ENOSPC, errno.EDQUOT):  # Locked all the same, without a name.
        self._file = file
        return True
      os.close(file)
      raise
    self._file = file
    return True

  def _holder(self) -> str:
    try:
      holder = read_json(self.path)
      return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (InputError, KeyError):
      return "another process"


def _differences(old: Any, new: Any, name: str = "") -> list[str]:
  if isinstance(old, dict) and isinstance(new, dict):
    return [line for key in sorted(old.keys() | new.keys())
            for line in _differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)]
  return [] if old == new else [f"{name} was {old!r}, now {new!r}"]


def is_finished(results: Mapping[str, Any] | None, step: int | None, steps: int) -> bool:
  """Returns whether a run has ended, with all its results written.

  Args:
    results: What `results.json` holds, if anything.
    step: Newest sound checkpoint.
    steps: Updates in all.
  """
  if step is None or results is None or results.get("pending") or "training" not in results:
    return False
  converged = results["training"].get("converged", 0) > 0
  return step >= steps or (converged and results["steps"] == step)


def check_restart(path: epath.Path, lost: Sequence[str], results: Mapping[str, Any] | None) -> None:
  """Refuses to start at step 0 over the log of a run whose checkpoints are lost.

  A run that was killed before its first save left a log too; it starts again, as nothing was ever saved.

  Args:
    path: The work directory.
    lost: Names of the checkpoints that are damaged.
    results: What `results.json` holds, if anything.
  """
  logged = max((record["step"] for record in metrics_log.read_metrics(path, lambda line: None)), default=0)
  reached = max(logged, results["steps"] if results else 0)  # A short run may log nothing.
  if not reached or not (lost or results is not None or logged > _unsaved_steps(path)):
    return
  where = f"damaged: {', '.join(lost)}" if lost else f"{path / 'checkpoints'} has none"
  raise InputError(f"workdir={path}: its log reaches step {reached}, and no checkpoint can be restored ({where}); "
                   "bring a checkpoint back, or use overwrite=True, which moves the old run aside and starts anew")


def _unsaved_steps(path: epath.Path) -> float:
  """Returns the most steps that a run may log before its first checkpoint must be complete."""
  if not (path / "config.json").exists():
    return math.inf
  config = read_record(path)["config"]
  # The second save waits for the first.
  return 2 * (config["save_every"] + config["steps_per_dispatch"]) if config["save_every"] else math.inf


def best_of(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the arguments of `CheckpointReader` that select the best checkpoint."""
  key = config["best_metric"]
  if not key:
    return {}
  declared = metric(key)
  return {"best_metric": key, "lower_is_better": declared is not None and declared.higher_is_better is False}


def read_record(path: epath.Path) -> dict[str, Any]:
  """Reads `config.json` of a work directory: `config` with all keys, `trajectory`, `facts`, `batch`, `steps`, ...

  Raises:
    InputError: The file is missing or damaged, or a field has another type.
  """
  file = path / "config.json"
  if not file.exists():
    raise InputError(f"{file}: no such file; is {path} the work directory of a run?")
  record = read_json(file)
  if "config" in record and record.get("format") != FORMAT:
    version = str(record.get("format", 1))[:20]
    raise InputError(f"{file}: was made by another version of embeddings_jax, whose runs this one cannot read "
                     f"(format {version}, expected {FORMAT}); train it again")
  for name in ("config", "facts", "batch"):
    json_field(record, name, dict, file)
  record["trajectory"] = json_field(record, "trajectory", dict, file, default={})
  json_field(record, "encoder", str, file)
  steps = json_field(record, "steps", int, file)
  record["horizon"] = json_field(record, "horizon", int, file, default=steps)
  config = record["config"]
  for name, default in DEFAULTS.items():
    kind: Any = list if isinstance(default, tuple) else type(default)
    config[name] = json_field(config, name, kind, f"{file}: config", default=kind(default))
  for name in ("evals", "evals_between"):
    if not all(isinstance(value, str) for value in config[name]):
      raise InputError(f"{file}: config: field {name!r} holds {config[name]!r}, expected a list of strings")
  json_field(config["data"], "name", str, f"{file}: config.data", default="")
  _check_batch(record["batch"], f"{file}: batch")
  for name, value in record["facts"].items():
    if isinstance(value, dict):  # Allocated by `stand_in_facts`.
      size = _num_bytes(value.get("shape"), value.get("dtype"), f"{file}: facts: field {name!r}")
      if size > MAX_FACT:
        raise InputError(f"{file}: facts: field {name!r} asks for {size} bytes, at most {MAX_FACT} are plausible")
  return record


def _check_batch(described: Mapping[str, Any], where: str) -> None:
  """Raises unless every leaf of a described batch is a shape and a dtype."""
  for name, value in described.items():
    if isinstance(value, dict):
      _check_batch(value, f"{where}: {name}")
    elif not isinstance(value, list) or len(value) != 2:
      raise InputError(f"{where}: field {name!r} holds {value!r}, expected a shape and a dtype")
    else:
      _num_bytes(value[0], value[1], f"{where}: field {name!r}")


def _num_bytes(shape: Any, dtype: Any, where: str) -> int:
  """Returns the size of an array that a record describes."""
  try:
    if all(isinstance(size, int) and size >= 0 for size in shape) and np.dtype(str(dtype)).kind != "O":
      return math.prod(shape) * np.dtype(str(dtype)).itemsize
  except TypeError:
    pass
  raise InputError(f"{where} holds {shape!r} and {dtype!r}, expected a shape and a dtype")


def read_results(path: epath.Path, report: Callable[[str], None] | None = None) -> dict[str, Any] | None:
  """Reads `results.json` of a work directory; None if there is none.

  Args:
    path: The work directory.
    report: Receives a line about a damaged file, which then counts as missing.

  Raises:
    InputError: The file is damaged, or a field has another type, and there is no `report`.
  """
  file = path / "results.json"
  if not file.exists():
    return None
  try:
    return _checked_results(read_json(file), file)
  except InputError as error:
    if report is None:
      raise
    report(f"{error}; it is written anew")
    return None


def _checked_results(results: dict[str, Any], file: epath.Path) -> dict[str, Any]:
  json_field(results, "steps", int, file)
  json_field(results, "pending", list, file, default=[])
  for name in ("metrics", "training"):
    values = json_field(results, name, dict, file, default={})
    for key in values:
      json_field(values, key, float, f"{file}: {name}")
  return results


def write_json(path: epath.Path, value: Any) -> None:
  """Replaces a JSON file."""
  write_atomically(path, json.dumps(value, indent=1) + "\n")


def write_array(path: epath.Path, array: np.ndarray) -> None:
  """Replaces a `.npy` file; a full disk raises the error of the system, where NumPy's own has no number."""
  with replacing(path) as file:
    array = np.ascontiguousarray(array)
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
    file.write(array.data.cast("B") if array.size else b"")


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


def described_batch(batch: Mapping[str, Any]) -> Any:
  """Returns a batch as JSON: the shape and dtype of each array, in the batch's own tree."""
  return {key: described_batch(value) if isinstance(value, Mapping) else [list(value.shape), str(value.dtype)]
          for key, value in batch.items()}


def stand_in_batch(described: Mapping[str, Any]) -> dict[str, Any]:
  """Returns shapes and dtypes from `described_batch`."""
  return {key: stand_in_batch(value) if isinstance(value, Mapping) else
          jax.ShapeDtypeStruct(tuple(value[0]), np.dtype(value[1])) for key, value in described.items()}


def stand_in_facts(described: Mapping[str, Any]) -> dict[str, Any]:
  """Facts of the right shapes, from which a model's state can be described but not initialized."""
  return {name: np.ones(value["shape"], value["dtype"]) if isinstance(value, dict) else value
          for name, value in described.items()}
