"""Measures of how close images are to others, and of artifacts.

  PSNR = -10 log10(MSE)  of pixels in [0, 1]
  SSIM = mean over places and channels of (2 m_x m_y + c1)(2 s_xy + c2) / ((m_x^2 + m_y^2 + c1)(s_x^2 + s_y^2 + c2)),
         c1 = .01^2, c2 = .03^2 (Wang, Bovik, Sheikh & Simoncelli 2004)

with means m, variances s^2 and covariance s_xy of an 11 x 11 window of Gaussian weights, deviation 1.5, as in that
paper; smaller images take the largest odd window that fits. Only whole windows count. scikit-image's
`structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1)` is the same.
"""
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

WINDOW, SIGMA = 11, 1.5
_LEAST = 1e-12

Images = Float[Array, "batch height width channels"]


def mse(x: Images, y: Images) -> Float[Array, " batch"]:
  """Returns the mean squared error of each image."""
  return jnp.square(x - y).mean((1, 2, 3))


def psnr(x: Images, y: Images) -> Float[Array, " batch"]:
  """Returns the peak signal-to-noise ratio of each image, dB; 120 at most."""
  return -10 * jnp.log10(jnp.maximum(mse(x, y), _LEAST))


def ssim(x: Images, y: Images) -> Float[Array, " batch"]:
  """Returns the structural similarity of each image, in [-1, 1]."""
  size = min(WINDOW, *x.shape[1:3])
  size -= 1 - size % 2
  weights = np.exp(-0.5 * np.square((np.arange(size) - size // 2) / SIGMA))
  weights = weights / weights.sum()
  bands = [jnp.asarray(_band(weights, length), jnp.float32) for length in x.shape[1:3]]

  def mean(z):  # As two products: a separable filter over whole windows.
    return jnp.einsum("ih,bhwc,jw->bijc", bands[0], z, bands[1], precision=jax.lax.Precision.HIGHEST)

  mean_x, mean_y = mean(x), mean(y)
  covariance = lambda a, b, mean_a, mean_b: mean(a * b) - mean_a * mean_b
  c1, c2 = 0.01**2, 0.03**2
  above = (2 * mean_x * mean_y + c1) * (2 * covariance(x, y, mean_x, mean_y) + c2)
  below = (mean_x**2 + mean_y**2 + c1) * (covariance(x, x, mean_x, mean_x) + covariance(y, y, mean_y, mean_y) + c2)
  return (above / below).mean((1, 2, 3))


def checkerboard(x: Images, stride: int = 2) -> Float[Array, " batch"]:
  """Returns the share of an image's variance at the stride's frequency and its harmonics.

  These are the frequencies that repeat every `stride` pixels, whose energy is the variance of the means over places
  with the same remainders. A checkerboard has 1, white noise (stride^2 - 1) / (height * width - 1), smooth images
  almost 0. Sides that the stride does not divide are cropped.
  """
  batch, height, width, channels = x.shape
  rows, columns = height // stride, width // stride
  x = x[:, :rows * stride, :columns * stride]
  means = x.reshape(batch, rows, stride, columns, stride, channels).mean((1, 3))
  return means.var((1, 2)).mean(1) / jnp.maximum(x.var((1, 2)).mean(1), _LEAST)


def _band(weights: np.ndarray, length: int) -> np.ndarray:
  """Matrix [length - n + 1, length] that takes weighted means of whole windows."""
  rows = length - len(weights) + 1
  band = np.zeros((rows, length))
  for i in range(rows):
    band[i, i:i + len(weights)] = weights
  return band
