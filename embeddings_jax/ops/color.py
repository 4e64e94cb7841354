"""Colors in CIE Lab, their bins, soft targets and rarity.

sRGB (IEC 61966-2-1) to XYZ to Lab with the white point D65 of 2 degrees; the constants are those of scikit-image.
L lies in [0, 100]; over sRGB a lies in [-86.2, 98.2], b in [-107.9, 94.5].

Zhang, Isola, Efros 2016 (arXiv:1603.08511), section 2.2: ab is quantized with a grid of 10, "keeping the Q = 313
values which are in gamut". Bins of this size whose nearest points are colors of sRGB are 261: cells [10 i - 5, 10 i +
5] that the cube of all 2^24 colors meets (5: 969, 15: 126, 20: 77). Cells [10 i, 10 i + 10] would be 268. No rule
that we tried gives 313; `bin_file` of the model takes any bins.
"""
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from embeddings_jax.types import InputError

TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
WHITE = (0.95047, 1.0, 1.08883)
_LINEAR = 0.008856  # Below it the cube root is replaced by a line.


def rgb_to_lab(rgb: Float[Array, "*shape 3"]) -> Float[Array, "*shape 3"]:
  """Returns Lab of sRGB in [0, 1]."""
  return _lab(rgb, jnp)


def _lab(rgb, np):
  linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
  # Sums by hand: a matrix unit would round them.
  xyz = [sum(weight * linear[..., i] for i, weight in enumerate(row)) / white for row, white in zip(TO_XYZ, WHITE)]
  x, y, z = (np.where(value > _LINEAR, np.cbrt(value), 7.787 * value + 16 / 116) for value in xyz)
  return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def lab_to_rgb(lab: Float[Array, "*shape 3"]) -> Float[Array, "*shape 3"]:
  """Returns sRGB of Lab, clipped to [0, 1]."""
  y = (lab[..., 0] + 16) / 116
  x, z = y + lab[..., 1] / 500, jnp.maximum(y - lab[..., 2] / 200, 0)
  xyz = [white * jnp.where(value > 0.2068966, value**3, (value - 16 / 116) / 7.787)
         for value, white in zip((x, y, z), WHITE)]
  linear = [sum(float(weight) * xyz[i] for i, weight in enumerate(row)) for row in np.linalg.inv(np.array(TO_XYZ))]
  linear = jnp.stack(linear, -1)
  curved = 1.055 * jnp.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
  return jnp.clip(jnp.where(linear > 0.0031308, curved, 12.92 * linear), 0, 1)


@functools.cache
def ab_bins(size: int = 10) -> np.ndarray:
  """Returns the centers of the bins of a grid of `size` that hold colors of sRGB, by a and then b, float32 [Q, 2].

  The faces of the cube reach as far as the whole of it: along L, each color ends at a face.
  """
  if not 5 <= size <= 20:
    raise InputError(f"bin_size={size}: must be from 5 to 20")
  levels = np.arange(256) / 255
  u, v = np.meshgrid(levels, levels, indexing="ij")
  faces = [np.roll(np.stack([np.full_like(u, end), u, v], -1), axis, -1) for end in (0, 1) for axis in range(3)]
  return (np.unique(np.round(_lab(np.stack(faces), np)[..., 1:].reshape(-1, 2) / size), axis=0) * size).astype(
      np.float32) + 0


def check_bins(table: np.ndarray, name: str) -> np.ndarray:
  """Returns bin centers as float32 [Q, 2]; `name` names them in errors."""
  if table.ndim != 2 or table.shape[1] != 2 or len(table) < 5:
    raise InputError(f"{name}: holds {list(table.shape)}, expected at least 5 rows of a and b")
  if np.abs(table).max() > 128 or len(np.unique(table, axis=0)) < len(table):
    raise InputError(f"{name}: bins must lie in [-128, 128] and differ from each other")
  return table.astype(np.float32)


def soft_targets(ab: Float[Array, "*shape 2"], bins: Float[Array, "q 2"], num: int = 5, sigma: float = 5.0) -> tuple[
    Int[Array, "*shape {num}"], Float[Array, "*shape {num}"]]:
  """Returns the `num` nearest bins, the nearest first, and their weights: a Gaussian of the distance, sum 1."""
  distance = jnp.square(ab[..., None, :] - bins).sum(-1)
  near, index = jax.lax.top_k(-distance, num)
  return index, jax.nn.softmax(near / (2 * sigma**2), -1)


def smoothed_shares(counts: Float[Array, " q"], bins: Float[Array, "q 2"], sigma: float = 5.0) -> Float[Array, " q"]:
  """Returns p, shares of the bins smoothed by a Gaussian in ab; without counts all are equal."""
  total = counts.sum()
  share = jnp.where(total > 0, counts / jnp.maximum(total, 1), 1 / len(bins))
  kernel = jnp.exp(-jnp.square(bins[:, None] - bins).sum(-1) / (2 * sigma**2))
  return jnp.matmul(kernel / kernel.sum(0), share, precision="highest")


def rarity_weights(shares: Float[Array, " q"], mix: float = 0.5) -> Float[Array, " q"]:
  """Returns w in proportion to 1 / ((1 - mix) p + mix / Q) with sum p w = 1 (equation 4 of the paper)."""
  weights = 1 / ((1 - mix) * shares + mix / len(shares))
  return weights / (shares * weights).sum()


def annealed_mean(logits: Float[Array, "*shape q"], bins: Float[Array, "q 2"], temperature: float = 0.38) -> Float[
    Array, "*shape 2"]:
  """Returns ab as the mean of the bins under softmax(logits / T): from the mean (T = 1) to the mode (T near 0)."""
  return jnp.matmul(jax.nn.softmax(logits / temperature, -1), bins, precision="highest")
