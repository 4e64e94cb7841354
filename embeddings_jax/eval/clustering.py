"""How well clusters agree with labels that the model never saw.

Protocol, over all items. Where every row of the embedding is a distribution (not negative, with the sum 1: the
responsibilities or topics of a mixture) an item's cluster is the largest entry, ties going to the lowest index.
Other embeddings are clustered first: k-means with as many clusters as the label has values, on rows of length 1
(spherical; a zero vector stays 0), k-means++ and the best of 5 starts by the sum of squares, drawn with `seed`
(scikit-learn's `KMeans`, elsewhere at its defaults). Then, of clusters against labels: normalised mutual information
with the arithmetic mean of the entropies; adjusted Rand index (Hubert & Arabie 1985); purity: the part of items whose
label is the most frequent of their cluster. A model that finds the labels gets 1 everywhere; one that ignores them an
adjusted Rand index of about 0.
"""
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from embeddings_jax.eval.retrieval import unit_rows
from embeddings_jax.types import Metric

METRICS = {"nmi": Metric(True, "fraction"), "ari": Metric(True), "purity": Metric(True, "fraction")}

STARTS = 5


def clustering(embed: Callable[[Any], Any], dataset: Any, *, seed: int = 0) -> dict[str, float]:
  """Agreement of clusters of the items with each of the data set's labels.

  Args:
    embed: items -> [num_items, dim], an array or a sparse matrix of scipy.
    dataset: has `items` and `labels`: name -> [num_items].
    seed: of k-means.
  """
  from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
  from sklearn.metrics.cluster import contingency_matrix

  if not dataset.labels:
    return {}
  vectors = embed(dataset.items)
  found = np.argmax(vectors, axis=1) if _are_distributions(vectors) else None
  if found is None:
    vectors = unit_rows(vectors, "clustering")
  metrics = {}
  for name, label in dataset.labels.items():
    cluster = _k_means(vectors, len(np.unique(label)), seed) if found is None else found
    table = contingency_matrix(label, cluster)
    metrics |= {
        f"{name}/all/nmi": float(normalized_mutual_info_score(label, cluster)),
        f"{name}/all/ari": float(adjusted_rand_score(label, cluster)),
        f"{name}/all/purity": float(table.max(axis=0).sum() / table.sum()),
    }
  return metrics


def _are_distributions(vectors: Any) -> bool:
  return not sparse.issparse(vectors) and bool((vectors >= 0).all()) and np.allclose(vectors.sum(1), 1, atol=1e-3)


def _k_means(vectors: Any, num_clusters: int, seed: int) -> np.ndarray:
  """The cluster of every row, [n]."""
  import warnings

  from sklearn.cluster import KMeans
  from sklearn.exceptions import ConvergenceWarning

  with warnings.catch_warnings():
    warnings.simplefilter("ignore", ConvergenceWarning)  # There may be fewer different rows than clusters.
    return KMeans(num_clusters, n_init=STARTS, random_state=seed).fit_predict(vectors)
