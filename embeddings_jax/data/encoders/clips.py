"""Encoder of clips."""
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from embeddings_jax.data import video
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders.base import Batch, Encoder, check_size, check_some, ones
from embeddings_jax.data.images import from_pixels
from embeddings_jax.errors import InputError


class ClipEncoder(Encoder):
  """Clips -> `clip` uint8 `[n, window, height, width, channels]`, which models scale.

  Items are uint8 arrays `[frames, height, width, channels]`, or paths of videos and folders of frames, which are
  fitted to the size. Of a clip the window in its middle is read, of frames `stride` apart.
  """

  kind = "clips"
  embedded_at_once = 1 << 18  # Pixels and channels.
  encoded_at_once = 64

  def __init__(self, height: int, width: int, channels: int, window: int = 8, stride: int = 1):
    for name, value, most in (("height", height, 1 << 16), ("width", width, 1 << 16), ("channels", channels, 3),
                              ("window", window, 1 << 16), ("stride", stride, 1 << 16)):
      check_size(name, value, 1, most)
    self.shape, self.window, self.stride = (height, width, channels), window, stride

  def options(self) -> dict[str, Any]:
    return dict(zip(("height", "width", "channels"), self.shape)) | {"window": self.window, "stride": self.stride}

  def encode(self, items: Sequence[np.ndarray | str | os.PathLike]) -> Batch:
    check_some(items)
    return {"clip": np.stack([self._window(i, item) for i, item in enumerate(items)]), "mask": ones(items)}

  def encode_frames(self, frames: np.ndarray) -> Batch:
    """Returns single frames `[n, height, width, channels]` as clips of one frame."""
    if frames.dtype != np.uint8 or frames.shape[1:] != self.shape:
      raise InputError(f"frames: are {frames.dtype} {list(frames.shape[1:])}, expected uint8 {list(self.shape)}")
    return {"clip": np.asarray(frames)[:, None], "mask": ones(frames)}

  def read(self, path: str, errors: str = "strict") -> list[np.ndarray]:
    """See `Encoder.read`: .npz or .npy files of frames, folders of images, or video files."""
    return list(video.load_clips(path).items)

  def example(self) -> Batch:
    return self.encode([np.zeros((1 + (self.window - 1) * self.stride, *self.shape), np.uint8)])

  def for_task(self, max_length: int) -> "ClipEncoder":
    """Returns the encoder for a task; a clip's length is its window."""
    return self

  def adapt(self, dataset: Dataset, cache_dir: str | os.PathLike | None = None) -> Dataset:
    """Returns another dataset's clips with frames of the encoder's size and channels."""
    if dataset.kind != "video":
      raise InputError(f"data={dataset.name}: holds {dataset.kind}, expected clips")
    height, width, channels = self.shape
    if dataset.items.shape[:2] != (height, width) and height != width:
      raise InputError(f"data={dataset.name}: has frames of {dataset.items.shape[0]} x {dataset.items.shape[1]} "
                       f"pixels, expected {height} x {width}")
    size = height if dataset.items.shape[:2] != (height, width) else 0
    return video.fitted(dataset, size, channels, None if cache_dir is None else str(cache_dir))

  def _window(self, i: int, item: np.ndarray | str | os.PathLike) -> np.ndarray:
    where = f"clip {i}"
    if isinstance(item, (str, os.PathLike)):
      where, stored = str(item), video.load_clips(str(item)).items
      if len(stored) != 1:
        raise InputError(f"{where}: holds {len(stored)} clips, expected one")
      item = stored[0]
    span = 1 + (self.window - 1) * self.stride
    if not hasattr(item, "ndim") or item.ndim != 4 or item.dtype != np.uint8:
      shape = f"{item.dtype} {list(item.shape)}" if hasattr(item, "ndim") else type(item).__name__
      raise InputError(f"{where}: is {shape}, expected uint8 [frames, height, width, channels]")
    if len(item) < span:
      raise InputError(f"{where}: has {len(item)} frames, and a window spans {span}; give longer clips, or lower "
                       "data.window or data.stride")
    first = (len(item) - span) // 2
    frames = np.asarray(item[first:first + span:self.stride])
    if frames.shape[1:] != self.shape:
      frames = np.stack([from_pixels(frame, where, self.shape[2], self.shape[:2]) for frame in frames])
    return frames
