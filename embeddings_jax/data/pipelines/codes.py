"""Discrete codes of images, made by another run, as tokens: for a prior over them."""
from typing import Any

import numpy as np

from embeddings_jax.data import reading, stand_ins
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders.codes import with_start
from embeddings_jax.data.sources import array_source
from embeddings_jax.errors import InputError
from embeddings_jax.types import Prepared

ACCEPTS = ("codes",)
READ = reading.codes
UNIT = "images"
FACTS = {"vocab_size": "Number of different tokens", "end_id": "Token that begins a row of codes"}


def codes(dataset: Dataset, *, batch_size: int, seed: int, encoder: Any = None,
          validation_fraction: float = 0.0) -> Prepared:
  """Makes batches of `tokens` int32 `[batch_size, 1 + codes of an image]`.

  Args:
    dataset: Codes.
    batch_size: Images of a batch.
    seed: Random seed of the data order.
    encoder: Encoder of the codes, which names the run that made them.
    validation_fraction: Fraction of the training images that is held out as `validation`, the same for every seed.
  """
  if not 0 <= validation_fraction < 1:
    raise InputError(f"validation_fraction={validation_fraction}: must be from 0 to below 1")
  train = np.asarray(dataset.split.get("train", np.arange(len(dataset.items))))
  tokens = {"tokens": with_start(np.asarray(dataset.items), encoder.num_codes)}
  facts = {"vocab_size": encoder.num_codes + 1, "end_id": encoder.num_codes}
  splits = {}
  if validation_fraction:
    order = np.random.default_rng(0).permutation(len(train))
    number = max(1, round(validation_fraction * len(train)))
    held_out, train = train[np.sort(order[:number])], train[np.sort(order[number:])]
    splits["validation"] = array_source(tokens, min(batch_size, len(held_out)), chosen=held_out, order="sequential",
                                        remainder="pad", facts=facts)
  source = array_source(tokens, batch_size, chosen=train, seed=seed, facts=facts)
  return Prepared({"train": source, **splits}, encoder, dataset, source.facts)


def stand_in(item: stand_ins.Item, *, batch_size: int, **_: Any) -> stand_ins.StandIn:
  """Returns facts and batch shapes; see `stand_ins`."""
  return stand_ins.stand_in({"vocab_size": 513, "end_id": 512}, batch_size, tokens=(np.int32, 50))
