"""Linear probe: what a linear classifier reads off frozen embeddings.

Protocol. Features are standardised with the mean and the deviation of the training rows (constant
features are left out); those of a sparse matrix are divided by their deviation alone. The classifier is
multinomial logistic regression,

  min_{W,b}  1/n Σ_i -log p(y_i | x_i; W, b) + λ/2 |W|²,

fitted by L-BFGS until the largest entry of the gradient is below 1e-4 (at most 5000 iterations). λ is the one of
`PENALTIES` with the highest accuracy on a fifth of the *training* rows, stratified by class and
drawn with `seed` (ties: the larger λ); the classifier is then fitted again on all training rows. The
test rows are used once, for the accuracy that is returned. A set without a `train` or `test` split is
divided 80 : 20, stratified, with `seed`.
"""
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from embeddings_jax.types import InputError, Metric

METRICS = {"accuracy": Metric(True, "fraction")}

PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4)


def linear_probe(
    embed: Callable[[Any], np.ndarray],
    dataset: Any,
    *,
    seed: int = 0,
    penalties: Sequence[float] = PENALTIES,
) -> dict[str, float]:
  """Accuracy of a linear probe for every kind of label that the data set has.

  Args:
    embed: `items -> [num_items, dim]`, an array or a sparse matrix of scipy.
    dataset: has `items`, `labels` (name -> `[num_items]`) and `split` (name -> row indices).
    seed: of the held-out part of the training rows.
    penalties: λ to choose from.

  Returns:
    `{label}/test/accuracy` for every label.
  """
  if not dataset.labels:
    raise InputError(f"linear_probe: data set {getattr(dataset, 'name', '')!r} has no labels; leave it out of evals")
  features = embed(dataset.items)
  features = features if sparse.issparse(features) else np.asarray(features)
  results = {}
  for name, labels in dataset.labels.items():
    labels = np.asarray(labels)
    train, test = split_rows(dataset.split, labels, seed)
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

  fit_x, fit_y, penalty = features, labels, penalties[0]
  if len(penalties) > 1:
    if held_out is None:
      rows = np.arange(len(labels))
      stratify = labels if _can_stratify(labels) else None
      fit, other = train_test_split(rows, test_size=0.2, random_state=seed, stratify=stratify)
      fit_x, fit_y, held_out = features[fit], labels[fit], (features[other], labels[other])
    standardise = standardiser(fit_x)
    fit_x, held_out_x = standardise(fit_x), standardise(held_out[0])
    found, scores = None, []
    for penalty in sorted(penalties, reverse=True):  # Each optimum starts the search for the next.
      found = logistic_regression(fit_x, fit_y, penalty, found)
      scores.append((_accuracy(found, held_out_x, held_out[1]), penalty))
    penalty = max(scores)[1]
  standardise = standardiser(features)
  found = logistic_regression(standardise(features), labels, penalty)
  return lambda x: found.predict(standardise(x))


def standardiser(features: Any) -> Callable[[Any], Any]:
  """What gives the columns of `[num_rows, dim]` features mean 0 and deviation 1, and leaves out constant ones."""
  if sparse.issparse(features):
    from sklearn.preprocessing import StandardScaler

    return StandardScaler(with_mean=False).fit(features).transform
  mean, deviation = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
  # A feature that only rounding moves is constant; its weight would be 0, so it is left out.
  varies = deviation > 1e-7 * np.maximum(1e-30, np.abs(mean))
  if not varies.any():
    return lambda x: np.zeros((len(x), 1))
  return lambda x: (x[:, varies] - mean[varies]) / deviation[varies]


def logistic_regression(features: Any, labels: np.ndarray, penalty: float, start: Any = None) -> Any:
  """The classifier at the optimum of the objective above, looked for from that of `start`, a classifier of the same
  features, which is moved."""
  from sklearn.linear_model import LogisticRegression

  classifier = start or LogisticRegression(tol=1e-4, max_iter=5000, warm_start=True)
  return classifier.set_params(C=1 / (penalty * len(labels))).fit(features, labels)


def _accuracy(classifier, features: np.ndarray, labels: np.ndarray) -> float:
  return float((classifier.predict(features) == labels).mean())


def split_rows(split, labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Rows of the official training and test part, or of an 80 : 20 division, stratified where that is possible."""
  from sklearn.model_selection import train_test_split

  if split and "train" in split and "test" in split:
    return np.asarray(split["train"]), np.asarray(split["test"])
  stratify = labels if _can_stratify(labels) else None
  train, test = train_test_split(np.arange(len(labels)), test_size=0.2, random_state=seed, stratify=stratify)
  return train, test


def _can_stratify(labels: np.ndarray) -> bool:
  counts = np.unique(labels, return_counts=True)[1]
  return counts.min() >= 2 and len(labels) // 5 >= len(counts)
