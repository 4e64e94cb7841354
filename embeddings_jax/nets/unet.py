"""An hourglass of convolutions with skips, from images to images of the same size (Ronneberger et al. 2015).

  level i = 0 ...   3 x 3 convolutions to `widths[i]` channels, the first with stride 2 where i > 0
  back              pixels repeated, joined by the map of the level above, 3 x 3 convolutions
  last              1 x 1 convolution to `features` channels

LeakyReLU .1 follows every convolution but the last, and with `norm` each map is standardized beforehand over its
places and over groups of channels (Wu & He 2018).
"""
from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from embeddings_jax.nets.images import Conv
from embeddings_jax.types import InputError


class UNet(nn.Module):
  """Images to images.

  Attributes:
    features: Channels of the result.
    widths: Channels of each level.
    norm: Whether to normalize by groups of channels.
    skips: Whether maps are joined across.
  """

  features: int
  widths: Sequence[int] = (32, 64)
  norm: bool = False
  skips: bool = True

  @nn.compact
  def __call__(self, x: Float[Array, "batch height width channels"], lowest: bool = False,
               ) -> Float[Array, "batch rows columns features"]:
    """Returns images, or with `lowest` the map of the last level."""
    maps = []
    for i, width in enumerate(self.widths):
      x = self._block(x, width, 2 if i else 1, f"down_{i}")
      x = self._block(x, width, 1, f"down_{i}b") if i else x
      maps.append(x)
    if lowest:
      return x
    for i, width in reversed(list(enumerate(self.widths[:-1]))):
      x = jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)
      x = jnp.concatenate([x, maps[i]], -1) if self.skips else x
      x = self._block(x, width, 1, f"up_{i}")
    return Conv(self.features, 1, name="last")(x)

  def _block(self, x, width, stride, name):
    x = Conv(width, 3, stride, name=name)(x)
    if self.norm:
      x = nn.GroupNorm(num_groups=None, group_size=min(8, width), name=f"{name}_norm")(x)
    return nn.leaky_relu(x, 0.1)


def check_unet(height: int, width: int, widths: Sequence[int]) -> None:
  """Raises unless a `UNet` fits images of this size."""
  if not widths or min(widths) < 1:
    raise InputError(f"widths={tuple(widths)}: must be at least one number, all at least 1")
  if any(channels % min(8, channels) for channels in widths):
    raise InputError(f"widths={tuple(widths)}: above 8 they must be multiples of 8")
  least = 2 ** (len(widths) - 1)
  if height % least or width % least:
    raise InputError(f"widths={tuple(widths)}: the strides do not divide images of {height} x {width} pixels; their "
                     f"sides must be multiples of {least}")
