"""Pairs of a word and a context."""
from typing import Any

import numpy as np

from embeddings_jax.data import contexts as pairing
from embeddings_jax.data import reading, stand_ins
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders.words import WordEncoder
from embeddings_jax.data.sources import array_source
from embeddings_jax.types import Prepared

ACCEPTS = ("text",)
READ = reading.text
UNIT = "pairs of a word and a context"
FACTS = {"vocab_size": "Number of tokens", "counts": "Occurrences of each token",
         "num_contexts": "Number of contexts",
         "context_counts": "Occurrences of each context"}


def word_contexts(dataset: Dataset, *, batch_size: int, seed: int, encoder: Any = None, contexts: str = "positions",
                  normalize: str = "lower", window: int = 2, min_count: int = 5, min_context_count: int = 5,
                  max_size: int = 0) -> Prepared:
  """Makes batches of `word` and `context` int32 `[batch_size]`.

  Args:
    dataset: Text; of `dependencies` that of a CoNLL-U file, of `pairs` lines of a word and a context.
    batch_size: Pairs of a batch.
    seed: Random seed of the data order.
    contexts: `positions`, `dependencies` or `pairs`; see `data/contexts.py`.
    normalize: `a-z`, `lower`, `cased` or `spaces`; see `split_words`.
    window: Distance of the farthest word of `positions`.
    min_count: Words of fewer pairs are left out.
    min_context_count: Contexts of fewer pairs are left out.
    max_size: Keeps this many of the most frequent words; 0: all.
  """
  texts = reading.training_split(dataset).items
  pairs = pairing.make_pairs(texts, contexts, where=dataset.name, normalize=normalize, window=window,
                             min_count=min_count, min_context_count=min_context_count, max_size=max_size)
  encoder = WordEncoder(pairs.words, "spaces" if contexts == "pairs" else normalize)
  facts = {"vocab_size": len(pairs.words), "counts": pairs.words.counts, "num_contexts": len(pairs.contexts),
           "context_counts": pairs.contexts.counts}
  source = array_source({"word": pairs.word, "context": pairs.context}, batch_size, seed=seed, facts=facts)
  return Prepared({"train": source}, encoder, dataset, source.facts)


def stand_in(item: stand_ins.Item, *, batch_size: int, max_size: int = 0, **_: Any) -> stand_ins.StandIn:
  """Returns facts and batch shapes; see `stand_ins`."""
  words = stand_ins.word_facts(max_size)
  facts = {name: words[name] for name in ("vocab_size", "counts")}
  facts |= {"num_contexts": stand_ins.VOCAB_SIZE, "context_counts": np.arange(stand_ins.VOCAB_SIZE, 0, -1)}
  return stand_ins.stand_in(facts, batch_size, word=(np.int32,), context=(np.int32,))
