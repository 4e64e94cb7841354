"""Residual networks (He et al. 2016, arXiv:1512.03385) with the stems of ImageNet and of CIFAR.

  depth        blocks of each stage   a block of W channels, in later stages of 2 W, 4 W, 8 W
  18, 34       2 2 2 2,  3 4 6 3      3 x 3, 3 x 3
  50           3 4 6 3                1 x 1, 3 x 3, 1 x 1 to four times the channels
  6 n + 2      n n n                  3 x 3, 3 x 3: the paper's for CIFAR (section 4.2), with W = 16

  stem         imagenet: 7 x 7 with stride 2, then the maximum of 3 x 3 with stride 2
               cifar: 3 x 3 with stride 1 and no maximum (Chen et al. 2020, arXiv:2002.05709, appendix B.9)

The stride of a stage is that of the 3 x 3 convolution of its first block ("version 1.5", as torchvision and
`transformers` have it). Padding is symmetric, as theirs. Under a mesh a batch's mean and variance are those of the
global batch: BatchNorm is synchronized.

Parameters: `stem`, `norm` and `block_0`, `block_1`, ... in their order, each with `conv_i`, `norm_i` and where shapes
differ `shortcut` and `shortcut_norm`; the running statistics are the collection `batch_stats`.
"""
import functools
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

STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)} | {6 * n + 2: (n,) * 3 for n in (1, 2, 3, 7, 9, 18)}
BOTTLENECKS = (50,)  # Depths whose blocks are narrow in the middle.
STEMS = ("cifar", "imagenet")


