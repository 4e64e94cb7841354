"""Few-shot classification: what a linear classifier reads off frozen embeddings with a few labels of each class.

Protocol. For n = 1, 5, 10 and 25, as far as every class has so many training items, n items of each class are drawn
from the training part, ten times with `seed` (the items of a smaller n are among those of a larger one). Features are
standardized with the mean and the deviation of all training items, whose labels that does not need (constant features
are left out; those of a sparse matrix are divided by their deviation alone). The classifier is the multinomial
logistic regression of `linear_probe.py`, with its largest penalty, λ = 0.1, and no other: with a label or two of each
class there is nothing to choose it by. Reported are the mean of the accuracy on the test part over the ten draws, and
its standard deviation (n - 1). A set without a `train` or `test` split is divided 80 : 20, stratified, with `seed`.
The choice of λ matters little: of pixels of Fashion-MNIST, .03 to 1 differ by .006 with 1 label, .003 with 5 and .018
with 25, on items of the training part that were held out.
"""
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from embeddings_jax.eval.linear_probe import check_finite, labeled_parts, logistic_regression, standardizer
from embeddings_jax.eval.metrics import mean_and_std
from embeddings_jax.types import Metric, Protocol

SHOTS = (1, 5, 10, 25)
DRAWS = 10
PENALTY = 0.1


def few_shot(
    embed: Callable[[Any], np.ndarray],
    dataset: Any,
    *,
    seed: int = 0,
    shots: Sequence[int] = SHOTS,
) -> dict[str, float]:
  """Accuracy with a few labeled items of each class, for every kind of label that the dataset has.

  Args:
    embed: `items -> [num_items, dim]`, an array or a sparse matrix of scipy.
    dataset: has `items`, `labels` (name -> `[num_items]`) and `split` (name -> row indices).
    seed: Random seed of the draws, and of the split of a set that has none.
    shots: labeled items of each class.

  Returns:
    `{label}/test/few_shot_{n}/` `accuracy` and `deviation` for every label and n.
  """
  parts = labeled_parts("few_shot", dataset, seed)
  features = embed(dataset.items)
  features = features if sparse.issparse(features) else np.asarray(features)
  results = {}
  for name, labels, train, test in parts:
    check_finite("few_shot", features[train], features[test])
    standardize = standardizer(features[train])
    train_x, test_x = standardize(features[train]), standardize(features[test])
    classes, label = np.unique(labels[train], return_inverse=True)
    scores: dict[int, list[float]] = {n: [] for n in shots if n <= np.bincount(label).min()}
    rng = np.random.default_rng(seed)
    for _ in range(DRAWS):
      drawn = [rng.permutation(np.flatnonzero(label == i)) for i in range(len(classes))]
      for n, accuracies in scores.items():
        rows = np.concatenate([of_class[:n] for of_class in drawn])
        classifier = logistic_regression(train_x[rows], labels[train][rows], PENALTY)
        accuracies.append(float((classifier.predict(test_x) == labels[test]).mean()))
    for n, accuracies in scores.items():
      mean, std = mean_and_std(accuracies)
      results |= {f"{name}/test/few_shot_{n}/accuracy": mean, f"{name}/test/few_shot_{n}/deviation": std}
  return results


PROTOCOL = Protocol(
    few_shot, labels=True,
    metrics={
        "accuracy": Metric(True, "fraction"), "deviation": Metric(None, "fraction"),
    })
