"""How well clusters agree with labels that the model never saw."""
from collections.abc import Callable
from typing import Any

import numpy as np


def clustering(embed: Callable[[Any], np.ndarray], dataset: Any, *, seed: int = 0) -> dict[str, float]:
  """Agreement of `argmax embed(items)` with each of the data set's labels, over all items.

  For models whose embedding is a distribution over clusters (responsibilities). Normalised mutual
  information with the arithmetic mean of the entropies; adjusted Rand index (Hubert & Arabie 1985);
  purity: the part of items whose label is the most frequent of their cluster. Ties go to the lowest
  index. A model that finds the labels gets 1 everywhere; one that ignores them an ARI of about 0.

  Args:
    embed: items -> [num_items, num_clusters].
    dataset: has `items` and `labels`: name -> [num_items].
    seed: not used; there is nothing random here.
  """
  from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
  from sklearn.metrics.cluster import contingency_matrix

  del seed
  if not dataset.labels:
    return {}
  cluster = np.argmax(embed(dataset.items), axis=1)
  metrics = {}
  for name, label in dataset.labels.items():
    table = contingency_matrix(label, cluster)
    metrics |= {
        f"{name}/all/nmi": float(normalized_mutual_info_score(label, cluster)),
        f"{name}/all/ari": float(adjusted_rand_score(label, cluster)),
        f"{name}/all/purity": float(table.max(axis=0).sum() / table.sum()),
    }
  return metrics
