"""Linear probe: what a linear classifier reads off frozen embeddings.

Protocol. Features are standardized with the mean and the deviation of the training rows (constant
features are left out); those of a sparse matrix are divided by their deviation alone. The classifier is
multinomial logistic regression,

  min_{W,b}  1/n Σ_i -log p(y_i | x_i; W, b) + λ/2 |W|²,

fitted by L-BFGS until the largest entry of the gradient is below 1e-4 (at most 5000 iterations). λ is the one of
`PENALTIES` with the highest accuracy on a fifth of the *training* rows, stratified by class and
drawn with `seed` (ties: the larger λ); the classifier is then fitted again on all training rows. The
test rows are used once, for the accuracy that is returned. A set without a `train` or `test` split is
divided 80 : 20, stratified, with `seed`.
"""
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from embeddings_jax.types import InputError, Metric, Protocol

PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4)


def linear_probe(
    embed: Callable[[Any], np.ndarray],
    dataset: Any,
    *,
    seed: int = 0,
    penalties: Sequence[float] = PENALTIES,
) -> dict[str, float]:
  """Accuracy of a linear probe for every kind of label that the dataset has.

  Args:
    embed: `items -> [num_items, dim]`, an array or a sparse matrix of scipy.
    dataset: has `items`, `labels` (name -> `[num_items]`) and `split` (name -> row indices).
    seed: Random seed of the held-out part of the training rows.
    penalties: λ to choose from.

  Returns:
    `{label}/test/accuracy` for every label.
  """
  parts = labeled_parts("linear_probe", dataset, seed)
  features = embed(dataset.items)
  features = features if sparse.issparse(features) else np.asarray(features)
  results = {}
  for name, labels, train, test in parts:
    accuracy = probe_accuracy(features[train], labels[train], features[test], labels[test], seed=seed,
                              penalties=penalties)
    results[f"{name}/test/accuracy"] = accuracy
  return results


def probe_accuracy(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    *,
    seed: int = 0,
    penalties: Sequence[float] = PENALTIES,
) -> float:
  """The protocol on arrays: `[num_rows, dim]` features, `[num_rows]` labels of any type."""
  check_finite("linear_probe", train_features, test_features)
  classify = classifier(train_features, train_labels, seed=seed, penalties=penalties)
  return float((classify(test_features) == test_labels).mean())


def check_finite(protocol: str, train_features: Any, test_features: Any) -> None:
  """Raises if a row of features, an array or a sparse matrix, has a value that is no number."""
  for name, features in ("train", train_features), ("test", test_features):
    bad = ~np.isfinite(features.sum(1))
    if bad.any():
      row = np.flatnonzero(bad)[0]
      raise InputError(f"{protocol}: the embedding of {name} row {row} is not finite")


def classifier(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    held_out: tuple[np.ndarray, np.ndarray] | None = None,
    seed: int = 0,
    penalties: Sequence[float] = PENALTIES,
) -> Callable[[np.ndarray], np.ndarray]:
  """The probe, `features -> labels`, fitted to `[num_rows, dim]` features and `[num_rows]` labels of any type.

  The penalty is chosen on the features and labels `held_out`, which then teach nothing; without them on a fifth of
  the rows, and the probe is fitted again to all.
  """
  from sklearn.model_selection import train_test_split

  penalty = max(penalties)
  if len(penalties) > 1:
    fit_x, fit_y = features, labels
    if held_out is None and len(labels) >= 5:
      rows = np.arange(len(labels))
      stratify = labels if _can_stratify(labels) else None
      fit, other = train_test_split(rows, test_size=0.2, random_state=seed, stratify=stratify)
      fit_x, fit_y, held_out = features[fit], labels[fit], (features[other], labels[other])
    # A rare class may be in the held-out rows alone; then nothing is chosen.
    if held_out is not None and len(np.unique(fit_y)) > 1:
      penalty = _best_penalty(fit_x, fit_y, *held_out, penalties)
  standardize = standardizer(features)
  fitted = logistic_regression(standardize(features), labels, penalty)
  return lambda x: fitted.predict(standardize(x))


