"""Bags of words in blocks of documents."""
from typing import Any

import numpy as np

from embeddings_jax.data import reading, stand_ins
from embeddings_jax.data.bags import Bags, bag_source, count_documents
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.errors import check_choice
from embeddings_jax.types import Prepared

ACCEPTS = ("text", "bags", "matrix")
READ = reading.documents
UNIT = "documents"
FACTS = {"vocab_size": "Number of tokens", "num_documents": "Number of documents",
         "num_cells": "Cells of the matrix that are not 0", "num_empty": "Documents without a known word",
         "num_raw_words": "Words of the text", "num_features": "Number of columns",
         "documents_per_block": "Documents of a block", "padding": "Fraction of cells that is padding"}


def counted(dataset: Dataset, cache_dir: str | None = None, *, part: str = "train", max_size: int = 0,
            **options: Any) -> Bags:
  """Returns the bags of words of the training split, or of all documents; options: see `count_documents`."""
  check_choice("part", part, ("train", "all"))
  if part == "train":
    dataset = reading.training_split(dataset)
  return count_documents(dataset, max_size=max_size or None, cache_dir=cache_dir, **options)


def bags(dataset: Dataset, *, batch_size: int, seed: int, encoder: Any = None, cache_dir: str | None = None,
         part: str = "train", unit: str = "document", window: int = 100, normalize: str = "lower", min_count: int = 2,
         min_documents: int = 2, max_share: float = 0.5, min_length: int = 2, max_size: int = 20_000,
         stop_words: str = "english", blocks: int = 8, held_out: float = 0.0) -> Prepared:
  """Makes batches of blocks of documents; see `bag_source`.

  Args:
    dataset: Text, bags or a matrix.
    batch_size: Blocks of a batch; 0: all.
    seed: Random seed.
    cache_dir: Directory of derived data.
    part: Documents to read: `train`, where there is such a split, or `all`.
    unit: What counts as a document: `document`, `paragraph` or `window` (of `window` words).
    window: Words of a window; the last one of a document may be shorter.
    normalize: Spelling of words: `a-z`, `lower`, `cased` or `spaces`.
    min_count: Leaves out words that occur less often.
    min_documents: Leaves out words of fewer documents.
    max_share: Leaves out words of more than this fraction of the documents.
    min_length: Leaves out words of fewer characters.
    stop_words: Leaves out `english` (scikit-learn's list) or the words of a file, one per line; or `none`.
    max_size: Keeps this many of the most frequent words; 0: all.
    blocks: Number of blocks that devices share out.
    held_out: Fraction of the words that is held out.
  """
  counts = counted(dataset, cache_dir, part=part, unit=unit, window=window, normalize=normalize, min_count=min_count,
                   min_documents=min_documents, max_share=max_share, min_length=min_length, max_size=max_size,
                   stop_words=stop_words)
  source = bag_source(counts, batch_size, blocks=blocks, held_out=held_out, seed=seed)
  return Prepared({"train": source}, counts.encoder, dataset, source.facts)


def stand_in(item: stand_ins.Item, *, batch_size: int, max_size: int = 20_000, blocks: int = 8, held_out: float = 0.0,
             **_: Any) -> stand_ins.StandIn:
  """Returns facts and batch shapes; see `stand_ins`."""
  vocab_size, rows, cells = max_size or stand_ins.VOCAB_SIZE, 100, 4096
  weights = np.arange(vocab_size, 0, -1.0)
  facts = {**stand_ins.word_facts(vocab_size), "num_features": vocab_size, "num_cells": blocks * cells,
           "num_documents": blocks * rows, "counts": weights, "entropy": 1 / weights, "document_frequency": weights,
           "documents_per_block": rows, "num_empty": 0, "padding": 0.0}
  of_cells = {name: (np.int32, cells) for name in ("col", "row", "turned")}
  of_cells |= {"held": (np.float32, cells)} if held_out else {}
  return stand_ins.stand_in(facts, batch_size or blocks, count=(np.float32, cells), document=(np.int32, rows),
                            row_start=(np.int32, rows + 1), col_start=(np.int32, vocab_size + 1), **of_cells)
