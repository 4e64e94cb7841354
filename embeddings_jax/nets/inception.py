"""Inception v3 (Szegedy et al. 2016, arXiv:1512.00567), in the variant whose features FID compares.

  images [B, 299, 299, 3] in [-1, 1] -> 35 x 35 x 192 -> A A A -> 17 x 17 x 768: C C C C -> 8 x 8 x 1280 -> E E
  -> the mean over all places, [B, 2048]

  layers    Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3, maximum, Conv2d_3b_1x1 Conv2d_4a_3x3, maximum
  A         Mixed_5b Mixed_5c Mixed_5d    B  Mixed_6a, to half the side
  C         Mixed_6b ... Mixed_6e         D  Mixed_7a, to half the side
  E         Mixed_7b Mixed_7c

The variant is that of the weights TensorFlow's graph had: averages in the branches of A, C and the first E divide by
the places inside the image, and the last E has a maximum in place of the average. Every convolution is followed by a
ReLU; its batch normalization, at inference an affine function, is part of kernel and bias (`interop/inception.py`).

Parameters: layers and branches by torchvision's names, `Mixed_5b/branch5x5_1`; `kernel` and `bias`.
"""
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

SIZE = 299
DIM = 2048
LAYERS = (("Conv2d_1a_3x3", 32, 3, 2, 0), ("Conv2d_2a_3x3", 32, 3, 1, 0), ("Conv2d_2b_3x3", 64, 3, 1, 1), (),
          ("Conv2d_3b_1x1", 80, 1, 1, 0), ("Conv2d_4a_3x3", 192, 3, 1, 0), ())  # () is a maximum.


def convolved(x: Float[Array, "b h w c"], name: str, features: int, kernel: Any, strides: int = 1,
              padding: Any = 0) -> Float[Array, "b new_h new_w features"]:
  """Returns a convolution and its ReLU, inside a module; kernel and padding are one number or (rows, columns)."""
  pair = lambda value: (value, value) if isinstance(value, int) else value
  pads = [(p, p) for p in pair(padding)]
  return nn.relu(nn.Conv(features, pair(kernel), (strides, strides), pads, name=name)(x))


