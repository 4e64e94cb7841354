"""Units that a masked model predicts for hidden frames of held-out data, against those that are there.

Protocol. Over one pass of the held-out split, of hidden frames alone, by the model's output `reconstruct`, whose
hidden frames depend on the content alone:

  accuracy              fraction of the frames whose unit is predicted
  predicted_units       number of distinct units among the predictions
  held_out_units        number of distinct units among the labels
  coverage              fraction of the labels' units that are predicted at least once
  predicted_perplexity  exp of the entropy of the predictions; held_out_perplexity, of the labels

A model that has collapsed predicts a few units whatever it hears: its coverage is near 0. One that predicts the units
at random by their frequencies has the labels' perplexity, and a low accuracy.
"""
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from embeddings_jax.types import InputError, Metric, Protocol, Source


def unit_usage(
    embed: Any,
    dataset: Any,
    *,
    reconstruct: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    encode: Any,
    source: Source | None = None,
) -> dict[str, float]:
  """Usage of units on held-out data.

  Args:
    embed, dataset, encode: Not used.
    reconstruct: Batch -> `original` and `reconstructed` units and the `mask` of hidden frames, [n, frames] each.
    source: Held-out batches, in order.

  Returns:
    `validation/{metric}`.
  """
  del embed, dataset, encode
  if source is None:
    raise InputError("unit_usage: the data has no held-out part; the clips need some seconds more")
  targets: list[np.ndarray] = []
  predicted: list[np.ndarray] = []
  for step in range(source.facts["steps_per_epoch"]):
    batch = source.batch_at(step)
    outputs = {name: np.asarray(value) for name, value in reconstruct(batch).items()}
    if "mask" not in outputs or outputs["original"].dtype.kind != "i":
      raise InputError("unit_usage: the model predicts no units of hidden frames; hubert does")
    hidden = outputs["mask"].astype(bool) & (np.asarray(batch["mask"]) > 0)[:, None]
    targets.append(outputs["original"][hidden])
    predicted.append(outputs["reconstructed"][hidden])
  return {f"validation/{name}": value for name, value in usage(np.concatenate(targets),
                                                              np.concatenate(predicted)).items()}


def usage(targets: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
  """Returns the metrics of units and their predictions, [num_frames] each."""
  if not len(targets):
    raise InputError("unit_usage: no frame of the held-out part is hidden")
  kinds, guesses = np.unique(targets), np.unique(predicted)
  return {"accuracy": float((targets == predicted).mean()), "predicted_units": float(len(guesses)),
          "held_out_units": float(len(kinds)), "coverage": float(np.isin(kinds, guesses).mean()),
          "predicted_perplexity": _perplexity(predicted), "held_out_perplexity": _perplexity(targets)}


def _perplexity(units: np.ndarray) -> float:
  share = np.unique(units, return_counts=True)[1] / len(units)
  return float(np.exp(-(share * np.log(share)).sum()))


PROTOCOL = Protocol(
    unit_usage, needs=("reconstruct",), dataset=False,
    metrics={"accuracy": Metric(True, "fraction"), "coverage": Metric(True, "fraction"),
             "predicted_units": Metric(None, "count"), "held_out_units": Metric(None, "count"),
             "predicted_perplexity": Metric(None), "held_out_perplexity": Metric(None)})
