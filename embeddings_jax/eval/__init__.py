"""Evaluation protocols. One is found by its module, which declares it as `PROTOCOL`."""
import fnmatch
import functools
import importlib
import importlib.util
import os
import pathlib
import pkgutil

from embeddings_jax import extensions
from embeddings_jax.errors import InputError, check_choice, nearest
from embeddings_jax.types import Metric, Protocol

_elsewhere: dict[str, Protocol] = {}  # Protocols of users' folders that have been asked for.


def find(name: str, folder: str | os.PathLike | None = None) -> Protocol:
  """Returns the declaration of a protocol.

  Args:
    name: Name of its module.
    folder: Where modules of one's own are, as `NAME.py` or `eval/NAME.py`; their code is run.

  Raises:
    InputError: There is no such protocol.
  """
  if name in _modules():
    declared = getattr(importlib.import_module(f"{__name__}.{name}"), "PROTOCOL", None)
    if declared:
      return declared
  for place in (pathlib.Path(folder, "eval"), pathlib.Path(folder)) if folder and name.isidentifier() else ():
    if (place / f"{name}.py").is_file():
      declared = getattr(_load_file(place / f"{name}.py"), "PROTOCOL", None)
      if declared:
        return _elsewhere.setdefault(name, declared)
  if declared := getattr(extensions.find("eval", name), "PROTOCOL", None):
    return _elsewhere.setdefault(name, declared)
  check_choice("protocol", name, protocol_names())
  raise AssertionError


def protocol_names() -> list[str]:
  """Returns the names of the package's protocols."""
  return [name for name in _modules() if hasattr(importlib.import_module(f"{__name__}.{name}"), "PROTOCOL")]


def metric(key: str) -> Metric | None:
  """Returns the declaration of an evaluation metric by the last component of its key, or None."""
  last = key.rsplit("/", 1)[-1]
  for declared in _declared():
    for pattern in (last, *(pattern for pattern in declared.metrics if "*" in pattern)):
      if pattern in declared.metrics and fnmatch.fnmatchcase(last, pattern):
        return declared.metrics[pattern]
  return None


def check_best_metric(key: str) -> None:
  """Raises unless checkpoints may be chosen by a metric: one with a direction, not of a test split."""
  if any(part == "test" or part.startswith("test_") for part in key.split("/")):
    raise InputError(f"best_metric={key}: would choose a checkpoint on a test split; use one of dev or validation "
                     "data")
  declared = metric(key)
  if declared is None or declared.higher_is_better is None:
    names = sorted({name for protocol in _declared() for name, known in protocol.metrics.items()
                    if known.higher_is_better is not None})
    raise InputError(f"best_metric={key}: no metric by which checkpoints can be chosen; "
                     f"{nearest(key.rsplit('/', 1)[-1], names)}its last part is one of {', '.join(names)}")


@functools.cache
def _modules() -> tuple[str, ...]:
  return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def _declared() -> list[Protocol]:
  return [*map(find, protocol_names()), *_elsewhere.values()]


@functools.cache
def _load_file(path: pathlib.Path):
  spec = importlib.util.spec_from_file_location(f"{__name__}._{path.stem}", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module
