"""Node classification: labels of nodes from those of some of them (Perozzi et al. 2014, section 5)."""
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from embeddings_jax.eval.linear_probe import check_finite
from embeddings_jax.eval.metrics import mean_and_std
from embeddings_jax.types import InputError, Metric, Protocol

TRAIN = (10, 50, 90)
SHUFFLES = 10
_NEWTON_STEPS, _TOLERANCE = 50, 1e-6


def node_classification(
    embed: Callable[[Any], np.ndarray],
    dataset: Any,
    *,
    seed: int = 0,
    train: Sequence[int] = TRAIN,
    shuffles: int = SHUFFLES,
) -> dict[str, float]:
  """F1 scores of one-vs-rest logistic regression on node embeddings as they are.

  Protocol (that of DeepWalk's, node2vec's and NetMF's tables). The labeled nodes are shuffled `shuffles` times with
  seeds of their own; of each order the first `train` percent teach and the others are asked. For each class c

    min_w  1/2 |w|^2 + C sum_i log(1 + exp(-y_ic w . (x_i, 1))),  C = 1,

  as LIBLINEAR has it, the penalty on the bias included, here solved by Newton's method to a gradient of 1e-6 of its
  start. Nothing is chosen, so nothing is chosen on test nodes. Two ways to predict the labels of a test node:

  - `oracle-k`: the k classes with the highest scores, k being the node's true number of labels. All published tables
    give it away so; the name says that they do.
  - `threshold`: the classes with a probability of at least 1/2, or the most probable one. It does not know k.

  Micro-F1 is that of all (node, class) decisions, macro-F1 the mean over classes, 0 for a class that is never
  predicted. Where the dataset has an official split and one label a node (Cora: Planetoid's 140 training and 1,000
  test nodes), the result is the accuracy of the class with the highest score.

  Checks: random vectors on BlogCatalog have micro-F1 near .17 at 50 % (guessing by class frequency), far from the 99
  % that a public script prints under newer versions of scikit-learn.

  Args:
    embed: nodes -> [num_nodes, dim].
    dataset: Has `items`, `labels` (name -> texts [num_nodes], "" for none, or bool [num_nodes, num_classes]),
    `split`.
    seed: Random seed of the shuffles.
    train: Percentages of the labeled nodes that teach.
    shuffles: Number of random divisions.

  Returns:
    `LABEL/{oracle-k, threshold}/train{percent}/{micro, macro}-f1` and `.../std`, the sample standard deviation over
    shuffles; with a split `LABEL/one-vs-rest/test/accuracy`.
  """
  vectors = np.asarray(embed(dataset.items), np.float64)
  check_finite("node_classification", vectors, vectors)
  metrics = {}
  for name, labels in dataset.labels.items():
    member, several = membership(np.asarray(labels))
    known = np.flatnonzero(member.any(1))
    if not several and {"train", "test"} <= set(dataset.split):
      parts = [np.intersect1d(dataset.split[part], known) for part in ("train", "test")]
      scores = one_vs_rest(vectors[parts[0]], member[parts[0]])(vectors[parts[1]])
      right = member[parts[1]][np.arange(len(scores)), scores.argmax(1)]
      metrics[f"{name}/one-vs-rest/test/accuracy"] = float(right.mean())
      continue
    for percent in train:
      if not 1 <= int(len(known) * percent / 100) < len(known):
        raise InputError(f"node_classification: {percent} % of {len(known)} labeled nodes leave none to teach or "
                         "none to ask")
      results: dict[str, list[float]] = {}
      for i in range(shuffles):
        order = known[np.random.default_rng((seed, i)).permutation(len(known))]
        teach, test = np.split(order, [int(len(order) * percent / 100)])
        scores = one_vs_rest(vectors[teach], member[teach])(vectors[test])
        for way, predicted in (("oracle-k", top_k(scores, member[test].sum(1))), ("threshold", thresholded(scores))):
          for key, value in f1(predicted, member[test]).items():
            results.setdefault(f"{name}/{way}/train{percent}/{key}", []).append(value)
      for key, values in results.items():
        metrics[key], metrics[f"{key}/std"] = mean_and_std(values)
  return metrics


def membership(labels: np.ndarray) -> tuple[np.ndarray, bool]:
  """Returns labels as bool [n, num_classes], and whether an item may have several; "" is no label."""
  if labels.ndim == 2:
    return labels.astype(bool), True
  classes = np.unique(labels)
  return labels[:, None] == classes[classes != "" if classes.dtype.kind in "UO" else slice(None)], False


