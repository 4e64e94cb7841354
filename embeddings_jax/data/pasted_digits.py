"""Pasted digits: photographs with digits in them, and a box around each; a pure function of (seed, index).

The background is a piece of one of scikit-learn's photographs. Up to two round patches of photographs lie on it, and
over them one to three of scikit-learn's digits, each in a color of its own and 10 to 18 pixels high. A digit's box is
the smallest one around its pixels of opacity .5 and more; boxes overlap by an intersection over union of .1 at most.
One digit in ten is faint, and marked as difficult. Digits with even numbers are those of training images, digits with
odd numbers those of test images.
"""
import colorsys
from typing import NamedTuple

import numpy as np

from embeddings_jax.data.boxes import overlaps
from embeddings_jax.data.moving_digits import colored, digit_images, patch, piece

VERSION = 2  # Raise it when the same (seed, index) would give another image.
SIZE, SIDES, MOST, TRIES = 32, (10, 18), 3, 20
FAINT, SHARE_FAINT = 0.4, 0.1


class Pasted(NamedTuple):
  """One image.

  Attributes:
    image: uint8 [size, size, 3].
    corners: float32 [digits, 4], top, left, bottom and right.
    digit: int32 [digits], classes.
    difficult: bool [digits], whether it is faint.
    color: int32 [digits], hue, in sixths of the circle from red on.
  """

  image: np.ndarray
  corners: np.ndarray
  digit: np.ndarray
  difficult: np.ndarray
  color: np.ndarray


def pasted_digits(seed: int, index: int, *, test: bool = False, size: int = SIZE, most: int = MOST) -> Pasted:
  """Makes one image.

  Args:
    seed, index: Numbers of the set and of the image in it.
    test: Whether it is a test image.
    size: Height and width in pixels.
    most: Most digits.
  """
  rng = np.random.default_rng([seed, index, test])
  digits, classes = digit_images()
  canvas = piece(rng, size).copy()
  for _ in range(rng.integers(3)):
    side = rng.integers(*SIDES)
    _paste(canvas, *patch(rng, side), *rng.integers(0, size - side + 1, 2))
  corners, labels, faint, hues = np.zeros((0, 4), np.float32), [], [], []
  for _ in range(rng.integers(1, most + 1)):
    chosen = 2 * rng.integers(len(digits) // 2) + int(test)
    side = rng.integers(SIDES[0], SIDES[1] + 1)
    alpha, color = colored(rng, digits[chosen], side)
    inside = alpha >= 0.5
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    tight = np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1], np.float32)
    difficult = rng.random() < SHARE_FAINT
    for _ in range(TRIES):
      top, left = rng.integers(0, size - side + 1, 2)
      box = tight + np.array([top, left, top, left], np.float32)
      if not len(corners) or overlaps(box[None], corners).max() <= 0.1:
        _paste(canvas, (FAINT if difficult else 1) * alpha, color, top, left)
        corners = np.concatenate([corners, box[None]])
        labels.append(classes[chosen])
        faint.append(difficult)
        hues.append(int(6 * colorsys.rgb_to_hsv(*color[0, 0])[0] + 0.5) % 6)
        break
  return Pasted(np.rint(255 * canvas).astype(np.uint8), corners, np.array(labels, np.int32), np.array(faint, bool),
                np.array(hues, np.int32))


def _paste(canvas, alpha, color, top, left):
  """Lays a square of this opacity and color on the canvas, in place."""
  part = canvas[top:top + len(alpha), left:left + len(alpha)]
  part[:] = (1 - alpha[..., None]) * part + alpha[..., None] * color
