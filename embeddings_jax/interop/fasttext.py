"""Word vectors of fastText's own `.bin` models: the mean of a word's vector and those of its character n-grams.

Bojanowski et al. 2017, "Enriching Word Vectors with Subword Information". Quantized models (`.ftz`) are refused. Only
words of the vocabulary get a vector here; fastText itself makes one for any string.
"""
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from embeddings_jax.data.files.streams import quoted
from embeddings_jax.data.ngrams import hashes
from embeddings_jax.types import InputError

MAGIC = b"\xba\x16\x4f\x2f"
_VERSION = 12  # Of fastText 0.2 on.
_LONGEST_WORD = 1 << 16
_WAY = "in gensim write its vectors by load_facebook_vectors(PATH).save_word2vec_format(FILE)"


class _Header(NamedTuple):
  """Fields of a model that its vectors depend on."""

  dim: int
  bucket: int
  min_n: int
  max_n: int
  num_entries: int
  num_words: int


def read_fasttext(path: str | os.PathLike, limit: int = 0) -> tuple[list[bytes], np.ndarray]:
  """Reads a model.

  Args:
    path: The `.bin` file, not compressed.
    limit: Words to read, the most frequent ones; 0: all.

  Returns:
    The words as bytes, and their vectors, float32 `[num_words, dim]`.

  Raises:
    InputError: Another version, a quantized model, or a file that is damaged or cut short.
  """
  try:
    with open(path, "rb") as file:
      header = _header(path, file)
      words = list(_words(path, file, header))
      if _unpack(path, file, "<?")[0]:
        raise InputError(f"{path}: is a quantized model, whose vectors are rounded; quantized models are not read")
      num_rows, dim = _unpack(path, file, "<qq")
      size = os.fstat(file.fileno()).st_size - file.tell()
      if dim != header.dim or num_rows < len(words) or 4 * num_rows * dim > size:
        raise InputError(f"{path}: damaged or cut short, {size} bytes of vectors for {num_rows} x {dim} numbers")
      table = np.memmap(path, "<f4", "r", file.tell(), (num_rows, dim))
  except OSError as error:
    raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
  words = words[:limit or None]
  buckets = num_rows - header.num_words
  vectors = np.empty((len(words), dim), np.float32)
  for i, word in enumerate(words):
    rows = [i, *(header.num_words + value % buckets for value in hashes(word, header.min_n, header.max_n))
            ] if buckets else [i]
    vectors[i] = table[rows].sum(0, dtype=np.float32) / len(rows)
  return words, vectors


def _header(path: str | os.PathLike, file: BinaryIO) -> _Header:
  if file.read(4) != MAGIC:
    raise InputError(f"{path}: is no model of fastText")
  version, = _unpack(path, file, "<i")
  if version != _VERSION:
    raise InputError(f"{path}: is a model of fastText in version {version}, only {_VERSION} is read; {_WAY}")
  dim, _, _, _, _, _, _, _, bucket, min_n, max_n, _ = _unpack(path, file, "<12i")
  _unpack(path, file, "<d")
  num_entries, num_words, num_labels, _, pruned = _unpack(path, file, "<iiiqq")
  if pruned > 0:
    raise InputError(f"{path}: is a pruned model; pruned models are not read")
  if (not 0 < dim < 1 << 16 or not 0 <= min_n <= max_n + 1 <= 256 or bucket < 0 or num_labels < 0
      or not 0 < num_words <= num_entries or num_words + num_labels != num_entries):
    raise InputError(f"{path}: damaged, its header has {dim} dimensions and {num_words} words")
  return _Header(dim, bucket, min_n, max_n, num_entries, num_words)


def _words(path: str | os.PathLike, file: BinaryIO, header: _Header) -> Iterator[bytes]:
  """Yields the words, which come before labels, and reads all entries."""
  data, at = file.read(1 << 24), 0
  begin = file.tell() - len(data)
  for entry in range(header.num_entries):
    end = data.find(b"\0", at)
    if end < 0 or end + 10 > len(data):
      more = file.read(1 << 24)
      data, begin, at = data[at:] + more, begin + at, 0
      end = data.find(b"\0")
      if end < 0 or end + 10 > len(data):
        raise InputError(f"{path}: ends within word {entry + 1} of {header.num_entries}; it was cut short")
    if end - at > _LONGEST_WORD:
      raise InputError(f"{path}: damaged, word {entry + 1} is longer than {_LONGEST_WORD} bytes")
    kind = data[end + 9]
    if kind != (0 if entry < header.num_words else 1):
      raise InputError(f"{path}: damaged, entry {entry + 1} ({quoted(data[at:end])}) is of kind {kind}")
    if not kind:
      yield data[at:end]
    at = end + 10
  file.seek(begin + at)


def _unpack(path: str | os.PathLike, file: BinaryIO, form: str) -> tuple:
  data = file.read(struct.calcsize(form))
  if len(data) < struct.calcsize(form):
    raise InputError(f"{path}: ends within its header; it was cut short")
  return struct.unpack(form, data)


def is_fasttext(path: str | os.PathLike) -> bool:
  """Returns whether a file begins as fastText's models do."""
  try:
    with open(path, "rb") as file:
      return Path(path).is_file() and file.read(4) == MAGIC
  except OSError:
    return False
