"""Images in shuffled batches, each with its number: for models that keep something of every training image."""
from typing import Any

import numpy as np

from embeddings_jax.data import reading, stand_ins
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.pipelines.images import FACTS as OF_IMAGES
from embeddings_jax.data.pipelines.images import images
from embeddings_jax.data.pipelines.images import stand_in as stand_in_images
from embeddings_jax.data.sources import array_source
from embeddings_jax.types import Prepared

ACCEPTS = ("images",)
READ = reading.images
UNIT = "images"
FACTS = {key: text for key, text in OF_IMAGES.items() if key != "num_labels"}


def numbered_images(dataset: Dataset, *, batch_size: int, seed: int, encoder: Any = None,
                    max_images: int = 0) -> Prepared:
  """Makes batches of `image` uint8 `[batch_size, height, width, channels]` and `number` int32 `[batch_size]`.

  Numbers are from 0 to below the fact `num_rows`.

  Args:
    dataset: Images.
    batch_size: Images of a batch.
    seed: Random seed of the data order.
    max_images: Trains on a sample of so many images, the same for every seed; 0: on all.
  """
  prepared = images(dataset, batch_size=batch_size, seed=seed)
  chosen = np.asarray(dataset.split["train"]) if "train" in dataset.split else np.arange(len(dataset.items))
  if max_images and max_images < len(chosen):
    chosen = chosen[np.sort(np.random.default_rng(0).permutation(len(chosen))[:max_images])]
  number = np.full(len(dataset.items), -1, np.int32)
  number[chosen] = np.arange(len(chosen), dtype=np.int32)
  facts = {key: prepared.facts[key] for key in FACTS}
  source = array_source({"image": dataset.items, "number": number}, batch_size, chosen=chosen, seed=seed, facts=facts)
  return prepared._replace(splits={"train": source}, facts=source.facts)


def stand_in(item: stand_ins.Item, *, batch_size: int, max_images: int = 0, **options: Any) -> stand_ins.StandIn:
  """Returns facts and batch shapes; see `stand_ins`."""
  prepared = stand_in_images(item, batch_size=batch_size, **options)
  return stand_ins.StandIn({**prepared.facts, "num_rows": max_images or 1_000_000},
                           {**prepared.batch, "number": stand_ins.spec(np.int32, batch_size)})
