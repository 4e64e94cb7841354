"""Pipelines: one module each, whose function of the same name makes training data of a dataset.

`x(dataset, *, encoder=None, batch_size, seed, cache_dir=None, data_dir=None, progress=..., **options) -> Prepared`.
Of the common keywords (`COMMON`) a function takes those that it needs; the others are its options, keys of
`config.data` beside the reader's. A module declares `ACCEPTS`, kinds of datasets; `READ`, the reader of
`data/reading.py`, whose keywords are the remaining keys of `config.data`; `UNIT`, what a row of training data is, in
the plural, unless it is a row; `FACTS`, name -> meaning; and `stand_in`,
facts and batch shapes without data, see `data/stand_ins.py`.
"""
import inspect
from types import ModuleType
from typing import Any

from embeddings_jax import extensions
from embeddings_jax.errors import InputError, check_choice

COMMON = ("encoder", "batch_size", "seed", "cache_dir", "data_dir", "progress", "vectors_of")
# Facts of every source, see `data/sources.py`.
FACTS = {"num_rows": "Number of training rows", "steps_per_epoch": "Updates in an epoch"}
# Keywords of every reader that are no options.
_PLACES = ("dataset", "encoder", "data_dir", "cache_dir", "allow_code")


def names() -> list[str]:
  """Returns the names of the package's pipelines."""
  return extensions.names("pipelines")


def find(name: str) -> ModuleType:
  """Returns the module of a pipeline.

  Raises:
    InputError: There is no such pipeline.
  """
  module = extensions.find("pipelines", name)
  if module is None:
    check_choice("pipeline", name, names())
  return module


def function(module: ModuleType) -> Any:
  """Returns the function of a pipeline's module."""
  return getattr(module, module.__name__.rpartition(".")[2])


def check_accepts(module: ModuleType, dataset: Any, what: str, reader: str) -> None:
  """Raises unless a pipeline accepts a dataset; `what` and `reader` name both in the message."""
  if dataset.kind not in module.ACCEPTS:
    raise InputError(f"{what}: holds {dataset.kind}, and {reader} needs {module.ACCEPTS[0]}")


def reader_options(module: ModuleType) -> dict[str, Any]:
  """Returns the keywords of a pipeline's reader with their defaults."""
  return {key: value.default for key, value in inspect.signature(module.READ).parameters.items()
          if value.kind is value.KEYWORD_ONLY and key not in _PLACES}


def unit(module: ModuleType) -> str:
  """Returns what rows of a pipeline's training data are called."""
  return getattr(module, "UNIT", "rows")


def own_options(module: ModuleType) -> dict[str, Any]:
  """Returns the keywords of a pipeline's own with their defaults."""
  return {key: value.default for key, value in inspect.signature(function(module)).parameters.items()
          if value.kind is value.KEYWORD_ONLY and key not in COMMON}


def options(module: ModuleType) -> dict[str, Any]:
  """Returns all keys of `config.data` with their defaults."""
  return {"name": "", **reader_options(module), **own_options(module)}


def facts() -> dict[str, str]:
  """Returns the declared facts of all pipelines and their meanings."""
  return dict(FACTS) | {key: text for name in names() for key, text in find(name).FACTS.items()}
