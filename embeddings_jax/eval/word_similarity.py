"""Word similarity: do cosines between word vectors order pairs of words as people do?"""
import unicodedata
from collections.abc import Callable, Container, Iterable, Sequence

import numpy as np

from embeddings_jax.data import wordsets
from embeddings_jax.eval.metrics import check_scores
from embeddings_jax.eval.metrics import spearman as correlation
from embeddings_jax.types import Lists, Metric, Protocol


def word_similarity(
    embed: Callable[[Sequence[str]], np.ndarray],
    pairs: Iterable[tuple[str, str, float]],
    *,
    vocabulary: Container[str],
) -> dict[str, float]:
  """Spearman's correlation between the cosine of two words' vectors and people's mean rating of the pair.

  Protocol (as in Faruqui & Dyer 2014 and gensim's `evaluate_word_pairs`): a word is looked up as written, then in
  lower case; a pair with a word that is in neither form in the vocabulary is left out of the correlation and counted.
  Ties get the mean of their ranks, so the figure equals `scipy.stats.spearmanr`. There is no split and nothing is
  fitted. A zero vector has cosine 0 with all others. Fewer than two known pairs, or cosines that are all equal, give
  nan and a warning.

  Known figures: WordSim-353 (Finkelstein et al. 2001, 353 pairs): about .68 for 100-dimensional skip-gram vectors of
  text8 after four epochs; vectors drawn at random: 0 +- .05.

  A file of the user's, `word_similarity:FILE`, has a pair a line; see `data/wordsets.py`.

  Args:
    embed: words -> [num_words, dim].
    pairs: (word, word, rating); only the ratings' order counts.
    vocabulary: the words that `embed` knows.

  Returns:
    `spearman`, `pairs` (that counted) and `out_of_vocabulary` (pairs left out).
  """
  pairs = list(pairs)
  check_scores("word_similarity", "the list", np.array([float(rating) for *_, rating in pairs]))
  known, cosine, ratings = scored_pairs(embed, pairs, vocabulary=vocabulary)
  spearman = correlation(cosine, ratings, f"word_similarity: spearman of {len(known)} of {len(pairs)} pairs")
  return {"spearman": spearman, "pairs": float(len(known)), "out_of_vocabulary": float(len(pairs) - len(known))}


def scored_pairs(
    embed: Callable[[Sequence[str]], np.ndarray],
    pairs: Iterable[tuple[str, str, float]],
    *,
    vocabulary: Container[str],
) -> tuple[list[list[str]], np.ndarray, np.ndarray]:
  """The pairs whose words are known, in their known forms, with their cosines and ratings, [num_known] each."""
  known, ratings = [], []
  for first, second, rating in pairs:
    words = [known_form(word.strip(), vocabulary) for word in (first, second)]
    if None not in words:
      known.append(words)
      ratings.append(float(rating))
  if not known:
    return [], np.zeros(0), np.zeros(0)
  words = sorted({word for pair in known for word in pair})
  vectors = np.asarray(embed(words), np.float64)
  vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
  row_of = {word: i for i, word in enumerate(words)}
  index = np.array([[row_of[word] for word in pair] for pair in known])
  # Rounding must not break the ties of pairs that have the same vectors.
  cosine = np.round((vectors[index[:, 0]] * vectors[index[:, 1]]).sum(1), 12)
  return known, cosine, np.asarray(ratings)


def known_form(word: str, vocabulary: Container[str]) -> str | None:
  """Returns the first form of a word that is in the vocabulary: as written, in lower case, then both in NFC.

  None if no form is.
  """
  for form in (word, word.lower(), *(unicodedata.normalize("NFC", form) for form in (word, word.lower()))):
    if form in vocabulary:
      return form
  return None


PROTOCOL = Protocol(
    word_similarity, needs=("embed", "vocabulary"), default=next(iter(wordsets.WORD_SIMILARITY)),
    lists=Lists(wordsets.word_similarity, dict.fromkeys(wordsets.WORD_SIMILARITY, {}), files=True),
    metrics={
        "spearman": Metric(True), "pairs": Metric(None, "count"), "out_of_vocabulary": Metric(None, "count"),
    })
