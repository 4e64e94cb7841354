"""Metrics of predictions, for what scikit-learn and scipy leave undefined or do not have."""
import logging
from collections.abc import Sequence

import numpy as np

from embeddings_jax.types import InputError


def accuracy(predicted: np.ndarray, right: np.ndarray) -> float:
  """Returns the fraction of equal entries; nan of none."""
  return float(np.mean(predicted == right)) if len(right) else float("nan")


def f1_scores(predicted: np.ndarray, right: np.ndarray) -> np.ndarray:
  """Returns F1 of every class from 0 that is predicted or right, [num_classes]; nan of classes that are neither."""
  from sklearn.metrics import f1_score

  classes = np.arange(1 + int(max(np.max(predicted, initial=0), np.max(right, initial=0))))
  return np.asarray(f1_score(right, predicted, labels=classes, average=None, zero_division=np.nan))


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
  """Returns mean and sample standard deviation (n - 1); of a single value the latter is nan."""
  values = np.asarray(values, np.float64)
  return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def spearman(predicted: np.ndarray, scores: np.ndarray, where: str = "spearman") -> float:
  """Returns Spearman's correlation; ties share the mean of their ranks. Else as `pearson`."""
  from scipy.stats import rankdata

  return pearson(rankdata(predicted), rankdata(scores), where)


def roc_auc(scores: np.ndarray, positive: np.ndarray) -> float:
  """Returns the area under the ROC curve: the probability that a random positive outranks a random negative, ties
  counting 1/2; nan without a positive or a negative one."""
  from sklearn.metrics import roc_auc_score

  return float(roc_auc_score(positive, scores)) if 0 < np.sum(positive) < len(positive) else float("nan")


def pearson(predicted: np.ndarray, scores: np.ndarray, where: str = "pearson") -> float:
  """Returns Pearson's correlation; nan, and a warning that says why, if it is undefined.

  Args:
    predicted: [n] values of the model.
    scores: [n] scores to compare with.
    where: Name of the metric for the warning.
  """
  x, y = np.asarray(predicted, np.float64), np.asarray(scores, np.float64)
  reason = (f"{len(x)} pairs, a correlation needs two" if len(x) < 2 else
            "all values of the model are equal" if x.min() == x.max() else
            "all scores are equal" if y.min() == y.max() else "")
  if reason:
    logging.warning("%s is not defined (nan): %s", where, reason)
    return float("nan")
  from scipy.stats import pearsonr

  return float(pearsonr(x, y).statistic)


def check_scores(protocol: str, name: str, scores: np.ndarray) -> None:
  """Raises unless there is something to correlate with: two scores that differ."""
  if len(scores) < 2:
    raise InputError(f"{protocol}: {name} has {len(scores)} pairs; a correlation needs two")
  if np.min(scores) == np.max(scores):
    raise InputError(f"{protocol}: all {len(scores)} scores of {name} are {scores[0]:g}; nothing can be correlated "
                     "with them")


def entities(tags: Sequence[str]) -> set[tuple[int, int, str]]:
  """(first word, word behind the last, type) of each entity in a sentence's tags.

  As conlleval (Tjong Kim Sang & De Meulder 2003) reads IOB2, and IOB1 alike: B- begins an entity; so does I- after O,
  after another type or at the beginning of a sentence, whose B- is missing (the repair); all else ends one. S- and E-
  of the BIOES scheme are one of one word and the last word.
  """
  spans, begun, kind = set(), 0, ""
  for i, tag in enumerate([*tags, "O"]):
    mark, _, name = tag.partition("-")
    inside = mark in ("I", "E") and name == kind and kind
    if kind and not inside:
      spans.add((begun, i, kind))
      kind = ""
    if mark in ("B", "S", "I", "E") and not inside:
      begun, kind = i, name or "_"
    if mark in ("S", "E") and kind:
      spans.add((begun, i + 1, kind))
      kind = ""
  return spans


def entity_scores(predicted: Sequence[Sequence[str]], right: Sequence[Sequence[str]]) -> dict[str, float]:
  """`precision`, `recall` and `f1` over all entities of all sentences: span and type must be right exactly."""
  correct = guessed = expected = 0
  for tags, others in zip(predicted, right, strict=True):
    spans, gold = entities(tags), entities(others)
    correct, guessed, expected = correct + len(spans & gold), guessed + len(spans), expected + len(gold)
  share = lambda n, of: n / of if of else 0.0
  return {"precision": share(correct, guessed), "recall": share(correct, expected),
          "f1": share(2 * correct, guessed + expected)}
