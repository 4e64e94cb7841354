"""Words in their order in blocks of documents."""
from typing import Any

import numpy as np

from embeddings_jax.data import reading, stand_ins, text
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.document_blocks import document_source
from embeddings_jax.data.encoders.documents import DocumentEncoder
from embeddings_jax.types import Prepared

ACCEPTS = ("text",)
READ = reading.text
UNIT = "documents"
FACTS = {"vocab_size": "Number of tokens", "counts": "Occurrences of each token",
         "num_words": "Words of the text that are in the vocabulary", "num_raw_words": "Words of the text",
         "num_documents": "Number of documents", "num_empty": "Documents without a known word",
         "documents_per_block": "Documents of a block", "padding": "Fraction of words that is padding"}


def document_words(dataset: Dataset, *, batch_size: int, seed: int, encoder: Any = None, cache_dir: str | None = None,
                   normalize: str = "lower", min_count: int = 2, max_size: int = 20_000, unit: str = "document",
                   blocks: int = 64) -> Prepared:
  """Makes batches of blocks of documents; see `document_source`.

  Args:
    dataset: Text.
    batch_size: Blocks of a batch.
    seed: Random seed.
    cache_dir: Directory of derived data.
    normalize: Spelling of words: `a-z`, `lower`, `cased` or `spaces`.
    min_count: Leaves out words that occur less often.
    max_size: Keeps this many of the most frequent words; 0: all.
    unit: What counts as a document: `document`, `paragraph`, `line` or `sentence`.
    blocks: Number of blocks that devices share out.
  """
  tokens = text.tokenize(reading.training_split(dataset), normalize=normalize, min_count=min_count,
                         max_size=max_size or None, boundaries=unit, cache_dir=cache_dir)
  text.check_contexts(tokens, dataset.name)
  source = document_source(tokens, batch_size, blocks=blocks, seed=seed)
  encoder = DocumentEncoder(tokens.encoder.vocabulary, tokens.encoder.normalize)
  return Prepared({"train": source}, encoder, dataset, source.facts)


def stand_in(item: stand_ins.Item, *, batch_size: int, max_size: int = 20_000, blocks: int = 64,
             **_: Any) -> stand_ins.StandIn:
  """Returns facts and batch shapes; see `stand_ins`."""
  rows, words = 16, 4096
  facts = {**stand_ins.word_facts(max_size), "num_documents": blocks * rows, "documents_per_block": rows,
           "num_empty": 0, "padding": 0.0}
  return stand_ins.stand_in(facts, batch_size, tokens=(np.int32, words), row=(np.int32, words),
                            document=(np.int32, rows))
