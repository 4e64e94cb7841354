"""Holes in images: the regions that a context encoder fills, on the device.

Pathak et al. 2016 (arXiv:1604.07379), section 3.3. A mask is float32 [height, width], 1 in the hole; it is drawn anew
for each image and step.
"""
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from embeddings_jax.types import InputError

HOLES = ("center", "blocks", "region", "top", "left")
NUM_BLOCKS = 3


def hole(rng: Array, name: str, height: int, width: int, area: float = 0.25) -> Float[Array, "{height} {width}"]:
  """Returns a mask.

  Args:
    rng: Key; `center`, `top` and `left` are the same for all.
    name: `center` a rectangle in the middle, `blocks` the union of three random rectangles, each of up to `area` /
      2, `region` a random shape, `top` or `left` that half of the image.
    height, width: Size of the image.
    area: Fraction of the image in the hole; of blocks, which may overlap, it is not exact.
  """
  if name not in HOLES:
    raise InputError(f"hole={name!r}: must be one of {', '.join(HOLES)}")
  if not 0 < area < 1:
    raise InputError(f"area={area}: must lie in (0, 1)")
  rows, columns = jnp.arange(height)[:, None], jnp.arange(width)

  def rectangle(top, left, tall, wide):
    return (rows >= top) & (rows < top + tall) & (columns >= left) & (columns < left + wide)

  if name == "center":
    tall, wide = (max(1, round(length * area**0.5)) for length in (height, width))
    holes = rectangle((height - tall) // 2, (width - wide) // 2, tall, wide)
  elif name == "blocks":
    def block(rng):
      rng_size, rng_place = jax.random.split(rng)
      share = (area / 2) ** 0.5 * jax.random.uniform(rng_size, (2,), minval=0.5)
      tall, wide = jnp.maximum(1, jnp.round(share * jnp.array([height, width])))
      room = jnp.array([height - tall + 1, width - wide + 1])
      return rectangle(*jnp.floor(room * jax.random.uniform(rng_place, (2,))), tall, wide)

    holes = jax.vmap(block)(jax.random.split(rng, NUM_BLOCKS)).any(0)
  elif name == "region":
    coarse = jax.random.normal(rng, (5, 5))
    smooth = jax.image.resize(coarse, (height, width), "cubic")
    holes = smooth >= jnp.quantile(smooth, 1 - area)
  else:
    holes = rectangle(0, 0, *((height // 2, width) if name == "top" else (height, width // 2)))
  return holes.astype(jnp.float32)


def eroded(mask: Float[Array, "height width"], pixels: int) -> Float[Array, "height width"]:
  """Returns the part of a hole farther than `pixels` from what is seen; the edge of the image is no border."""
  size = 2 * pixels + 1
  return jax.lax.reduce_window(mask, 1.0, jax.lax.min, (size, size), (1, 1), "SAME")


def border_jump(
    images: Float[Array, "batch height width channels"], masks: Float[Array, "batch height width"],
) -> Float[Array, " batch"]:
  """Returns the mean absolute difference of neighboring pixels across the borders of holes."""
  total, number = 0.0, 0.0
  for axis in (1, 2):
    across = jnp.abs(jnp.diff(masks, axis=axis))
    total += (across * jnp.abs(jnp.diff(images, axis=axis)).mean(-1)).sum((1, 2))
    number += across.sum((1, 2))
  return total / jnp.maximum(number, 1)
