"""Sentences of a text, or pairs and triples of sentences that belong together, as SimCSE reads them."""
import itertools
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from embeddings_jax.data import catalog, reading, stand_ins, tokenized
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.overlap import without_overlap
from embeddings_jax.data.sentences import sentence_rows
from embeddings_jax.data.sources import array_source
from embeddings_jax.types import InputError, Prepared

ACCEPTS = ("text", "pairs", "triples")
READ = reading.text
UNIT = "sentences"
FACTS = tokenized.FACTS | {"num_overlapping": "Items left out because an evaluation set has a sentence of theirs"}


def sentences(dataset: Dataset, *, batch_size: int, seed: int, encoder: Any = None, cache_dir: str | None = None,
              data_dir: str | None = None, tokenizer: str = "", model: str = "wordpiece", vocab_size: int = 4000,
              lowercase: bool = True, max_length: int = 32, num_sentences: int = 20_000, min_tokens: int = 5,
              drop_overlap: Sequence[str] = ()) -> Prepared:
  """Makes batches of `tokens` `[batch_size, max_length]` of a text, `[batch_size, views, max_length]` of pairs or
  triples.

  Args:
    dataset: Text, pairs or triples.
    batch_size: Sentences, pairs or triples of a batch.
    seed: Random seed.
    encoder: Pretrained encoder, whose tokenizer is used.
    cache_dir, data_dir: Directories of derived data and of the catalog's files.
    tokenizer, model, vocab_size, lowercase: Options of the tokenizer; see `subword_pairs`.
    max_length: Tokens of a sentence.
    num_sentences: Number of sentences of a text.
    min_tokens: Shorter sentences of a text are left out.
    drop_overlap: Datasets for evaluation; pairs and triples that share a sentence with them are left out.
  """
  options = dict(encoder=encoder, tokenizer=tokenizer, model=model, vocab_size=vocab_size, lowercase=lowercase,
                 max_length=max_length, cache_dir=cache_dir)
  if dataset.kind != "text":
    return _views(dataset, batch_size, seed, drop_overlap, data_dir, options)
  corpus = tokenized.tokenize(dataset, unit="sentence", what="sentences", needs=("cls", "sep"), **options)
  rows = sentence_rows(corpus.train, number=num_sentences, min_tokens=min_tokens, seed=seed, max_length=max_length,
                       cls_id=corpus.facts["cls_id"], sep_id=corpus.facts["sep_id"])
  source = array_source({"tokens": rows}, batch_size, seed=seed, facts=tokenized.with_padding(corpus.facts, rows))
  return Prepared({"train": source}, corpus.encoder, corpus.dataset, source.facts)


def _views(dataset: Dataset, batch_size: int, seed: int, drop_overlap: Sequence[str], data_dir: str | None,
           options: dict[str, Any]) -> Prepared:
  """Prepares pairs or triples; the dataset for evaluations are their sentences."""
  if dataset.kind == "pairs" and dataset.labels:
    raise InputError(f"data={dataset.name}: its pairs have a {next(iter(dataset.labels))}, so that some do not "
                     "belong together; give pairs without one, or triples")
  items = [dataset.items[i] for i in dataset.split.get("train", range(len(dataset.items)))]
  texts = list(dict.fromkeys(sentence for item in items for sentence in item))
  text = Dataset(dataset.name, "text", texts, fingerprint=dataset.fingerprint)
  encoder, dropped = tokenized.subword_encoder(text, **options), 0
  if drop_overlap:
    others = (catalog.load(name, data_dir=data_dir, cache_dir=options["cache_dir"]).items for name in drop_overlap)
    kept, dropped = without_overlap(items, itertools.chain.from_iterable(others))
    items = [items[i] for i in kept]
    logging.warning("%d of %d items of %s share a sentence with %s and are left out", dropped, dropped + len(items),
                    dataset.name, ", ".join(drop_overlap))
    if not items:
      raise InputError(f"data={dataset.name}: shares a sentence of each item with "
                       f"drop_overlap={','.join(drop_overlap)}; none is left")
  width = options["max_length"]
  columns = [encoder.encode(column)["tokens"] for column in zip(*items)]
  padded = [np.pad(column, ((0, 0), (0, width - column.shape[1])), constant_values=-1) for column in columns]
  rows = np.stack(padded, 1)
  facts = tokenized.with_padding({**encoder.facts, "num_overlapping": dropped}, rows)
  source = array_source({"tokens": rows}, batch_size, seed=seed, facts=facts)
  return Prepared({"train": source}, encoder, text, source.facts)


def stand_in(item: stand_ins.Item, *, batch_size: int, model: str = "wordpiece", vocab_size: int = 4000,
             max_length: int = 32, **_: Any) -> stand_ins.StandIn:
  """Returns facts and batch shapes; see `stand_ins`."""
  views = {"pairs": (2,), "triples": (3,)}.get(item.kind, ())
  facts = {**stand_ins.subword_facts(model, vocab_size), "num_features": max_length}
  return stand_ins.stand_in(facts, batch_size, tokens=(np.int32, *views, max_length))
