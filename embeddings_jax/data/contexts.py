"""Pairs of a word and a context, from dependency trees, from positions in running text, or as a file lists them.

  dependencies   CoNLL-U trees (Levy & Goldberg 2014, section 3): a word has as contexts each of its modifiers,
                 `modifier/relation`, and its head, `head/relation-1`. A preposition is collapsed into the relation
                 of its noun: "scientist discovers star with telescope" gives discovers `telescope/obl:with`.
  positions      running text: the words up to `window` before and after, with their distance, `word/-2`
  pairs          lines `word context`, or `word context count`, between tabs or spaces
"""
import collections
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from embeddings_jax.data.files.conllu import conllu_sentences
from embeddings_jax.data.files.streams import quoted
from embeddings_jax.data.words import Vocabulary, split_words
from embeddings_jax.errors import InputError, check_choice

KINDS = ("positions", "dependencies", "pairs")


class Pairs(NamedTuple):
  """Pairs of a word and a context, both as numbers in their vocabularies.

  Attributes:
    words: Vocabulary of the words.
    contexts: Vocabulary of the contexts.
    word, context: int32 [num_pairs].
  """

  words: Vocabulary
  contexts: Vocabulary
  word: np.ndarray
  context: np.ndarray


def make_pairs(texts: Iterable[str], kind: str, *, where: str, normalize: str = "lower", window: int = 2,
               min_count: int = 5, min_context_count: int = 5, max_size: int = 0) -> Pairs:
  """Returns the pairs of texts, without rare words and contexts.

  Args:
    texts: Documents; of CoNLL-U and of pairs their lines may be spread over several.
    kind: One of `KINDS`.
    where: Name of the data for error messages.
    normalize: How words are split and spelled, see `words.split_words`; of given pairs nothing is changed.
    window: Distance of the farthest positions.
    min_count, min_context_count: Words and contexts of fewer pairs are left out.
    max_size: Keeps this many of the most frequent words; 0: all.

  Raises:
    InputError: A line cannot be read, or no pair is left.
  """
  check_choice("contexts", kind, KINDS)
  if kind == "positions":
    pairs = (pair for text in texts for pair in positions(split_words(text, normalize), window))
  else:
    lines = (line for text in texts for line in text.split("\n"))
    pairs = dependencies(lines, where, normalize) if kind == "dependencies" else given(lines, where)
  counts: collections.Counter = collections.Counter()
  for word, context, number in pairs:
    counts[word, context] += number
  totals: tuple[collections.Counter, collections.Counter] = collections.Counter(), collections.Counter()
  for pair, number in counts.items():
    for total, name in zip(totals, pair):
      total[name] += number
  words = Vocabulary.from_counts(totals[0], min_count, max_size or None)
  contexts = Vocabulary.from_counts(totals[1], min_context_count)
  kept = [(words.index[word], contexts.index[context], number) for (word, context), number in counts.items()
          if word in words and context in contexts]
  if not kept:
    raise InputError(f"{where}: no pair of a word and a context occurs often enough; lower data.min_count="
                     f"{min_count} or data.min_context_count={min_context_count}")
  table = np.array(kept, np.int64)
  return Pairs(words, contexts, *(np.repeat(column, table[:, 2]).astype(np.int32) for column in table[:, :2].T))


def positions(words: list[str], window: int) -> Iterator[tuple[str, str, int]]:
  """Yields (word, neighbor with its distance, 1); a NUL, the end of a document, is crossed by no pair."""
  for i, word in enumerate(words):
    if word == "\0":
      continue
    for step in (-1, 1):
      for distance in range(1, window + 1):
        j = i + step * distance
        if not 0 <= j < len(words) or words[j] == "\0":
          break
        yield word, f"{words[j]}/{step * distance:+d}", 1


def dependencies(lines: Iterable[str], where: str, normalize: str = "lower") -> Iterator[tuple[str, str, int]]:
  """Yields (word, context, 1) of CoNLL-U trees; punctuation gives no pair."""
  for words, heads, relations in _trees(lines, where, normalize):
    prepositions = {head: words[i] for i, (head, relation) in enumerate(zip(heads, relations)) if relation == "case"}
    for i, (head, relation) in enumerate(zip(heads, relations)):
      if head < 0 or relation in ("case", "punct"):
        continue
      if relation.split(":")[0] in ("nmod", "obl") and i in prepositions:
        relation = f"{relation.split(':')[0]}:{prepositions[i]}"
      yield words[head], f"{words[i]}/{relation}", 1
      yield words[i], f"{words[head]}/{relation}-1", 1


def _trees(lines: Iterable[str], where: str, normalize: str) -> Iterator[tuple[list[str], list[int], list[str]]]:
  """Yields the words of a sentence, the places of their heads (-1 of the root) and their relations."""
  spell = str.lower if normalize in ("lower", "a-z") else str
  for words in conllu_sentences(lines, where):
    for number, cells in words:
      if not cells[6].isdecimal():
        raise InputError(f"{where}: line {number}: the head {quoted(cells[6])} is no number; trees are needed")
      if int(cells[6]) > len(words):
        raise InputError(f"{where}: line {number}: the head {cells[6]} is none of the sentence's {len(words)} words")
    yield ([spell(cells[1]) for _, cells in words], [int(cells[6]) - 1 for _, cells in words],
           [cells[7] for _, cells in words])


def given(lines: Iterable[str], where: str) -> Iterator[tuple[str, str, int]]:
  """Yields the pairs that a file lists, with their counts."""
  for number, line in enumerate(lines, 1):
    cells = line.split("\t") if "\t" in line else line.split()
    if not line.strip():
      continue
    if len(cells) not in (2, 3) or not all(cells):
      raise InputError(f"{where}: line {number}: expected a word, a context and perhaps a count, not {quoted(line)}")
    count = cells[2] if len(cells) == 3 else "1"
    if not (count.isascii() and count.isdecimal() and int(count) > 0):
      raise InputError(f"{where}: line {number}: the count {quoted(count)} is no positive whole number")
    yield cells[0], cells[1], int(count)