def average(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
  """Returns means over 3 x 3 places, at the edges over those inside the image."""
  return nn.avg_pool(x, (3, 3), padding=((1, 1), (1, 1)), count_include_pad=False)


def halved(x: Float[Array, "b h w c"]) -> Float[Array, "b new_h new_w c"]:
  """Returns maxima of 3 x 3 places, every other one."""
  return nn.max_pool(x, (3, 3), (2, 2))


class BlockA(nn.Module):
  """Branches of 1 x 1, 5 x 5 and twice 3 x 3."""

  pool: int

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
    parts = [convolved(x, "branch1x1", 64, 1)]
    parts.append(convolved(convolved(x, "branch5x5_1", 48, 1), "branch5x5_2", 64, 5, 1, 2))
    y = convolved(convolved(x, "branch3x3dbl_1", 64, 1), "branch3x3dbl_2", 96, 3, 1, 1)
    parts.append(convolved(y, "branch3x3dbl_3", 96, 3, 1, 1))
    parts.append(convolved(average(x), "branch_pool", self.pool, 1))
    return jnp.concatenate(parts, -1)


class BlockB(nn.Module):
  """To half the side, by 3 x 3."""

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b new_h new_w d"]:
    y = convolved(convolved(x, "branch3x3dbl_1", 64, 1), "branch3x3dbl_2", 96, 3, 1, 1)
    parts = [convolved(x, "branch3x3", 384, 3, 2), convolved(y, "branch3x3dbl_3", 96, 3, 2), halved(x)]
    return jnp.concatenate(parts, -1)


class BlockC(nn.Module):
  """Branches of 7 x 7 by 1 x 7 and 7 x 1."""

  width: int

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
    row, column = dict(kernel=(1, 7), padding=(0, 3)), dict(kernel=(7, 1), padding=(3, 0))
    parts = [convolved(x, "branch1x1", 192, 1)]
    for branch, shapes in (("branch7x7", (row, column)), ("branch7x7dbl", (column, row, column, row))):
      y = convolved(x, f"{branch}_1", self.width, 1)
      for i, shape in enumerate(shapes, 2):
        y = convolved(y, f"{branch}_{i}", 192 if i == len(shapes) + 1 else self.width, **shape)
      parts.append(y)
    parts.append(convolved(average(x), "branch_pool", 192, 1))
    return jnp.concatenate(parts, -1)


class BlockD(nn.Module):
  """To half the side, by 3 x 3 and 7 x 7."""

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b new_h new_w d"]:
    parts = [convolved(convolved(x, "branch3x3_1", 192, 1), "branch3x3_2", 320, 3, 2)]
    y = convolved(convolved(x, "branch7x7x3_1", 192, 1), "branch7x7x3_2", 192, (1, 7), 1, (0, 3))
    y = convolved(y, "branch7x7x3_3", 192, (7, 1), 1, (3, 0))
    parts += [convolved(y, "branch7x7x3_4", 192, 3, 2), halved(x)]
    return jnp.concatenate(parts, -1)


class BlockE(nn.Module):
  """Branches that end in 1 x 3 and 3 x 1 side by side; `last` has the maximum of 3 x 3 places for their mean."""

  last: bool

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
    parts = [convolved(x, "branch1x1", 320, 1)]
    y = convolved(convolved(x, "branch3x3dbl_1", 448, 1), "branch3x3dbl_2", 384, 3, 1, 1)
    for branch, z, i in (("branch3x3", convolved(x, "branch3x3_1", 384, 1), 2), ("branch3x3dbl", y, 3)):
      parts += [convolved(z, f"{branch}_{i}a", 384, (1, 3), 1, (0, 1)),
                convolved(z, f"{branch}_{i}b", 384, (3, 1), 1, (1, 0))]
    pooled = nn.max_pool(x, (3, 3), padding=((1, 1), (1, 1))) if self.last else average(x)
    return jnp.concatenate([*parts, convolved(pooled, "branch_pool", 192, 1)], -1)


BLOCKS = {
    "Mixed_5b": (BlockA, (32,)), "Mixed_5c": (BlockA, (64,)), "Mixed_5d": (BlockA, (64,)), "Mixed_6a": (BlockB, ()),
    "Mixed_6b": (BlockC, (128,)), "Mixed_6c": (BlockC, (160,)), "Mixed_6d": (BlockC, (160,)),
    "Mixed_6e": (BlockC, (192,)), "Mixed_7a": (BlockD, ()), "Mixed_7b": (BlockE, (False,)),
    "Mixed_7c": (BlockE, (True,))}


class Inception(nn.Module):
  """Images in [-1, 1], of 299 x 299 or another size from 75 on, to features."""

  @nn.compact
  def __call__(self, x: Float[Array, "b h w 3"]) -> Float[Array, "b 2048"]:
    for layer in LAYERS:
      x = convolved(x, *layer) if layer else halved(x)
    for name, (block, options) in BLOCKS.items():
      x = block(*options, name=name)(x)
    return x.mean((1, 2))


def resized(images: Float[Array, "b h w c"]) -> Float[Array, "b 299 299 3"]:
  """Returns images in [0, 1] at the network's size and range: bilinear, without smoothing where they shrink, gray as
  three equal channels."""
  images = jnp.broadcast_to(images, (*images.shape[:3], 3)) if images.shape[-1] == 1 else images
  shape = (len(images), SIZE, SIZE, 3)
  return 2 * jax.image.resize(images, shape, "bilinear", antialias=False) - 1


def shapes() -> dict[str, Any]:
  """Returns the shapes of all parameters, nested by names."""
  image = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
  return jax.eval_shape(Inception().init, jax.random.key(0), image)["params"]
