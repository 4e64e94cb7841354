"""Retrieval of sentences: does each find its own partner among all?"""
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from embeddings_jax.eval.pairs import alike, check_pairs, embedded
from embeddings_jax.eval.retrieval import cosines
from embeddings_jax.types import InputError, Metric, Protocol

FIRST = (1, 10)


def pair_retrieval(embed: Callable[[Sequence[str]], Any], dataset: Any) -> dict[str, float]:
  """Recall and reciprocal rank of the second sentences of pairs that are alike, asked for by their first ones.

  Protocol. Queries are the pairs of the part `test` (of a set without one: all) that are `alike` in the sense of
  `eval/pairs.py`: in `sts-b` those with a score from 4 up, in `snli` those of entailment, in a set without labels
  all. Candidates are the distinct second sentences of *all* pairs of the part. A pair's rank is 1 + the number of
  candidates that are neither the first sentence itself nor a partner of it in any pair that is alike, and whose
  cosine is no less than that of its own second sentence: what is equal stands before it. Pairs of equal sentences are
  left out, since they find each other whatever the vectors. A zero vector has cosine 0 with all. Nothing is fitted
  and nothing chosen.

  Vectors drawn at random have a recall at k of k / the number of candidates; perfect ones 1; means of `sgns
  --preset=small`'s vectors .784, .953 and a mean reciprocal rank of .843 on `sts-b`, .137, .276 and .188 on `snli`.

  Args:
    embed: sentences -> [num_sentences, dim], an array or a sparse matrix of scipy.
    dataset: pairs, with or without a label.

  Returns:
    `test/` (or `all/`) `recall_at_1`, `recall_at_10`, the shares of pairs of no greater rank, and `mrr`, the mean of
    1 / rank; `candidates`, their number.
  """
  check_pairs("pair_retrieval", dataset)
  part = "test" if "test" in dataset.split else "all"
  rows = np.asarray(dataset.split.get("test", np.arange(len(dataset.items))))
  vectors, index = embedded(embed, [dataset.items[i] for i in rows], "pair_retrieval")
  is_query = (alike(dataset)[rows] == 1) & (index[:, 0] != index[:, 1])
  if not is_query.any():
    raise InputError(f"pair_retrieval: no pair of {getattr(dataset, 'name', '')!r} is alike")
  candidates, column = np.unique(index[:, 1], return_inverse=True)
  # A query's pairs stand together, so that each is compared with the candidates once.
  queries, query = np.unique(index[is_query, 0], return_inverse=True)
  column, rank = column[is_query], np.empty(is_query.sum(), int)
  order = np.argsort(query, kind="stable")
  begins = np.searchsorted(query[order], np.arange(len(queries) + 1))
  for block, scores in cosines(vectors[queries], vectors[candidates]):
    for number, row in enumerate(np.round(scores, 12), block.start):
      pairs = order[begins[number]:begins[number + 1]]
      rival = candidates != queries[number]
      rival[column[pairs]] = False
      rank[pairs] = 1 + (row[rival] >= row[column[pairs]][:, None]).sum(1)
  results = {f"{part}/recall_at_{k}": float((rank <= k).mean()) for k in FIRST}
  return results | {f"{part}/mrr": float((1 / rank).mean()), "candidates": float(len(candidates))}


PROTOCOL = Protocol(
    pair_retrieval, needs=("sentences",), default="sts-b",
    metrics={
        "recall_at_*": Metric(True, "fraction"), "mrr": Metric(True, "fraction"), "candidates": Metric(None, "count"),
    })
