"""Words: how a text is split into them, and the vocabulary that numbers them."""
import re
from collections.abc import Mapping, Sequence

import numpy as np

from embeddings_jax.types import InputError

_DIGITS = "zero one two three four five six seven eight nine".split()
_LETTERS = bytes(c if c == 0 or 97 <= c < 123 or 48 <= c < 58 else c + 32 if 65 <= c < 91 else 32 for c in range(256))
_WORD = re.compile(r"\0|[^\W_]+(?:'[^\W_]+)*")


def split_words(text: str, normalize: str) -> list[str]:
  """Words of a text.

  `a-z` is that of text8: letters a to z in lower case, digits spelled out one by one, all else is
  space. `lower` and `cased` keep letters and digits of every script, and apostrophes within words. `spaces` takes
  what stands between white space as it is, for text whose words and full stops were separated beforehand.
  The character NUL, which separates documents, is kept as a word of its own.
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
  text = text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
  return _WORD.findall(text.lower() if normalize == "lower" else text)


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
