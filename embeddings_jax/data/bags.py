"""Bags of words: how often each word occurs in each document, as the rows of a sparse matrix.

Counts come from text (`count_documents`), or from the user's own matrix: `lda-c`'s lines (`NAME.dat`, with
`vocab.txt` beside it) or a documents x words matrix of `scipy.sparse.save_npz` (with `vocabulary.txt`).
"""
import array
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from embeddings_jax.data import formats
from embeddings_jax.data.cache import cache_root, cached, digest
from embeddings_jax.data.dataset import Dataset, content_digest
from embeddings_jax.data.encoders.bags import BagEncoder
from embeddings_jax.data.sources import RESIDENT_BYTES, array_source, row_order
from embeddings_jax.data.text import tokenize
from embeddings_jax.data.words import Vocabulary, split_words
from embeddings_jax.types import InputError, Source

VERSION = 2  # Of what is cached: raise it when the same documents would give other counts.
UNITS = ("document", "paragraph", "window")
_MOST_WORDS = (1 << 31) - 1  # Words are int32.
_NUMBER = r"\d+(?:\.\d*)?(?:[eE][-+]?\d+)?"
_LDA_C = re.compile(rf"\d+(?: \d+:(?:{_NUMBER}|-{_NUMBER}|nan|-?inf))*", re.ASCII)
_SLAB = 1 << 22  # Tokens, or cells, that are counted at a time.


class Bags(NamedTuple):
  """Counts of words in documents, sorted by document and then by word; memory-mapped.

  Attributes:
    col: int32 `[num_cells]`, the word.
    count: float32 `[num_cells]`, above 0.
    indptr: int64 `[num_documents + 1]`: document i's cells are `indptr[i]:indptr[i + 1]`, none if it is empty.
    facts: `vocab_size`, `num_documents`, `num_cells`, `num_empty` (documents without a word that is known), and
      float64 `counts` and `entropy` (of a word's occurrences over the documents, nats) and int64 `document_frequency`
      `[vocab_size]`; of text also `num_raw_words` (all words).
    encoder: the vocabulary, by count (descending) and then alphabetically.
    fingerprint: SHA-256 (hex) of what determines the counts.
  """

  col: np.ndarray
  count: np.ndarray
  indptr: np.ndarray
  facts: dict[str, Any]
  encoder: BagEncoder
  fingerprint: str


class GivenBags(Sequence):
  """Documents that come as counts; each item is a mapping from words to counts.

  Attributes:
    words: `[num_words]` strings.
    col, count, indptr: as in `Bags`, but in the order of `words`.
  """

  def __init__(self, words: Sequence[str], col: np.ndarray, count: np.ndarray, indptr: np.ndarray):
    self.words, self.col, self.count, self.indptr = list(words), col, count, indptr

  def __len__(self) -> int:
    return len(self.indptr) - 1

  def __getitem__(self, index):
    if isinstance(index, slice):
      return [self[i] for i in range(*index.indices(len(self)))]
    if not -len(self) <= index < len(self):
      raise IndexError(index)
    cells = slice(*self.indptr[index % len(self):][:2])
    return {self.words[i]: n for i, n in zip(self.col[cells].tolist(), self.count[cells].tolist())}


