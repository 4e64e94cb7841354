"""Encoder of images."""
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from embeddings_jax.data import features, formats
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders.base import Batch, Encoder, check_size, check_some, ones
from embeddings_jax.data.files.archives import archived_images
from embeddings_jax.data.images import as_images, fitted, read_picture, to_uint8
from embeddings_jax.data.processor import Processor
from embeddings_jax.errors import InputError

_MAX_PIXELS = 256  # Largest image whose pixels are a baseline of every run: a probe of more takes minutes.


class ImageEncoder(Encoder):
  """Images -> `image` uint8 `[n, height, width, channels]`, which models scale.

  Items are uint8 arrays `[height, width, channels]` (or without the last axis where that is 1), rows of that many
  values in [0, 1], or paths of image files, which become gray or RGB. Files are fitted to the size (see `images.py`),
  arrays must have it; with a `processor` both are resized and cropped by it.
  """

  kind = "images"
  embedded_at_once = 1 << 17  # Pixels: convolutions make many times as many numbers of them.

  def __init__(self, height: int, width: int, channels: int, processor: Processor | Mapping[str, Any] | None = None):
    for name, value, most in (("height", height, 1 << 16), ("width", width, 1 << 16), ("channels", channels, 4)):
      check_size(name, value, 1, most)
    self.shape = height, width, channels
    self.processor = Processor.from_options(processor) if isinstance(processor, Mapping) else processor

  def options(self) -> dict[str, Any]:
    return dict(zip(("height", "width", "channels"), self.shape)) | (
        {"processor": self.processor.options()} if self.processor else {})

  def encode(self, items: Sequence[np.ndarray | str | os.PathLike]) -> Batch:
    check_some(items)
    if isinstance(items, np.ndarray) and items.dtype == np.uint8 and items.shape[1:] == self.shape and (
        not self.processor or self.processor.keeps(*self.shape[:2])):
      images = np.asarray(items)
    else:
      images = np.stack([self._image(i, item) for i, item in enumerate(items)])
    return {"image": images, "mask": ones(items)}

  def read(self, path: str, errors: str = "strict") -> list[Any]:
    """See `Encoder.read`: .npy (uint8 [n, height, width, channels]); image files, of which the paths are items; or an
    archive of images."""
    from embeddings_jax.data import own

    files = own.list_files(path)
    if files[0].suffix == ".npy":
      images = formats.load_npy(files[0])
      if images.ndim < 2 or images.dtype.kind not in "fiub":
        raise InputError(f"{files[0]}: holds {images.dtype} {list(images.shape)}, should be uint8 [n, height, width, "
                         "channels]")
      return list(images)
    if len(files) == 1 and own.file_kind(files[0]) == "archive":
      size = None if self.processor else self.shape[:2]
      with archived_images(files[0]) as members:
        return [read_picture(content if isinstance(content, bytes) else content.read_bytes(), f"{files[0]}: {name}",
                             self.shape[2], size) for name, content in sorted(members, key=lambda member: member[0])]
    images = [file for file in files if own.file_kind(file) == "images"]
    return [str(file) for file in images or files]  # A readme beside images is none.

  def example(self) -> Batch:
    return self.encode(np.zeros((1, *self.shape), np.uint8))

  def for_task(self, max_length: int) -> "ImageEncoder":
    """Returns the encoder for a task; images have no length."""
    return self

  def adapt(self, dataset: Dataset, cache_dir: str | os.PathLike | None = None) -> Dataset:
    """Returns another dataset's images with the encoder's size and channels; a processor resizes them itself."""
    size = (0, 0) if self.processor else self.shape[:2]
    return fitted(as_images(dataset), *size, self.shape[2], cache_dir=cache_dir)

  def baselines(self, dataset: Dataset) -> dict[str, Callable[[Sequence[Any]], Any]]:
    return {"pixels": features.pixels} if np.prod(self.shape) <= _MAX_PIXELS else {}

  def _image(self, i: int, item: np.ndarray | str | os.PathLike) -> np.ndarray:
    where = f"image {i}"
    if isinstance(item, (str, os.PathLike)):
      size = None if self.processor else self.shape[:2]
      where, item = str(item), read_picture(epath.Path(item).read_bytes(), item, self.shape[2], size)
    item = np.asarray(item)
    if item.ndim == 1 and item.dtype.kind == "f" and item.size == np.prod(self.shape):
      item = to_uint8(item).reshape(self.shape)
    if item.ndim == 2 and self.shape[2] == 1:
      item = item[..., None]
    if self.processor and item.ndim == 3 and item.dtype == np.uint8 and item.size and item.shape[2] == self.shape[2]:
      item = self.processor.apply(item)
    if item.dtype != np.uint8 or item.shape != self.shape:
      raise InputError(f"{where}: is {item.dtype} {list(item.shape)}, expected uint8 {list(self.shape)}"
                       + (" (after the steps of preprocessor_config.json)" if self.processor else ""))
    return item
