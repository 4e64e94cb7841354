"""Similarity of two images: are they of the same class or not, by the cosine of their embeddings?

Protocol. Of the test split (all images without one) `num_pairs` pairs of images of the same class and as many of
different classes are drawn with `seed`; an image may be in several, a pair is of two images. The metric is the area
under the ROC curve: the probability that a pair of one class has the greater cosine than a pair of two (ties count
1/2). Random embeddings have .5; a zero vector has the cosine 0 with all.
"""
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from embeddings_jax.eval.metrics import roc_auc
from embeddings_jax.types import InputError, Metric, Protocol


def image_similarity(embed: Callable[[Sequence[Any]], Any], dataset: Any, *, num_pairs: int = 2000,
                     seed: int = 0) -> dict[str, float]:
  """ROC AUC of pairs of one class against pairs of two.

  Args:
    embed: Images -> [n, dim].
    dataset: Images with labels.
    num_pairs: Pairs of each kind.
    seed: Random seed of the pairs.

  Returns:
    `{label}/{split}/similarity_auc` of each label.

  Raises:
    InputError: A label has no two images of one class, or one class alone.
  """
  part = "test" if "test" in dataset.split else "all"
  rows = np.asarray(dataset.split.get("test", np.arange(len(dataset.items))))
  vectors = np.asarray(embed(dataset.items), np.float64)[rows]
  vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
  results = {}
  for label, values in dataset.labels.items():
    one, other, same = pairs_of(np.asarray(values)[rows], num_pairs, seed)
    results[f"{label}/{part}/similarity_auc"] = roc_auc((vectors[one] * vectors[other]).sum(1), same)
  return results


def pairs_of(labels: np.ndarray, number: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Draws pairs of different rows: `number` of one class, then as many of two.

  Returns:
    Rows, their partners, and whether both are of one class.

  Raises:
    InputError: There are no such pairs.
  """
  _, labels, counts = np.unique(labels, return_inverse=True, return_counts=True)
  if counts.max(initial=0) < 2 or len(counts) < 2:
    raise InputError("pairs of images: there must be two classes, and two images of one of them")
  rng = np.random.default_rng(seed)
  pairs: list[tuple[int, int, bool]] = []
  for same in (True, False):
    firsts = np.flatnonzero(counts[labels] > 1) if same else np.arange(len(labels))
    for _ in range(number):
      first = int(rng.choice(firsts))
      others = np.flatnonzero((labels == labels[first]) == same)
      pairs.append((first, int(rng.choice(others[others != first])), same))
  rows = np.array(pairs)
  return rows[:, 0], rows[:, 1], rows[:, 2] > 0


PROTOCOL = Protocol(image_similarity, needs=("embed", "image_shape"), labels=True,
                    metrics={"similarity_auc": Metric(True, "fraction")})
