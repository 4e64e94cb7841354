"""Embeddings learned without labels: pure-function models, one training loop, honest evaluations."""
import importlib

# Name -> module. Imported when they are first used: JAX and Flax take seconds.
_EXPORTED = {
    "Model": "types", "Source": "types", "InputError": "errors", "array_source": "data.sources",
    "reader_source": "data.sources", "window_source": "data.sources", "gradient_model": "gradient",
    "train": "train.loop", "load": "runs.load", "fit": "runs.fit",
}
__all__ = sorted(_EXPORTED)


def __getattr__(name: str):
  if name not in _EXPORTED:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  value = getattr(importlib.import_module(f"{__name__}.{_EXPORTED[name]}"), name)
  if name != "train":  # `embeddings_jax.train` is a package too; importing it replaces the attribute.
    globals()[name] = value
  return value


def __dir__():
  return [*globals(), *__all__]
