"""Character n-grams of words, hashed as fastText does (Bojanowski et al. 2017)."""
from collections.abc import Iterator, Sequence

import numpy as np

from embeddings_jax.data.encoders.base import check_size
from embeddings_jax.types import InputError

MOST = 128  # N-grams of a word, of 3 to 6 characters those of a word of 33; what is beyond is left out.
_OFFSET, _PRIME, _MASK = 2166136261, 16777619, 0xFFFFFFFF


def hashes(word: bytes, min_n: int, max_n: int) -> Iterator[int]:
  """Yields the hash (FNV-1a, with signed bytes) of each character n-gram of `<word>`.

  Args:
    word: UTF-8; characters are told by their first bytes, as fastText does.
    min_n, max_n: Characters of an n-gram; single `<` and `>` are none.
  """
  text = b"<" + word + b">"
  starts = [i for i, byte in enumerate(text) if byte & 0xC0 != 0x80]
  ends = [*starts[1:], len(text)]
  for first, start in enumerate(starts):
    value, at = _OFFSET, start
    for n, end in enumerate(ends[first:first + max_n], 1):
      for byte in text[at:end]:
        value = ((value ^ (byte | 0xFFFFFF00 if byte > 127 else byte)) * _PRIME) & _MASK
      at = end
      if n >= min_n and not (n == 1 and (first == 0 or end == len(text))):
        yield value


def ngrams_of(word: str, min_n: int, max_n: int, bucket: int) -> np.ndarray:
  """Returns the n-grams of a word as numbers below `bucket`, int32 [num_ngrams], at most `MOST`."""
  values = hashes(word.encode("utf-8", "replace"), min_n, max_n)
  return np.array([value % bucket for value, _ in zip(values, range(MOST))], np.int32)


def ngram_table(words: Sequence[str], min_n: int, max_n: int, bucket: int) -> np.ndarray:
  """Returns the n-grams of words, int32 [num_words, most that a word has], -1 behind their ends."""
  listed = [ngrams_of(word, min_n, max_n, bucket) for word in words]
  table = np.full((len(listed), max([1, *map(len, listed)])), -1, np.int32)
  for row, ngrams in zip(table, listed):
    row[:len(ngrams)] = ngrams
  return table


def check_ngrams(min_n: int, max_n: int, bucket: int) -> None:
  """Raises unless the sizes of n-grams and the number of their rows are within bounds."""
  check_size("min_n", min_n, 1, 64)
  check_size("max_n", max_n, 1, 64)
  check_size("bucket", bucket)
  if min_n > max_n:
    raise InputError(f"min_n={min_n}: must not exceed max_n={max_n}")
