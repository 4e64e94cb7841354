"""k nearest neighbours: what the neighbourhood of an embedding says about a label.

Protocol (Wu et al. 2018; Caron et al. 2021). A test item gets the label with the largest sum of votes of its k = 20
nearest training items by cosine, each of which votes exp(cosine / 0.07) for its own; a zero vector has cosine 0 with
all. Of equal cosines the training item that comes first is nearer; of equal sums the label that comes first in
sorted order wins. A set without a `train` or `test` split is divided 80 : 20, stratified, with `seed`. Nothing is
fitted and nothing chosen.
"""
from collections.abc import Callable
from typing import Any

import numpy as np

from embeddings_jax.eval.linear_probe import split_rows
from embeddings_jax.eval.retrieval import cosines, nearest, unit_rows
from embeddings_jax.types import InputError

NEIGHBORS = 20
TEMPERATURE = 0.07


def knn(embed: Callable[[Any], Any], dataset: Any, *, seed: int = 0) -> dict[str, float]:
  """Accuracy of k nearest neighbours for every kind of label.

  Args:
    embed: items -> [num_items, dim], an array or a sparse matrix of scipy.
    dataset: has `items`, `labels` (name -> [num_items]) and `split` (name -> row indices).
    seed: of the split of a set that has none.

  Returns:
    `{label}/test/knn_accuracy` for every label.
  """
  if not dataset.labels:
    raise InputError(f"knn: data set {getattr(dataset, 'name', '')!r} has no labels; leave it out of evals")
  vectors = unit_rows(embed(dataset.items), "knn")
  results = {}
  for name, labels in dataset.labels.items():
    train, test = split_rows(dataset.split, np.asarray(labels), seed)
    classes, label = np.unique(np.asarray(labels), return_inverse=True)
    right = []
    for rows, scores in cosines(vectors[test], vectors[train]):
      near = nearest(scores, NEIGHBORS)
      votes = np.exp(np.take_along_axis(scores, near, 1) / TEMPERATURE)
      table = np.zeros((len(near), len(classes)))
      np.add.at(table, (np.arange(len(near))[:, None], label[train][near]), votes)
      right.append(table.argmax(1) == label[test][rows])
    results[f"{name}/test/knn_accuracy"] = float(np.concatenate(right).mean())
  return results
