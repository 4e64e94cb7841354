"""Co-occurrence cells in an order for training: tiles of some rows and some columns, read at random.

Words are dealt out to n groups like cards, word i to group i mod n, so that each group has as many frequent and rare
words as any other. Tile (g, h) holds the cells whose row is in group g and whose column is in group h: thousands of
cells that share a thousand rows and columns. A pass visits all n * n tiles by strata (Gemulla et al. 2011,
"Large-scale matrix factorization with distributed stochastic gradient descent"): the tiles of one batch share neither
rows nor columns, so that whoever updates them side by side has done what he would have done one after the other.
"""
import functools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from embeddings_jax.data.cache import cache_root, cached, digest
from embeddings_jax.data.cooccurrence import MEMORY, Cooccurrence
from embeddings_jax.data.files.arrays import create_npy, load_npz
from embeddings_jax.data.sources import RESIDENT_BYTES
from embeddings_jax.types import InputError, Source

VERSION = 1  # Of what is cached: raise it when the same cells would give other tiles.
CELLS_PER_TILE = 1 << 14
GROUP_MULTIPLE = 8  # Of the number of groups, so that the usual numbers of devices divide it, and of their size.
_BYTES_PER_CELL = 64  # Of what is dealt out at the same time.


def tile_source(
    cells: Cooccurrence,
    batch_size: int = 1,
    *,
    seed: int = 0,
    cells_per_tile: int = CELLS_PER_TILE,
    memory: int = MEMORY,
    cache_dir: str | os.PathLike | None = None,
    report: Callable[[int, int], None] | None = None,
    resident: bool | None = None,
) -> Source:
  """A source of tiles; one pass has every cell once.

  A batch is `{"row_group", "col_group": int32 [B], "row", "col": uint16 [B, M] places in their groups, sorted by row,
  "count": float32 [B, M], 0 = padding, "turned": [B, M] the order that sorts by column, "row_start",
  "col_start": int32 [B, R + 1] where a row's cells (a column's, in the turned order) begin, "mask": [B]}`, with M
  cells of the fullest tile and R words of a group. Word i is number i // n of group i % n, n = `facts["num_groups"]`.

  Args:
    cells: has `row`, `col` int `[num_cells]`, sorted by row, `count`, `facts` and `fingerprint` (a `Cooccurrence`).
    batch_size: tiles of a batch; divides the number of groups, which is a multiple of 8.
    seed: Random seed of the data order.
    cells_per_tile: about how many; fewer of them are more and smaller updates.
    memory: bytes that may be in arrays while the tiles are made.
    cache_dir: default `$EMBEDDINGS_CACHE`, then `~/.cache/embeddings_jax`.
    report: told `(done, total)` cells while the tiles are made; a killed process is gone on from.
    resident: keep the tiles on the device; by default where they are small.

  Raises:
    InputError: `batch_size` does not divide the number of groups, or a memory limit that holds no cell.
  """
  vocab_size, num_cells = int(cells.facts["vocab_size"]), len(cells.row)
  num_groups = groups_of(vocab_size, num_cells, cells_per_tile)
  if batch_size < 1 or num_groups % batch_size:
    fit = [size for size in range(1, num_groups + 1) if num_groups % size == 0]
    raise InputError(f"batch_size={batch_size}: must divide the {num_groups} groups of words; one of {fit}")
  name = digest("tiles", VERSION, cells.fingerprint, num_groups)[:32]
  cache = cache_root(cache_dir) / f"tiles-{name}"
  work = cache.with_name(cache.name + ".work")  # Outlives a kill.
  path = cached(cache, lambda folder: os.rename(
      _build(work, cells, vocab_size, num_groups, memory, report or (lambda *_: None)), folder))
  if work.exists():
    shutil.rmtree(work)
  arrays = {file.stem: np.load(file, mmap_mode="r") for file in sorted(path.glob("*.npy"))}
  if resident is None:
    resident = sum(x.nbytes for x in arrays.values()) <= RESIDENT_BYTES

  num_strata, per_stratum = num_groups, num_groups // batch_size

  @functools.lru_cache(maxsize=2)  # A dispatch may straddle two passes.
  def permutations(epoch: int) -> np.ndarray:
    noise = np.random.Generator(np.random.Philox(key=[seed, 2], counter=[0, 0, 0, epoch]))
    return np.stack([noise.permutation(num_groups) for _ in range(3)])

  def tile_at(step, rows=slice(None)):
    epoch, index = divmod(step, num_strata * per_stratum)
    stratum, within = divmod(index, per_stratum)
    row_order, col_order, shifts = permutations(epoch)
    i = within * batch_size + np.arange(batch_size)[rows]
    return {"row_group": row_order[i].astype(np.int32),
            "col_group": col_order[(i + shifts[stratum]) % num_groups].astype(np.int32),
            "mask": np.ones(len(i), np.float32)}

  def gather(table, tile):
    index = tile["row_group"] * num_groups + tile["col_group"]
    return {**tile, **{name: x[index] for name, x in table.items()}}

  facts = {**cells.facts, "num_rows": num_groups**2, "num_groups": num_groups,
           "group_size": group_size(vocab_size, num_groups), "num_cells": num_cells,
           "steps_per_epoch": num_strata * per_stratum}
  if resident:
    return Source(facts, batch_size, tile_at, gather, arrays)
  return Source(facts, batch_size, lambda step, rows=slice(None): gather(arrays, tile_at(step, rows)),
                lambda _, feed: dict(feed))


