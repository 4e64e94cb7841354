"""Retrieval of documents: how early those of the query's own kind come.

Protocol. Every test item is a query, and the training items are ranked by their cosine to it; a zero vector has
cosine 0 with all. A training item is relevant if it has the query's label. A set without a `train` or `test` split is
divided 80 : 20, stratified, with `seed`. Reported are means over the queries that have a relevant item:

- average precision: the mean over the relevant items of the precision of the ranking down to that item (Manning,
  Raghavan & Schuetze 2008, equation 8.8). Items with the same cosine stand or fall together, as in scikit-learn's
  `average_precision_score`: the ranking goes down to the last of them;
- precision at 10: the share of relevant items among the first ten; of the same cosine, those that come first in the
  set;
- recall at 10: the share of the relevant items that are among these ten;
- reciprocal rank: 1 / (1 + the number of items that are not relevant with a cosine no less than the first relevant
  one's);
- nDCG at 10: sum over the first ten of 1 / log2(1 + place) of the relevant ones, divided by that of the perfect
  ranking (Jarvelin & Kekalainen 2002); of the same cosine each has the mean of their places' gains, as in
  scikit-learn's `ndcg_score`.
A ranking at random has a map, precision and nDCG of the share of relevant items, about 1 / 20 on 20 Newsgroups; the
perfect one has 1, but a recall of ten divided by the number of relevant items where there are more.
"""
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from embeddings_jax.eval.linear_probe import labeled_parts
from embeddings_jax.types import InputError, Metric, Protocol

FIRST = 10
BLOCK = 256  # Queries at a time.
GAINS = np.cumsum([0, *1 / np.log2(np.arange(2, 1002))])  # Sums of the first 0, 1, ... places' gains.


def retrieval(embed: Callable[[Any], Any], dataset: Any, *, seed: int = 0) -> dict[str, float]:
  """Retrieval of training items by test items for every kind of label.

  Args:
    embed: items -> [num_items, dim], an array or a sparse matrix of scipy.
    dataset: has `items`, `labels` (name -> [num_items]) and `split` (name -> row indices).
    seed: Random seed of the split of a set that has none.

  Returns:
    `{label}/test/` `map`, `precision_at_10`, `recall_at_10`, `mrr` and `ndcg_at_10` for every label.
  """
  parts = labeled_parts("retrieval", dataset, seed)
  vectors = l2_normalized(embed(dataset.items), "retrieval")
  results = {}
  for name, labels, train, test in parts:
    measured: dict[str, list[float]] = {f"precision_at_{FIRST}": [], f"recall_at_{FIRST}": [], "map": [], "mrr": [],
                                        f"ndcg_at_{FIRST}": []}
    for rows, scores in cosines(vectors[test], vectors[train]):
      relevant = labels[train] == labels[test][rows][:, None]
      answerable = relevant.any(1)
      near = nearest(scores, FIRST)
      hits = np.take_along_axis(relevant, near, 1)[answerable]
      measured[f"precision_at_{FIRST}"] += hits.mean(1).tolist()
      measured[f"recall_at_{FIRST}"] += (hits.sum(1) / relevant[answerable].sum(1)).tolist()
      for row in zip(scores[answerable], relevant[answerable]):
        ranks = ranks_of(*row)
        measured["map"].append(average_precision(ranks))
        measured["mrr"].append(float(1 / (1 + (ranks.last - ranks.relevant).min())))
        measured[f"ndcg_at_{FIRST}"].append(ndcg(ranks, FIRST))
    results |= {f"{name}/test/{key}": float(np.mean(values)) for key, values in measured.items() if values}
  return results


class Ranks(NamedTuple):
  """Where the relevant items of one ranking stand, from 1, [num_relevant] each.

  Attributes:
    first, last: First and last rank among items with the same score.
    relevant: how many relevant ones score no less.
  """

  first: np.ndarray
  last: np.ndarray
  relevant: np.ndarray


def ranks_of(scores: np.ndarray, relevant: np.ndarray) -> Ranks:
  """Returns the ranks of one query: `scores` [n], and which items are `relevant`, bool [n], at least one of them."""
  own, every = np.sort(scores[relevant]), np.sort(scores)
  no_less = lambda ordered: len(ordered) - np.searchsorted(ordered, own)
  return Ranks(1 + len(every) - np.searchsorted(every, own, "right"), no_less(every), no_less(own))


def average_precision(ranks: Ranks) -> float:
  """The mean over the relevant items of the precision down to each."""
  return float((ranks.relevant / ranks.last).mean())


def ndcg(ranks: Ranks, k: int) -> float:
  """Normalized discounted cumulative gain of the first k places."""
  gains = lambda place: GAINS[np.minimum(place, k)]  # Of all places down to this one.
  tied = (gains(ranks.last) - gains(ranks.first - 1)) / (ranks.last - ranks.first + 1)
  return float(tied.sum() / gains(len(ranks.last)))


def l2_normalized(vectors: Any, protocol: str, dtype: Any = np.float32) -> Any:
  """Vectors [n, d] of length 1, or 0: an array of `dtype`, or a sparse matrix where `vectors` is one.

  Raises:
    InputError: one of them is not finite.
  """
  is_sparse = sparse.issparse(vectors)
  vectors = sparse.csr_array(vectors, dtype=dtype, copy=True) if is_sparse else np.asarray(vectors, dtype)
  squares = (vectors ** 2).sum(1)
  if not np.isfinite(squares).all():
    raise InputError(f"{protocol}: the embedding of row {np.flatnonzero(~np.isfinite(squares))[0]} is not finite")
  scale = 1 / np.sqrt(np.maximum(squares, np.float32(1e-30)))
  if not is_sparse:
    return vectors * scale[:, None]
  vectors.data *= np.repeat(scale, np.diff(vectors.indptr))
  return vectors


def cosines(queries: Any, table: Any) -> Iterator[tuple[slice, np.ndarray]]:
  """Products of unit rows, some queries at a time: `(rows, [num_rows, len(table)])`."""
  transposed = table.T.tocsr() if sparse.issparse(table) else table.T
  for first in range(0, queries.shape[0], BLOCK):
    rows = slice(first, first + BLOCK)
    scores = queries[rows] @ transposed
    yield rows, scores.toarray() if sparse.issparse(scores) else scores


def nearest(scores: np.ndarray, k: int) -> np.ndarray:
  """Indices [n, k] of the largest of each row, in their order; of equal ones the first."""
  return np.asarray(jax.lax.top_k(jnp.asarray(scores), min(k, scores.shape[1]))[1])


PROTOCOL = Protocol(
    retrieval, labels=True,
    metrics={
        "precision_at_*": Metric(True, "fraction"), "recall_at_*": Metric(True, "fraction"),
        "map": Metric(True, "fraction"), "mrr": Metric(True, "fraction"), "ndcg_at_*": Metric(True, "fraction"),
    })
