"""Blocks of the running text as word ids."""
from typing import Any

import numpy as np

from embeddings_jax.data import reading, stand_ins, text
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.sources import window_source
from embeddings_jax.types import Prepared

ACCEPTS = ("text",)
READ = reading.text
UNIT = "blocks of words"
FACTS = {"vocab_size": "Number of tokens", "counts": "Occurrences of each token",
         "num_words": "Words of the text that are in the vocabulary", "num_raw_words": "Words of the text",
         "num_documents": "Number of documents"}


def tokens_of(dataset: Dataset, *, normalize: str, min_count: int, max_size: int, boundaries: str,
              cache_dir: str | None) -> text.Tokens:
  """Returns the running words of the training split."""
  tokens = text.tokenize(reading.training_split(dataset), normalize=normalize, min_count=min_count,
                         max_size=max_size or None, boundaries=boundaries, cache_dir=cache_dir)
  text.check_contexts(tokens, dataset.name)
  return tokens


def word_blocks(dataset: Dataset, *, batch_size: int, seed: int, encoder: Any = None, cache_dir: str | None = None,
                normalize: str = "lower", min_count: int = 5, max_size: int = 0, boundaries: str = "document",
                window_length: int = 512) -> Prepared:
  """Makes batches of `tokens` int32 `[batch_size, window_length]`; -1 ends what `boundaries` names.

  Args:
    dataset: Text.
    batch_size: Blocks of a batch.
    seed: Random seed of the data order.
    cache_dir: Directory of derived data.
    normalize: `a-z`, `lower`, `cased` or `spaces`; see `split_words`.
    min_count: Words that occur less often are left out.
    max_size: Keeps this many of the most frequent words; 0: all.
    boundaries: What no context crosses: `document`, `line`, `sentence`, ...; see `text.tokenize`.
    window_length: Words of a block.
  """
  tokens = tokens_of(dataset, normalize=normalize, min_count=min_count, max_size=max_size, boundaries=boundaries,
                     cache_dir=cache_dir)
  source = window_source(tokens.tokens, window_length, batch_size, seed=seed, facts=tokens.facts)
  return Prepared({"train": source}, tokens.encoder, dataset, source.facts)


def stand_in(item: stand_ins.Item, *, batch_size: int, max_size: int = 0, window_length: int = 512,
             **_: Any) -> stand_ins.StandIn:
  """Returns facts and batch shapes; see `stand_ins`."""
  return stand_ins.stand_in(stand_ins.word_facts(max_size), batch_size, tokens=(np.int32, window_length))
