"""Windows of the running text as words that are spelled by characters."""
from typing import Any

import numpy as np

from embeddings_jax.data import reading, stand_ins
from embeddings_jax.data.characters import character_source, spell_documents
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.sources import Source
from embeddings_jax.types import Prepared

ACCEPTS = ("text",)
READ = reading.text
UNIT = "windows of words"
FACTS = {"vocab_size": "Number of tokens", "counts": "Occurrences of each token",
         "num_raw_words": "Words of the text", "num_characters": "Number of characters"}


def characters(dataset: Dataset, *, batch_size: int, seed: int, encoder: Any = None, cache_dir: str | None = None,
               vocab_size: int = 4000, max_characters: int = 16, window_length: int = 32,
               max_length: int = 128) -> Prepared:
  """Makes batches of windows of spelled words, of training and of held-out documents; see `character_source`.

  Args:
    dataset: Text.
    batch_size: Windows of a batch.
    seed: Random seed of the data order.
    cache_dir: Directory of derived data.
    vocab_size: Words that are predicted.
    max_characters: Characters of a word, with those that begin and end it.
    window_length: Words of a window.
    max_length: Words of an item that is embedded.
  """
  texts = spell_documents(dataset, vocab_size=vocab_size, max_characters=max_characters, max_length=max_length,
                          cache_dir=cache_dir)

  def windows(stream: np.ndarray, **options: Any) -> Source:
    return character_source(stream, texts.characters, texts.facts["vocab_size"], window_length, batch_size, **options)

  splits = {"train": windows(texts.train, seed=seed, facts=texts.facts)}
  if texts.validation is not None:
    splits["validation"] = windows(texts.validation, order="sequential", remainder="pad")
  return Prepared(splits, texts.encoder, dataset, splits["train"].facts)


def stand_in(item: stand_ins.Item, *, batch_size: int, vocab_size: int = 4000, max_characters: int = 16,
             window_length: int = 32, **_: Any) -> stand_ins.StandIn:
  """Returns facts and batch shapes; see `stand_ins`."""
  return stand_ins.stand_in({**stand_ins.word_facts(vocab_size), "special_ids": [1]}, batch_size,
                            characters=(np.uint16, window_length, max_characters), tokens=(np.int32, window_length))
