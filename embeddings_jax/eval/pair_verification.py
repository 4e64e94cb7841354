"""Verification: are two sentences the same or not, by the cosine of their vectors?"""
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from embeddings_jax.eval.linear_probe import split_rows
from embeddings_jax.eval.metrics import roc_auc
from embeddings_jax.eval.pairs import alike, check_pairs, cosines, embedded
from embeddings_jax.types import InputError, Metric, Protocol


def pair_verification(embed: Callable[[Sequence[str]], Any], dataset: Any, *, seed: int = 0) -> dict[str, float]:
  """ROC AUC and accuracy of telling pairs that are alike from those that are not, by a threshold on the cosine.

  Protocol. `alike` of `eval/pairs.py` says which pairs are which, and those that are neither are left out: of `snli`
  (Bowman et al. 2015) entailment stands against contradiction, of `rte` entailment against its absence, of `sts-b`
  scores from 4 up against scores up to 1. The AUC is the share of couples of an alike pair and another of which the
  alike one has the greater cosine, equal ones half (as scikit-learn's `roc_auc_score`). For the accuracy a pair
  counts as alike if its cosine is no less than the threshold, which is the one with the most right on the part `dev`
  (without one on `train`): of those between two neighboring cosines, and beyond the outermost, ties: the lowest. The
  part `test` is looked at once. A set without `test` is divided 80 : 20, stratified, with `seed`. A zero vector has
  cosine 0 with all.

  Vectors drawn at random have an AUC of .5 and about the accuracy of the more frequent kind; perfect ones 1 and 1.
  Means of `sgns --preset=small`'s vectors: `snli` .636 and .599, `sts-b` .861 and .799, `rte` .517 and .505: which
  words are shared tells little of entailment.

  Args:
    embed: sentences -> [num_sentences, dim], an array or a sparse matrix of scipy.
    dataset: pairs with a label; the two sentences may change places.
    seed: Random seed of the split of a dataset without one.

  Returns:
    `test/verification_auc`; and where there are others to choose the threshold on, `test/verification_accuracy`,
    `verification_threshold`, and with a part `dev` `dev/verification_auc`.
  """
  check_pairs("pair_verification", dataset)
  if not dataset.labels:
    raise InputError(f"pair_verification: dataset {getattr(dataset, 'name', '')!r} has no labels")
  same = alike(dataset)
  known = np.flatnonzero(same >= 0)
  parts = {part: rows for part, rows in dataset.split.items() if part in ("train", "dev", "test")}
  if "test" not in parts:
    parts = dict(zip(("train", "test"), (known[rows] for rows in split_rows({}, same[known], seed))))
  results: dict[str, float] = {}
  for part in [part for part in ("dev" if "dev" in parts else "train", "test") if part in parts]:
    rows = np.asarray(parts[part])
    rows = rows[same[rows] >= 0]
    if len(np.unique(same[rows])) < 2:
      raise InputError(f"pair_verification: the part {part} of {getattr(dataset, 'name', '')!r} has pairs of one "
                       "kind only, needs such as are alike and such as are not")
    cosine = cosines(*embedded(embed, [dataset.items[i] for i in rows], "pair_verification"))
    if part != "train":
      results[f"{part}/verification_auc"] = roc_auc(cosine, same[rows] == 1)
    if part != "test":
      results["verification_threshold"] = best_threshold(cosine, same[rows] == 1)
    elif "verification_threshold" in results:
      accepted = cosine >= results["verification_threshold"]
      results["test/verification_accuracy"] = float((accepted == (same[rows] == 1)).mean())
  return results


def best_threshold(scores: np.ndarray, positive: np.ndarray) -> float:
  """The threshold for which `scores >= threshold` is most often `positive`; of equally good ones the lowest.

  One of the smallest score, the middles between neighboring distinct scores, and what is just above the largest.
  """
  values, inverse = np.unique(scores, return_inverse=True)
  positives, negatives = (np.bincount(inverse, kind, len(values)) for kind in (positive, ~positive))
  between = (values[:-1] + values[1:]) / 2
  candidates = np.concatenate([values[:1], between, [np.nextafter(values[-1], np.inf)]])
  # At candidate i the values before the i-th are below.
  right = positives.sum() - np.cumsum([0, *positives]) + np.cumsum([0, *negatives])
  return float(candidates[right.argmax()])


PROTOCOL = Protocol(
    pair_verification, needs=("sentences",), default="snli",
    metrics={
        "verification_auc": Metric(True, "fraction"), "verification_accuracy": Metric(True, "fraction"),
        "verification_threshold": Metric(None, "cosine"),
    })
