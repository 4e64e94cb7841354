"""Running text to running token ids: normalization, vocabulary, and one pass over the bytes."""
import itertools
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from embeddings_jax.data.cache import cache_root, cached, digest
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.documents import byte_stream
from embeddings_jax.data.encoders.words import WordEncoder
from embeddings_jax.data.words import Vocabulary, split_words
from embeddings_jax.types import InputError

# Versions of what is cached, by `normalize`: raise one when the same text would give other tokens.
VERSIONS = {"a-z": 1, "lower": 2, "cased": 2, "spaces": 1}
BOUNDARY = -1  # Stands between documents in the token stream.
_SLAB = 1 << 22  # Bytes whose words are Python objects at the same time.
_BREAK = {"document": None, "line": re.compile(r"\n"), "sentence": re.compile(r"(?<=[.!?])\s|\n"),
          "paragraph": re.compile(r"\n\s*\n"), "none": re.compile(r"\0")}


class Tokens(NamedTuple):
  """A tokenized corpus.

  Attributes:
    encoder: its vocabulary and normalization.
    tokens: int32 `[num_tokens]`, memory-mapped; the k-th run between `BOUNDARY`s is document (line,
      sentence) k, possibly empty. Words out of the vocabulary are dropped, as word2vec does.
    facts: `vocab_size`, `counts` (int64 `[vocab_size]`), `num_words` (in the vocabulary),
      `num_raw_words` (all), `num_documents` (runs).
    fingerprint: SHA-256 (hex) of what determines the tokens.
  """

  encoder: WordEncoder
  tokens: np.ndarray
  facts: dict[str, Any]
  fingerprint: str


def tokenize(
    dataset: Dataset,
    *,
    normalize: str = "a-z",
    min_count: int = 5,
    max_size: int | None = None,
    boundaries: str = "document",
    cache_dir: str | os.PathLike | None = None,
) -> Tokens:
  """Token ids of a text dataset, cached by its fingerprint and these options.

  Args:
    dataset: a `Dataset` of kind `text`.
    normalize: `a-z`, `lower`, `cased` or `spaces`; see `split_words`.
    min_count: words that occur less often are left out of the vocabulary.
    max_size: keep this many of the most frequent words.
    boundaries: where a `BOUNDARY` stands: after each `document`, also after each `paragraph` (at a blank line), also
      after each `line`, also after each `sentence` (which ends with a line, or at one of . ! ? before white space),
      or nowhere (`none`: all is one running text).
    cache_dir: default `$EMBEDDINGS_CACHE`, then `~/.cache/embeddings_jax`.

  Raises:
    InputError: not text, an unknown option, or no word is frequent enough.
  """
  if dataset.kind != "text":
    raise InputError(f"{dataset.name}: holds {dataset.kind}, words can only be read from text")
  split_words("", normalize)
  if boundaries not in _BREAK:
    raise InputError(f"boundaries={boundaries!r}: must be one of {', '.join(_BREAK)}")
  # Documents are left out of the key, which is older than the option.
  key = digest("tokens", VERSIONS[normalize], dataset.fingerprint, normalize, min_count, max_size,
               *([] if boundaries == "document" else [boundaries]))
  path = cached(cache_root(cache_dir) / f"tokens-{key[:32]}",
                lambda folder: _build(folder, dataset, normalize, min_count, max_size, boundaries))
  encoder = WordEncoder.load(path)
  facts = json.loads((path / "facts.json").read_text())
  facts |= {"vocab_size": len(encoder.vocabulary), "counts": encoder.vocabulary.counts}
  return Tokens(encoder, np.load(path / "tokens.npy", mmap_mode="r"), facts, key)


def check_contexts(tokens: Tokens, name: str) -> None:
  """Raises an `InputError` if the vocabulary is one word, or no two known words stand next to each other.

  A model of words in their contexts then has nothing to learn, and a loss that is 0 from the start.

  Args:
    tokens: A tokenized corpus.
    name: Name of the dataset.
  """
  if len(tokens.encoder.vocabulary) < 2:
    raise InputError(f"{name}: the vocabulary is the one word {tokens.encoder.vocabulary.words[0]!r}: there is "
                     "nothing to learn; lower min_count, or give more text")
  for start in range(0, len(tokens.tokens), _SLAB):
    known = tokens.tokens[start:start + _SLAB + 1] >= 0
    if (known[1:] & known[:-1]).any():
      return
  raise InputError(f"{name}: no two words stand together in any document or sentence: there is nothing to learn; "
                   "lower min_count, or give documents of several words")


def _slabs(stream: np.ndarray) -> Iterator[str]:
  """The text in pieces of some megabytes, cut between words."""
  rest = b""
  for start in range(0, len(stream), _SLAB):
    data = rest + stream[start:start + _SLAB].tobytes()
    cut = len(data)
    if start + _SLAB < len(stream):
      # These bytes are never part of another character in UTF-8. Before a word: white space is not torn apart.
      body = data.rstrip(b" \n\0")
      cut = 1 + max(body.rfind(b" "), body.rfind(b"\n"), body.rfind(b"\0"))
    rest = data[cut:]
    yield data[:cut].decode()


def _build(folder: Path, dataset: Dataset, normalize: str, min_count: int, max_size: int | None,
           boundaries: str) -> None:
  """One pass gives words provisional ids in the order of their first sight; then NumPy renames them."""
  folder.mkdir()
  stream, _ = byte_stream(dataset)
  ids = defaultdict(itertools.count(1).__next__, {"\0": 0})
  counts = np.zeros(0, np.int64)
  with open(folder / "provisional.bin", "wb") as file:
    for slab in _slabs(stream):
      if boundaries != "document":
        slab = _BREAK[boundaries].sub(" " if boundaries == "none" else "\0", slab)
      words = split_words(slab, normalize)
      indices = np.fromiter(map(ids.__getitem__, words), np.int32, len(words))
      file.write(indices.data)
      counts = np.pad(counts, (0, len(ids) - len(counts))) + np.bincount(indices, minlength=len(ids))
  occurred = dict(zip(ids, counts.tolist()))
  del occurred["\0"]
  vocabulary = Vocabulary.from_counts(occurred, min_count, max_size)
  if not len(vocabulary):
    raise InputError(f"{dataset.name}: no word occurs {min_count} times in {counts[1:].sum()} words; lower min_count")
  WordEncoder(vocabulary, normalize).save(folder)

  dropped = np.int32(-2)
  names = np.full(len(ids), dropped)
  names[[ids[word] for word in vocabulary.words]] = np.arange(len(vocabulary))
  names[0] = BOUNDARY
  num_words, num_boundaries = int(vocabulary.counts.sum()), int(counts[0])
  header = {"descr": names.dtype.str, "fortran_order": False, "shape": (num_words + num_boundaries,)}
  # Written, not mapped: on a full disk a write is an error, a mapped page kills the process.
  with open(folder / "provisional.bin", "rb") as file, open(folder / "tokens.npy", "wb") as tokens:
    np.lib.format.write_array_header_1_0(tokens, header)
    while len(indices := np.fromfile(file, np.int32, _SLAB)):
      indices = names[indices]
      tokens.write(indices[indices != dropped].data)
  (folder / "provisional.bin").unlink()
  facts = {"num_words": num_words, "num_raw_words": int(counts[1:].sum()), "num_documents": num_boundaries + 1}
  (folder / "facts.json").write_text(json.dumps(facts))
