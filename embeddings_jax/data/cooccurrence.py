"""Co-occurrence counts of running tokens, out of core: how often two words stand near each other.

The text is read in chunks. In each the places of every word are found by a transposition; the contexts of a frequent
word are added up in a table of all words, those of rare ones by sorting. What comes of a chunk is a *run* of sorted
64-bit records, `row << (a + b) | column << b | weight`; the runs are then merged by ranges of pairs. Weights are
integers (in units of 1 / scale), so that sums are exact and neither the memory limit, nor the number of threads, nor
an interruption changes a bit of the result.
"""
import contextlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import sparse

from embeddings_jax.data.cache import cache_root, cached, digest
from embeddings_jax.data.files.arrays import load_npy, load_npz
from embeddings_jax.data.files.atomic import write_atomically
from embeddings_jax.data.threads import WORKERS, map_in_order
from embeddings_jax.types import InputError

VERSION = 1  # Of what is cached: raise it when the same tokens would give other counts.
MEMORY = 2 << 30  # Bytes.
_BYTES_PER_RECORD = 56  # At the peak, measured: tests/data/test_cooccurrence.py holds it.
_BYTES_PER_TOKEN = 28
_BYTES_PER_WORD = 64
_MOST_RECORDS = 1 << 21  # One core works on: more of them leave its cache.
_MOST_TOKENS = 1 << 29  # Of a chunk, whose places are int32.
_SLAB = 1 << 15
_WORKERS = min(WORKERS, 8)


class Cooccurrence(NamedTuple):
  """Non-zero counts, sorted by row and then by column; memory-mapped.

  Attributes:
    row, col: int32 `[num_cells]`. Of ordered counts the row is the earlier word.
    count: float32 `[num_cells]`.
    indptr: int64 `[vocab_size + 1]`: row r's cells are `indptr[r]:indptr[r + 1]`.
    facts: `vocab_size`, `num_cells`, `symmetric`, and float64
      `marginals` `[vocab_size]`: row sums, or of sliding windows the number that hold the word;
      `context_marginals` `[vocab_size]`: column sums, or the same as `marginals`;
      `total`: the sum of all counts, or the number of windows.
    fingerprint: Hash of everything that determines the cells.
  """

  row: np.ndarray
  col: np.ndarray
  count: np.ndarray
  indptr: np.ndarray
  facts: dict[str, Any]
  fingerprint: str


class _Layout(NamedTuple):
  """Bits of a record, and what a weight of 1 is in it."""

  word_bits: int
  weight_bits: int
  scale: int

  @classmethod
  def of(cls, vocab_size: int, longest: int) -> "_Layout":
    """`longest`: the largest distance by which a weight is divided."""
    word_bits = vocab_size.bit_length()
    weight_bits = 64 - 2 * word_bits
    if weight_bits < 16:
      raise InputError(f"a vocabulary of {vocab_size} words is too large to count; keep at most {2**24 - 1} "
                       "(max_size)")
    # Where the common multiple is too large, weights are rounded, by less than float32 does at small distances.
    scale = math.lcm(*range(1, longest + 1))
    return cls(word_bits, weight_bits, scale if scale.bit_length() < weight_bits else 1 << min(30, weight_bits - 2))


