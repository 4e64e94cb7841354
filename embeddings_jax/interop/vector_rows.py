"""The table of word vectors while a file of them is read."""
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from embeddings_jax.types import InputError

_ALWAYS_ALLOCATED = 1 << 26  # Bytes of a table for which the size of the file is not asked.
_COMPRESSED = (".gz", ".xz", ".bz2", ".zst")
_BLOCK_ROWS = 1024  # That are checked at once.


class WordVectors(NamedTuple):
  """Words, each once, and their vectors: float32 [num_words, dim]."""

  words: list[str]
  vectors: np.ndarray


class VectorRows:
  """The table that is being read, allocated once; pages that are never written take no memory."""

  def __init__(self, path: str | os.PathLike, errors: str, num_words: int, dim: int, limit: int = 0):
    self.limit = limit
    self.numbered = 0  # Words that end with a number.
    self.path, self.errors, self.num_words, self.dim = path, errors, num_words, dim
    self.seen: dict[str, str] = {}  # Word -> where it stands.
    self._repeated = 0
    # A number takes at least 2 bytes; deflate makes data at most some 1,032 times smaller.
    size = os.path.getsize(path) * (1100 if Path(path).suffix in _COMPRESSED else 1)
    if 4 * num_words * dim > _ALWAYS_ALLOCATED and num_words * (2 * dim + 1) > size:
      raise InputError(f"{path}: the {num_words} vectors of {dim} numbers that line 1 tells of do not fit into a "
                       f"file of {os.path.getsize(path)} bytes")
    try:
      self.vectors = np.empty((min(num_words, limit or num_words), dim), np.float32)
    except (MemoryError, ValueError) as e:
      raise InputError(f"{path}: {num_words} vectors of {dim} numbers need more memory than there is") from e

  def __len__(self) -> int:
    """Words read so far, those that are left out as well."""
    return len(self.seen) + self._repeated

  def full(self) -> bool:
    """Returns whether the words that are wanted are there."""
    return bool(self.limit) and len(self.seen) == self.limit

  def add(self, word: bytes, where: str) -> int | None:
    """The row for a word's vector, or None where it occurs a second time and that is allowed."""
    try:
      name = word.decode("utf-8", self.errors)
    except UnicodeDecodeError as e:
      raise InputError(f"{self.path}: {where}: {shown(word)} is not UTF-8 (or the vector before it has not "
                       f"{self.dim} numbers); errors=replace puts replacement characters") from e
    if name in self.seen:
      if self.errors == "strict":
        raise InputError(f"{self.path}: {where}: the word {name[:60]!r} was in {self.seen[name]} already; "
                         "errors=replace keeps the first")
      self._repeated += 1
      return None
    self.seen[name] = where
    return len(self.seen) - 1

  def finish(self) -> WordVectors:
    if not self.seen:
      raise InputError(f"{self.path}: is empty, it has no word vectors")
    self.vectors = self.vectors[:len(self.seen)]  # A view: NumPy's resize copies from 2.5 on.
    for first in range(0, len(self.vectors), _BLOCK_ROWS):
      bad = ~np.isfinite(self.vectors[first:first + _BLOCK_ROWS]).all(1)
      if bad.any():
        word = list(self.seen)[first + int(bad.argmax())]
        raise InputError(f"{self.path}: {self.seen[word]}: the vector of {word[:60]!r} has a number that is not "
                         "finite")
    return WordVectors(list(self.seen), self.vectors)


def shown(text: bytes) -> str:
  """Returns bytes of a file, shortened, for an error of one line."""
  text = text.strip()
  return repr((text if len(text) <= 40 else text[:40] + b"...").decode("utf-8", "backslashreplace"))