def one_vs_rest(features: np.ndarray, member: np.ndarray, c: float = 1.0) -> Callable[[np.ndarray], np.ndarray]:
  """Fits the classifiers of the docstring above; returns `features -> scores` [n, num_classes], above 0 for p > 1/2.

  Args:
    features: [n, d].
    member: bool [n, num_classes].
    c: Weight C of the likelihood against the penalty.
  """
  x = np.concatenate([features, np.ones((len(features), 1))], 1)
  weights = _newton(x, np.where(member, 1.0, -1.0), c)
  return lambda features: features @ weights[:-1] + weights[-1]


def _newton(x: np.ndarray, sign: np.ndarray, c: float) -> np.ndarray:
  """Returns the columns [d, k] that minimize |w|^2 / 2 + c sum_i log(1 + exp(-sign_i w . x_i)), all at once.

  Newton's steps are found by conjugate gradients, in the coordinates of the eigenvectors of X'X, where the Hessian of
  a class is nearly 1 + c share (1 - share) times the eigenvalues.
  """
  spectrum, turn = np.linalg.eigh(x.T @ x)
  x = x @ turn
  share = (sign > 0).mean(0)
  scale = 1 / (1 + c * np.maximum(share * (1 - share), 1e-3) * np.maximum(spectrum, 0)[:, None])
  weights, margin = np.zeros((x.shape[1], sign.shape[1])), np.zeros(sign.shape)
  value, first = np.full(sign.shape[1], c * len(x) * np.log(2)), None
  for _ in range(_NEWTON_STEPS):
    wrong = 0.5 - 0.5 * np.tanh(0.5 * margin)  # sigma(-margin).
    gradient = weights - c * (x.T @ (sign * wrong))
    size = np.linalg.norm(gradient, axis=0)
    first = size if first is None else first
    if (size <= _TOLERANCE * first).all():
      break
    curvature = c * wrong * (1 - wrong)
    direction = _conjugate_gradients(lambda v, weight: v + x.T @ (weight * (x @ v)), curvature, -gradient, scale)
    slope, along, step = (gradient * direction).sum(0), sign * (x @ direction), np.ones(sign.shape[1])
    while True:  # Halved until the objective falls (Armijo).
      new, moved = weights + step * direction, margin + step * along
      lower = 0.5 * (new * new).sum(0) + c * np.logaddexp(0, -moved).sum(0)
      short = (lower > value + 1e-4 * step * slope) & (step > 1e-8) & (size > _TOLERANCE * first)
      if not short.any():
        break
      step = np.where(short, step / 2, step)
    weights, margin, value = new, moved, lower
  return turn @ weights


def _conjugate_gradients(product: Callable[[np.ndarray, np.ndarray], np.ndarray], curvature: np.ndarray,
                         right: np.ndarray, scale: np.ndarray) -> np.ndarray:
  """Solves one positive system, `product(v, curvature) = right`, for each column to a hundredth; `scale` is nearly
  the
  inverse diagonal."""
  solution, residual = np.zeros_like(right), right
  direction = scaled = scale * residual
  product_of = (residual * scaled).sum(0)
  least = 1e-2 * np.linalg.norm(right, axis=0)
  for _ in range(len(right)):
    image = product(direction, curvature)
    step = product_of / np.maximum((direction * image).sum(0), 1e-300)
    solution, residual = solution + step * direction, residual - step * image
    if (np.linalg.norm(residual, axis=0) <= least).all():
      break
    scaled = scale * residual
    before, product_of = product_of, (residual * scaled).sum(0)
    direction = scaled + product_of / np.maximum(before, 1e-300) * direction
  return solution


def top_k(scores: np.ndarray, k: np.ndarray) -> np.ndarray:
  """Returns bool [n, num_classes], the k [n] classes with the highest scores; ties go to the first class."""
  rank = np.argsort(np.argsort(-scores, 1, kind="stable"), 1)
  return rank < k[:, None]


def thresholded(scores: np.ndarray) -> np.ndarray:
  """Returns bool [n, num_classes], the classes with a score of at least 0, or the one with the highest."""
  return (scores >= 0) | top_k(scores, np.ones(len(scores), int))


def f1(predicted: np.ndarray, right: np.ndarray) -> dict[str, float]:
  """Returns `micro-f1` and `macro-f1` of bool [n, num_classes]; the F1 of a class without a true positive is 0."""
  both, total = (predicted & right).sum(0), predicted.sum(0) + right.sum(0)
  return {"micro-f1": float(2 * both.sum() / max(total.sum(), 1)),
          "macro-f1": float((2 * both / np.maximum(total, 1)).mean())}


_F1 = Metric(True, "fraction")
PROTOCOL = Protocol(
    node_classification, labels=True, several_labels=True,
    metrics={"micro-f1": _F1, "macro-f1": _F1, "accuracy": _F1, "std": Metric(None, "fraction")})
