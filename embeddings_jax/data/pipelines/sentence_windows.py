"""Windows of consecutive sentences as subword tokens."""
from typing import Any

import numpy as np

from embeddings_jax.data import reading, stand_ins, tokenized
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.sentence_windows import sentence_windows as window_source
from embeddings_jax.data.sentences import TokenTexts
from embeddings_jax.types import Prepared, Source

ACCEPTS = ("text",)
READ = reading.text
UNIT = "windows of sentences"
FACTS = tokenized.FACTS | {"cut_fraction": "Fraction of tokens beyond the sentences' length"}


def sentence_windows(dataset: Dataset, *, batch_size: int, seed: int, encoder: Any = None,
                     cache_dir: str | None = None, tokenizer: str = "", model: str = "wordpiece",
                     vocab_size: int = 4000, lowercase: bool = True, num_sentences: int = 8,
                     sentence_length: int = 32, max_length: int = 128) -> Prepared:
  """Makes batches of `num_sentences` consecutive sentences, without special tokens around any text.

  Args:
    dataset: Text.
    batch_size: Windows of a batch.
    seed: Random seed of the data order.
    encoder: Pretrained encoder, whose tokenizer is used.
    cache_dir: Directory of derived data.
    tokenizer, model, vocab_size, lowercase: Options of the tokenizer; see `subword_pairs`.
    num_sentences: Sentences of a window.
    sentence_length: Tokens of a sentence.
    max_length: Tokens of an item that is embedded.
  """
  corpus = tokenized.tokenize(dataset, unit="sentence", what="sentences", special=False, encoder=encoder,
                              tokenizer=tokenizer, model=model, vocab_size=vocab_size, lowercase=lowercase,
                              max_length=max_length, cache_dir=cache_dir)

  def windows(texts: TokenTexts, **options: Any) -> Source:
    return window_source(texts, batch_size, num_sentences=num_sentences, max_length=sentence_length, **options)

  splits = {"train": windows(corpus.train, seed=seed, facts=corpus.facts)}
  if corpus.validation and (np.diff(corpus.validation.documents) > 1).any():
    splits["validation"] = windows(corpus.validation, order="sequential", remainder="pad")
  return Prepared(splits, corpus.encoder, corpus.dataset, splits["train"].facts)


def stand_in(item: stand_ins.Item, *, batch_size: int, model: str = "wordpiece", vocab_size: int = 4000,
             num_sentences: int = 8, sentence_length: int = 32, **_: Any) -> stand_ins.StandIn:
  """Returns facts and batch shapes; see `stand_ins`."""
  facts = {**stand_ins.subword_facts(model, vocab_size), "num_segments": 1, "cut_fraction": 0.0}
  return stand_ins.stand_in(facts, batch_size, tokens=(np.int32, num_sentences, sentence_length))
