"""Pairs of sentences, as the protocols on them see them: their cosines, and which of them are alike."""
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from embeddings_jax.eval.retrieval import l2_normalized
from embeddings_jax.types import InputError

ALIKE, UNLIKE = 4.0, 1.0  # Scores from 0 to 5: the same but for unimportant details; another thing of the same topic.
SAME = ("entailment", "equivalent", "duplicate", "paraphrase", "1")  # Classes of pairs that are alike,
OTHER = ("contradiction", "0", *(f"not_{name}" for name in SAME))  # and of those that are not.


_LOOKED_AT = 20  # Items that show what a dataset holds.


def holds_pairs(dataset: Any) -> bool:
  """Returns whether items are pairs of texts."""
  return all(isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) and isinstance(item[1], str)
             for item in _first(dataset))


def holds_texts(dataset: Any) -> bool:
  """Returns whether items are texts."""
  return all(isinstance(item, str) for item in _first(dataset))


def _first(dataset: Any) -> list[Any]:
  return [dataset.items[i] for i in range(min(_LOOKED_AT, len(dataset.items)))]


def check_pairs(protocol: str, dataset: Any) -> None:
  """Raises unless the dataset holds pairs of texts."""
  if not holds_pairs(dataset):
    raise InputError(f"{protocol}: dataset {getattr(dataset, 'name', '')!r} holds {getattr(dataset, 'kind', '')}, "
                     "should hold pairs of sentences, as sts-b and snli do")


def embedded(
    embed: Callable[[Sequence[str]], Any],
    pairs: Sequence[tuple[str, str]],
    protocol: str,
) -> tuple[Any, np.ndarray]:
  """Unit vectors of the distinct sentences, float64 [m, dim] (0 for those that have none; sparse if `embed` is), and
  the two rows of each pair, [n, 2]."""
  row_of: dict[str, int] = {}
  index = np.array([[row_of.setdefault(sentence, len(row_of)) for sentence in pair] for pair in pairs])
  return l2_normalized(embed(list(row_of)), protocol, np.float64), index.reshape(-1, 2)


def cosines(vectors: Any, index: np.ndarray) -> np.ndarray:
  """Returns cosine similarities of pairs of rows, float64 [n]; 0 for a zero vector."""
  first, second = vectors[index[:, 0]], vectors[index[:, 1]]
  products = first.multiply(second).sum(1) if sparse.issparse(first) else (first * second).sum(1)
  return np.round(np.asarray(products).ravel(), 12)  # Rounding must not break the ties of equal vectors.


def alike(dataset: Any) -> np.ndarray:
  """Returns 1 for similar pairs, 0 for dissimilar ones and -1 for neither, int [n].

  By a label `score`: of two values the greater is alike; of more, those from `ALIKE` up are, those up to `UNLIKE` are
  not. Else by classes: `SAME` and `OTHER`, and others are neither. Without any label all are alike.

  Raises:
    InputError: classes of other names.
  """
  if not dataset.labels:
    return np.ones(len(dataset.items), int)
  if "score" in dataset.labels:
    score = np.asarray(dataset.labels["score"])
    values = np.unique(score)
    high, low = (values[1], values[0]) if len(values) == 2 else (ALIKE, UNLIKE)
    same, other = score >= high, score <= low
  else:
    name, values = next(iter(dataset.labels.items()))
    values = np.asarray(values).astype(str)
    same, other = np.isin(values, SAME), np.isin(values, OTHER)
    if not same.any():
      raise InputError(f"dataset {getattr(dataset, 'name', '')!r}: which pairs are alike? {name} has the classes "
                       f"{', '.join(np.unique(values)[:9])}, and none of {', '.join(SAME)}")
  return np.where(same, 1, np.where(other, 0, -1))
