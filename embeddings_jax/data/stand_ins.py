"""Facts and batch shapes of data that is not there, for tracing a program before its data is read.

Every pipeline has `stand_in(item, *, batch_size, **options) -> StandIn`, of which the options are those of
`config.data`. Sizes that only the data knows, as of a vocabulary, are typical ones.
"""
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

VOCAB_SIZE = 10_000
NUM_ROWS = 1_000
STEPS_PER_EPOCH = 100
NUM_LABELS = 10


class Item(NamedTuple):
  """The kind of a dataset's items, or `unknown`, and their shape where all have the same, else ()."""

  kind: str
  shape: tuple[int, ...] = ()


class StandIn(NamedTuple):
  """Facts, as of `Prepared`, and a batch of `jax.ShapeDtypeStruct`."""

  facts: dict[str, Any]
  batch: dict[str, Any]


def stand_in(facts: Mapping[str, Any], num_rows: int, **arrays: tuple[Any, ...]) -> StandIn:
  """Returns facts with those of all sources, and a batch with `mask`.

  Args:
    facts: Facts of the pipeline's own.
    num_rows: Length of the leading axis.
    **arrays: Name -> data type and the further axes.
  """
  batch = {name: spec(dtype, num_rows, *axes) for name, (dtype, *axes) in arrays.items()}
  return StandIn({"num_rows": NUM_ROWS, "steps_per_epoch": STEPS_PER_EPOCH, **facts},
                 batch | {"mask": spec(np.float32, num_rows)})


def spec(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
  """Returns the shape and type of an array."""
  return jax.ShapeDtypeStruct(shape, dtype)


def image_shape(item: Item, image_size: int, channels: int) -> tuple[int, int, int]:
  """Returns the shape of images as the options fit them; 224 pixels in color where nothing is known."""
  height, width, depth = item.shape if len(item.shape) == 3 else (224, 224, 3)
  return image_size or height, image_size or width, channels or depth


def word_facts(vocab_size: int) -> dict[str, Any]:
  """Returns the facts of running words."""
  vocab_size = vocab_size or VOCAB_SIZE
  return {"vocab_size": vocab_size, "counts": np.arange(vocab_size, 0, -1), "num_words": 1_000_000,
          "num_raw_words": 1_000_000, "num_documents": NUM_ROWS}


def subword_facts(model: str, vocab_size: int) -> dict[str, Any]:
  """Returns the facts of subword tokens of a trained tokenizer, `wordpiece` or `bpe`."""
  roles = ({"pad_id": 0, "unk_id": 1, "cls_id": 2, "sep_id": 3, "mask_id": 4, "end_id": 3} if model == "wordpiece"
           else {"end_id": 0})
  return {**word_facts(vocab_size), **roles, "num_tokens": 1_000_000, "special_ids": sorted(set(roles.values())),
          "num_segments": 2 if model == "wordpiece" else 1, "continues": np.zeros(vocab_size, bool),
          "padding_fraction": 0.0}
