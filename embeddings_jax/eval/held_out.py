"""Held-out text: how well a language model predicts documents that it was not trained on.

Protocol. The model's output `measures` gives sums and counts over each batch of the held-out part (documents chosen
by hash, 1 % of the corpus: `data/documents.py: is_validation`), without dropout; masks of a masked language model are
a function of the row's content, so that each evaluation sees the same ones. A metric is the sum of sums by the sum of
counts: a mean over all predicted tokens or over all rows, in nats. `perplexity` is exp of the words' mean loss.
`unigram_loss` is what the tokens' frequencies in the training part (1 added to each) alone would lose.
"""
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from embeddings_jax.types import InputError, Metric, Protocol, Source

WORD_LOSSES = ("masked_loss", "loss")


def held_out(
    embed: Any,
    dataset: Any,
    *,
    measure: Callable[[Mapping[str, np.ndarray]], Mapping[str, jax.Array]],
    source: Source | None,
    counts: np.ndarray | None = None,
    special_ids: Sequence[int] = (),
) -> dict[str, float]:
  """Metrics over one pass of `source`.

  Args:
    embed, dataset: not asked.
    measure: batch -> name -> [sum, count].
    source: held-out batches, in order; rows of `mask` 0 count for nothing.
    counts: [vocab_size], of the training part.
    special_ids: tokens that are not predicted.

  Returns:
    `validation/{name}` for every name, `validation/perplexity`, and with `counts` `validation/unigram_loss`.
  """
  del embed, dataset
  if source is None:
    raise InputError("held_out: the data has no held-out part; the corpus needs some hundred documents")
  totals: dict[str, np.ndarray] = {}
  if counts is not None:
    surprise = -np.log((counts + 1) / (counts + 1).sum())
    predicted = ~np.isin(np.arange(len(counts)), special_ids)
  for step in range(source.facts["steps_per_epoch"]):
    batch = source.batch_at(step)
    found = dict(jax.device_get(measure(batch)))
    if counts is not None:
      tokens = batch["tokens"][(batch["tokens"] >= 0) & (batch["mask"][:, None] > 0)]
      tokens = tokens[predicted[tokens]]
      found["unigram_loss"] = np.array([surprise[tokens].sum(), len(tokens)])
    for name, pair in found.items():
      totals[name] = totals.get(name, np.zeros(2)) + np.asarray(pair, np.float64)
  metrics = {f"validation/{name}": float(total / count) for name, (total, count) in totals.items() if count}
  for name in WORD_LOSSES:
    if f"validation/{name}" in metrics:
      metrics["validation/perplexity"] = float(np.exp(metrics[f"validation/{name}"]))
      break
  return metrics


PROTOCOL = Protocol(
    held_out, needs=("measures",), dataset=False,
    metrics={
        "loss": Metric(False, "nats"), "*_loss": Metric(False, "nats"), "accuracy": Metric(True, "fraction"),
        "*_accuracy": Metric(True, "fraction"), "shuffled_mse": Metric(None), "*_mse": Metric(False),
        "perplexity": Metric(False),
        "next_share": Metric(None, "fraction"),
    })
