"""Images as grids of patches, and a small residual network that reads one patch."""
from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Shaped

from embeddings_jax.types import InputError


def grid(length: int, size: int, stride: int) -> int:
  """Patches of `size` pixels, `stride` apart, along `length` pixels; a rest at the end is in none."""
  if size > length or stride < 1:
    raise InputError(f"patch_size={size}, a patch every {stride} pixels: does not fit images of {length} pixels")
  return (length - size) // stride + 1


def image_patches(
    images: Shaped[Array, "batch height width channels"], size: int, stride: int,
) -> Shaped[Array, "batch rows columns {size} {size} channels"]:
  """Square patches of `size` pixels, `stride` apart, in rows from the top and columns from the left."""
  _, height, width, _ = images.shape
  rows, columns = (stride * jnp.arange(grid(n, size, stride))[:, None] + jnp.arange(size) for n in (height, width))
  return jnp.moveaxis(images[:, rows][:, :, :, columns], 2, 3)


def check_divides(patch_size: int, height: int, width: int) -> tuple[int, int]:
  """Rows and columns of patches that an image is cut into without a rest."""
  if patch_size < 1 or height % patch_size or width % patch_size:
    raise InputError(f"patch_size={patch_size}: does not divide images of {height} x {width} pixels; take another "
                     "patch_size or other images")
  return height // patch_size, width // patch_size


def unfold(
    images: Shaped[Array, "batch height width channels"], size: int,
) -> Shaped[Array, "batch patches pixels"]:
  """Images cut into squares of `size` pixels, in rows from the top; a patch's values by row, column, channel."""
  batch, height, width, channels = images.shape
  rows, columns = check_divides(size, height, width)
  images = images.reshape(batch, rows, size, columns, size, channels)
  return images.swapaxes(2, 3).reshape(batch, rows * columns, size * size * channels)


def fold(
    patches: Shaped[Array, "batch patches pixels"], size: int, shape: Sequence[int],
) -> Shaped[Array, "batch height width channels"]:
  """The images of `shape` (height, width, channels) that `unfold` cuts into `patches`."""
  height, width, channels = shape
  rows, columns = check_divides(size, height, width)
  patches = patches.reshape(len(patches), rows, columns, size, size, channels)
  return patches.swapaxes(2, 3).reshape(len(patches), height, width, channels)


class PatchEncoder(nn.Module):
  """A convolution, residual blocks, and the mean over pixels.

  Each block is that of He et al. 2016 (arXiv:1603.05027, figure 1b), with LayerNorm over the channels of a pixel for
  BatchNorm, by which patches of one batch would tell of each other:

    x' = s(x) + conv(relu(norm(conv(relu(norm(x)))))),   s: the identity, or a 1 x 1 convolution where shapes differ

  Convolutions are shifted slices and one matrix product. Forward and backward of 1,568 patches of 8 x 8 through
  channels (32, 64, 128), strides (2, 1, 2), took .6 s on two busy CPU cores, with XLA's own convolutions 2.7 s (jax
  0.10).

  Attributes:
    channels, kernel_sizes, strides: Channels, kernel sizes and strides of the first convolution, then of each block.
    norm: LayerNorm; without it the blocks have none.
    dtype: Data type of the computation; parameters and statistics are float32.
  """

  channels: Sequence[int]
  kernel_sizes: Sequence[int]
  strides: Sequence[int]
  norm: bool = True
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "patches height width features"]) -> Float[Array, "patches channels"]:
    def activated(x, name):
      return nn.relu(nn.LayerNorm(dtype=self.dtype, name=name)(x) if self.norm else x)

    def conv(x, channels, kernel_size, stride, name):
      return nn.Dense(channels, dtype=self.dtype, name=name)(_shifted(x, kernel_size, stride))

    x = conv(x, self.channels[0], self.kernel_sizes[0], self.strides[0], "stem")
    for i, layer in enumerate(zip(self.channels[1:], self.kernel_sizes[1:], self.strides[1:])):
      channels, kernel_size, stride = layer
      y = activated(x, f"norm_{i}_0")
      y = conv(y, *layer, f"conv_{i}_0")
      y = conv(activated(y, f"norm_{i}_1"), channels, kernel_size, 1, f"conv_{i}_1")
      if x.shape[-1] != channels or stride > 1:
        x = conv(x, channels, 1, stride, f"shortcut_{i}")
      x = x + y
    return activated(x, "norm").mean((1, 2))


def _shifted(x: Array, kernel_size: int, stride: int) -> Array:
  """Returns a convolution's input at each position, [n, height / stride, width / stride, kernel_size² features],
  the image filled up with 0 around as far as is needed (`SAME`)."""
  low, positions = [], []
  for length in x.shape[1:3]:
    number = -(-length // stride)
    need = max(0, (number - 1) * stride + kernel_size - length)
    low.append((need // 2, need - need // 2))
    positions.append((number - 1) * stride + 1)
  x = jnp.pad(x, ((0, 0), *low, (0, 0)))
  return jnp.concatenate([x[:, i:i + positions[0]:stride, j:j + positions[1]:stride]
                          for i in range(kernel_size) for j in range(kernel_size)], axis=-1)