def count_documents(
    dataset: Dataset,
    *,
    normalize: str = "lower",
    min_count: int = 1,
    min_documents: int = 1,
    max_share: float = 1.0,
    min_length: int = 1,
    max_size: int | None = None,
    stop_words: str = "none",
    unit: str = "document",
    window: int = 100,
    cache_dir: str | os.PathLike | None = None,
) -> Bags:
  """Counts of a dataset of text, bags or a matrix, cached by its fingerprint and these options.

  Args:
    dataset: Text; or `bags` or a `matrix` (rows are documents), whose words and documents stay as they are.
    normalize: `a-z`, `lower`, `cased` or `spaces`; see `split_words`.
    min_count: words that occur less often are left out of the vocabulary.
    min_documents: so are words of fewer documents (of what `unit` says),
    max_share: and words of more than this share of the documents,
    min_length: and words of fewer characters,
    stop_words: and those of `english` (scikit-learn's list) or of a file, one a line; or `none`.
    max_size: keep this many of the most frequent words that are left.
    unit: what counts as a document: a `document`; a `paragraph`, which ends at a blank line; or a `window`.
    window: length of such a window in words that occur `min_count` times; a document's last one may be shorter.
    cache_dir: default `$EMBEDDINGS_CACHE`, then `~/.cache/embeddings_jax`.

  Raises:
    InputError: no counts can be had of such data, an unknown option, or no word is left.
  """
  for name, value, least in (("min_count", min_count, 0), ("min_documents", min_documents, 0),
                             ("min_length", min_length, 1), ("window", window, 1)):
    if value < least:
      raise InputError(f"{name}={value}: must be at least {least}")
  if not 0 < max_share <= 1:
    raise InputError(f"max_share={max_share}: must be above 0 and at most 1")
  if unit not in UNITS:
    raise InputError(f"unit={unit!r}: must be one of {', '.join(UNITS)}")
  dataset = as_bags(dataset)
  counted_before = dataset.kind == "bags"
  if counted_before and unit != "document":
    raise InputError(f"{dataset.name}: holds counts, which have no order of words; unit={unit} needs text")
  if counted_before:
    source, words, fingerprint = _Given(dataset), dataset.items.words, dataset.fingerprint
  else:
    tokens = tokenize(dataset, normalize=normalize, min_count=min_count, cache_dir=cache_dir,
                      boundaries="document" if unit == "window" else unit)
    source = _Text(tokens.tokens, window if unit == "window" else None)
    words, fingerprint = tokens.encoder.vocabulary.words, tokens.fingerprint
  stop = _stop_words(stop_words, normalize)
  key = digest("bags", VERSION, fingerprint, normalize, min_count, min_documents, max_share, min_length, max_size,
               unit, window if unit == "window" else 0, sorted(stop))

  def build(folder: Path) -> None:
    counts, logs, frequency, total = np.zeros(len(words)), np.zeros(len(words)), np.zeros(len(words), np.int64), 0
    for _, number, col, count in source.slabs():
      counts += np.bincount(col, count, len(words))
      logs += np.bincount(col, count * np.log(count), len(words))
      frequency += np.bincount(col, minlength=len(words))
      total += number
    kept = (counts >= max(min_count, 1e-30)) & (frequency >= min_documents) & (frequency <= max_share * total)
    kept[[i for i, word in enumerate(words) if word in stop or len(word) < min_length]] = False
    order = sorted(np.flatnonzero(kept).tolist(), key=lambda i: (-counts[i], words[i]))[:max_size]
    if not order:
      raise InputError(f"{dataset.name}: no word is left of {int((counts > 0).sum())}; lower min_count={min_count} "
                       f"or min_documents={min_documents}, or raise max_share={max_share}")
    folder.mkdir()
    BagEncoder(Vocabulary([words[i] for i in order], counts[order].astype(np.int64)), normalize).save(folder)
    np.save(folder / "totals.npy", counts[order])
    np.save(folder / "entropy.npy", np.log(counts[order]) - logs[order] / counts[order])
    np.save(folder / "document_frequency.npy", frequency[order])
    names = np.full(len(words), -1)
    names[order] = np.arange(len(order))
    ends = [np.zeros(1, np.int64)]
    with open(folder / "col.bin", "wb") as cols, open(folder / "count.bin", "wb") as values:
      for document, number, col, count in source.slabs(names):
        col.astype(np.int32).tofile(cols)
        count.astype(np.float32).tofile(values)
        ends.append(ends[-1][-1] + np.searchsorted(document, np.arange(1, number + 1)))
    np.save(folder / "indptr.npy", np.concatenate(ends))

  path = cached(cache_root(cache_dir) / f"bags-{key[:32]}", build)
  encoder, indptr = BagEncoder.load(path), np.load(path / "indptr.npy", mmap_mode="r")
  facts = {"vocab_size": len(encoder.vocabulary), "num_documents": len(indptr) - 1, "num_cells": int(indptr[-1]),
           "num_empty": int((np.diff(indptr) == 0).sum()), "counts": np.load(path / "totals.npy"),
           "entropy": np.load(path / "entropy.npy"),
           "document_frequency": np.load(path / "document_frequency.npy")}
  if not counted_before:
    facts["num_raw_words"] = tokens.facts["num_raw_words"]
  col, count = np.memmap(path / "col.bin", np.int32, "r"), np.memmap(path / "count.bin", np.float32, "r")
  return Bags(col, count, indptr, facts, encoder, key)


