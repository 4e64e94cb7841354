"""Agreement of clusters with labels that the model never saw.

Protocol, over all items. Where every row of the embedding is a distribution (not negative, with the sum 1: the
responsibilities or topics of a mixture) an item's cluster is the largest entry, ties going to the lowest index.
Other embeddings are clustered first: k-means with as many clusters as the label has values, on rows of length 1
(spherical; a zero vector stays 0), k-means++ and the best of 5 starts by the sum of squares (scikit-learn's `KMeans`,
elsewhere at its defaults), five times with seeds of their own: metrics are means over these, with their sample
standard deviation beside them. The metrics, of clusters against labels: normalized mutual information with the
arithmetic mean of the entropies; adjusted Rand index (Hubert & Arabie 1985); purity: the part of items whose label is
the most frequent of their cluster. A model that finds the labels gets 1 everywhere; one that ignores them an adjusted
Rand index of about 0.
"""
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from embeddings_jax.eval.metrics import mean_and_std
from embeddings_jax.eval.retrieval import l2_normalized
from embeddings_jax.types import InputError, Metric, Protocol

STARTS = 5
RUNS = 5  # Clusterings that metrics are averaged over.


def clustering(embed: Callable[[Any], Any], dataset: Any, *, seed: int = 0) -> dict[str, float]:
  """Agreement of clusters of the items with each of the dataset's labels; one with a single class is left out.

  Args:
    embed: items -> [num_items, dim], an array or a sparse matrix of scipy.
    dataset: has `items` and `labels`: name -> [num_items].
    seed: Random seed of k-means.

  Returns:
    `{label}/all/` `nmi`, `ari` and `purity`, and of k-means `{label}/all/{metric}/std`.

  Raises:
    InputError: All labels have one class, or an embedding is not finite.
  """
  if not dataset.labels:
    return {}
  labels = {name: np.asarray(label) for name, label in dataset.labels.items()}
  for name in [name for name, label in labels.items() if len(np.unique(label)) < 2]:
    logging.warning("clustering: label %r has one class and is left out", name)
    del labels[name]
  if not labels:
    raise InputError(f"clustering: labels {', '.join(map(repr, dataset.labels))} have one class; there is nothing to "
                     "tell apart")
  vectors = embed(dataset.items)
  distributions = _are_distributions(vectors)
  if not distributions:
    vectors = l2_normalized(vectors, "clustering")
  metrics = {}
  for name, label in labels.items():
    if distributions:
      metrics |= {f"{name}/all/{key}": value for key, value in _agreement(label, np.argmax(vectors, axis=1)).items()}
      continue
    runs = [_agreement(label, k_means(vectors, len(np.unique(label)), RUNS * seed + i)) for i in range(RUNS)]
    for key in runs[0]:
      mean, std = mean_and_std([run[key] for run in runs])
      metrics |= {f"{name}/all/{key}": mean, f"{name}/all/{key}/std": std}
  return metrics


def _agreement(label: np.ndarray, cluster: np.ndarray) -> dict[str, float]:
  """Metrics of one clustering, [n], against a label, [n]."""
  from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
  from sklearn.metrics.cluster import contingency_matrix

  table = contingency_matrix(label, cluster)
  return {"nmi": float(normalized_mutual_info_score(label, cluster)),
          "ari": float(adjusted_rand_score(label, cluster)),
          "purity": float(table.max(axis=0).sum() / table.sum())}


def _are_distributions(vectors: Any) -> bool:
  return not sparse.issparse(vectors) and bool((vectors >= 0).all()) and np.allclose(vectors.sum(1), 1, atol=1e-3)


def k_means(vectors: Any, num_clusters: int, seed: int, starts: int = STARTS) -> np.ndarray:
  """Returns the cluster of every row, [n]; at most as many clusters as rows."""
  import warnings

  from sklearn.cluster import KMeans
  from sklearn.exceptions import ConvergenceWarning

  with warnings.catch_warnings():
    warnings.simplefilter("ignore", ConvergenceWarning)  # There may be fewer different rows than clusters.
    return KMeans(min(num_clusters, vectors.shape[0]), n_init=starts, random_state=seed).fit_predict(vectors)


PROTOCOL = Protocol(
    clustering, labels=True,
    metrics={
        "nmi": Metric(True, "fraction"), "ari": Metric(True), "purity": Metric(True, "fraction"), "std": Metric(None),
    })
