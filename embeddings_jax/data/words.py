"""Splitting of text into words, and the vocabulary that numbers them."""
import functools
import re
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np

from embeddings_jax.types import InputError

_DIGITS = "zero one two three four five six seven eight nine".split()
_LETTERS = bytes(c if c == 0 or 97 <= c < 123 or 48 <= c < 58 else c + 32 if 65 <= c < 91 else 32 for c in range(256))
_ASCII_WORD = re.compile(r"\0|[^\W_]+(?:'[^\W_]+)*")
_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"


def split_words(text: str, normalize: str) -> list[str]:
  """Splits a text into words.

  Args:
    text: The text. A NUL character, which separates documents, becomes a word of its own.
    normalize: `a-z`, as in text8: letters a to z in lower case, digits spelled out one by one, anything else is a
      space. `lower` and `cased`: letters and digits of every script with their combining marks, joiners and
      apostrophes inside words; in normalization form NFC and without soft hyphens, so that the same word has one
      spelling. `spaces`: whatever stands between white space, unchanged, for text that is tokenized already.
  """
  if normalize == "a-z":
    # On bytes: each is mapped by a table, several times as fast as any regular expression.
    data = text.encode("utf-8", "replace").translate(_LETTERS)
    for digit, word in enumerate(_DIGITS):
      data = data.replace(b"%d" % digit, f" {word} ".encode())
    return data.replace(b"\0", b" \0 ").decode("ascii").split()
  if normalize == "spaces":
    return text.replace("\0", " \0 ").split()
  if normalize not in ("lower", "cased"):
    raise InputError(f"normalize={normalize!r}: must be 'a-z', 'lower', 'cased' or 'spaces'")
  if normalize == "lower":
    text = text.lower()
  if text.isascii():
    return _ASCII_WORD.findall(text)
  return _unicode_word().findall(composed(text).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


def composed(text: str) -> str:
  """Returns text in normalization form NFC, without soft hyphens: two spellings of one word become equal."""
  # Nothing is composed across lines, and few lines have marks: this takes a tenth of the time of the whole text.
  lines = (line if line.isascii() else unicodedata.normalize("NFC", line) for line in text.split("\n"))
  return "\n".join(lines).replace("\N{SOFT HYPHEN}", "")


@functools.cache
def combining_marks() -> str:
  """Returns the combining marks of all scripts, as the inside of a character class of `re`."""
  # Planes 2 to 13 hold no marks. `re` has no class for them: `\w` leaves out the vowel signs of most of Asia.
  codes = [i for i in (*range(0x300, 0x20000), *range(0xE0100, 0xE01F0)) if unicodedata.category(chr(i))[0] == "M"]
  begins = [i for i, before in zip(codes, [-2, *codes]) if i != before + 1]
  ends = [i for i, after in zip(codes, [*codes[1:], -2]) if i != after - 1]
  return "".join(f"{chr(begin)}-{chr(end)}" for begin, end in zip(begins, ends))


def word_pattern(letter: str, apostrophes: str) -> str:
  """Returns a regular expression of words in every script.

  A word is letters, each perhaps with combining marks, and apostrophes between letters. A joiner belongs to the word
  between letters, as in Persian, and behind a mark, as at the end of Malayalam words.

  Args:
    letter: Regular expression of one letter or digit.
    apostrophes: Apostrophe characters.
  """
  marks = combining_marks()
  # The lookahead skips the large class after nearly all words of Latin text.
  return (rf"{letter}+(?:[{apostrophes}]{letter}+|(?=[^\0-\u02ff])(?:[{marks}][{marks}{_JOINERS}]*|"
          rf"[{_JOINERS}]+(?={letter}|[{marks}])){letter}*)*")


@functools.cache
def _unicode_word() -> re.Pattern[str]:
  return re.compile(r"\0|" + word_pattern(r"[^\W_]", "'"))


class Vocabulary:
  """Words and how often they occurred, by count (descending) and then alphabetically."""

  def __init__(self, words: Sequence[str], counts: np.ndarray):
    self.words = list(words)
    self.counts = np.asarray(counts, np.int64)
    self.index = {word: i for i, word in enumerate(self.words)}
    if len(self.words) != len(self.counts):
      raise InputError(f"vocabulary: {len(self.words)} words and {len(self.counts)} counts")
    if len(self.index) != len(self.words):
      raise InputError("vocabulary: a word is listed twice")

  @classmethod
  def from_counts(cls, counts: Mapping[str, int], min_count: int = 1, max_size: int | None = None) -> "Vocabulary":
    kept = sorted((w for w, n in counts.items() if n >= min_count), key=lambda w: (-counts[w], w))[:max_size]
    return cls(kept, np.array([counts[w] for w in kept], np.int64))

  def __len__(self) -> int:
    return len(self.words)

  def __contains__(self, word: object) -> bool:
    return word in self.index
