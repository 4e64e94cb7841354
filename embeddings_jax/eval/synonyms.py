"""Synonyms: is the candidate with the largest cosine to a word the one that means the same?"""
import logging
from collections.abc import Callable, Container, Iterable, Sequence

import numpy as np

from embeddings_jax.data import wordsets
from embeddings_jax.eval.word_similarity import known_form
from embeddings_jax.types import Lists, Metric, Protocol


def synonyms(
    embed: Callable[[Sequence[str]], np.ndarray],
    questions: Iterable[tuple[str, Sequence[str], str]],
    *,
    vocabulary: Container[str],
) -> dict[str, float]:
  """Accuracy of choosing the synonym of a word among candidates by cosine.

  Protocol (of the TOEFL test, Landauer & Dumais 1997, whose 80 questions are not free; the questions are the user's,
  `data/wordsets.py: synonyms` reads them): words are looked up as written, then in lower case; a question with a
  word that is in neither form in the vocabulary, candidates included, is left out and counted. Where n candidates
  tie for the largest cosine, one of which is right, the question counts 1/n. A zero vector has cosine 0 with all
  others. There is no split and nothing is fitted. Vectors drawn at random get 1 / the number of candidates.

  Args:
    embed: words -> [num_words, dim].
    questions: (word, candidates, the right one of them).
    vocabulary: the words that `embed` knows.

  Returns:
    `accuracy` (nan without a question), `questions` (that counted) and `out_of_vocabulary` (questions left out).
  """
  scores, missing = [], 0
  for word, candidates, answer in questions:
    known = [known_form(form, vocabulary) for form in (word, *candidates)]
    if None in known:
      missing += 1
      continue
    vectors = np.asarray(embed(known), np.float64)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
    cosine = vectors[1:] @ vectors[0]
    best = cosine >= cosine.max() - 1e-9
    scores.append(best[list(candidates).index(answer)] / best.sum())
  if not scores:
    logging.warning("synonyms: accuracy is not defined (nan): the vocabulary lacks a word of all %d questions",
                    missing)
  return {"accuracy": float(np.mean(scores)) if scores else float("nan"), "questions": float(len(scores)),
          "out_of_vocabulary": float(missing)}


PROTOCOL = Protocol(
    synonyms, needs=("embed", "vocabulary"),
    lists=Lists(lambda name, data_dir: wordsets.synonyms(name), files=True),
    metrics={
        "accuracy": Metric(True, "fraction"), "questions": Metric(None, "count"),
        "out_of_vocabulary": Metric(None, "count"),
    })
