"""Held-out text: how well a language model predicts documents that it was not trained on.

Protocol. The model's output `measures` gives sums and counts over each batch of the held-out part (documents chosen
by hash, 1 % of the corpus: `data/documents.py: is_validation`), without dropout; masks of a masked language model are
a function of the row's content, so that each evaluation sees the same ones. A metric is the sum of sums by the sum of
counts: a mean over all predicted tokens or over all rows, in nats. `perplexity` is exp of the words' mean loss.
"""
from collections.abc import Callable, Mapping

import jax
import numpy as np

from embeddings_jax.types import InputError, Source

WORD_LOSSES = ("masked_loss", "loss")


def held_out(
    measure: Callable[[Mapping[str, np.ndarray]], Mapping[str, jax.Array]],
    source: Source | None,
) -> dict[str, float]:
  """Metrics over one pass of `source`.

  Args:
    measure: batch -> name -> [sum, count].
    source: held-out batches, in order; rows of `mask` 0 count for nothing.

  Returns:
    `validation/{name}` for every name, and `validation/perplexity`.
  """
  if source is None:
    raise InputError("held_out: the data has no held-out part; the corpus needs some hundred documents")
  totals: dict[str, np.ndarray] = {}
  for step in range(source.facts["steps_per_epoch"]):
    for name, pair in jax.device_get(measure(source.batch_at(step))).items():
      totals[name] = totals.get(name, np.zeros(2)) + pair.astype(np.float64)
  metrics = {f"validation/{name}": float(total / count) for name, (total, count) in totals.items() if count}
  for name in WORD_LOSSES:
    if f"validation/{name}" in metrics:
      metrics["validation/perplexity"] = float(np.exp(metrics[f"validation/{name}"]))
      break
  return metrics
