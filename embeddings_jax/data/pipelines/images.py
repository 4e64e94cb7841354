"""Images in shuffled batches."""
from typing import Any

import numpy as np

from embeddings_jax.data import reading, stand_ins
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders.images import ImageEncoder
from embeddings_jax.data.sources import array_source
from embeddings_jax.errors import InputError, check_choice
from embeddings_jax.types import Prepared

ACCEPTS = ("images",)
READ = reading.images
UNIT = "images"
FACTS = {"height": "Height in pixels", "width": "Width in pixels", "channels": "Number of channels",
         "num_labels": "Number of observed classes"}


def images(dataset: Dataset, *, batch_size: int, seed: int, encoder: Any = None,
           validation_fraction: float = 0.0, label: str = "") -> Prepared:
  """Makes batches of `image` uint8 `[batch_size, height, width, channels]`, and of `label` int32 `[batch_size]`.

  Args:
    dataset: Images.
    batch_size: Images of a batch.
    seed: Random seed of the data order.
    validation_fraction: Fraction of the training images that is held out as `validation`, the same for every seed.
    label: One of the dataset's labels, whose classes are numbered in order; "": batches have none.
  """
  if not 0 <= validation_fraction < 1:
    raise InputError(f"validation_fraction={validation_fraction}: must be from 0 to below 1")
  facts = dict(zip(("height", "width", "channels"), dataset.items.shape[1:]))
  arrays = {"image": dataset.items}
  if label:
    if not dataset.labels:
      raise InputError(f"label={label}: {dataset.name} has no labels; leave the option out")
    check_choice("label", label, list(dataset.labels))
    classes, arrays["label"] = np.unique(dataset.labels[label], return_inverse=True)
    arrays["label"], facts["num_labels"] = arrays["label"].astype(np.int32), len(classes)
  train = np.asarray(dataset.split["train"]) if "train" in dataset.split else None
  splits = {}
  if validation_fraction:
    train = np.arange(len(dataset.items)) if train is None else train
    order = np.random.default_rng(0).permutation(len(train))
    number = max(1, round(validation_fraction * len(train)))
    if number >= len(train):
      raise InputError(f"validation_fraction={validation_fraction}: leaves none of {len(train)} images to train on")
    held_out, train = train[np.sort(order[:number])], train[np.sort(order[number:])]
    splits["validation"] = array_source(arrays, batch_size, chosen=held_out, order="sequential",
                                        remainder="pad", facts=facts)
  source = array_source(arrays, batch_size, chosen=train, seed=seed, facts=facts)
  encoder = ImageEncoder(*dataset.items.shape[1:])
  return Prepared({"train": source, **splits}, encoder, dataset, source.facts)


def stand_in(item: stand_ins.Item, *, batch_size: int, image_size: int = 0, channels: int = 0,
             label: str = "", **_: Any) -> stand_ins.StandIn:
  """Returns facts and batch shapes; see `stand_ins`."""
  shape = stand_ins.image_shape(item, image_size, channels)
  facts, arrays = dict(zip(("height", "width", "channels"), shape)), {}
  if label:
    facts, arrays = {**facts, "num_labels": stand_ins.NUM_LABELS}, {"label": (np.int32,)}
  return stand_ins.stand_in(facts, batch_size, image=(np.uint8, *shape), **arrays)