class _Text:
  """Cells of running tokens, some millions at a time."""

  def __init__(self, tokens: np.ndarray, window: int | None):
    self._tokens, self._window = tokens, window

  def slabs(self, names: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, int, np.ndarray, np.ndarray]]:
    """Yields `(document, number of documents, word, count)`, sorted by document, from 0, and word; words are
    renamed by `names`, -1 being dropped."""
    for tokens in self._pieces():
      boundary = tokens < 0
      document = np.cumsum(boundary)
      number = int(boundary.sum()) + 1
      if self._window:
        length = np.bincount(document[~boundary], minlength=number)
        first = np.cumsum(length) - length
        windows = -(-length // self._window)
        position = np.arange(int(length.sum())) - np.repeat(first, length)
        document = np.repeat(np.cumsum(windows) - windows, length) + position // self._window
        number = int(windows.sum())
      else:
        document = document[~boundary]
      word = tokens[~boundary].astype(np.int64)
      if names is not None:
        word = names[word]
        document, word = document[word >= 0], word[word >= 0]
      width = (len(names) if names is not None else int(word.max(initial=0))) + 1
      cell, count = np.unique(document * width + word, return_counts=True)
      yield cell // width, number, cell % width, count

  def _pieces(self) -> Iterator[np.ndarray]:
    """Whole documents with a boundary between them, but none at the end."""
    start, total = 0, len(self._tokens)
    while start <= total:
      stop = start + _SLAB
      while stop < total:
        ends = np.flatnonzero(self._tokens[start:stop] < 0)
        if len(ends):
          break
        stop += _SLAB
      end = start + int(ends[-1]) if stop < total else total
      yield np.asarray(self._tokens[start:end])
      start = end + 1


class _Given:
  """Cells that are there already."""

  def __init__(self, dataset: Dataset):
    self._col, self._count, self._indptr = dataset.items.col, dataset.items.count, dataset.items.indptr
    _check_counts(dataset.name, self._col, self._count, self._indptr)

  def slabs(self, names: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, int, np.ndarray, np.ndarray]]:
    start, total = 0, len(self._indptr) - 1
    while start < total:
      stop = max(start + 1, int(np.searchsorted(self._indptr, self._indptr[start] + _SLAB, side="right")) - 1)
      cells = slice(int(self._indptr[start]), int(self._indptr[stop]))
      document = np.repeat(np.arange(stop - start), np.diff(self._indptr[start:stop + 1]))
      col, count = np.asarray(self._col[cells], np.int64), np.asarray(self._count[cells])
      if names is not None:
        col = names[col]
        document, col, count = (x[col >= 0] for x in (document, col, count))
        order = np.lexsort((col, document))
        document, col, count = document[order], col[order], count[order]
      yield document, stop - start, col, count
      start = stop


def bag_source(
    bags: Bags,
    batch_size: int = 0,
    *,
    blocks: int = 8,
    held_out: float = 0.0,
    seed: int = 0,
    resident: bool | None = None,
) -> Source:
  """Bags in blocks of documents: the leading axis of a batch is blocks, which data shards share out.

  The documents are dealt out so that the blocks have equally many documents and, but for a few, equally many cells
  (sorted by their number of cells, then forth and back over the blocks); what `seed` draws are ties. A batch has, for
  a block of R documents and C cells,

  | name | shape | |
  |---|---|---|
  | `row` | int32 [blocks, C] | a cell's document, its place in the block; cells are sorted by document |
  | `col` | int32 [blocks, C] | its word |
  | `count` | float32 [blocks, C] | 0: padding, at the end |
  | `held` | float32 [blocks, C] | occurrences that are held out, which `count` lacks; if `held_out` is not 0 |
  | `row_start` | int32 [blocks, R + 1] | document r's cells are `row_start[r]:row_start[r + 1]` |
  | `turned` | int32 [blocks, C] | the cells sorted by word: their places |
  | `col_start` | int32 [blocks, V + 1] | word w's are `turned[col_start[w]:col_start[w + 1]]` |
  | `document` | int32 [blocks, R] | a document's number among the bags; -1: padding, at the end |
  | `mask` | float32 [blocks] | |

  Args:
    bags: the counts.
    batch_size: blocks of a batch, in another order in every epoch; 0 makes all of them the batch of every step.
    blocks: number of blocks. The data shards must divide it, and so must `batch_size`.
    held_out: probability with which each occurrence of a word is held out; a fractional count is as a whole.
    seed: Random seed of ties, of what is held out, and of the order of the blocks.
    resident: keep the blocks on the device; by default where they are small. Otherwise they are read as they come.

  Returns:
    A `Source` with the bags' facts, `documents_per_block`, and `padding`, the share of cells that is padding.
  """
  if blocks < 1 or (batch_size and blocks % batch_size):
    raise InputError(f"blocks={blocks}: must be at least 1, and a multiple of batch_size={batch_size}")
  if not 0 <= held_out < 1:
    raise InputError(f"held_out={held_out}: must be from 0 to below 1")
  lengths = np.diff(bags.indptr)
  documents, capacity = dealt(lengths, blocks, seed)
  block_at = lambda block: _block(bags, documents[block], capacity, held_out, (seed, block))
  facts = bags.facts | {
      "num_rows": len(lengths), "num_features": bags.facts["vocab_size"], "documents_per_block": documents.shape[1],
      "padding": 1 - bags.facts["num_cells"] / (blocks * capacity)}
  if not batch_size or resident is None:
    size = 4 * blocks * (5 * capacity + bags.facts["vocab_size"])
    resident = not batch_size or size <= RESIDENT_BYTES
  if resident:
    parts = [block_at(i) for i in range(blocks)]
    arrays = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
    return array_source(arrays, batch_size or None, seed=seed, facts=facts)._replace(may_pad=False)
  index_at, facts["steps_per_epoch"] = row_order(blocks, batch_size, seed, "shuffled", "drop")

  def read(step, rows=slice(None)):
    index = index_at(step, rows)
    parts = [block_at(i) for i in index["row"]]
    return {name: np.stack([part[name] for part in parts]) for name in parts[0]} | {"mask": index["mask"]}

  return Source(facts, batch_size, read, lambda _, feed: dict(feed))


