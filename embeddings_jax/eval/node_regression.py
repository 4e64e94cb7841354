"""Regression of numeric node attributes on node embeddings."""
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from embeddings_jax.eval.linear_probe import check_finite
from embeddings_jax.eval.metrics import mean_and_std
from embeddings_jax.types import InputError, Metric, Protocol

TRAIN = (10, 50, 90)
SHUFFLES = 10
PENALTIES = tuple(10.0**k for k in range(-3, 5))
_LEAST = 3  # Nodes that teach.


def node_regression(
    embed: Callable[[Any], np.ndarray],
    dataset: Any,
    *,
    seed: int = 0,
    train: Sequence[int] = TRAIN,
    shuffles: int = SHUFFLES,
) -> dict[str, float]:
  """Coefficients of determination of ridge regression from node embeddings to numeric attributes.

  Protocol. For each attribute, nodes whose value is known are shuffled `shuffles` times with seeds of their own; of
  each order the first `train` percent teach and the others are asked. Embeddings are standardized with mean and
  standard deviation of the teaching nodes. Ridge regression

    min_{w, b}  sum_i (y_i - w . x_i - b)^2 + penalty |w|^2

  takes the penalty of `PENALTIES` with the smallest leave-one-out error of the teaching nodes. The score is R2 = 1 -
  sum (y - f)^2 / sum (y - mean y)^2 over the nodes asked: 1 is perfect, 0 their mean, and it has no lower bound.

  Args:
    embed: nodes -> [num_nodes, dim].
    dataset: Has `items` and `attributes`, name -> float [num_nodes], NaN where unknown.
    seed: Random seed of the shuffles.
    train: Percentages of the nodes with a value that teach.
    shuffles: Number of random divisions.

  Returns:
    `ATTRIBUTE/train{percent}/r2` and `.../std`, the sample standard deviation over shuffles.
  """
  if not getattr(dataset, "attributes", None):
    raise InputError("node_regression: the graph has no numeric attributes; give config.data.attributes=FILE, or a "
                     "networkx graph whose nodes have them")
  vectors = np.asarray(embed(dataset.items), np.float64)
  check_finite("node_regression", vectors, vectors)
  metrics = {}
  for name, values in dataset.attributes.items():
    known = np.flatnonzero(np.isfinite(values))
    for percent in train:
      number = int(len(known) * percent / 100)
      if number < _LEAST or len(known) - number < 2:
        raise InputError(f"node_regression: {percent} % of {len(known)} nodes with {name!r} leave fewer than "
                         f"{_LEAST} to teach or 2 to ask")
      scores = []
      for i in range(shuffles):
        order = known[np.random.default_rng((seed, i)).permutation(len(known))]
        teach, test = np.split(order, [number])
        scores.append(r2(ridge(vectors[teach], values[teach])(vectors[test]), values[test]))
      metrics[f"{name}/train{percent}/r2"], metrics[f"{name}/train{percent}/std"] = mean_and_std(scores)
  return metrics


def ridge(features: np.ndarray, values: np.ndarray, penalties: Sequence[float] = PENALTIES) -> Callable:
  """Fits ridge regression, its penalty chosen by leave-one-out error; returns `features -> predictions`.

  With the singular value decomposition X = U S V' of standardized features, the residuals without each row are (y -
  H y)_i / (1 - H_ii - 1/n), H = U S^2 / (S^2 + penalty) U' (Golub, Heath & Wahba 1979).

  Args:
    features: [n, d].
    values: [n].
    penalties: Candidates.
  """
  mean, scale = features.mean(0), features.std(0)
  scale = np.where(scale > 1e-12 * np.maximum(np.abs(mean), 1), scale, np.inf)
  left, magnitudes, right = np.linalg.svd((features - mean) / scale, full_matrices=False)
  center = values.mean()
  along = left.T @ (values - center)
  errors = []
  for penalty in penalties:
    shrunk = magnitudes**2 / (magnitudes**2 + penalty)
    residual = values - center - left @ (shrunk * along)
    errors.append(np.square(residual / np.maximum(1 - (left**2) @ shrunk - 1 / len(values), 1e-12)).mean())
  penalty = penalties[int(np.argmin(errors))]
  weights = right.T @ (magnitudes / (magnitudes**2 + penalty) * along) / scale
  return lambda features: (features - mean) @ weights + center


def r2(predicted: np.ndarray, values: np.ndarray) -> float:
  """Returns the coefficient of determination; of constant values 0."""
  total = np.square(values - values.mean()).sum()
  return float(1 - np.square(values - predicted).sum() / total) if total > 0 else 0.0


PROTOCOL = Protocol(node_regression, metrics={"r2": Metric(True, "fraction of the variance"),
                                              "std": Metric(None, "fraction of the variance")})
