"""Two frames of a clip as images that belong together."""
from typing import Any

import numpy as np

from embeddings_jax.data import stand_ins, video
from embeddings_jax.data.clip_windows import clip_source
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders.images import ImageEncoder
from embeddings_jax.data.pipelines.clips import frame_shape, training_clips
from embeddings_jax.errors import InputError
from embeddings_jax.types import Prepared, Source

ACCEPTS = ("video",)
READ = video.read
UNIT = "pairs of frames"
FACTS = {"height": "Height in pixels", "width": "Width in pixels", "channels": "Number of channels"}


def frame_pairs(dataset: Dataset, *, batch_size: int, seed: int, encoder: Any = None, distance: int = 4,
                validation_fraction: float = 0.0) -> Prepared:
  """Makes batches of `image` and `positive` uint8 `[batch_size, height, width, channels]`, two frames of one clip.

  Evaluations see the frame in the middle of each clip, with the clip's labels.

  Args:
    dataset: Video.
    batch_size: Pairs of a batch.
    seed: Random seed of the data order and of the frames.
    distance: Frames between the two.
    validation_fraction: Fraction of the training clips that is held out; see `clips`.
  """
  if distance < 0:
    raise InputError(f"distance={distance}: must be at least 0")
  items = dataset.items
  train, held_out = training_clips(dataset, validation_fraction)
  facts = dict(zip(("height", "width", "channels"), items.shape))
  options: dict[str, Any] = dict(stride=max(distance, 1), facts=facts)
  window = 2 if distance else 1
  splits = {"train": _pairs(clip_source(items, train, window, batch_size, jitter=True, seed=seed, **options))}
  if len(held_out):
    splits["validation"] = _pairs(clip_source(items, held_out, window, batch_size, order="sequential",
                                              remainder="pad", **options))
  middle = items.starts[:-1] + items.lengths // 2
  images = dataset._replace(kind="images", items=np.stack([items.frames[i] for i in middle]),
                            fingerprint=f"{dataset.fingerprint}:middle")
  return Prepared(splits, ImageEncoder(*items.shape), images, splits["train"].facts)


def _pairs(source: Source) -> Source:
  def assemble(resident, feed):
    batch = dict(source.assemble(resident, feed))
    clip = batch.pop("clip")
    return {"image": clip[:, 0], "positive": clip[:, -1], **batch}

  return source._replace(assemble=assemble)


def stand_in(item: stand_ins.Item, *, batch_size: int, image_size: int = 0, channels: int = 0,
             **_: Any) -> stand_ins.StandIn:
  """Returns facts and batch shapes; see `stand_ins`."""
  shape = frame_shape(item, image_size, channels)
  return stand_ins.stand_in(dict(zip(("height", "width", "channels"), shape)), batch_size, image=(np.uint8, *shape),
                            positive=(np.uint8, *shape))
