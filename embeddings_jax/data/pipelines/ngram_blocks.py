"""Blocks of the running text as word ids, with the character n-grams of each word."""
from typing import Any

import numpy as np

from embeddings_jax.data import reading, stand_ins
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders.ngrams import NgramEncoder
from embeddings_jax.data.ngrams import check_ngrams, ngram_table
from embeddings_jax.data.pipelines import word_blocks
from embeddings_jax.types import Prepared

ACCEPTS = ("text",)
READ = reading.text
UNIT = "blocks of words"
FACTS = word_blocks.FACTS | {"ngrams": "Hashed n-grams of each token, [vocab_size, most that a token has]",
                             "num_buckets": "Rows for hashed n-grams"}


def ngram_blocks(dataset: Dataset, *, batch_size: int, seed: int, encoder: Any = None, cache_dir: str | None = None,
                 normalize: str = "lower", min_count: int = 5, max_size: int = 0, boundaries: str = "document",
                 window_length: int = 512, min_n: int = 3, max_n: int = 6, bucket: int = 2_000_000) -> Prepared:
  """Makes batches of `tokens` int32 `[batch_size, window_length]`; -1 ends what `boundaries` names.

  Args:
    dataset: Text.
    batch_size: Blocks of a batch.
    seed: Random seed of the data order.
    cache_dir: Directory of derived data.
    normalize, min_count, max_size, boundaries, window_length: See `word_blocks`.
    min_n: Characters of the shortest n-grams of `<word>`.
    max_n: Characters of the longest.
    bucket: Number of rows for n-grams; those with the same hash, modulo this, share one.
  """
  check_ngrams(min_n, max_n, bucket)
  data = word_blocks.word_blocks(dataset, batch_size=batch_size, seed=seed, cache_dir=cache_dir, normalize=normalize,
                                 min_count=min_count, max_size=max_size, boundaries=boundaries,
                                 window_length=window_length)
  vocabulary = data.encoder.vocabulary
  facts = {**data.facts, "ngrams": ngram_table(vocabulary.words, min_n, max_n, bucket), "num_buckets": bucket}
  source = data.splits["train"]._replace(facts=facts)
  return Prepared({"train": source}, NgramEncoder(vocabulary, normalize, min_n, max_n, bucket), dataset, facts)


def stand_in(item: stand_ins.Item, *, batch_size: int, max_size: int = 0, window_length: int = 512,
             bucket: int = 2_000_000, **_: Any) -> stand_ins.StandIn:
  """Returns facts and batch shapes; see `stand_ins`."""
  facts = stand_ins.word_facts(max_size)
  facts |= {"ngrams": np.zeros((facts["vocab_size"], 8), np.int32), "num_buckets": bucket}
  return stand_ins.stand_in(facts, batch_size, tokens=(np.int32, window_length))
