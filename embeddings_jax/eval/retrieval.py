"""Retrieval of documents: how early those of the query's own kind come.

Protocol. Every test item is a query, and the training items are ranked by their cosine to it; a zero vector has
cosine 0 with all. A training item is relevant if it has the query's label. A set without a `train` or `test` split is
divided 80 : 20, stratified, with `seed`. Reported are means over the queries that have a relevant item:

- average precision: the mean over the relevant items of the precision of the ranking down to that item (Manning,
  Raghavan & Schuetze 2008, equation 8.8). Items with the same cosine stand or fall together, as in scikit-learn's
  `average_precision_score`: the ranking goes down to the last of them;
- precision at 10: the share of relevant items among the first ten; of the same cosine, those that come first in the
  set.
A ranking at random has the share of relevant items, about 1 / 20 on 20 Newsgroups; the perfect one has 1.
"""
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from embeddings_jax.eval.linear_probe import split_rows
from embeddings_jax.types import InputError

FIRST = 10
BLOCK = 256  # Queries at a time.


def retrieval(embed: Callable[[Any], Any], dataset: Any, *, seed: int = 0) -> dict[str, float]:
  """Retrieval of training items by test items for every kind of label.

  Args:
    embed: items -> [num_items, dim], an array or a sparse matrix of scipy.
    dataset: has `items`, `labels` (name -> [num_items]) and `split` (name -> row indices).
    seed: of the split of a set that has none.

  Returns:
    `{label}/test/map` and `{label}/test/precision_at_10` for every label.
  """
  if not dataset.labels:
    raise InputError(f"retrieval: data set {getattr(dataset, 'name', '')!r} has no labels; leave it out of evals")
  vectors = unit_rows(embed(dataset.items), "retrieval")
  results = {}
  for name, labels in dataset.labels.items():
    labels = np.asarray(labels)
    train, test = split_rows(dataset.split, labels, seed)
    first, average = [], []
    for rows, scores in cosines(vectors[test], vectors[train]):
      relevant = labels[train] == labels[test][rows][:, None]
      asked = relevant.any(1)
      near = nearest(scores, FIRST)
      first.append(np.take_along_axis(relevant, near, 1).mean(1)[asked])
      average += [average_precision(*row) for row in zip(scores[asked], relevant[asked])]
    if average:
      results |= {f"{name}/test/map": float(np.mean(average)),
                  f"{name}/test/precision_at_{FIRST}": float(np.concatenate(first).mean())}
  return results


def average_precision(scores: np.ndarray, relevant: np.ndarray) -> float:
  """Of one ranking: `scores` [n], and which items are `relevant`, bool [n], at least one of them."""
  own = np.sort(scores[relevant])
  number = lambda ordered: len(ordered) - np.searchsorted(ordered, own)  # How many score no less.
  return float((number(own) / number(np.sort(scores))).mean())


def unit_rows(vectors: Any, protocol: str) -> Any:
  """float32 vectors [n, d] of length 1, or 0: an array, or a sparse matrix where `vectors` is one.

  Raises:
    InputError: one of them is not finite.
  """
  given = sparse.issparse(vectors)
  vectors = sparse.csr_array(vectors, dtype=np.float32, copy=True) if given else np.asarray(vectors, np.float32)
  squares = (vectors ** 2).sum(1)
  if not np.isfinite(squares).all():
    raise InputError(f"{protocol}: the embedding of row {np.flatnonzero(~np.isfinite(squares))[0]} is not finite")
  scale = 1 / np.sqrt(np.maximum(squares, np.float32(1e-30)))
  if not given:
    return vectors * scale[:, None]
  vectors.data *= np.repeat(scale, np.diff(vectors.indptr))
  return vectors


def cosines(queries: Any, table: Any) -> Iterator[tuple[slice, np.ndarray]]:
  """Products of unit rows, some queries at a time: `(rows, [num_rows, len(table)])`."""
  turned = table.T.tocsr() if sparse.issparse(table) else table.T
  for first in range(0, queries.shape[0], BLOCK):
    rows = slice(first, first + BLOCK)
    found = queries[rows] @ turned
    yield rows, found.toarray() if sparse.issparse(found) else found


def nearest(scores: np.ndarray, k: int) -> np.ndarray:
  """Indices [n, k] of the largest of each row, in their order; of equal ones the first."""
  return np.asarray(jax.lax.top_k(jnp.asarray(scores), min(k, scores.shape[1]))[1])
