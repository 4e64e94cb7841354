"""Evaluation protocols. One is found by its module, which declares it as `PROTOCOL`."""
import fnmatch

from embeddings_jax import extensions
from embeddings_jax.errors import InputError, check_choice, nearest
from embeddings_jax.types import Metric, Protocol


def find(name: str) -> Protocol:
  """Returns the declaration of a protocol.

  Raises:
    InputError: There is no such protocol.
  """
  declared = getattr(extensions.find("eval", name), "PROTOCOL", None)
  if declared is None:
    check_choice("protocol", name, protocol_names())
  return declared


def protocol_names() -> list[str]:
  """Returns the names of the package's protocols."""
  return [name for name in extensions.names("eval") if hasattr(extensions.find("eval", name), "PROTOCOL")]


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


def _declared() -> list[Protocol]:
  return [module.PROTOCOL for module in extensions.modules("eval") if hasattr(module, "PROTOCOL")]