def _best_penalty(features: Any, labels: np.ndarray, held_out: Any, held_out_labels: np.ndarray,
                  penalties: Sequence[float]) -> float:
  """The penalty with the highest accuracy on held-out rows; ties: the larger one."""
  standardize = standardizer(features)
  features, held_out = standardize(features), standardize(held_out)
  best, scores = None, []
  for penalty in sorted(penalties, reverse=True):  # Each optimum starts the search for the next.
    best = logistic_regression(features, labels, penalty, best)
    scores.append((_accuracy(best, held_out, held_out_labels), penalty))
  return max(scores)[1]


def standardizer(features: Any) -> Callable[[Any], Any]:
  """Returns a function that gives the columns of `[num_rows, dim]` features mean 0 and deviation 1, and leaves out
  constant ones."""
  if sparse.issparse(features):
    from sklearn.preprocessing import StandardScaler

    return StandardScaler(with_mean=False).fit(features).transform
  mean, std = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
  # A feature that only rounding moves is constant; its weight would be 0, so it is left out.
  varies = std > 1e-7 * np.maximum(1e-30, np.abs(mean))
  if not varies.any():
    return lambda x: np.zeros((len(x), 1))
  return lambda x: (x[:, varies] - mean[varies]) / std[varies]


def logistic_regression(features: Any, labels: np.ndarray, penalty: float, start: Any = None) -> Any:
  """The classifier at the optimum of the objective above, looked for from that of `start`, a classifier of the same
  features, which is moved."""
  from sklearn.linear_model import LogisticRegression

  classifier = start or LogisticRegression(tol=1e-4, max_iter=5000, warm_start=True)
  return classifier.set_params(C=1 / (penalty * len(labels))).fit(features, labels)


def _accuracy(classifier, features: np.ndarray, labels: np.ndarray) -> float:
  return float((classifier.predict(features) == labels).mean())


def labeled_parts(protocol: str, dataset: Any, seed: int) -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
  """Returns `(name, labels, training rows, test rows)` of each kind of label; see `split_rows`.

  Labels with one class among the training rows are left out with a warning.

  Args:
    protocol: Name for error messages.
    dataset: has `labels` (name -> [num_items]) and `split` (name -> row indices).
    seed: Random seed of the division.

  Raises:
    InputError: No labels, or none with two classes.
  """
  name = getattr(dataset, "name", "")
  if not dataset.labels:
    raise InputError(f"{protocol}: dataset {name!r} has no labels; leave it out of evals")
  parts, single = [], []
  for label, values in dataset.labels.items():
    values = np.asarray(values)
    train, test = split_rows(dataset.split, values, seed)
    if len(np.unique(values[train])) > 1:
      parts.append((label, values, train, test))
    else:
      single.append(label)
  if not parts:
    raise InputError(f"{protocol}: labels {', '.join(map(repr, single))} of dataset {name!r} have one class; there "
                     "is nothing to tell apart")
  for label in single:
    logging.warning("%s: label %r of dataset %r has one class and is left out", protocol, label, name)
  return parts


def split_rows(split, labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Rows of the official training and test part, or of an 80 : 20 division, stratified where that is possible."""
  from sklearn.model_selection import train_test_split

  if split and "train" in split and "test" in split:
    return np.asarray(split["train"]), np.asarray(split["test"])
  if len(labels) < 2:
    raise InputError(f"{len(labels)} labeled items cannot be divided into training and test rows; at least 2 are "
                     "needed")
  stratify = labels if _can_stratify(labels) else None
  train, test = train_test_split(np.arange(len(labels)), test_size=0.2, random_state=seed, stratify=stratify)
  return train, test


def _can_stratify(labels: np.ndarray) -> bool:
  counts = np.unique(labels, return_counts=True)[1]
  return bool(counts.min() >= 2 and len(labels) // 5 >= len(counts))


PROTOCOL = Protocol(
    linear_probe, labels=True,
    metrics={
        "accuracy": Metric(True, "fraction"),
    })
