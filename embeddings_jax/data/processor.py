"""Geometry of Hugging Face image processors: resize by Pillow, then crop or pad around the center, in 8 bits."""
from typing import Any, NamedTuple

import numpy as np

from embeddings_jax.types import InputError


class Processor(NamedTuple):
  """Resizing and cropping of a `preprocessor_config.json`; normalization is the model's.

  Attributes:
    resize: Height and width, or the length of the shorter side; None keeps the size.
    resample: Filter by Pillow's number: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 box, 5 Hamming.
    crop: Height and width of the center crop; larger images are cropped, smaller ones padded with 0.
  """

  resize: tuple[int, int] | int | None = None
  resample: int = 2
  crop: tuple[int, int] | None = None

  @classmethod
  def from_options(cls, options: dict[str, Any]) -> "Processor":
    """Reverses `options`."""
    paired = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    return cls(**paired).checked()

  def checked(self) -> "Processor":
    """Returns itself; raises unless the sizes are from 1 to 65,536 and the filter is one of Pillow's."""
    for key, size in (("resize", self.resize), ("crop", self.crop)):
      sides = () if size is None else size if isinstance(size, tuple) else (size, size)
      paired = size is None or (isinstance(size, tuple) and len(size) == 2) or (key == "resize" and type(size) is int)
      if not paired or any(type(side) is not int or not 1 <= side <= 1 << 16 for side in sides):
        raise InputError(f"image processor: {key}={size!r}; expected a height and width from 1 to 65536")
    if type(self.resample) is not int or not 0 <= self.resample <= 5:
      raise InputError(f"image processor: resample={self.resample!r}; expected a filter of Pillow, 0 to 5")
    return self

  def options(self) -> dict[str, Any]:
    """Returns what JSON holds of it."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in self._asdict().items()}

  def size(self, height: int, width: int) -> tuple[int, int]:
    """Returns the height and width of the result for an image of this size."""
    return self.crop or self._resized(height, width)

  def keeps(self, height: int, width: int) -> bool:
    """Tells whether an image of this size stays as it is."""
    return self._resized(height, width) == self.size(height, width) == (height, width)

  def apply(self, pixels: np.ndarray) -> np.ndarray:
    """Processes one image.

    Args:
      pixels: uint8 [height, width, channels].
    """
    from PIL import Image

    height, width, channels = pixels.shape
    size = self._resized(height, width)
    if max(size) > 1 << 16:
      raise InputError(f"an image of {width} x {height} pixels becomes {size[1]} x {size[0]}, which is too large")
    if size != (height, width):
      image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
      pixels = np.asarray(image.resize(size[::-1], self.resample)).reshape(*size, channels)
    return pixels if self.crop is None else _center_crop(pixels, self.crop)

  def _resized(self, height: int, width: int) -> tuple[int, int]:
    if self.resize is None:
      return height, width
    if isinstance(self.resize, tuple):
      return self.resize
    longer = int(self.resize * max(height, width) / min(height, width))
    return (self.resize, longer) if height <= width else (longer, self.resize)


def _center_crop(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Crops around the center; where the image is smaller it is first laid on 0, rounding as `transformers` does."""
  shape = np.array(pixels.shape[:2])
  start = (shape - size) // 2
  if (start < 0).any():
    whole = np.maximum(shape, size)
    before = -(-(whole - shape) // 2)
    padded = np.zeros((*whole, pixels.shape[2]), pixels.dtype)
    padded[before[0]:before[0] + shape[0], before[1]:before[1] + shape[1]] = pixels
    pixels, start = padded, start + before
  return pixels[start[0]:start[0] + size[0], start[1]:start[1] + size[1]]