class ResNet(nn.Module):
  """Images to maps of features: [B, H, W, C] -> [B, H', W', D] with D the last stage's channels.

  The hyperparameters are checked by `encoder`, which makes one.

  Attributes:
    depth: One of `STAGES`.
    width: W, channels of the first stage.
    stem: One of `STEMS`.
    image_size: images of another size are resized to squares of this one; 0: they are taken as they come.
    pixel_mean, pixel_std: Pixels in [0, 1] are standardized by these; a number, or one for each channel.
    norm_decay: Decay of the running statistics, which are moved by 1 - norm_decay of the way in each update.
    dtype: Data type of the convolutions; parameters and statistics are float32.
  """

  depth: int = 18
  width: int = 64
  stem: str = "cifar"
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
    """Returns the last stage's map [B, H', W', D], or with `collect` the maps of all blocks by name.

    BatchNorm takes the batch's own statistics, of rows with mask 1, unless `deterministic`.
    """
    valid = None if mask is None or deterministic else (mask > 0)[:, None, None, None]
    norm = functools.partial(nn.BatchNorm, use_running_average=deterministic, momentum=self.norm_decay, epsilon=1e-5,
                             dtype=self.dtype)
    init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

    def conv(x, channels, size, stride, name):
      padding = ((size // 2, size // 2),) * 2
      return nn.Conv(channels, (size, size), (stride, stride), padding, use_bias=False, dtype=self.dtype,
                     kernel_init=init, name=name)(x)

    x = standardized(resized(images, self.image_size), self.pixel_mean, self.pixel_std).astype(self.dtype)
    x = conv(x, self.width, *((3, 1) if self.stem == "cifar" else (7, 2)), "stem")
    x = nn.relu(norm(name="norm")(x, mask=valid))
    if self.stem == "imagenet":
      x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
    maps = {}
    for number, (stage, stride) in enumerate(self._blocks()):
      name = f"block_{number}"
      x = _Block(self.width << stage, stride, self.depth in BOTTLENECKS, conv, norm, name=name)(x, valid)
      maps[name] = x = tapped(self, name, x)
    return maps if collect else x

  def _blocks(self) -> list[tuple[int, int]]:
    """Returns the stage and the stride of each block."""
    return [(stage, 2 if first and stage else 1) for stage, length in enumerate(STAGES[self.depth])
            for first in (True, *(False,) * (length - 1))]

  def grids(self, height: int, width: int) -> dict[str, Grid]:
    """Returns where the places of each block lie in images of this size."""
    stem = [(3, 1, 1)] if self.stem == "cifar" else [(7, 2, 3), (3, 2, 1)]
    layers = {f"block_{i}": [(3, stride, 1), *([] if self.depth in BOTTLENECKS else [(3, 1, 1)])]
              for i, (_, stride) in enumerate(self._blocks())}
    return convolved(height, width, {**layers, "block_0": stem + layers["block_0"]}, self.image_size)

  def tokens(self, images: Shaped[Array, "batch height width channels"]) -> dict[str, Array]:
    """Returns the vectors of all places of each block, [B, places, D]."""
    return {name: x.reshape(len(x), -1, x.shape[-1]) for name, x in self(images, collect=True).items()}

  def first_filters(self, params: Mapping[str, Any]) -> Float[Array, "filters rows columns channels"]:
    """Returns the kernels of the first layer."""
    return jnp.moveaxis(jnp.asarray(params["stem"]["kernel"]), -1, 0)

  def features(self, batch: Mapping[str, Any], deterministic: bool = True) -> Float[Array, "batch places dim"]:
    """Returns the features at each position of the last stage's map."""
    maps = self(batch["image"], batch.get("mask"), deterministic=deterministic)
    return maps.reshape(maps.shape[0], -1, maps.shape[-1])

  def layers(self, batch: Mapping[str, Any], deterministic: bool = True) -> Float[Array, "batch 1 places dim"]:
    """`features` as the one layer there is: the stages have maps of unlike shapes."""
    return self.features(batch, deterministic)[:, None]

  def valid(self, batch: Mapping[str, Any]) -> Bool[Array, "batch places"]:
    """All True: images are not padded."""
    return jnp.ones(self.features(batch).shape[:2], bool)


class _Block(nn.Module):
  """relu(shortcut(x) + convolutions(x)), each convolution with BatchNorm and all but the last with a relu."""

  channels: int
  stride: int
  bottleneck: bool
  conv: Any
  norm: Any

  @nn.compact
  def __call__(self, x, valid):
    width = self.channels
    layers = [(width, 3, self.stride), (width, 3, 1)]
    if self.bottleneck:
      layers = [(width, 1, 1), (width, 3, self.stride), (4 * width, 1, 1)]
    y = x
    for i, layer in enumerate(layers):
      y = self.norm(name=f"norm_{i}")(self.conv(y, *layer, f"conv_{i}"), mask=valid)
      y = nn.relu(y) if i < len(layers) - 1 else y
    if x.shape != y.shape:
      x = self.norm(name="shortcut_norm")(self.conv(x, y.shape[-1], 1, self.stride, "shortcut"), mask=valid)
    return nn.relu(x + y)


def encoder(
    *,
    depth: int = 18,
    width: int = 64,
    stem: str = "cifar",
    image_size: int = 0,
    pixel_mean: float | Sequence[float] = 0.5,
    pixel_std: float | Sequence[float] = 0.5,
    norm_decay: float = 0.9,
    dtype: str = "float32",
) -> ResNet:
  """A `ResNet` of checked hyperparameters."""
  if depth not in STAGES:
    raise InputError(f"depth={depth}: must be one of {', '.join(map(str, STAGES))}")
  if stem not in STEMS:
    raise InputError(f"stem={stem!r}: must be one of {', '.join(STEMS)}")
  if width < 1 or image_size < 0 or not 0 <= norm_decay < 1:
    raise InputError(f"width={width}, image_size={image_size}, norm_decay={norm_decay}: must be at least 1, at least "
                     "0, and lie in [0, 1)")
  pixels = [tuple(value) if isinstance(value, Sequence) else value for value in (pixel_mean, pixel_std)]
  return ResNet(depth, width, stem, image_size, *pixels, norm_decay, jnp.dtype(dtype))