def dealt(lengths: np.ndarray, blocks: int, seed: int) -> tuple[np.ndarray, int]:
  """Documents of every block, `[blocks, R]` padded with -1 at the end, and the most cells that a block has."""
  order = np.random.default_rng(seed).permutation(len(lengths))
  order = order[np.argsort(-lengths[order], kind="stable")]
  rounds = np.full((-(-len(order) // blocks), blocks), -1)
  rounds.flat[:len(order)] = order
  rounds[1::2] = rounds[1::2, ::-1]
  documents = np.sort(np.where(rounds < 0, len(lengths), rounds).T, axis=1)
  cells = np.append(lengths, 0)[documents].sum(1)
  return np.where(documents == len(lengths), -1, documents), max(8, -(-int(cells.max()) // 8) * 8)


def _block(bags: Bags, documents: np.ndarray, capacity: int, held_out: float, seed: Any) -> dict[str, np.ndarray]:
  """The arrays of one block of `bag_source`, but for the mask."""
  valid = documents[documents >= 0]
  length = np.diff(bags.indptr)[valid] if len(valid) else np.zeros(0, np.int64)
  ends = np.cumsum(length)
  cell = np.arange(int(length.sum())) + np.repeat(bags.indptr[valid] - (ends - length), length)
  col, count = bags.col[cell], np.asarray(bags.count[cell])
  padded = lambda x, value=0: np.pad(x, (0, capacity - len(x)), constant_values=value)
  block = {
      "row": padded(np.repeat(np.arange(len(valid), dtype=np.int32), length), len(documents) - 1), "col": padded(col),
      "count": padded(count), "document": documents.astype(np.int32),
      "row_start": np.pad(np.append(0, ends), (0, len(documents) - len(valid)), mode="edge").astype(np.int32),
      "turned": np.append(np.argsort(col, kind="stable"), np.arange(len(col), capacity)).astype(np.int32),
      "col_start": np.append(0, np.cumsum(np.bincount(col, minlength=bags.facts["vocab_size"]))).astype(np.int32)}
  if held_out:
    noise, whole = np.random.default_rng(seed), np.floor(count)
    held = np.where(whole == count, noise.binomial(whole.astype(np.int64), held_out),
                    count * (noise.random(len(count)) < held_out)).astype(np.float32)
    block |= {"held": padded(held), "count": padded(count - held)}
  return block


def from_matrix(name: str, table: Any, words: Sequence[str]) -> Dataset:
  """A dataset of documents x words, from a sparse matrix of scipy with a name for every column.

  Raises:
    InputError: a count is negative or not finite, or there are none.
  """
  table = table.tocsr().astype(np.float64)
  table.sum_duplicates()
  table.eliminate_zeros()
  items = GivenBags(words, table.indices.astype(np.int32), table.data.astype(np.float32),
                    table.indptr.astype(np.int64))
  _check_counts(name, items.col, items.count, items.indptr)
  if len(items.words) != table.shape[1] or len(set(items.words)) != len(items.words):
    raise InputError(f"{name}: {len(set(items.words))} different words for {table.shape[1]} columns")
  fingerprint = content_digest([items.col, items.count, items.indptr, np.array(items.words)])
  return Dataset(name, "bags", items, fingerprint=fingerprint)


def load_lda_c(path: str, files: Sequence[Path]) -> Dataset:
  """The lines of `lda-c` (Blei et al. 2003), one document each: the number of its words, then `word:count` of each.

  The words are numbered from 0; `vocab.txt` (or `vocabulary.txt`) beside the file names them, one a line. Counts may
  be fractions; a document may be empty (`0`).
  """
  if len(files) > 1:
    raise InputError(f"{path}: {len(files)} files of counts; choose one")
  file = files[0]
  listed = [file.parent / name for name in ("vocab.txt", "vocabulary.txt") if (file.parent / name).exists()]
  words = list(formats.read_lines(listed[0])) if listed else None
  if words is not None and len(set(words)) < len(words):
    raise InputError(f"{listed[0]}: {len(set(words))} different words in {len(words)} lines")
  return parse_lda_c(path, formats.read_lines(file), words)


def parse_lda_c(name: str, lines: Iterable[str], words: Sequence[str] | None) -> Dataset:
  """Parses the lines of `lda-c`; see `load_lda_c`. Without `words` they are named by their numbers."""
  from scipy import sparse

  col, count, indptr = array.array("q"), array.array("d"), [0]
  most = len(words) if words is not None else _MOST_WORDS
  for number, line in enumerate(lines, 1):
    pairs = line.split()
    if not pairs:
      continue
    if not _LDA_C.fullmatch(" ".join(pairs)):
      raise InputError(f"{name}: line {number}: should be `n word:count ...`, and is {formats.quoted(line, 40)}")
    cells = [pair.split(":") for pair in pairs[1:]]
    if pairs[0] != str(len(cells)):
      raise InputError(f"{name}: line {number}: says {pairs[0][:20]} words and has {len(cells)}")
    for word, value in cells:
      if len(word) > 18 or int(word) >= most:
        raise InputError(f"{name}: line {number}: word {word[:20]} is not one of the {most} of the vocabulary")
      value = float(value)
      if not 0 <= value < np.inf:
        raise InputError(f"{name}: line {number}: a count of {value:g}; it must be a number and not negative")
      col.append(int(word))
      count.append(value)
    indptr.append(len(col))
  if not col:
    raise InputError(f"{name}: is empty, it has no counts")
  if words is None:
    check_width(name, max(col) + 1, len(col))
    words = [str(i) for i in range(max(col) + 1)]
  cells = np.frombuffer(count), np.frombuffer(col, np.int64), np.array(indptr)
  return from_matrix(name, sparse.csr_array(cells, shape=(len(indptr) - 1, len(words))), words)


def check_width(name: object, width: int, num_cells: int) -> None:
  """Raises an `InputError` for columns without names that are far more than there are cells: a damaged number."""
  if width > max(1 << 20, 16 * num_cells):
    raise InputError(f"{name}: has {width} columns and {num_cells} counts, which looks damaged; if it is right, name "
                     "the columns in a file vocabulary.txt beside it")


def as_bags(dataset: Dataset) -> Dataset:
  """A matrix that happens to be square, read as documents x words; other data as it is."""
  if dataset.kind != "matrix":
    return dataset
  cells = dataset.items.cells
  items = GivenBags(list(dataset.items), cells.col, cells.count, cells.indptr)
  return dataset._replace(kind="bags", items=items, names=None)


def _check_counts(name: str, col: np.ndarray, count: np.ndarray, indptr: np.ndarray) -> None:
  if not len(count):
    raise InputError(f"{name}: is empty, it has no count that is not 0")
  bad = np.flatnonzero(~((count > 0) & (count < np.inf)))
  if len(bad):
    row = int(np.searchsorted(indptr, bad[0], side="right")) - 1
    raise InputError(f"{name}: document {row}, word {col[bad[0]]} (from 0): a count of {count[bad[0]]:g}; it must be "
                     "a finite number and not negative")


def _stop_words(name: str, normalize: str) -> frozenset[str]:
  if name == "none":
    return frozenset()
  if name == "english":
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS as listed
  elif Path(name).expanduser().is_file():
    listed = [line.strip() for line in formats.read_lines(Path(name).expanduser())]
  else:
    raise InputError(f"stop_words={name}: must be none, english or a file with a word a line; there is no such file")
  return frozenset(word for line in listed for word in (line, *split_words(line, normalize)))
