"""A plain convolutional network: 3 x 3 convolutions with BatchNorm and ReLU, as small as AlexNet's trunk.

Krizhevsky et al. 2012 is the pattern: a few convolutions in a row, without shortcuts. Strided convolutions stand
for its max pooling, whose gradient is slow on CPUs. The defaults turn images of 32 x 32 pixels into maps of 32, 16,
8, 8, 8 and 8 pixels.

Parameters: `block_0`, `block_1`, ..., each with `conv` and `norm`; running statistics are the collection
`batch_stats`. Under a mesh the mean and variance are those of the global batch.
"""
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Shaped

from embeddings_jax.nets.grids import Grid, convolved, tapped
from embeddings_jax.ops.augment import resized
from embeddings_jax.ops.pixels import standardized
from embeddings_jax.types import InputError


class ConvNet(nn.Module):
  """Images to feature maps: [B, H, W, C] -> [B, H', W', D] with D the last block's channels.

  Attributes:
    channels: Output channels of each block.
    strides: Stride of each block.
    norm_affine: Whether BatchNorm has a scale and a shift.
    image_size: Images of another size are resized to squares of this one; 0: they are taken as they are.
    pixel_mean, pixel_std: Mean and standard deviation by which pixels in [0, 1] are standardized; a number, or one
      for each channel.
    norm_decay: Decay of the running statistics.
    dtype: Type of the convolutions; parameters and statistics are float32.
  """

  channels: Sequence[int] = (32, 64, 64, 96, 96, 96)
  strides: Sequence[int] = (1, 2, 2, 1, 1, 1)
  norm_affine: bool = True
  image_size: int = 0
  pixel_mean: float | Sequence[float] = 0.5
  pixel_std: float | Sequence[float] = 0.5
  norm_decay: float = 0.9
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
      self,
      images: Shaped[Array, "batch height width channels"],
      mask: Shaped[Array, " batch"] | None = None,
      *,
      deterministic: bool = True,
      collect: bool = False,
  ) -> Any:
    """Returns the last map [B, H', W', D], or with `collect` the maps of all blocks by name.

    BatchNorm uses the statistics of valid rows of the batch unless `deterministic`.
    """
    valid = None if mask is None or deterministic else (mask > 0)[:, None, None, None]
    x = standardized(resized(images, self.image_size), self.pixel_mean, self.pixel_std).astype(self.dtype)
    maps = {}
    for number, (channels, stride) in enumerate(zip(self.channels, self.strides)):
      x = _Block(channels, stride, self.norm_affine, self.norm_decay, self.dtype, name=f"block_{number}")(
          x, valid, deterministic)
      maps[f"block_{number}"] = x = tapped(self, f"block_{number}", x)
    return maps if collect else x

  def grids(self, height: int, width: int) -> dict[str, Grid]:
    """Returns where the places of each block lie in images of this size."""
    return convolved(height, width, {f"block_{i}": [(3, stride, 1)] for i, stride in enumerate(self.strides)},
                     self.image_size)

  def tokens(self, images: Shaped[Array, "batch height width channels"]) -> dict[str, Array]:
    """Returns the vectors of all places of each block, [B, places, D]."""
    return {name: x.reshape(len(x), -1, x.shape[-1]) for name, x in self(images, collect=True).items()}

  def first_filters(self, params: Mapping[str, Any]) -> Float[Array, "filters rows columns channels"]:
    """Returns the kernels of the first layer."""
    return jnp.moveaxis(jnp.asarray(params["block_0"]["conv"]["kernel"]), -1, 0)

  def features(self, batch: Mapping[str, Any], deterministic: bool = True) -> Float[Array, "batch places dim"]:
    """Returns the vectors of all places of the last map."""
    maps = self(batch["image"], batch.get("mask"), deterministic=deterministic)
    return maps.reshape(maps.shape[0], -1, maps.shape[-1])

  def layers(self, batch: Mapping[str, Any], deterministic: bool = True) -> Float[Array, "batch 1 places dim"]:
    """Returns `features` as the only layer: the maps of the blocks differ in shape."""
    return self.features(batch, deterministic)[:, None]

  def valid(self, batch: Mapping[str, Any]) -> Bool[Array, "batch places"]:
    """Returns all True: images are not padded."""
    return jnp.ones(self.features(batch).shape[:2], bool)


class _Block(nn.Module):
  """relu(BatchNorm(convolution(x)))."""

  channels: int
  stride: int
  affine: bool
  norm_decay: float
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x, valid, deterministic):
    x = nn.Conv(self.channels, (3, 3), (self.stride,) * 2, ((1, 1), (1, 1)), use_bias=False, dtype=self.dtype,
                kernel_init=nn.initializers.he_normal(), name="conv")(x)
    norm = nn.BatchNorm(deterministic, momentum=self.norm_decay, epsilon=1e-5, use_scale=self.affine,
                        use_bias=self.affine, dtype=self.dtype, name="norm")
    return nn.relu(norm(x, mask=valid))


def encoder(
    *,
    channels: Sequence[int] = (32, 64, 64, 96, 96, 96),
    strides: Sequence[int] = (1, 2, 2, 1, 1, 1),
    norm_affine: bool = True,
    image_size: int = 0,
    pixel_mean: float | Sequence[float] = 0.5,
    pixel_std: float | Sequence[float] = 0.5,
    norm_decay: float = 0.9,
    dtype: str = "float32",
) -> ConvNet:
  """Returns a `ConvNet` of checked hyperparameters."""
  if len(channels) != len(strides) or not channels:
    raise InputError(f"channels={tuple(channels)}, strides={tuple(strides)}: must be equally many, at least 1")
  if min(*channels, *strides) < 1 or image_size < 0 or not 0 <= norm_decay < 1:
    raise InputError(f"channels={tuple(channels)}, strides={tuple(strides)}, image_size={image_size}, "
                     f"norm_decay={norm_decay}: must be at least 1, at least 1, at least 0, and lie in [0, 1)")
  pixels = [tuple(value) if isinstance(value, Sequence) else value for value in (pixel_mean, pixel_std)]
  return ConvNet(tuple(channels), tuple(strides), norm_affine, image_size, *pixels, norm_decay, jnp.dtype(dtype))
