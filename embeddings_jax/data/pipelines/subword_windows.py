"""Windows of the running text as subword tokens."""
from typing import Any

import numpy as np

from embeddings_jax.data import reading, stand_ins, tokenized
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.sources import window_source
from embeddings_jax.types import Prepared

ACCEPTS = ("text",)
READ = reading.text
UNIT = "windows of tokens"
FACTS = tokenized.FACTS


def subword_windows(dataset: Dataset, *, batch_size: int, seed: int, encoder: Any = None,
                    cache_dir: str | None = None, tokenizer: str = "", model: str = "bpe", vocab_size: int = 4000,
                    lowercase: bool = True, max_length: int = 128, window_length: int = 0) -> Prepared:
  """Makes batches of `tokens` `[batch_size, window_length]`, of training and of held-out documents.

  Args:
    dataset: Text.
    batch_size: Windows of a batch.
    seed: Random seed of the data order.
    encoder: Pretrained encoder, whose tokenizer is used.
    cache_dir: Directory of derived data.
    tokenizer, model, vocab_size, lowercase: Options of the tokenizer; see `subword_pairs`.
    max_length: Tokens of an item that is embedded.
    window_length: Tokens of a window; 0: `max_length`.
  """
  corpus = tokenized.tokenize(dataset, unit="document", what="windows", encoder=encoder, tokenizer=tokenizer,
                              model=model, vocab_size=vocab_size, lowercase=lowercase, max_length=max_length,
                              cache_dir=cache_dir)
  length = window_length or max_length
  splits = {"train": window_source(corpus.train.tokens, length, batch_size, seed=seed, facts=corpus.facts)}
  if corpus.validation:
    splits["validation"] = window_source(corpus.validation.tokens, length, batch_size, order="sequential",
                                         remainder="pad")
  return Prepared(splits, corpus.encoder, corpus.dataset, splits["train"].facts)


def stand_in(item: stand_ins.Item, *, batch_size: int, model: str = "bpe", vocab_size: int = 4000,
             max_length: int = 128, window_length: int = 0, **_: Any) -> stand_ins.StandIn:
  """Returns facts and batch shapes; see `stand_ins`."""
  return stand_ins.stand_in(stand_ins.subword_facts(model, vocab_size), batch_size,
                            tokens=(np.int32, window_length or max_length))
