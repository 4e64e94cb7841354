"""Co-occurrence counts of running tokens, out of core: how often two words stand near each other.

Every pair of words within the window becomes one 64-bit record, `first << (a + b) | second << b | weight`. A chunk of
the text is turned into records, which are sorted and added up to one *run*; the runs are then merged by ranges of
pairs. Weights are integers (in units of 1 / scale), so that sums are exact and neither the memory limit, nor the
number of threads, nor an interruption changes a bit of the result.
"""
import json
import math
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from embeddings_jax.data.cache import cache_root, cached, digest
from embeddings_jax.types import InputError

VERSION = 1  # Of what is cached: raise it when the same tokens would give other counts.
MEMORY = 2 << 30  # Bytes.
_NONE = np.uint64(0xFFFFFFFFFFFFFFFF)  # In place of a record: no such pair. It sorts last.
_BYTES_PER_RECORD = 48  # At the peak of sorting, adding up and mirroring, whatever the text.
_SLAB = 1 << 15  # Tokens whose records are computed in the processor's cache.
_WORKERS = max(1, min(os.cpu_count() or 1, 8))


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
  """

  row: np.ndarray
  col: np.ndarray
  count: np.ndarray
  indptr: np.ndarray
  facts: dict[str, Any]


class _Layout(NamedTuple):
  """Bits of a record, and what a weight of 1 is in it."""

  word_bits: int
  weight_bits: int
  scale: int

  @classmethod
  def of(cls, vocab_size: int, longest: int) -> "_Layout":
    """`longest`: the largest distance by which a weight is divided."""
    word_bits = vocab_size.bit_length()  # Of all ones there is no word, which tells pairs from `_NONE`.
    weight_bits = 64 - 2 * word_bits
    if weight_bits < 16:
      raise InputError(f"a vocabulary of {vocab_size} words is too large to count; keep at most {2**24 - 1} "
                       "(--config.data.max_size)")
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
    weighting: of `pairs`: `distance` gives words at distance d the weight 1 / d (Pennington et al. 2014), `none` 1.
    symmetric: of `pairs`: count both (earlier, later) and (later, earlier); else the earlier word is the row.
    counting: `pairs` of positions; or `windows`: slide over each run of tokens and count, for two different words, the
      windows that hold both, however often. A run that is shorter than the window is one window.
    memory: bytes that the count may have in arrays at one time, in all threads together.
    cache_dir: default `$EMBEDDINGS_CACHE`, then `~/.cache/embeddings_jax`.
    report: told `(done, total)`, in units of work of about the same cost.

  Raises:
    InputError: an unknown option, too little memory (says how much is needed), or nothing to count.
  """
  for name, value, choices in (("weighting", weighting, ("distance", "none")), ("counting", counting,
                                                                                ("pairs", "windows"))):
    if value not in choices:
      raise InputError(f"{name}={value!r}: must be {' or '.join(map(repr, choices))}")
  windows = counting == "windows"
  if windows and not symmetric:
    raise InputError("counting='windows' knows no order of two words; set symmetric=True")
  if window < (2 if windows else 1):
    raise InputError(f"window={window}: must be at least {2 if windows else 1} with counting={counting!r}")
  weighting = "none" if windows else weighting
  name = digest("cooccurrence", VERSION, key, vocab_size, window, weighting, symmetric, counting)[:32]
  place = cache_root(cache_dir) / f"cooccurrence-{name}"
  work = place.with_name(place.name + ".work")  # `cached` sweeps away what is half built; this outlives a kill.
  layout = _Layout.of(vocab_size, window if weighting == "distance" else 1)
  count = _Count(tokens, vocab_size, window, weighting, symmetric, windows, layout, report or (lambda *_: None))
  path = cached(place, lambda folder: os.rename(count.build(work, memory), folder))
  if work.exists():
    shutil.rmtree(work)

  facts = json.loads((path / "facts.json").read_text())
  facts |= {name: np.load(path / f"{name}.npy") for name in ("marginals", "context_marginals")}
  row, col, cells = (np.load(path / f"{name}.npy", mmap_mode="r") for name in ("row", "col", "count"))
  return Cooccurrence(row, col, cells, np.load(path / "indptr.npy"), facts)


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
    chunk = self._chunk_size(memory)
    plan = json.dumps({"chunk": chunk, "tokens": len(self.tokens)})
    if not (work / "plan.json").exists() or (work / "plan.json").read_text() != plan:
      shutil.rmtree(work, ignore_errors=True)
      work.mkdir()
      (work / "plan.json").write_text(plan)
    starts = range(0, len(self.tokens), chunk)
    paths = [work / f"run-{i:06d}.npy" for i in range(len(starts))]

    def make_run(start: int, path: Path) -> None:
      if not path.exists():
        draft = path.with_suffix(".draft")
        with open(draft, "wb") as file:
          np.save(file, self._run(start, min(start + chunk, len(self.tokens))))
        draft.rename(path)

    # The merge costs about as much as half of the counting.
    for done, _ in enumerate(_in_order(make_run, zip(starts, paths)), 1):
      self.report(2 * done, 3 * len(starts))
    return self._merge([np.load(path, mmap_mode="r") for path in paths], work, self._records_at_once(memory))

  def _records_at_once(self, memory: int) -> int:
    fixed = 64 * self.vocab_size
    return max(0, memory - fixed) // (_WORKERS * _BYTES_PER_RECORD)

  def _chunk_size(self, memory: int) -> int:
    """Tokens of a chunk; every run must be able to give some records to every step of the merge."""
    num_words = sum(int((self.tokens[i:i + _SLAB] >= 0).sum()) for i in range(0, len(self.tokens), _SLAB))
    if num_words < 2:
      raise InputError(f"a corpus of {num_words} words has nothing to count")
    if num_words < self.window:
      raise InputError(f"a corpus of {num_words} words is shorter than window={self.window}; lower "
                       "--config.data.window")
    distances = self.window + 1
    least = max(256, math.ceil(8 * math.sqrt(len(self.tokens) / distances)))
    chunk = self._records_at_once(memory) // distances
    if chunk < least:
      needed = _WORKERS * _BYTES_PER_RECORD * (least + 1) * distances + 64 * self.vocab_size
      raise InputError(f"memory={memory} bytes is too little to count {len(self.tokens)} tokens with "
                       f"window={self.window}: give at least {needed} (--config.data.memory)")
    return min(chunk, len(self.tokens))

  def _run(self, start: int, stop: int) -> np.ndarray:
    """Sorted records of the pairs whose first word is in `tokens[start:stop]`, one per cell."""
    halo = self.window
    distances = range(0 if self.windows else 1, self.window if self.windows else self.window + 1)
    records = np.full((len(distances), stop - start), _NONE)
    for first in range(start, stop, _SLAB):
      last = min(first + _SLAB, stop)
      left = max(0, first - halo)
      self._fill(records[:, first - start:last - start], np.asarray(self.tokens[left:last + halo]), first - left,
                 distances)
    pairs, sums = self._added_up(records.reshape(-1))
    del records
    if self.symmetric:
      bits = np.uint64(self.layout.word_bits)
      low = (np.uint64(1) << bits) - np.uint64(1)
      mirrored = (pairs & low) << bits | pairs >> bits
      if self.windows:  # The diagonal is the marginals.
        apart = mirrored != pairs
        mirrored, other = mirrored[apart], sums[apart]
      else:
        other = sums
      mirrored = self._packed(mirrored, other)
      records = np.concatenate([self._packed(pairs, sums), mirrored])
    else:
      records = self._packed(pairs, sums)
    records.sort()
    return records

  def _fill(self, records: np.ndarray, text: np.ndarray, left: int, distances: range) -> None:
    """Writes the records `[num_distances, n]` of the pairs that begin at `text[left:left + n]`."""
    n = records.shape[1]
    breaks = np.flatnonzero(text < 0)
    word_bits, weight_bits, scale = self.layout
    words = text.astype(np.uint64)
    low, high = words << np.uint64(weight_bits), words << np.uint64(word_bits + weight_bits)
    weights = self._window_weights(text, breaks) if self.windows else None
    for place, distance in zip(records, distances):
      count = min(n, len(text) - distance - left)
      if count <= 0:
        continue
      place = place[:count]
      here, there = slice(left, left + count), slice(left + distance, left + distance + count)
      np.add(high[here], low[there], out=place)
      if self.symmetric:
        np.minimum(place, high[there] + low[here], out=place)
      if weights is None:
        place += np.uint64(round(scale / distance) if self.weighting == "distance" else scale)
      else:
        weight = weights(here, there, distance)
        place += weight.astype(np.uint64)
        place[weight <= 0] = _NONE
      # A pair crosses a break that stands at its first word, its last, or between them.
      crossing = (breaks[:, None] - np.arange(left, left + distance + 1)).reshape(-1)
      place[crossing[(crossing >= 0) & (crossing < count)]] = _NONE

  def _window_weights(self, text: np.ndarray, breaks: np.ndarray) -> Callable:
    """Number of windows in which both words of a pair of positions have their first occurrence.

    A window that begins at s holds the first occurrences of the words at i <= j where s lies in
    max(start, j - window + 1, previous(i) + 1, previous(j) + 1) ... min(i, last), with the previous occurrence of the
    same word, the start of the run of tokens and the last place in it where a window begins.
    """
    window, index = self.window, np.arange(len(text))
    # The ends of `text` stand at least a window away from the positions asked for, where a break has no effect.
    ends = np.concatenate([[-1], breaks, [len(text)]])
    run = np.searchsorted(breaks, index)
    start, stop = ends[run] + 1, ends[run + 1]
    earliest, last = start, np.maximum(start, stop - window)
    previous = np.full(len(text), -1)
    for distance in range(window - 1, 0, -1):
      same = np.flatnonzero(text[distance:] == text[:-distance]) + distance
      previous[same] = same - distance
    earliest = np.maximum(earliest, previous + 1)
    latest = np.minimum(index, last)

    def weights(here, there, distance):
      begin = np.maximum(np.maximum(earliest[here], earliest[there]), index[there] - (window - 1))
      return latest[here] - begin + 1

    return weights

  def _added_up(self, records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorts records, in place, and adds up those of one pair: `(pairs, sums)`. Their weights are left in place."""
    records.sort()
    records = records[:np.searchsorted(records, _NONE)]
    bits = np.uint64(self.layout.weight_bits)
    mask = (np.uint64(1) << bits) - np.uint64(1)
    if not len(records):
      return records, records
    new = np.ones(len(records), bool)
    for i in range(1, len(records), _SLAB):
      np.greater(records[i:i + _SLAB] ^ records[i - 1:i - 1 + len(records[i:i + _SLAB])], mask, out=new[i:i + _SLAB])
    starts = np.flatnonzero(new)
    pairs = records[starts] >> bits
    records &= mask
    return pairs, np.add.reduceat(records, starts)

  def _packed(self, pairs: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Records, not sorted; a sum that is too large for one is spread over several."""
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
    return np.concatenate([records | rest, more])

  def _merge(self, runs: list[np.ndarray], work: Path, room: int) -> Path:
    """Adds the runs up to cells, range by range; a journal says how far the files are sound."""
    folder = work / "result"
    folder.mkdir(exist_ok=True)
    total = sum(map(len, runs))
    files = {"row": np.int32, "col": np.int32, "count": np.float32}
    journal = {"next": 0, "cells": 0, "marginals": np.zeros(self.vocab_size, np.int64),
               "context_marginals": np.zeros(self.vocab_size, np.int64)}
    if (work / "journal.npz").exists() and all((folder / f"{name}.npy").exists() for name in files):
      with np.load(work / "journal.npz") as saved:
        journal = {k: v if v.ndim else int(v) for k, v in saved.items()}
    handles = {name: _Appended(folder / f"{name}.npy", dtype, journal["cells"]) for name, dtype in files.items()}
    ranges = list(self._ranges(runs, journal["next"], room))
    left_over = sum(stop - start for cuts, _ in ranges for start, stop in cuts)
    for (cuts, following), found in zip(ranges, _in_order(lambda cuts, _: self._cells(runs, cuts), ranges)):
      for name, handle in handles.items():
        handle.write(found[name])
      journal["marginals"] += found["marginals"]
      journal["context_marginals"] += found["context_marginals"]
      journal["cells"] += len(found["row"])
      journal["next"] = following
      with open(work / "journal.draft", "wb") as file:
        np.savez(file, **journal)
      os.replace(work / "journal.draft", work / "journal.npz")
      left_over -= sum(stop - start for start, stop in cuts)
      self.report(3 * total - left_over, 3 * total)
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
    np.save(folder / "indptr.npy", np.searchsorted(row, np.arange(self.vocab_size + 1)))
    (folder / "facts.json").write_text(json.dumps(facts))
    return folder

  def _ranges(self, runs: list[np.ndarray], pair: int, room: int) -> Iterator[tuple[list[tuple[int, int]], int]]:
    """`(start and stop in every run, the pair that follows)`, of at most about `room` records in all."""
    bits = self.layout.weight_bits
    share = max(1, room // len(runs))
    place = lambda run, pair: int(np.searchsorted(run, np.uint64(pair << bits))) if pair < 1 << 64 - bits else len(run)
    starts = [place(run, pair) for run in runs]
    while any(start < len(run) for start, run in zip(starts, runs)):
      ahead = [int(run[start + share]) >> bits for start, run in zip(starts, runs) if start + share < len(run)]
      pair = max(pair + 1, min(ahead)) if ahead else 1 << 64 - bits
      stops = [place(run, pair) for run in runs]
      yield list(zip(starts, stops)), pair
      starts = stops

  def _cells(self, runs: list[np.ndarray], cuts: list[tuple[int, int]]) -> dict[str, np.ndarray]:
    """Cells of one range of pairs, and the integer sums by row and by column."""
    pairs, sums = self._added_up(np.concatenate([run[start:stop] for run, (start, stop) in zip(runs, cuts)]))
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


def _in_order(function: Callable, arguments: Any) -> Iterator[Any]:
  """Results of `function(*arguments)` in order, computed by all cores; no more of them exist than there are cores."""
  with ThreadPoolExecutor(_WORKERS) as pool:
    waiting = deque()
    for argument in arguments:
      if len(waiting) == _WORKERS:
        yield waiting.popleft().result()
      waiting.append(pool.submit(function, *argument))
    while waiting:
      yield waiting.popleft().result()
