"""Differentiable augmentation for GANs with little data (Zhao et al. 2020, arXiv:2006.10738).

Real and generated images are changed alike before D sees them, and G's gradient passes through the changes. They are
those of the paper's appendix, without clipping, which would stop gradients:

  color        brightness shifted by up to .5 each way; saturation times [0, 2]; contrast times [.5, 1.5]
  translation  shifted by up to an eighth of each side; what comes in is black
  cutout       a random square of half of each side, partly beyond the edge, is gray
"""
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from embeddings_jax.ops.sharding import DATA_AXES, constrain
from embeddings_jax.types import InputError

CHANGES = ("color", "translation", "cutout")


def check_changes(names: tuple[str, ...]) -> None:
  """Raises unless the names are known."""
  for name in names:
    if name not in CHANGES:
      raise InputError(f"augmentation={name!r}: must be of {', '.join(CHANGES)}")


def diff_augment(rng: Array, images: Float[Array, "n height width channels"], changes: tuple[str, ...]) -> Float[
    Array, "n height width channels"]:
  """Returns changed images, pixels in [-1, 1] before and about so after; draws do not depend on the mesh."""
  if not changes:
    return images
  numbers = constrain(jnp.arange(len(images)), P(DATA_AXES))

  def change(number, image):
    keys = jax.random.split(jax.random.fold_in(rng, number), len(changes))
    for key, name in zip(keys, changes):
      image = {"color": recolored, "translation": translated, "cutout": cut_out}[name](key, image)
    return image

  return jax.vmap(change)(numbers, images)


def recolored(rng: Array, image: Float[Array, "height width channels"]) -> Float[Array, "height width channels"]:
  """Returns an image with another brightness, saturation and contrast."""
  shift, saturation, contrast = jax.random.uniform(rng, (3,))
  image = image + shift - 0.5
  gray = image.mean(-1, keepdims=True)
  image = gray + 2 * saturation * (image - gray)
  return image.mean() + (0.5 + contrast) * (image - image.mean())


def translated(rng: Array, image: Float[Array, "height width channels"]) -> Float[Array, "height width channels"]:
  """Returns a shifted image; pixels from outside are -1."""
  rooms = [round(length / 8) for length in image.shape[:2]]
  keys = jax.random.split(rng)
  down, right = (jax.random.randint(key, (), -room, room + 1) for key, room in zip(keys, rooms))
  rows = (jnp.arange(image.shape[0])[:, None] - down == jnp.arange(image.shape[0])).astype(image.dtype)
  columns = (jnp.arange(image.shape[1])[:, None] - right == jnp.arange(image.shape[1])).astype(image.dtype)
  moved = jnp.einsum("ih,hwc->iwc", rows, image + 1, precision="highest")
  return jnp.einsum("jw,iwc->ijc", columns, moved, precision="highest") - 1


def cut_out(rng: Array, image: Float[Array, "height width channels"]) -> Float[Array, "height width channels"]:
  """Returns an image with a gray rectangle of half its height and width; its middle is any pixel."""
  inside = []
  for key, length in zip(jax.random.split(rng), image.shape[:2]):
    first = jax.random.randint(key, (), 0, length) - length // 4
    inside.append((jnp.arange(length) >= first) & (jnp.arange(length) < first + length // 2))
  return jnp.where((inside[0][:, None] & inside[1])[..., None], 0, image)
