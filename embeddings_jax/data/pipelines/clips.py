"""Windows of video."""
from typing import Any

import numpy as np

from embeddings_jax.data import stand_ins, video
from embeddings_jax.data.clip_windows import clip_source
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders.clips import ClipEncoder
from embeddings_jax.errors import InputError
from embeddings_jax.types import Prepared

ACCEPTS = ("video",)
READ = video.read
UNIT = "windows of frames"
FACTS = {"height": "Height in pixels", "width": "Width in pixels", "channels": "Number of channels",
         "num_frames": "Frames of a window", "num_actions": "Number of actions; 0 where none are known"}


def clips(dataset: Dataset, *, batch_size: int, seed: int, encoder: Any = None, window: int = 8, stride: int = 1,
          hop: int = 0, jitter: bool = True, actions: bool = False, validation_fraction: float = 0.0) -> Prepared:
  """Makes batches of `clip` uint8 `[batch_size, window, height, width, channels]`.

  Args:
    dataset: Video.
    batch_size: Windows of a batch.
    seed: Random seed of the data order and of the jitter.
    window: Frames of a window.
    stride: Distance of a window's frames in the clip.
    hop: Distance of the windows' first frames; 0: windows do not overlap.
    jitter: Whether training windows begin up to `hop` frames later, drawn anew for each step.
    actions: Whether batches have `actions` int32 `[batch_size, window]`, which lead to the next frame.
    validation_fraction: Fraction of the training clips that is held out as `validation`, whole, the same for every
      seed.
  """
  items = dataset.items
  if window < 1 or stride < 1 or hop < 0:
    raise InputError(f"window={window}, stride={stride}, hop={hop}: must be at least 1, 1 and 0")
  if actions and "actions" not in items.beside:
    raise InputError(f"actions=True: {dataset.name} has no actions; moving-digits-actions has")
  if actions and stride != 1:
    raise InputError(f"stride={stride}: with actions it must be 1, as an action leads to the next frame")
  train, held_out = training_clips(dataset, validation_fraction)
  facts = {**dict(zip(("height", "width", "channels"), items.shape)), "num_frames": window,
           "num_actions": int(items.beside["actions"].max()) + 1 if actions else 0}
  options: dict[str, Any] = dict(stride=stride, beside=("actions",) if actions else (), facts=facts)
  source = clip_source(items, train, window, batch_size, hop=hop, jitter=jitter, seed=seed, **options)
  splits = {}
  if len(held_out):
    splits["validation"] = clip_source(items, held_out, window, batch_size, order="sequential", remainder="pad",
                                       **options)
  return Prepared({"train": source, **splits}, ClipEncoder(*items.shape, window, stride), dataset, source.facts)


def training_clips(dataset: Dataset, validation_fraction: float) -> tuple[np.ndarray, np.ndarray]:
  """Returns the numbers of the training clips and of those held out of them, which are whole clips."""
  if not 0 <= validation_fraction < 1:
    raise InputError(f"validation_fraction={validation_fraction}: must be from 0 to below 1")
  train = np.asarray(dataset.split.get("train", np.arange(len(dataset.items))))
  if not validation_fraction:
    return train, train[:0]
  number = max(1, round(validation_fraction * len(train)))
  if number >= len(train):
    raise InputError(f"validation_fraction={validation_fraction}: holds out whole clips, and leaves none of "
                     f"{len(train)} to train on; give more clips, or cut the video into several")
  order = np.random.default_rng(0).permutation(len(train))
  return train[np.sort(order[number:])], train[np.sort(order[:number])]


def stand_in(item: stand_ins.Item, *, batch_size: int, window: int = 8, actions: bool = False, image_size: int = 0,
             channels: int = 0, **_: Any) -> stand_ins.StandIn:
  """Returns facts and batch shapes; see `stand_ins`."""
  shape = frame_shape(item, image_size, channels)
  facts = {**dict(zip(("height", "width", "channels"), shape)), "num_frames": window,
           "num_actions": 5 if actions else 0}
  beside = {"actions": (np.int32, window)} if actions else {}
  return stand_ins.stand_in(facts, batch_size, clip=(np.uint8, window, *shape), **beside)


def frame_shape(item: stand_ins.Item, image_size: int, channels: int) -> tuple[int, int, int]:
  """Returns the shape of frames as the options fit them."""
  return stand_ins.image_shape(item._replace(shape=item.shape[-3:]), image_size, channels)
