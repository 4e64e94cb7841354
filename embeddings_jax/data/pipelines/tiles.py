"""Cells of a co-occurrence matrix in tiles."""
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from embeddings_jax.data import reading, stand_ins
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.pipelines.cells import FACTS as OF_CELLS
from embeddings_jax.data.pipelines.cells import counted, facts_of_cells
from embeddings_jax.data.tiles import group_size, groups_of, tile_source
from embeddings_jax.types import Prepared

ACCEPTS = ("text", "matrix")
READ = reading.text
UNIT = "tiles of co-occurrences"
CELLS_PER_WORD = 1000  # Of a matrix that is not there.
FACTS = OF_CELLS | {"num_groups": "Groups that the words are divided into"}


def tiles(dataset: Dataset, *, batch_size: int, seed: int, encoder: Any = None, cache_dir: str | None = None,
          progress: Callable[[str, int, int], None] = lambda *_: None, normalize: str = "lower", min_count: int = 5,
          max_size: int = 0, boundaries: str = "document", window: int = 15, weighting: str = "distance",
          symmetric: bool = True, counting: str = "pairs", memory: int = 2048,
          cells_per_tile: int = 16384) -> Prepared:
  """Makes batches of tiles; see `tile_source`.

  Args:
    dataset: Text, or a matrix.
    batch_size: Tiles of a batch.
    seed: Random seed of the data order.
    normalize, min_count, max_size, boundaries: Options of the words; see `word_blocks`.
    window: Words on either side of a word that it occurs with.
    weighting: Weight of a pair: `none`, or 1 / `distance`.
    symmetric: Whether both sides count.
    counting: `pairs`, or sliding `windows`; see `count_cooccurrences`.
    memory: Limit for counting in MiB; the counts do not depend on it.
    cells_per_tile: Cells that a tile has on average.
  """
  cells, facts, encoder = counted(
      dataset, normalize=normalize, min_count=min_count, max_size=max_size, boundaries=boundaries, window=window,
      weighting=weighting, symmetric=symmetric, counting=counting, memory=memory, cache_dir=cache_dir,
      progress=progress)
  source = tile_source(cells, batch_size, seed=seed, cells_per_tile=cells_per_tile, memory=memory << 20,
                       cache_dir=cache_dir, report=functools.partial(progress, "dealt out"))
  source = source._replace(facts={**facts, **source.facts})
  return Prepared({"train": source}, encoder, dataset, source.facts)


def stand_in(item: stand_ins.Item, *, batch_size: int, max_size: int = 0, cells_per_tile: int = 16384,
             **_: Any) -> stand_ins.StandIn:
  """Returns facts and batch shapes; see `stand_ins`."""
  facts = facts_of_cells(max_size)
  num_cells = CELLS_PER_WORD * facts["vocab_size"]
  num_groups = groups_of(facts["vocab_size"], num_cells, cells_per_tile)
  size = group_size(facts["vocab_size"], num_groups)
  facts |= {"num_cells": num_cells, "num_groups": num_groups, "group_size": size}
  of_cells = {name: (np.uint16, cells_per_tile) for name in ("row", "col", "turned")}
  return stand_ins.stand_in(
      facts, batch_size, count=(np.float32, cells_per_tile), row_group=(np.int32,), col_group=(np.int32,),
      row_start=(np.int32, size + 1), col_start=(np.int32, size + 1), **of_cells)
