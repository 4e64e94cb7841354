"""Networks from images to maps and back, for discrete codes (van den Oord et al. 2017, section 4.1).

  encoder   for each width a 4 x 4 convolution of stride 2 and a(.), a 3 x 3 convolution, residual blocks, 1 x 1 to
            `dim`
  decoder   3 x 3 to the last width, residual blocks, transposed 4 x 4 convolutions of stride 2 with a(.) between them
  block     x + 1 x 1 convolution(a(3 x 3 convolution(a(x))))

a is LeakyReLU .1 in place of the paper's ReLU: where all codes are 0, as rounded scalars are at first, a ReLU would
have no gradient.
"""
from collections.abc import Sequence

from flax import linen as nn
from jaxtyping import Array, Float

from embeddings_jax.nets.images import Conv


class Block(nn.Module):
  """A residual block with `hidden` channels inside."""

  hidden: int

  @nn.compact
  def __call__(self, x: Float[Array, "batch rows columns dim"]) -> Float[Array, "batch rows columns dim"]:
    inside = Conv(self.hidden, 3, name="conv_0")(_activated(x))
    return x + Conv(x.shape[-1], 1, name="conv_1")(_activated(inside))


class MapEncoder(nn.Module):
  """Images to maps.

  Attributes:
    dim: Channels of the map.
    widths: Channels of each convolution of stride 2.
    num_blocks: Residual blocks.
  """

  dim: int
  widths: Sequence[int]
  num_blocks: int

  @nn.compact
  def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch rows columns dim"]:
    for i, width in enumerate(self.widths):
      x = _activated(Conv(width, 4, 2, name=f"conv_{i}")(x))
    x = Conv(self.widths[-1], 3, name="last")(x)
    for i in range(self.num_blocks):
      x = Block(max(1, self.widths[-1] // 2), name=f"block_{i}")(x)
    return Conv(self.dim, 1, name="code")(_activated(x))


class MapDecoder(nn.Module):
  """Maps to images, without a last activation; `widths` are those of the encoder.

  Attributes:
    channels: Channels of the images.
    widths, num_blocks: As of the encoder.
  """

  channels: int
  widths: Sequence[int]
  num_blocks: int

  @nn.compact
  def __call__(self, x: Float[Array, "batch rows columns dim"]) -> Float[Array, "batch height width channels"]:
    x = Conv(self.widths[-1], 3, name="first")(x)
    for i in range(self.num_blocks):
      x = Block(max(1, self.widths[-1] // 2), name=f"block_{i}")(x)
    for i, features in enumerate((*self.widths[-2::-1], self.channels)):
      x = Conv(features, 4, 2, True, name=f"conv_{i}")(_activated(x))
    return x


def _activated(x):
  return nn.leaky_relu(x, 0.1)
