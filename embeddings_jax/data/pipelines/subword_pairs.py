"""Pairs of sentences as BERT reads them."""
import logging
from typing import Any

import numpy as np

from embeddings_jax.data import reading, stand_ins, tokenized
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.sentence_pairs import sentence_pairs
from embeddings_jax.data.sentences import TokenTexts
from embeddings_jax.types import Prepared, Source

ACCEPTS = ("text",)
READ = reading.sentences
UNIT = "pairs of sentences"
FACTS = tokenized.FACTS | {"next_fraction": "Fraction of pairs whose second part follows the first"}


def subword_pairs(dataset: Dataset, *, batch_size: int, seed: int, encoder: Any = None, cache_dir: str | None = None,
                  tokenizer: str = "", model: str = "wordpiece", vocab_size: int = 4000, lowercase: bool = True,
                  max_length: int = 128, short_fraction: float = 0.1, validation_pairs: int = 1000) -> Prepared:
  """Makes batches of pairs of parts of documents; see `sentence_pairs`.

  Args:
    dataset: Text.
    batch_size: Pairs of a batch.
    seed: Random seed.
    encoder: Pretrained encoder, whose tokenizer is used.
    cache_dir: Directory of derived data.
    tokenizer: File of a tokenizer; "": one is trained on the text.
    model: `wordpiece` or `bpe`, of a trained tokenizer.
    vocab_size: Tokens of a trained tokenizer.
    lowercase: Whether text becomes lower case.
    max_length: Tokens of a pair.
    short_fraction: Fraction of pairs that are shorter.
    validation_pairs: Number of held-out pairs; 0: one drawing of the held-out documents.
  """
  corpus = tokenized.tokenize(dataset, unit="sentence", what="sentence pairs", needs=("cls", "sep", "mask"),
                              encoder=encoder, tokenizer=tokenizer, model=model, vocab_size=vocab_size,
                              lowercase=lowercase, max_length=max_length, cache_dir=cache_dir)
  if (np.diff(corpus.train.documents) < 2).all():
    logging.warning("%s: no document has two sentences, so that no pair has a next sentence; in a file with a "
                    "sentence a line, documents=blank ends documents at blank lines", dataset.name)

  def pairs(texts: TokenTexts, **options: Any) -> Source:
    return sentence_pairs(texts, batch_size, max_length=max_length, cls_id=corpus.facts["cls_id"],
                          sep_id=corpus.facts["sep_id"], short_fraction=short_fraction, **options)

  splits = {"train": pairs(corpus.train, seed=seed, facts=corpus.facts)}
  if corpus.validation and len(corpus.validation.documents) > 2:
    splits["validation"] = pairs(corpus.validation, order="sequential", num_pairs=validation_pairs)
  return Prepared(splits, corpus.encoder, corpus.dataset, splits["train"].facts)


def stand_in(item: stand_ins.Item, *, batch_size: int, model: str = "wordpiece", vocab_size: int = 4000,
             max_length: int = 128, **_: Any) -> stand_ins.StandIn:
  """Returns facts and batch shapes; see `stand_ins`."""
  facts = {**stand_ins.subword_facts(model, vocab_size), "next_fraction": 0.5}
  return stand_ins.stand_in(facts, batch_size, tokens=(np.int32, max_length), segments=(np.int32, max_length),
                            is_next=(np.int32,))