def count_cooccurrences(
    tokens: np.ndarray,
    vocab_size: int,
    *,
    key: str,
    window: int = 10,
    weighting: str = "distance",
    symmetric: bool = True,
    counting: str = "pairs",
    memory: int = MEMORY,
    cache_dir: str | os.PathLike | None = None,
    report: Callable[[int, int], None] | None = None,
) -> Cooccurrence:
  """Counts once and caches; what a killed count has finished is gone on from (with the same `memory`).

  Args:
    tokens: integers `[num_tokens]`, in memory or memory-mapped; nothing is counted across a negative one.
    vocab_size: ids are below it.
    key: fingerprint of the tokens (`Tokens.fingerprint`).
    window: `pairs`: the largest distance; `windows`: words of a window.
    weighting: For `pairs`: `distance` weights words at distance d by 1 / d (Pennington et al. 2014), `none` by 1.
    symmetric: For `pairs`: count both (earlier, later) and (later, earlier); else the earlier word is the row.
    counting: `pairs` of positions; or `windows`: slide over each run of tokens and count, for two different words,
      the windows that hold both, however often. A run that is shorter than the window is one window.
    memory: bytes that the count may have in arrays at one time, in all threads together.
    cache_dir: default `$EMBEDDINGS_CACHE`, then `~/.cache/embeddings_jax`.
    report: told `(done, total)`, in units of work of about the same cost.

  Raises:
    InputError: an unknown option, too little memory (says how much is needed), or nothing to count.
  """
  choices = {"weighting": ("distance", "none"), "counting": ("pairs", "windows")}
  for name, value in (("weighting", weighting), ("counting", counting)):
    if value not in choices[name]:
      raise InputError(f"{name}={value!r}: must be {' or '.join(map(repr, choices[name]))}")
  windows = counting == "windows"
  if windows and not symmetric:
    raise InputError("counting='windows' knows no order of two words; set symmetric=True")
  if window < (2 if windows else 1):
    raise InputError(f"window={window}: must be at least {2 if windows else 1} with counting={counting!r}")
  weighting = "none" if windows else weighting
  name = digest("cooccurrence", VERSION, key, vocab_size, window, weighting, symmetric, counting)[:32]
  cache = cache_root(cache_dir) / f"cooccurrence-{name}"
  work = cache.with_name(cache.name + ".work")  # `cached` sweeps away what is half built; this outlives a kill.
  layout = _Layout.of(vocab_size, window if weighting == "distance" else 1)
  count = _Count(tokens, vocab_size, window, weighting, symmetric, windows, layout, report or (lambda *_: None))
  path = cached(cache, lambda folder: os.rename(count.build(work, memory), folder))
  shutil.rmtree(work, ignore_errors=True)

  facts = json.loads((path / "facts.json").read_text())
  facts |= {name: np.load(path / f"{name}.npy") for name in ("marginals", "context_marginals")}
  row, col, cells = (np.load(path / f"{name}.npy", mmap_mode="r") for name in ("row", "col", "count"))
  return Cooccurrence(row, col, cells, np.load(path / "indptr.npy"), facts, name)


class _Chunk(NamedTuple):
  """A stretch of the text by which each word's places are found.

  Attributes:
    text: int64 `[n]`; every break is widened to `window` places, of the id `vocab_size`, so that no context needs to
      be checked.
    places: int32 `[num_tokens]`, of the tokens that are counted, grouped by word: where their contexts begin.
    starts: `[vocab_size + 1]`: word r's are `places[starts[r]:starts[r + 1]]`.
    first, last: int64 `[n]` or None: the sliding windows (by their first place) in which the token here is the first
      occurrence of its word.
  """

  text: np.ndarray
  places: np.ndarray
  starts: np.ndarray
  first: np.ndarray | None
  last: np.ndarray | None


