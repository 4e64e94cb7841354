"""Distortions of a patch that keep what it shows: surrogate classes of exemplar networks, on the device.

Dosovitskiy et al. 2014 (arXiv:1406.6909), section 2.1. Functions on one image take float32 [height, width, channels]
in [0, 1] and give the same.
"""
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from embeddings_jax.ops.augment import adjust_hue


def warped(
    image: Float[Array, "height width channels"], size: int, *, translation: Array | tuple[float, float] = (0.0, 0.0),
    scale: float | Float[Array, ""] = 1.0, angle: float | Float[Array, ""] = 0.0,
) -> Float[Array, "{size} {size} channels"]:
  """Returns a square patch around the middle of an image, moved, scaled and turned; bilinear, mirrored outside.

  Args:
    image: Image.
    size: Size of the patch in pixels.
    translation: Rows and columns by which the middle of the patch is moved, in pixels.
    scale: Size of what the patch shows, by its own size; above 1 it shows more.
    angle: Angle of the turn in radians.
  """
  coordinate = jnp.arange(size) - (size - 1) / 2
  rows, columns = jnp.meshgrid(coordinate, coordinate, indexing="ij")
  cos, sin = scale * jnp.cos(angle), scale * jnp.sin(angle)
  middle = (jnp.array(image.shape[:2]) - 1) / 2 + jnp.asarray(translation)
  where = jnp.stack([middle[0] + cos * rows + sin * columns, middle[1] - sin * rows + cos * columns])
  sample = lambda channel: jax.scipy.ndimage.map_coordinates(channel, where, order=1, mode="mirror")
  return jax.vmap(sample, -1, -1)(image)


def color_axes(images: Float[Array, "batch height width channels"], mask: Float[Array, " batch"]) -> tuple[
    Float[Array, " channels"], Float[Array, "channels channels"]]:
  """Returns the mean of all pixels of valid images, and their principal axes as columns."""
  weights = jnp.broadcast_to(mask[:, None, None], images.shape[:3])
  total = jnp.maximum(weights.sum(), 1)
  mean = jnp.einsum("nhw,nhwc->c", weights, images, precision="highest") / total
  around = images - mean
  covariance = jnp.einsum("nhw,nhwc,nhwd->cd", weights, around, around, precision="highest") / total
  return mean, jnp.linalg.eigh(covariance)[1]


def scaled_along(
    image: Float[Array, "height width channels"], mean: Float[Array, " channels"],
    axes: Float[Array, "channels channels"], factors: Float[Array, " channels"],
) -> Float[Array, "height width channels"]:
  """Returns colors whose distance from the mean is multiplied along each principal axis (the first contrast)."""
  matrix = jnp.matmul(axes * factors, axes.T, precision="highest")
  return jnp.clip(mean + jnp.matmul(image - mean, matrix, precision="highest"), 0, 1)


def changed_saturation_and_value(
    image: Float[Array, "height width 3"], power: Float[Array, "2"], factor: Float[Array, "2"], offset: Float[Array,
      "2"],
) -> Float[Array, "height width 3"]:
  """Returns colors of the same hue with factor x^power + offset, clipped to [0, 1], for x the saturation and the
  value in HSV (the second contrast); the arguments are those of saturation first."""
  value = image.max(-1, keepdims=True)
  spread = value - image.min(-1, keepdims=True)
  saturation = spread / jnp.maximum(value, 1e-6)
  below = (value - image) / jnp.where(spread > 0, spread, 1)  # From 0 at the largest channel to 1 at the smallest.
  saturation = jnp.clip(factor[0] * saturation ** power[0] + offset[0], 0, 1)
  value = jnp.clip(factor[1] * value ** power[1] + offset[1], 0, 1)
  # Gray has no hue, and gets no saturation.
  return value - value * jnp.where(spread > 0, saturation, 0) * below


def distorted(
    rng: Array, image: Float[Array, "height width channels"], size: int, mean: Float[Array, " channels"],
    axes: Float[Array, "channels channels"], *, translation: float, scale: tuple[float, float], angle: float, hue:
      float,
) -> Float[Array, "{size} {size} channels"]:
  """Returns a random distortion: warp, both contrasts and hue, with the ranges of section 2.1.

  Contrasts: factors of 0.5 to 2 along the axes; powers of 0.25 to 4, factors of 0.7 to 1.4 and offsets of -0.1 to 0.1
  of saturation and value. Ranges of factors and powers are uniform in the logarithm.

  Args:
    rng: Key.
    image: Image.
    size: Size of the patch in pixels.
    mean, axes: See `color_axes`.
    translation: Largest move in each direction, by the size.
    scale: Range of the scale.
    angle: Largest angle in radians.
    hue: Largest move of the hue, in turns.
  """
  keys = jax.random.split(rng, 8)
  uniform = lambda key, low, high, shape=(): jax.random.uniform(key, shape, minval=low, maxval=high)
  among = lambda key, low, high, shape=(): jnp.exp(uniform(key, jnp.log(low), jnp.log(high), shape))
  patch = warped(image, size, translation=size * uniform(keys[0], -translation, translation, (2,)),
                 scale=among(keys[1], *scale), angle=uniform(keys[2], -angle, angle))
  patch = scaled_along(jnp.clip(patch, 0, 1), mean, axes, among(keys[3], 0.5, 2.0, (patch.shape[2],)))
  power, factor = among(keys[4], 0.25, 4.0, (2,)), among(keys[5], 0.7, 1.4, (2,))
  offset = uniform(keys[6], -0.1, 0.1, (2,))
  if patch.shape[2] == 3:
    return adjust_hue(changed_saturation_and_value(patch, power, factor, offset), uniform(keys[7], -hue, hue))
  return jnp.clip(factor[1] * patch ** power[1] + offset[1], 0, 1)
