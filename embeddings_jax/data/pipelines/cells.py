"""All cells of a co-occurrence matrix as one batch."""
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from embeddings_jax.data import matrix, reading, stand_ins, text
from embeddings_jax.data.cooccurrence import Cooccurrence, count_cooccurrences
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.pipelines import word_blocks
from embeddings_jax.data.sources import array_source
from embeddings_jax.types import Prepared

ACCEPTS = ("text", "matrix")
READ = reading.text
UNIT = "co-occurrence cells"
FACTS = word_blocks.FACTS | {
    "num_cells": "Cells of the matrix that are not 0", "symmetric": "Whether the matrix is symmetric",
    "marginals": "Sum of each row", "context_marginals": "Sum of each column", "total": "Sum of all cells"}


def counted(dataset: Dataset, *, normalize: str, min_count: int, max_size: int, boundaries: str, window: int,
            weighting: str, symmetric: bool, counting: str, memory: int, cache_dir: str | None,
            progress: Callable[[str, int, int], None]) -> tuple[Cooccurrence, Mapping[str, Any], Any]:
  """Returns the co-occurrences of a text, or a matrix's own, with the text's facts and the encoder."""
  if dataset.kind == "matrix":
    return dataset.items.cells, {}, matrix.encoder(dataset.items)
  tokens = word_blocks.tokens_of(dataset, normalize=normalize, min_count=min_count, max_size=max_size,
                                 boundaries=boundaries, cache_dir=cache_dir)
  return count(tokens, window=window, weighting=weighting, symmetric=symmetric, counting=counting, memory=memory,
               cache_dir=cache_dir, progress=progress), tokens.facts, tokens.encoder


def count(tokens: text.Tokens, *, memory: int, cache_dir: str | None, progress: Callable[[str, int, int], None],
          **options: Any) -> Cooccurrence:
  """Counts the co-occurrences of running words; `memory` in MiB."""
  return count_cooccurrences(tokens.tokens, tokens.facts["vocab_size"], key=tokens.fingerprint, memory=memory << 20,
                             cache_dir=cache_dir, report=functools.partial(progress, "counted"), **options)


def cells(dataset: Dataset, *, batch_size: int, seed: int, encoder: Any = None, cache_dir: str | None = None,
          progress: Callable[[str, int, int], None] = lambda *_: None, normalize: str = "lower", min_count: int = 5,
          max_size: int = 0, boundaries: str = "document", window: int = 10, weighting: str = "distance",
          symmetric: bool = True, counting: str = "pairs", memory: int = 2048) -> Prepared:
  """Makes one batch of `row`, `col`, `count` and `mask` `[num_cells]`, sorted by row.

  Args:
    dataset: Text, or a matrix.
    batch_size, seed: Without effect.
    cache_dir: Directory of derived data.
    progress: Receives `(unit, done, total)`.
    normalize, min_count, max_size, boundaries: Options of the words; see `word_blocks`.
    window: Words on either side of a word that it occurs with.
    weighting: Weight of a pair: `none`, or 1 / `distance`.
    symmetric: Whether both sides count.
    counting: `pairs`, or sliding `windows`; see `count_cooccurrences`.
    memory: Limit for counting in MiB; the counts do not depend on it.
  """
  matrix_cells, facts, encoder = counted(
      dataset, normalize=normalize, min_count=min_count, max_size=max_size, boundaries=boundaries, window=window,
      weighting=weighting, symmetric=symmetric, counting=counting, memory=memory, cache_dir=cache_dir,
      progress=progress)
  source = array_source({"row": matrix_cells.row, "col": matrix_cells.col, "count": matrix_cells.count},
                        facts={**facts, **matrix_cells.facts})
  return Prepared({"train": source}, encoder, dataset, source.facts)


def stand_in(item: stand_ins.Item, *, batch_size: int, max_size: int = 0, **_: Any) -> stand_ins.StandIn:
  """Returns facts and batch shapes; see `stand_ins`."""
  return stand_ins.stand_in(facts_of_cells(max_size), 100_000, row=(np.int32,), col=(np.int32,), count=(np.float32,))


def facts_of_cells(max_size: int) -> dict[str, Any]:
  """Returns facts of a matrix that is not there."""
  facts = stand_ins.word_facts(max_size)
  return {**facts, "num_cells": 100_000, "total": 1e6, "symmetric": True, "marginals": facts["counts"],
          "context_marginals": facts["counts"]}
