"""Senses of words: whether a word's vectors are farther apart between its senses than within them."""
import logging
from collections.abc import Callable, Container, Sequence
from typing import Any

import numpy as np

from embeddings_jax.data import senses
from embeddings_jax.data.senses import Occurrence
from embeddings_jax.eval.word_similarity import known_form
from embeddings_jax.types import InputError, Lists, Metric, Protocol


def polysemy(
    embed: Callable[[Sequence[str]], np.ndarray] | None,
    occurrences: Sequence[Occurrence],
    *,
    hidden: Callable[[Sequence[Sequence[str]]], tuple[np.ndarray, np.ndarray]] | None = None,
    vocabulary: Container[str] | None = None,
) -> dict[str, float]:
  """Distances of a word's vectors in sentences, within and between its senses.

  Protocol. A model of words gives a word one vector, whatever stands around it, so that all distances are exactly 0.
  Of a model with layers each is asked: the vector is that of the word's first token. Distances are 1 - cosine. For
  each word, over its pairs of sentences:

    within, between    mean distance of pairs of one sense, and of two
    auc                probability that a pair of two senses is farther apart than one of one sense, ties half: .5
                       where senses are not told apart, 1 where each is a cluster of its own
    nearest_accuracy   fraction of sentences whose nearest other one has the same sense; where several are as near,
                       the fraction of these

  Args:
    embed: Words -> [num_words, dim]; not asked where there is `hidden`.
    occurrences: Words in sentences, of at least two senses each.
    hidden: Sentences -> vectors [num_words, layers + 1, dim] of all their words, and which are known.
    vocabulary: The words that `embed` knows.

  Returns:
    `layer_{l}/{metric}`, of a model of words `{metric}`; where there are several words, means over them, and
    `{word}/layer_{l}/{metric}` of each.
  """
  if hidden is None and vocabulary is None:
    raise InputError("polysemy: needs a model of words, or one with layers of tokens, as bert")
  metrics: dict[str, float] = {}
  words = list(dict.fromkeys(item.word for item in occurrences))
  for word in words:
    of_word = [item for item in occurrences if item.word == word]
    labels = np.array([item.sense for item in of_word])
    if hidden is None:
      form = known_form(word, vocabulary)
      if form is None:
        logging.warning("polysemy: %r is not in the vocabulary and is left out", word)
        continue
      layers = {"": np.repeat(np.asarray(embed([form]), np.float64), len(of_word), 0)}
    else:
      vectors, known = hidden([item.words for item in of_word])
      rows = np.cumsum([0, *(len(item.words) for item in of_word[:-1])]) + [item.place for item in of_word]
      vectors, labels = vectors[rows][known[rows]], labels[known[rows]]
      layers = {f"layer_{i}/": vectors[:, i] for i in range(vectors.shape[1])}
    for prefix, rows in layers.items():
      metrics |= {f"{word}/{prefix}{name}": value for name, value in separation(rows, labels).items()}
  if not metrics:
    raise InputError(f"polysemy: the model knows none of {', '.join(words)[:200]}")
  means: dict[str, list[float]] = {}
  for key, value in metrics.items():
    means.setdefault(key.split("/", 1)[1], []).append(value)
  return (metrics if len(words) > 1 else {}) | {key: float(np.mean(values)) for key, values in means.items()}


def separation(vectors: np.ndarray, labels: np.ndarray) -> dict[str, float]:
  """Returns the metrics of vectors [n, dim] with a sense each."""
  vectors = np.asarray(vectors, np.float64)
  unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
  # Of equal vectors it is 0 exactly: half of the squared difference, not 1 less a product.
  distance = np.square(unit[:, None] - unit[None]).sum(-1) / 2
  same, upper = labels[:, None] == labels[None], np.triu(np.ones((len(labels),) * 2, bool), 1)
  within, between = distance[same & upper], distance[~same & upper]
  if not len(within) or not len(between):
    return {}
  auc = np.mean((between[:, None] > within[None]) + 0.5 * (between[:, None] == within[None]))
  others = np.where(np.eye(len(labels), dtype=bool), np.inf, distance)
  nearest = others <= others.min(1, keepdims=True) + 1e-12
  return {"within": float(within.mean()), "between": float(between.mean()), "auc": float(auc),
          "nearest_accuracy": float(((nearest & same).sum(1) / nearest.sum(1)).mean())}


PROTOCOL: Any = Protocol(
    polysemy, needs=("embed",), uses=("hidden", "vocabulary"), default="bank",
    lists=Lists(senses.load, {"bank": {}}, files=True),
    metrics={"within": Metric(None), "between": Metric(None), "auc": Metric(True, "fraction"),
             "nearest_accuracy": Metric(True, "fraction")})
