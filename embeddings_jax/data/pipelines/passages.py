"""Sentences, paragraphs, windows or documents of a text, as denoising autoencoders read them."""
from typing import Any

import numpy as np

from embeddings_jax.data import reading, stand_ins, tokenized
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.passages import passage_source
from embeddings_jax.data.sentences import TokenTexts
from embeddings_jax.errors import check_choice
from embeddings_jax.types import InputError, Prepared, Source

ACCEPTS = ("text",)
READ = reading.text
UNIT = "passages"
FACTS = tokenized.FACTS | {"stop_ids": "Tokens that end a sentence"}
UNITS = ("sentence", "paragraph", "window", "document")
STOPS = tuple(".!?।॥؟۔。！？")


def passages(dataset: Dataset, *, batch_size: int, seed: int, encoder: Any = None, cache_dir: str | None = None,
             tokenizer: str = "", model: str = "wordpiece", vocab_size: int = 4000, lowercase: bool = True,
             max_length: int = 32, unit: str = "sentence", num_passages: int = 0, min_tokens: int = 5) -> Prepared:
  """Makes batches of `tokens` `[batch_size, max_length]`, of training and of held-out documents.

  Args:
    dataset: Text.
    batch_size: Passages of a batch.
    seed: Random seed.
    encoder: Pretrained encoder, whose tokenizer is used.
    cache_dir: Directory of derived data.
    tokenizer, model, vocab_size, lowercase: Options of the tokenizer; see `subword_pairs`.
    max_length: Tokens of a passage.
    unit: `sentence`; `paragraph`, which ends at a blank line; `window`, of `max_length` tokens of a document; or
      `document`, the beginning of one.
    num_passages: Number of passages to train on; 0: all.
    min_tokens: Shorter passages are left out.
  """
  check_choice("unit", unit, UNITS)
  kind = "document" if unit == "window" else unit
  corpus = tokenized.tokenize(dataset, unit=kind, what="passages", needs=("cls", "sep"), encoder=encoder,
                              tokenizer=tokenizer, model=model, vocab_size=vocab_size, lowercase=lowercase,
                              max_length=max_length, cache_dir=cache_dir)
  facts = corpus.facts | {"stop_ids": stop_ids(corpus.encoder.vocabulary)}

  def source(texts: TokenTexts, **options: Any) -> Source:
    return passage_source(texts, batch_size, cls_id=facts["cls_id"], sep_id=facts["sep_id"], max_length=max_length,
                          window=unit == "window", min_tokens=min_tokens, **options)

  splits = {"train": source(corpus.train, number=num_passages, seed=seed, facts=facts)}
  if corpus.validation:
    try:
      splits["validation"] = source(corpus.validation, order="sequential", remainder="pad")
    except InputError:  # All held-out passages are too short.
      pass
  return Prepared(splits, corpus.encoder, corpus.dataset, splits["train"].facts)


def stop_ids(vocabulary: dict[str, int]) -> list[int]:
  """Returns the tokens that are a full stop or its like, as they stand behind a word or as a continuation."""
  forms = [form for stop in STOPS for form in (stop, f"##{stop}", f"{stop}</w>")]
  return sorted(vocabulary[form] for form in forms if form in vocabulary)


def stand_in(item: stand_ins.Item, *, batch_size: int, model: str = "wordpiece", vocab_size: int = 4000,
             max_length: int = 32, **_: Any) -> stand_ins.StandIn:
  """Returns facts and batch shapes; see `stand_ins`."""
  facts = {**stand_ins.subword_facts(model, vocab_size), "num_features": max_length, "stop_ids": [5]}
  return stand_ins.stand_in(facts, batch_size, tokens=(np.int32, max_length))
