"""Embeddings learned without labels: pure-function models, one training loop, honest evaluations."""
import importlib
import sys
import types
from typing import Any

# Name -> its module. Imported when first used: JAX and Flax take seconds.
_EXPORTED = {
    "InputError": "errors", "Model": "types", "Source": "types", "array_source": "data.sources",
    "decode": "runs.sampling", "restore": "runs.restoring", "sample": "runs.sampling",
    "extend": "extensions", "fit": "runs.fit", "gradient_model": "gradient", "load": "runs.load",
    "reader_source": "data.sources", "train": "train.loop", "window_source": "data.sources",
}
__all__ = list(_EXPORTED)


def __getattr__(name: str) -> Any:
  if name not in _EXPORTED:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  return getattr(importlib.import_module(f"{__name__}.{_EXPORTED[name]}"), name)


def __dir__() -> list[str]:
  return sorted([*globals(), *__all__])


class _Package(types.ModuleType):
  """Keeps `train` the function: importing the package `embeddings_jax.train` would put that in its place."""

  @property
  def train(self) -> Any:
    return __getattr__("train")

  @train.setter
  def train(self, package: types.ModuleType) -> None:
    del package


sys.modules[__name__].__class__ = _Package
