"""Link prediction: edges that were removed before training, told from pairs without an edge."""
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from embeddings_jax.data.graphs import coordinates
from embeddings_jax.eval.linear_probe import check_finite
from embeddings_jax.eval.metrics import roc_auc
from embeddings_jax.eval.node_classification import one_vs_rest
from embeddings_jax.types import InputError, Metric, Protocol

HITS = (10, 100)
MAX_TAUGHT = 1 << 16  # Pairs of each kind that the classifiers learn from.
_AT_ONCE = 1 << 14
OPERATORS = {
    "average": lambda a, b: (a + b) / 2,
    "hadamard": lambda a, b: a * b,
    "l1": lambda a, b: np.abs(a - b),
    "l2": lambda a, b: np.square(a - b),
}


def link_prediction(embed: Callable[[Any], np.ndarray], dataset: Any) -> dict[str, float]:
  """Scores of held-out edges against as many pairs without an edge, by embeddings and by heuristics.

  Protocol (after Grover & Leskovec 2016, section 4.4). `config.data.held_out`, in the paper one half, of the edges
  are removed before anything is trained, such that every component stays connected (`data/link_split.py`); the
  vectors come from one training, on the rest. Features of a pair are made by an operator: average, Hadamard
  product, |a - b| (L1) or (a - b)^2 (L2). A logistic regression (C = 1, features divided by their standard
  deviation) learns from edges that stayed and further pairs without one, at most `MAX_TAUGHT` of each. `dot` is the
  dot product, without a classifier. The held-out pairs are halved: the operator with the highest AUC on the
  validation half is reported as `best` on the test half; every operator is reported on both. Heuristics
  (Liben-Nowell & Kleinberg 2003) on the graph without the held-out edges: common neighbors, Jaccard's coefficient,
  Adamic-Adar, preferential attachment; loops and weights do not count.

  Metrics on a half: `auc`; `hits@K`, the share of its edges that score above its K-th highest pair without an edge
  (Hu et al. 2020, the Open Graph Benchmark), for K below the number of these; `mrr`, the mean over edges of 1 / (1 +
  pairs without an edge that score higher, ties counting half).

  Args:
    embed: nodes -> [num_nodes, dim].
    dataset: Has `items`, `graph` and `links`, from a graph read with `held_out`.

  Returns:
    `{validation, test}/{operator, dot, heuristic}/{auc, hits@K, mrr}` and `test/best/...`.
  """
  if getattr(dataset, "links", None) is None:
    raise InputError("link_prediction: no edge was held out before training; train with config.data.held_out=0.5")
  links = dataset.links
  vectors = np.asarray(embed(dataset.items))
  check_finite("link_prediction", vectors, vectors)
  kinds = [pairs[:MAX_TAUGHT] for pairs in (links.train_positive, links.train_negative)]
  teach, right = np.concatenate(kinds), np.arange(sum(map(len, kinds))) < len(kinds[0])
  pairs = np.concatenate([links.positive, links.negative])

  def scored(score):
    """Scores of all pairs; `score` gets vectors of both ends, float64 [k, dim]."""
    return np.concatenate([score(*vectors[part.T].astype(np.float64)) for part in np.split(
        pairs, np.arange(_AT_ONCE, len(pairs), _AT_ONCE))])

  scores = heuristics(dataset.graph, pairs) | {"dot": scored(lambda a, b: (a * b).sum(1))}
  for name, operator in OPERATORS.items():
    features = operator(*vectors[teach.T].astype(np.float64))
    scale = np.maximum(features.std(0), 1e-12)
    features /= scale
    classify = one_vs_rest(features, right[:, None])
    scores[name] = scored(lambda a, b, operator=operator, scale=scale, classify=classify: classify(
        operator(a, b) / scale)[:, 0])
  number = len(links.positive)
  halves = {"validation": slice(0, number // 2), "test": slice(number // 2, number)}
  metrics = {f"{part}/{name}/{key}": value for part, rows in halves.items() for name, score in scores.items()
             for key, value in measured(score[:number][rows], score[number:][rows]).items()}
  best = max((*OPERATORS, "dot"), key=lambda name: metrics[f"validation/{name}/auc"])
  chosen = f"test/{best}/"
  return metrics | {f"test/best/{key.removeprefix(chosen)}": value for key, value in metrics.items()
                    if key.startswith(chosen)}


def measured(positive: np.ndarray, negative: np.ndarray) -> dict[str, float]:
  """Returns `auc`, `hits@K` and `mrr` of scores of edges and of pairs without one."""
  ordered = np.sort(negative)
  above = len(ordered) - np.searchsorted(ordered, positive, side="right")
  tied = np.searchsorted(ordered, positive, side="right") - np.searchsorted(ordered, positive, side="left")
  right = np.arange(len(positive) + len(negative)) < len(positive)
  return {"auc": roc_auc(np.concatenate([positive, negative]), right),
          **{f"hits@{k}": float((positive > ordered[-k]).mean()) for k in HITS if k < len(ordered)},
          "mrr": float((1 / (1 + above + tied / 2)).mean())}


def heuristics(table: Any, pairs: np.ndarray) -> dict[str, np.ndarray]:
  """Returns scores of pairs [k, 2] by the neighborhoods of their nodes, name -> [k].

  Args:
    table: An undirected `GraphTable`.
    pairs: Nodes.
  """
  row, col, _ = coordinates(table)
  proper, size = row != col, len(table.names)
  indptr = np.concatenate([[0], np.cumsum(np.bincount(row[proper], minlength=size))])
  adjacency = sparse.csr_array((np.ones(proper.sum()), col[proper], indptr), (size, size))
  degree = np.diff(indptr).astype(np.float64)
  first, second = pairs.T
  weights = np.stack([np.ones(size), np.where(degree > 1, 1 / np.log(np.maximum(degree, 2)), 0)], 1)
  common, adamic_adar = np.concatenate([
      adjacency[first[i:i + 4096]].multiply(adjacency[second[i:i + 4096]]) @ weights
      for i in range(0, len(first), 4096)]).T
  union = degree[first] + degree[second] - common
  return {"common_neighbors": common, "jaccard": common / np.maximum(union, 1), "adamic_adar": adamic_adar,
          "preferential_attachment": degree[first] * degree[second]}


_SCORE = Metric(True, "fraction")
PROTOCOL = Protocol(link_prediction, metrics={"auc": _SCORE, "hits@*": _SCORE, "mrr": _SCORE})
