"""Phrases: pairs of words that occur together much more often than by chance, joined into one word.

The score of the neighbors a b is that of word2phrase (Mikolov et al. 2013b, equation 6, times the number of words)

  score(a, b) = (count(a b) - d) / (count(a) count(b)) * number of words,

d the `min_count` below which a pair or a word is no candidate. From the left, neighbors whose score exceeds the
threshold are joined by "_"; the second word of a joined pair begins no other. Several passes join longer phrases, as
"new_york" and "times", each usually with a lower threshold.
"""
import collections
from collections.abc import Callable, Iterable, Iterator, Mapping

from embeddings_jax.errors import InputError

JOINER = "_"


def phrase_scores(lines: Iterable[list[str]], min_count: int = 5) -> dict[tuple[str, str], float]:
  """Returns the scores of all neighbors that are frequent enough; no pair crosses a line."""
  words: collections.Counter = collections.Counter()
  pairs: collections.Counter = collections.Counter()
  for line in lines:
    words.update(line)
    pairs.update(zip(line, line[1:]))
  total = sum(words.values())
  return {(a, b): (number - min_count) / (words[a] * words[b]) * total for (a, b), number in pairs.items()
          if number >= min_count}


def joined(line: list[str], scores: Mapping[tuple[str, str], float], threshold: float = 100.0) -> Iterator[str]:
  """Yields the words and phrases of a line."""
  place = 0
  while place < len(line):
    pair = tuple(line[place:place + 2])
    is_phrase = scores.get(pair, float("-inf")) > threshold
    yield JOINER.join(pair) if is_phrase else line[place]
    place += 2 if is_phrase else 1


def join_phrases(read: Callable[[], Iterable[list[str]]], *, passes: int = 1, min_count: int = 5,
                 threshold: float = 100.0) -> Iterator[list[str]]:
  """Yields the lines of a corpus with their phrases joined.

  Args:
    read: Returns the lines of words from the first on, each time it is called; a pass reads the corpus once to count.
    passes: Number of passes; each halves the threshold of the one before.
    min_count: Occurrences below which a pair is no phrase.
    threshold: Score that a phrase of the first pass exceeds; the higher, the fewer phrases.
  """
  if passes < 1 or min_count < 1 or not threshold > 0:
    raise InputError(f"passes={passes}, min_count={min_count}, threshold={threshold}: must be at least 1, at least 1 "
                     "and above 0")
  for number in range(passes):
    limit = threshold / 2**number
    scores = {pair: score for pair, score in phrase_scores(read(), min_count).items() if score > limit}
    read = lambda read=read, scores=scores, limit=limit: (list(joined(line, scores, limit)) for line in read())
  yield from read()
