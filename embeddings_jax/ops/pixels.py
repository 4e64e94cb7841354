"""Images as numbers: what a file holds, and what networks are given."""
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped


def to_float(images: Shaped[Array, "*shape channels"]) -> Float[Array, "*shape channels"]:
  """float32 in [0, 1]: bytes are divided by 255, floats are so already."""
  return images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images.astype(jnp.float32)


def standardized(
    images: Shaped[Array, "*shape channels"], mean: float | Sequence[float], std: float | Sequence[float],
) -> Float[Array, "*shape channels"]:
  """(x - mean) / std of pixels x in [0, 1]; `mean` and `std` are one number, or one for each channel."""
  return (to_float(images) - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)
