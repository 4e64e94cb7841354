"""k nearest neighbors: what the neighborhood of an embedding says about a label.

Protocol (Wu et al. 2018). A test item gets the label with the largest sum of votes of its k nearest training items
by cosine, each of which votes exp(cosine / temperature) for its own; a zero vector has cosine 0 with all. Of equal
cosines the training item that comes first is nearer; of equal sums the label that comes first in sorted order wins. A
set without a `train` or `test` split is divided 80 : 20, stratified, with `seed`. Nothing is fitted and nothing
chosen: both settings that are in use are reported,

- `knn_accuracy`: k = 20, temperature 0.07 (Caron et al. 2021, DINO);
- `knn200_accuracy`: k = 200, temperature 0.1 (Wu et al. 2018 took 0.07; these are the values of the lightly library,
  whose table of CIFAR-10 has .848 for SimCLR, ResNet-18, 200 epochs with batch 512).

Where there are fewer training items than k, all of them vote.
"""
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from embeddings_jax.eval.linear_probe import labeled_parts
from embeddings_jax.eval.retrieval import cosines, l2_normalized, nearest
from embeddings_jax.types import Metric, Protocol

SETTINGS = {"knn": (20, 0.07), "knn200": (200, 0.1)}


def knn(
    embed: Callable[[Any], Any],
    dataset: Any,
    *,
    seed: int = 0,
    settings: Mapping[str, tuple[int, float]] = SETTINGS,
) -> dict[str, float]:
  """Accuracy of k nearest neighbors for every kind of label.

  Args:
    embed: items -> [num_items, dim], an array or a sparse matrix of scipy.
    dataset: has `items`, `labels` (name -> [num_items]) and `split` (name -> row indices).
    seed: Random seed of the split of a set that has none.
    settings: name -> (k, temperature).

  Returns:
    `{label}/test/{name}_accuracy` for every label and setting.
  """
  parts = labeled_parts("knn", dataset, seed)
  vectors, results = embed(dataset.items), {}
  for name, labels, train, test in parts:
    predicted = neighbor_labels(vectors[train], labels[train], vectors[test], settings)
    results |= {f"{name}/test/{setting}_accuracy": float((values == labels[test]).mean())
                for setting, values in predicted.items()}
  return results


def neighbor_labels(vectors: Any, labels: np.ndarray, queries: Any, settings: Mapping[str, tuple[int, float]],
                    ) -> dict[str, np.ndarray]:
  """Returns the label that the nearest of `vectors` vote for, for each query and setting.

  Args:
    vectors: [n, dim], an array or a sparse matrix of scipy.
    labels: [n].
    queries: [m, dim].
    settings: name -> (k, temperature).
  """
  vectors, queries = l2_normalized(vectors, "knn"), l2_normalized(queries, "knn")
  classes, number = np.unique(labels, return_inverse=True)
  votes_of: dict[str, list[np.ndarray]] = {setting: [] for setting in settings}
  for _, scores in cosines(queries, vectors):
    every = nearest(scores, max(k for k, _ in settings.values()))
    for setting, (k, temperature) in settings.items():
      near = every[:, :k]
      votes = np.exp(np.take_along_axis(scores, near, 1) / temperature)
      table = np.zeros((len(near), len(classes)))
      np.add.at(table, (np.arange(len(near))[:, None], number[near]), votes)
      votes_of[setting].append(classes[table.argmax(1)])
  return {setting: np.concatenate(each) for setting, each in votes_of.items()}


PROTOCOL = Protocol(
    knn, labels=True,
    metrics={
        "knn_accuracy": Metric(True, "fraction"), "knn200_accuracy": Metric(True, "fraction"),
    })
