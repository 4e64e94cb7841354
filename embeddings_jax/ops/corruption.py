"""Random corruption of images, as denoising autoencoders remove it (Vincent et al. 2008, 2010)."""
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from embeddings_jax.types import InputError

CORRUPTIONS = ("none", "gaussian", "masking", "salt_and_pepper")
LEVELS = {"gaussian": "standard deviation of the noise", "masking": "fraction of the pixels set to 0",
          "salt_and_pepper": "fraction of the pixels set to 0 or 1"}

Images = Float[Array, "batch height width channels"]


def check_corruption(kind: str, level: float) -> None:
  """Raises unless there is such a corruption, and its level is in range."""
  if kind not in CORRUPTIONS:
    raise InputError(f"corruption={kind!r}: must be one of {', '.join(CORRUPTIONS)}")
  if kind != "none" and not 0 < level <= (1 if kind != "gaussian" else float("inf")):
    raise InputError(f"corruption_level={level}: must be above 0{'' if kind == 'gaussian' else ' and at most 1'}; "
                     f"for {kind} it is the {LEVELS[kind]}")


def corrupted(rng: Array, images: Images, kind: str, level: float) -> Images:
  """Returns corrupted images.

  Args:
    rng: A key.
    images: Values in [0, 1].
    kind: `none`; `gaussian`, additive and not clipped; `masking`, pixels are set to 0 with all their channels;
      `salt_and_pepper`, pixels are set to 0 or 1 with equal probability.
    level: See `LEVELS`.
  """
  if kind == "none":
    return images
  if kind == "gaussian":
    return images + level * jax.random.normal(rng, images.shape)
  # One number tells whether a pixel is changed, and to what.
  noise = jax.random.uniform(rng, (*images.shape[:3], 1))
  value = 0.0 if kind == "masking" else (noise < level / 2).astype(images.dtype)
  return jnp.where(noise < level, value, images)