def groups_of(vocab_size: int, num_cells: int, cells_per_tile: int) -> int:
  """n: as many groups as give the tiles their size, and no group more words than 16 bits can number."""
  num_groups = max((num_cells / cells_per_tile) ** 0.5, vocab_size / 2**16)
  num_groups = GROUP_MULTIPLE * max(1, round(num_groups / GROUP_MULTIPLE))
  while vocab_size > num_groups * 2**16:
    num_groups += GROUP_MULTIPLE
  return num_groups


def group_size(vocab_size: int, num_groups: int) -> int:
  """R: words of the largest group, rounded up so that devices can share a group's rows."""
  return -(-vocab_size // (num_groups * GROUP_MULTIPLE)) * GROUP_MULTIPLE


def _build(work: Path, cells: Cooccurrence, vocab_size: int, num_groups: int, memory: int,
           report: Callable[[int, int], None]) -> Path:
  """Deals the cells out, chunk by chunk, into a folder, which is returned; a journal says how far it is sound."""
  num_cells, num_tiles, size = len(cells.row), num_groups**2, group_size(vocab_size, num_groups)
  chunk = min(1 << 22, memory // _BYTES_PER_CELL)
  if chunk < 1024:
    raise InputError(f"{memory / 2**20:.4g} MiB of memory are too little to deal out cells: give at least 1 MiB "
                     "(memory)")
  tile_of = lambda row, col: row % num_groups * num_groups + col % num_groups
  narrow = np.uint16 if num_tiles <= 1 << 16 else np.int32  # NumPy sorts 16 bits by radix.

  work.mkdir(exist_ok=True)
  journal = _Journal(work / "journal.npz")
  if journal.read() is None:
    totals = np.zeros(num_tiles, np.int64)
    for start in range(0, num_cells, chunk):
      part = slice(start, start + chunk)
      totals += np.bincount(tile_of(cells.row[part], cells.col[part]), minlength=num_tiles)
    width = -(-int(totals.max()) // 64) * 64
    order = np.uint16 if width <= 1 << 16 else np.int32
    shapes = {"row": (np.uint16, width), "col": (np.uint16, width), "count": (np.float32, width),
              "turned": (order, width), "row_start": (np.int32, size + 1), "col_start": (np.int32, size + 1)}
    folder = work / "tiles"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, (dtype, length) in shapes.items():
      create_npy(folder / f"{name}.npy", dtype, (num_tiles, length))
    journal.write(dealt=0, turned=0, filled=np.zeros(num_tiles, np.int64), totals=totals)
  state = journal.read()
  tables = {file.stem: np.load(file, mmap_mode="r+") for file in (work / "tiles").glob("*.npy")}
  width = tables["row"].shape[1]

  filled = state["filled"]
  for start in range(int(state["dealt"]), num_cells, chunk):
    stop = min(start + chunk, num_cells)
    row, col = (np.asarray(x[start:stop]) for x in (cells.row, cells.col))
    tile = tile_of(row, col)
    order = np.argsort(tile.astype(narrow), kind="stable")
    tile = tile[order].astype(np.int64)
    number = np.bincount(tile, minlength=num_tiles)
    cell = tile * width + filled[tile] + np.arange(len(tile)) - (np.cumsum(number) - number)[tile]
    tables["row"].reshape(-1)[cell] = (row // num_groups)[order]
    tables["col"].reshape(-1)[cell] = (col // num_groups)[order]
    tables["count"].reshape(-1)[cell] = np.asarray(cells.count[start:stop])[order]
    filled = filled + number
    journal.write(dealt=stop, turned=0, filled=filled, totals=state["totals"])
    report(stop, 2 * num_cells)

  for first in range(int(state["turned"]), num_tiles, num_groups):
    for tile in range(first, first + num_groups):
      number = int(filled[tile])
      row, col = (tables[name][tile, :number] for name in ("row", "col"))
      tables["turned"][tile] = np.arange(width)
      tables["turned"][tile, :number] = np.argsort(col, kind="stable")
      for name, values in (("row_start", row), ("col_start", col)):
        tables[name][tile, 1:] = np.cumsum(np.bincount(values, minlength=size))
    journal.write(dealt=num_cells, turned=first + num_groups, filled=filled, totals=state["totals"])
    report(num_cells + num_cells * (first + num_groups) // num_tiles, 2 * num_cells)
  del tables
  return work / "tiles"


class _Journal:
  """Record of how much of the tables is complete. A killed process leaves its pages to the kernel, which writes
  them all the same."""

  def __init__(self, path: Path):
    self._path = path

  def read(self) -> dict[str, np.ndarray] | None:
    """Returns what was written last, or None if nothing was or the file is damaged."""
    try:
      saved = load_npz(self._path)
    except InputError:
      return None
    return saved if saved.keys() == {"dealt", "turned", "filled", "totals"} else None

  def write(self, **values: Any) -> None:
    draft = self._path.with_suffix(".draft.npz")
    np.savez(draft, **values)
    os.replace(draft, self._path)
