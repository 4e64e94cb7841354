"""Boxes around objects in images: (top, left, bottom, right) in pixels, the last two exclusive."""
import os
import zipfile
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from embeddings_jax.errors import InputError


class Boxes(NamedTuple):
  """The objects of all images of a dataset, one after another.

  Attributes:
    corners: float32 [num_objects, 4], top, left, bottom and right.
    image: int32 [num_objects], number of the image.
    label: int32 [num_objects], number of the class.
    difficult: bool [num_objects], objects that a detector may find or not.
    classes: Names of the classes.
  """

  corners: np.ndarray
  image: np.ndarray
  label: np.ndarray
  difficult: np.ndarray
  classes: Sequence[str]

  def of(self, image: int) -> "Boxes":
    """Returns the objects of one image."""
    return self.chosen(self.image == image)

  def chosen(self, rows: np.ndarray) -> "Boxes":
    """Returns some of the objects."""
    return Boxes(self.corners[rows], self.image[rows], self.label[rows], self.difficult[rows], self.classes)


def check_boxes(corners: np.ndarray, height: int, width: int, where: str) -> np.ndarray:
  """Returns boxes [n, 4] as float32.

  Raises:
    InputError: One is empty, not finite, or reaches outside an image of this size; `where` names it.
  """
  corners = np.asarray(corners, np.float32).reshape(-1, 4)
  top, left, bottom, right = corners.T
  good = (0 <= top) & (top < bottom) & (bottom <= height) & (0 <= left) & (left < right) & (right <= width)
  if not good.all():
    bad = corners[np.argmin(good)]
    raise InputError(f"{where}: the box (top, left, bottom, right) = ({', '.join(f'{x:g}' for x in bad)}) is "
                     f"empty or reaches outside the image of {height} x {width} pixels")
  return corners


def areas(corners: np.ndarray) -> np.ndarray:
  """Returns the areas of boxes [..., 4], 0 where bottom or right come first."""
  return np.maximum(corners[..., 2] - corners[..., 0], 0) * np.maximum(corners[..., 3] - corners[..., 1], 0)


def overlaps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
  """Returns intersection over union of boxes [n, 4] and [m, 4], [n, m]."""
  low = np.maximum(one[:, None, :2], other[None, :, :2])
  high = np.minimum(one[:, None, 2:], other[None, :, 2:])
  both = areas(np.concatenate([low, high], -1))
  return both / np.maximum(areas(one)[:, None] + areas(other)[None] - both, 1e-12)


def kept_boxes(corners: np.ndarray, scores: np.ndarray, threshold: float = 0.3) -> np.ndarray:
  """Non-maximum suppression: drops boxes that overlap a kept one of a greater score by more than `threshold`.

  Returns:
    Numbers of the kept boxes, the greatest score first; of equal scores the first box comes first.
  """
  order, kept = np.argsort(-scores, kind="stable"), []
  while len(order):
    kept.append(order[0])
    order = order[1:][overlaps(corners[order[:1]], corners[order[1:]])[0] <= threshold]
  return np.array(kept, int)


def sliding_boxes(height: int, width: int, sides: Sequence[float], ratios: Sequence[float] = (1.0,),
                  step: float = 0.25) -> np.ndarray:
  """Returns boxes of several sizes and shapes at the places of a grid.

  Args:
    height, width: Size of the image in pixels.
    sides: Heights of the boxes, pixels; those above the image's are left out.
    ratios: Widths of the boxes over their heights.
    step: Distance of neighboring boxes, at most, over their sides.
  """
  boxes = []
  for side in sides:
    for ratio in ratios:
      size = side, side * ratio
      if size[0] > height or size[1] > width:
        continue
      places = [np.linspace(0, room, 1 + int(np.ceil(room / (step * length))))
                for room, length in zip((height - size[0], width - size[1]), size)]
      top, left = (axis.ravel() for axis in np.meshgrid(*places, indexing="ij"))
      boxes.append(np.stack([top, left, top + size[0], left + size[1]], 1))
  if not boxes:
    raise InputError(f"sides={tuple(sides)}: no box fits into an image of {height} x {width} pixels")
  return np.concatenate(boxes).astype(np.float32)


def read_proposals(path: str | os.PathLike) -> dict[int, np.ndarray]:
  """Reads candidate boxes from a .npz file with `corners` [n, 4] and `image` [n], numbers of the images from 0.

  Raises:
    InputError: It is no such file.
  """
  try:
    with np.load(path, allow_pickle=False) as file:
      corners, image = np.asarray(file["corners"], np.float32), np.asarray(file["image"])
  except (OSError, ValueError, KeyError, zipfile.BadZipFile, AttributeError, TypeError) as error:
    raise InputError(f"{path}: is no .npz file with numbers `corners` [n, 4] and `image` [n]") from error
  if corners.ndim != 2 or corners.shape[1] != 4 or image.shape != corners.shape[:1] or image.dtype.kind not in "iu":
    raise InputError(f"{path}: corners is {list(corners.shape)}, image {image.dtype} {list(image.shape)}; expected "
                     "[n, 4], and integers [n]")
  return {int(number): corners[image == number] for number in np.unique(image)}