class _Count(NamedTuple):
  """One count: text to runs, runs to cells."""

  tokens: np.ndarray
  vocab_size: int
  window: int
  weighting: str
  symmetric: bool
  windows: bool
  layout: _Layout
  report: Callable[[int, int], None]

  def build(self, work: Path, memory: int) -> Path:
    """Counts in the folder `work` and returns the folder in it that holds the result."""
    chunk, room = self._plan(memory)
    plan = json.dumps({"chunk": chunk, "tokens": len(self.tokens)})
    if not (work / "plan.json").exists() or (work / "plan.json").read_bytes() != plan.encode():
      shutil.rmtree(work, ignore_errors=True)
      work.mkdir()
      write_atomically(work / "plan.json", plan)
    paths = []
    for start in range(0, len(self.tokens), chunk):
      paths.append(work / f"run-{len(paths):06d}.npy")
      stop = min(start + chunk, len(self.tokens))
      if not _is_whole(paths[-1]):
        run = _Appended(paths[-1].with_suffix(".draft"), np.uint64, 0)
        for words, records in self._records(start, stop, room):
          run.write(records)
          self._progress(start + (stop - start) * words / self.vocab_size, 0)
        run.close()
        paths[-1].with_suffix(".draft").rename(paths[-1])
    return self._merge([load_npy(path) for path in paths], work, room)

  def _progress(self, counted: float, merged: float) -> None:
    """Told in tokens; the merge takes about a third of the time."""
    total = len(self.tokens)
    self.report(int(2 * counted + merged * total), 3 * total)

  def _plan(self, memory: int) -> tuple[int, int]:
    """Tokens of a chunk, and records that one core may work on, such that both together stay within the memory."""
    words = sum(int((self.tokens[i:i + _SLAB] >= 0).sum()) for i in range(0, len(self.tokens), _SLAB))
    if words < 2:
      raise InputError(f"a corpus of {words} words has nothing to count")
    if words < self.window:
      raise InputError(f"a corpus of {words} words is shorter than window={self.window}; lower window")
    total = len(self.tokens)
    per_token = _BYTES_PER_TOKEN * (2 if self.windows else 1) * (1 + (self.window - 1) * (1 - words / total))
    fixed = _BYTES_PER_WORD * self.vocab_size * _WORKERS
    # Every run must be able to give some records to every range of the merge.
    chunk = int((memory - fixed) / 2 / per_token)
    room = int((memory - fixed) / 2 / _WORKERS / _BYTES_PER_RECORD)
    enough = lambda chunk, room: chunk > 0 and room >= 64 * max(2 * self.window + 1, -(-total // chunk))
    if not enough(chunk, room):
      need = fixed
      while not enough(int((need - fixed) / 2 / per_token), int((need - fixed) / 2 / _WORKERS / _BYTES_PER_RECORD)):
        need += 1 << 18
      raise InputError(f"{memory / 2**20:.4g} MiB of memory are too little to count {total} tokens with window="
                       f"{self.window}: give at least {-(-need // 2**20)} MiB (memory)")
    return min(chunk, total, _MOST_TOKENS), min(room, _MOST_RECORDS)

  def _records(self, start: int, stop: int, room: int) -> Iterator[tuple[int, np.ndarray]]:
    """`(number of words done, their records)` of the contexts of `tokens[start:stop]`: sorted, one per cell."""
    chunk = self._chunk(start, stop)
    width = 2 * self.window + 1
    most = max(1, room // width)

    def ranges():
      first = 0
      while first < self.vocab_size:
        last = int(np.searchsorted(chunk.starts, chunk.starts[first] + most, side="right")) - 1
        last = min(max(last, first + 1), self.vocab_size)
        yield first, last
        first = last

    def count(first, last):
      contexts = int(chunk.starts[last] - chunk.starts[first]) * width
      # A table of all words per row costs about as much as sorting a twentieth as many records.
      if contexts * 20 > (last - first) * self.vocab_size:
        rows = [self._row(chunk, row, most) for row in range(first, last)]
        return last, np.concatenate(rows)
      return last, self._rows(chunk, first, last)

    return map_in_order(lambda cut: count(*cut), ranges(), workers=_WORKERS)

  def _chunk(self, start: int, stop: int) -> _Chunk:
    # What a window holds first depends on two windows to either side.
    window, halo = self.window, 2 * self.window
    begin = max(0, start - halo)
    text = np.asarray(self.tokens[begin:stop + halo]).astype(np.int64)
    if text.max(initial=-1) >= self.vocab_size:  # SciPy's compiled code would write beyond its arrays.
      raise InputError(f"token {text.max()} is beyond the vocabulary of {self.vocab_size} words; the cached tokens "
                       "are damaged, remove their folder from the cache")
    breaks = np.flatnonzero(text < 0)
    text[breaks] = self.vocab_size
    position = lambda i: i + window + (window - 1) * int(np.searchsorted(breaks, i))
    first, last = position(start - begin), position(stop - begin)
    text = np.insert(text, np.repeat(breaks, window - 1), self.vocab_size)
    text = np.pad(text, window, constant_values=self.vocab_size)
    counted = text[first:last].astype(np.int32)
    # A transposition groups by word, in linear time.
    one_hot = sparse.csr_array((np.ones(len(counted), np.int8), counted, np.arange(len(counted) + 1, dtype=np.int32)),
                               shape=(len(counted), self.vocab_size + 1)).tocsc()
    positions = one_hot.indices
    positions += first - window
    return _Chunk(text, positions, one_hot.indptr[:-1].astype(np.int64),
                  *(self._first_occurrences(text) if self.windows else (None, None)))

  def _first_occurrences(self, text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last of the windows in which each token is the first occurrence of its word."""
    window, index = self.window, np.arange(len(text))
    breaks = np.flatnonzero(text == self.vocab_size)
    run = np.searchsorted(breaks, index)
    ends = np.append(breaks, len(text))
    start = np.append(-1, breaks)[run] + 1
    last = np.minimum(index, np.maximum(start, ends[run] - window))
    first = np.maximum(start, index - window + 1)
    for distance in range(window - 1, 0, -1):
      again = np.flatnonzero(text[distance:] == text[:-distance]) + distance
      first[again] = np.maximum(first[again], again - distance + 1)
    last[breaks] = first[breaks] - 1
    return first, last

  def _weights(self, chunk: _Chunk, positions: np.ndarray) -> np.ndarray:
    """Integer weights of contexts: `[len(places), 2 window + 1]`, or for all places the same `[2 window + 1]`."""
    window = self.window
    if self.windows:
      # As many windows as are common to the two intervals; the word itself is there as often as its own says.
      first, last = (sliding_window_view(x, 2 * window + 1)[positions] for x in (chunk.first, chunk.last))
      middle = slice(window, window + 1)
      common = np.minimum(last, last[:, middle])
      common -= np.maximum(first, first[:, middle], out=first)
      common += 1
      return np.maximum(common, 0, out=common)
    distance = np.abs(np.arange(-window, window + 1))
    weights = np.full(2 * window + 1, self.layout.scale, np.int64)
    if self.weighting == "distance":
      weights = np.round(self.layout.scale / np.maximum(distance, 1)).astype(np.int64)
    weights[window] = 0
    if not self.symmetric:
      weights[:window] = 0
    return weights

  def _row(self, chunk: _Chunk, row: int, most: int) -> np.ndarray:
    """Records of one word, by a table of all words."""
    contexts = sliding_window_view(chunk.text, 2 * self.window + 1)
    table = np.zeros(self.vocab_size + 1)  # Of integers, which are exact up to 2**53.
    for begin in range(int(chunk.starts[row]), int(chunk.starts[row + 1]), most):
      positions = chunk.places[begin:min(begin + most, int(chunk.starts[row + 1]))]
      words = contexts[positions]
      weights = np.broadcast_to(self._weights(chunk, positions), words.shape)
      table += np.bincount(words.reshape(-1), weights.reshape(-1), self.vocab_size + 1)
    col = np.flatnonzero(table[:-1] > 0)
    return self._packed(col.astype(np.uint64) + np.uint64(row << self.layout.word_bits), table[col].astype(np.uint64))

  def _rows(self, chunk: _Chunk, first: int, last: int) -> np.ndarray:
    """Records of a range of words, by sorting."""
    positions = chunk.places[chunk.starts[first]:chunk.starts[last]]
    windows = sliding_window_view(chunk.text, 2 * self.window + 1)[positions]
    weights = np.broadcast_to(self._weights(chunk, positions), windows.shape)
    row = np.repeat(np.arange(first, last), np.diff(chunk.starts[first:last + 1]))
    kept = (weights > 0) & (windows < self.vocab_size)
    windows += row[:, None] << self.layout.word_bits
    windows <<= self.layout.weight_bits
    windows |= weights
    records = windows.view(np.uint64)[kept]
    del windows, weights, kept
    records.sort()
    return self._packed(*self._added_up(records))

  def _added_up(self, records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Adds up sorted records of one pair: `(pairs, sums)`. Overwrites the records."""
    if not len(records):
      return records, records
    bits = np.uint64(self.layout.weight_bits)
    mask = (np.uint64(1) << bits) - np.uint64(1)
    new = np.ones(len(records), bool)
    for i in range(1, len(records), _SLAB):
      before = records[i - 1:i - 1 + _SLAB]
      here = records[i:i + _SLAB]
      np.greater(here ^ before[:len(here)], mask, out=new[i:i + _SLAB])
    starts = np.flatnonzero(new)
    pairs = records[starts] >> bits
    records &= mask
    return pairs, np.add.reduceat(records, starts)

  def _packed(self, pairs: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Sorted records; a sum that is too large for one is spread over several."""
    bits = np.uint64(self.layout.weight_bits)
    most = (np.uint64(1) << bits) - np.uint64(1)
    records = pairs << bits
    large = np.flatnonzero(sums > most)
    if not len(large):
      records |= sums
      return records
    more = np.repeat(records[large] | most, (sums[large] // most).astype(np.int64))
    rest = sums.copy()
    rest[large] %= most
    return np.sort(np.concatenate([records | rest, more]), kind="stable")

  def _merge(self, runs: list[np.ndarray], work: Path, room: int) -> Path:
    """Adds the runs up to cells, range by range; a journal says how far the files are sound."""
    folder = work / "result"
    folder.mkdir(exist_ok=True)
    total = sum(map(len, runs)) or 1
    files = {"row": np.int32, "col": np.int32, "count": np.float32}
    journal = {"next": 0, "cells": 0, "marginals": np.zeros(self.vocab_size, np.int64),
               "context_marginals": np.zeros(self.vocab_size, np.int64)}
    if all((folder / f"{name}.npy").exists() for name in files):
      with contextlib.suppress(InputError):  # Without a journal, or with a damaged one, the merge starts again.
        saved = load_npz(work / "journal.npz")
        if {name: value.shape for name, value in saved.items()} == {
            name: np.shape(value) for name, value in journal.items()}:
          journal = {name: value if value.ndim else int(value) for name, value in saved.items()}
    handles = {name: _Appended(folder / f"{name}.npy", dtype, journal["cells"]) for name, dtype in files.items()}
    ranges = list(self._ranges(runs, journal["next"], room))
    missing = sum(stop - start for cuts, _ in ranges for start, stop in cuts)
    counted = map_in_order(lambda cut: self._cells(runs, cut[0]), ranges, workers=_WORKERS)
    for (cuts, following), cells in zip(ranges, counted):
      for name, handle in handles.items():
        handle.write(cells[name])
      journal["marginals"] += cells["marginals"]
      journal["context_marginals"] += cells["context_marginals"]
      journal["cells"] += len(cells["row"])
      journal["next"] = following
      with open(work / "journal.draft", "wb") as file:
        np.savez(file, **journal)
      os.replace(work / "journal.draft", work / "journal.npz")
      missing -= sum(stop - start for start, stop in cuts)
      self._progress(len(self.tokens), 1 - missing / total)
    for handle in handles.values():
      handle.close()
    if not journal["cells"]:
      raise InputError("no two words stand together in any document or sentence: there is nothing to count")
    marginals = journal["marginals"]
    whole = self._num_windows() if self.windows else int(marginals.sum()) / self.layout.scale
    facts = {"vocab_size": self.vocab_size, "num_cells": journal["cells"], "total": float(whole),
             "symmetric": self.symmetric}
    np.save(folder / "marginals.npy", marginals / self.layout.scale)
    np.save(folder / "context_marginals.npy",
            (marginals if self.windows else journal["context_marginals"]) / self.layout.scale)
    row = np.load(folder / "row.npy", mmap_mode="r")
    # Of the same type, or NumPy would convert all rows.
    np.save(folder / "indptr.npy", np.searchsorted(row, np.arange(self.vocab_size + 1, dtype=np.int32)))
    (folder / "facts.json").write_text(json.dumps(facts))
    return folder

  def _ranges(self, runs: list[np.ndarray], pair: int, room: int) -> Iterator[tuple[list[tuple[int, int]], int]]:
    """`(start and stop in every run, the pair that follows)`, of at most about `room` records in all."""
    bits = self.layout.weight_bits
    share = max(1, room // len(runs))
    end = 1 << 64 - bits
    position = lambda run, pair: int(np.searchsorted(run, np.uint64(pair << bits))) if pair < end else len(run)
    starts = [position(run, pair) for run in runs]
    while any(start < len(run) for start, run in zip(starts, runs)):
      ahead = [int(run[start + share]) >> bits for start, run in zip(starts, runs) if start + share < len(run)]
      pair = max(pair + 1, min(ahead)) if ahead else end
      stops = [position(run, pair) for run in runs]
      yield list(zip(starts, stops)), pair
      starts = stops

  def _cells(self, runs: list[np.ndarray], cuts: list[tuple[int, int]]) -> dict[str, np.ndarray]:
    """Cells of one range of pairs, and the integer sums by row and by column."""
    records = np.concatenate([run[start:stop] for run, (start, stop) in zip(runs, cuts)])
    if len(runs) > 1:
      records.sort(kind="stable")  # Merges what is sorted in parts.
    pairs, sums = self._added_up(records)
    del records
    bits = np.uint64(self.layout.word_bits)
    row = (pairs >> bits).astype(np.int32)
    pairs &= (np.uint64(1) << bits) - np.uint64(1)
    col = pairs.astype(np.int32)
    del pairs
    sums = sums.view(np.int64)
    marginals, context = np.zeros((2, self.vocab_size), np.int64)
    if self.windows:
      alone = row == col
      marginals[row[alone]] = sums[alone]
      row, col, sums = row[~alone], col[~alone], sums[~alone]
    elif len(row):
      starts = np.flatnonzero(np.r_[True, row[1:] != row[:-1]])
      marginals[row[starts]] = np.add.reduceat(sums, starts)
      np.add.at(context, col, sums)
    return {"row": row, "col": col, "count": (sums / self.layout.scale).astype(np.float32),
            "marginals": marginals, "context_marginals": context}

  def _num_windows(self) -> int:
    """Windows of all runs of tokens; an empty run has none."""
    total = length = 0
    for first in range(0, len(self.tokens), _SLAB):
      piece = np.asarray(self.tokens[first:first + _SLAB])
      breaks = np.flatnonzero(piece < 0)
      ends = np.r_[breaks, len(piece)]
      lengths = np.diff(np.r_[-1, ends]) - 1
      lengths[0] += length
      length, lengths = int(lengths[-1]), lengths[:-1]
      total += int(np.maximum(1, lengths - self.window + 1)[lengths > 0].sum())
    return total + (max(1, length - self.window + 1) if length else 0)


def _is_whole(path: Path) -> bool:
  """Returns whether a file of an interrupted count is sound."""
  with contextlib.suppress(InputError):
    return load_npy(path).ndim == 1
  return False


class _Appended:
  """A `.npy` file of one axis that grows; what is past `length` is cut off."""

  def __init__(self, path: Path, dtype: Any, length: int):
    self._dtype = np.dtype(dtype)
    self._file = open(path, "r+b" if length else "w+b")
    self._length = length
    self._header(length)
    self._file.truncate(self._file.tell() + length * self._dtype.itemsize)
    self._file.seek(0, os.SEEK_END)

  def write(self, values: np.ndarray) -> None:
    self._file.write(values.data)
    self._file.flush()
    self._length += len(values)

  def close(self) -> None:
    self._header(self._length)
    self._file.close()

  def _header(self, length: int) -> None:
    """NumPy leaves room for more digits, so that the header keeps its size."""
    self._file.seek(0)
    np.lib.format.write_array_header_1_0(
        self._file, {"descr": self._dtype.str, "fortran_order": False, "shape": (length,)})
