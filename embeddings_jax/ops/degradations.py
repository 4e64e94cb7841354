"""Degradations of images as linear operators d with their adjoints, <d(y), x> = <y, d'(x)>, and their noise.

  task      d(y)                                          d'(x)
  denoise   y                                             x
  superres  A y B': means over windows of `scale` pixels  A' x B
            by the `bicubic` kernel (Keys 1981, a = -1/2,
            widened by the scale as Pillow's `resize`),
            or the `box` of scale x scale pixels
  inpaint   M * y, M 1 where a pixel is seen              M * x

An observation is X = d(Y) + noise, Gaussian with a standard deviation in units of the range [0, 1].
"""
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from embeddings_jax.types import InputError

TASKS = ("denoise", "superres", "inpaint")
KERNELS = ("bicubic", "box")

Images = Float[Array, "batch _ _ channels"]  # Reduced and whole.


class Degradation(NamedTuple):
  """A task and its numbers; hashable, the mask of inpainting is an argument of the functions.

  Attributes:
    task: Of `TASKS`.
    noise: Standard deviation of the observation's noise.
    scale: Of super-resolution: pixels of Y, each way, for one of X.
    kernel: Of super-resolution, of `KERNELS`.
    visible: Of inpainting: fraction of the pixels that random masks leave.
  """

  task: str = "denoise"
  noise: float = 0.0
  scale: int = 2
  kernel: str = "bicubic"
  visible: float = 0.5

  def forward(self, images: Images, mask: Any = None) -> Images:
    """Returns d(y); `mask` [batch, height, width, 1] is that of inpainting."""
    if self.task == "superres":
      return _along_axes(self._matrices(*images.shape[1:3]), images)
    return images * mask if self.task == "inpaint" else images

  def adjoint(self, images: Images, mask: Any = None) -> Images:
    """Returns d'(x)."""
    if self.task == "superres":
      height, width = (self.scale * side for side in images.shape[1:3])
      return _along_axes([matrix.T for matrix in self._matrices(height, width)], images)
    return images * mask if self.task == "inpaint" else images

  def guess(self, images: Images, mask: Any = None) -> Images:
    """Returns a simple estimate of Y: the observation, enlarged by bicubic interpolation for super-resolution, with
    hidden pixels filled in for inpainting, see `filled`."""
    if self.task == "inpaint":
      return filled(images, mask)
    if self.task == "denoise":
      return images
    return _along_axes([enlarging_matrix(side, self.scale) for side in images.shape[1:3]], images)

  def observe(self, rng: Array, images: Images) -> tuple[Images, Images | None]:
    """Returns degraded images with their noise, and the mask of inpainting, both drawn from `rng`."""
    first, second = jax.random.split(rng)
    mask = None
    if self.task == "inpaint":
      mask = (jax.random.uniform(first, (*images.shape[:3], 1)) < self.visible).astype(jnp.float32)
    observed = self.forward(images, mask)
    if self.noise:
      noise = self.noise * jax.random.normal(second, observed.shape)
      observed = observed + (noise if mask is None else mask * noise)
    return observed, mask

  def check(self, height: int, width: int) -> "Degradation":
    """Returns itself, or raises unless it fits images of this size."""
    if self.task not in TASKS:
      raise InputError(f"task={self.task!r}: must be one of {', '.join(TASKS)}")
    if self.noise < 0:
      raise InputError(f"noise={self.noise}: must not be negative")
    if self.task == "superres":
      if self.kernel not in KERNELS:
        raise InputError(f"kernel={self.kernel!r}: must be one of {', '.join(KERNELS)}")
      if self.scale < 2 or height % self.scale or width % self.scale:
        raise InputError(f"scale={self.scale}: must be at least 2 and divide images of {height} x {width} pixels")
    if self.task == "inpaint" and not 0 < self.visible < 1:
      raise InputError(f"visible={self.visible}: must lie between 0 and 1; with nothing visible there is nothing to "
                       "restore from")
    return self

  def _matrices(self, height: int, width: int) -> list[np.ndarray]:
    return [reducing_matrix(side, self.scale, self.kernel) for side in (height, width)]


def filled(images: Images, mask: Float[Array, "batch _ _ 1"]) -> Images:
  """Returns images whose hidden pixels are weighted means of the seen pixels around them.

  Normalized convolution (Knutsson & Westin 1993) with binomial weights, 1 4 6 4 1 each way; where that window has no
  seen pixel, the mean of all seen ones.
  """
  def blurred(x):
    for axis in (1, 2):
      padded = jnp.pad(x, [(2, 2) if i == axis else (0, 0) for i in range(4)])
      x = sum(weight * jax.lax.slice_in_dim(padded, i, i + x.shape[axis], axis=axis)
              for i, weight in enumerate((1, 4, 6, 4, 1)))
    return x

  weight = blurred(mask)
  mean = (images * mask).sum((1, 2), keepdims=True) / jnp.maximum(mask.sum((1, 2), keepdims=True), 1)
  near = jnp.where(weight > 0, blurred(images * mask) / jnp.maximum(weight, 1), mean)
  return jnp.where(mask > 0, images, near)


def check_mask(mask: np.ndarray, images: np.ndarray) -> np.ndarray:
  """Returns a mask as float32 [batch, height, width, 1], 1 where visible; raises if it does not fit the images."""
  mask = np.asarray(mask)
  mask = mask[None] if mask.ndim == 2 else mask
  mask = (mask[..., None] if mask.ndim == 3 else mask) != 0
  if mask.shape != (len(images), *images.shape[1:3], 1):
    raise InputError(f"mask: is {list(mask.shape[1:3])}, the image is {list(images.shape[1:3])}; they must be equal")
  if not mask.any((1, 2, 3)).all():
    raise InputError("mask: nothing is visible; non-zero pixels mark what is to be kept")
  return mask.astype(np.float32)


@functools.cache
def reducing_matrix(length: int, scale: int, kernel: str = "bicubic") -> np.ndarray:
  """Returns the matrix [length / scale, length] that reduces an axis, rows of sum 1."""
  number = length // scale
  if kernel == "box":
    return np.kron(np.eye(number), np.full((1, scale), 1 / scale)).astype(np.float32)
  return _interpolating(number, length, scale, scale)


@functools.cache
def enlarging_matrix(length: int, scale: int) -> np.ndarray:
  """Returns the matrix [length * scale, length] of bicubic interpolation, rows of sum 1."""
  return _interpolating(length * scale, length, 1 / scale, 1)


def _interpolating(number: int, length: int, step: float, width: float) -> np.ndarray:
  """Keys's kernel, `width` pixels wide, around `number` centers at distance `step`."""
  center = step * (np.arange(number) + 0.5)
  x = np.abs(np.arange(length) + 0.5 - center[:, None]) / width
  weight = np.where(x < 1, (1.5 * x - 2.5) * x**2 + 1, np.where(x < 2, ((2.5 - 0.5 * x) * x - 4) * x + 2, 0))
  return (weight / weight.sum(1, keepdims=True)).astype(np.float32)


def _along_axes(matrices: list[np.ndarray], images: Images) -> Images:
  rows, columns = map(jnp.asarray, matrices)
  return jnp.einsum("ih,bhwc,jw->bijc", rows, images, columns, precision=jax.lax.Precision.HIGHEST)
