"""Categorization: do clusters of word vectors agree with the categories into which people sort the words?"""
import logging
from collections.abc import Callable, Container, Iterable, Sequence

import numpy as np

from embeddings_jax.data import wordsets
from embeddings_jax.eval.clustering import RUNS, k_means
from embeddings_jax.eval.metrics import mean_and_std
from embeddings_jax.eval.word_similarity import known_form
from embeddings_jax.types import Lists, Metric, Protocol


def categorization(
    embed: Callable[[Sequence[str]], np.ndarray],
    words: Iterable[tuple[str, str]],
    *,
    vocabulary: Container[str],
    seed: int = 0,
) -> dict[str, float]:
  """Purity of as many clusters of the words' unit vectors as there are categories.

    purity = 1/n sum_k max_j |cluster k and category j|

  Protocol (after Almuhareb & Poesio 2006 and Baroni et al. 2014; they cluster with CLUTO): words are looked up as
  written, then in lower case; those that are in neither form in the vocabulary are left out and counted. Vectors are
  divided by their length. Two clusterings, neither of which is chosen by its result: k-means (k-means++, the best of
  10 starts by inertia, the mean over five runs with seeds of their own) and agglomerative (Ward's linkage). The
  number of clusters is that of the categories of the known words. There is no split: all words are clustered, and the
  categories are looked at only to count. Sets: AP (402 words, 21 categories), BLESS (200, 17) and ESSLLI 2008 (45,
  9), checksums in `data/wordsets.py`. Vectors drawn at random get .16 on AP, .22 on BLESS and .35 on ESSLLI.

  Args:
    embed: words -> [num_words, dim].
    words: (word, category).
    vocabulary: the words that `embed` knows.
    seed: Random seed of k-means.

  Returns:
    `all/{kmeans, agglomerative}/purity` (nan for fewer than two words), `all/kmeans/purity/std`, the sample standard
    deviation over the runs, `words` (that counted), `out_of_vocabulary`.
  """
  from sklearn.cluster import AgglomerativeClustering

  listed = [(known_form(word, vocabulary), category) for word, category in words]
  known = [(word, category) for word, category in listed if word is not None]
  names = ("all/kmeans/purity", "all/kmeans/purity/std", "all/agglomerative/purity")
  metrics = dict.fromkeys(names, float("nan"))
  metrics |= {"words": float(len(known)), "out_of_vocabulary": float(len(listed) - len(known))}
  if len(known) < 2:
    logging.warning("categorization: purity is not defined (nan): %d of %d words are in the vocabulary", len(known),
                    len(listed))
    return metrics
  vectors = np.asarray(embed([word for word, _ in known]), np.float64)
  vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
  category = np.unique([category for _, category in known], return_inverse=True)[1]
  number = int(category.max()) + 1
  runs = [purity(k_means(vectors, number, RUNS * seed + i, starts=10), category) for i in range(RUNS)]
  agglomerative = purity(AgglomerativeClustering(number).fit_predict(vectors), category)
  return metrics | dict(zip(names, (*mean_and_std(runs), agglomerative)))


def purity(cluster: np.ndarray, category: np.ndarray) -> float:
  """Share of the items whose category is the most frequent one of their cluster; both are [n] integers from 0."""
  table = np.zeros((cluster.max() + 1, category.max() + 1), np.int64)
  np.add.at(table, (cluster, category), 1)
  return float(table.max(1).sum() / len(cluster))


PROTOCOL = Protocol(
    categorization, needs=("embed", "vocabulary"), default=next(iter(wordsets.CATEGORIZATION)),
    lists=Lists(wordsets.categorization, dict.fromkeys(wordsets.CATEGORIZATION, {})),
    metrics={
        "purity": Metric(True, "fraction"), "std": Metric(None, "fraction"), "words": Metric(None, "count"),
        "out_of_vocabulary": Metric(None, "count"),
    })
