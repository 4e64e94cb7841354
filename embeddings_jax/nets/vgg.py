"""VGG16 (Simonyan & Zisserman 2015, arXiv:1409.1556, configuration D): the trunk whose layers people know by name.

  block          1    2    3    4    5
  convolutions   2    2    3    3    3     3 x 3, with a bias and a ReLU; maximum of 2 x 2 after each block
  channels       W    2 W  4 W  8 W  8 W   W = 64

A layer is the map of a convolution after its ReLU, `block1_conv1` ... `block5_conv3`, as Keras calls them. With
`num_classes` the classifier follows: means over 7 x 7 cells, flattened by channel, row and column, and dense layers
to `hidden`, `hidden` and `num_classes`.

Parameters: each layer by its name, `fc1`, `fc2` and `predictions`; `kernel` and `bias`.
"""
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Shaped

from embeddings_jax.nets.grids import Grid, convolved, tapped
from embeddings_jax.ops.augment import resized
from embeddings_jax.ops.feature_maps import cell_means
from embeddings_jax.ops.pixels import standardized
from embeddings_jax.types import InputError

BLOCKS = ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))  # Convolutions, and channels over W.
LAYERS = {f"block{block}_conv{i}": times for block, (number, times) in enumerate(BLOCKS, 1)
          for i in range(1, number + 1)}
CELLS = 7
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # Mean and standard deviation of pixels in [0, 1].


class Vgg(nn.Module):
  """Images to feature maps: [B, H, W, 3] -> [B, H / 32, W / 32, 8 W].

  Attributes:
    width: W.
    num_classes: Classes of the classifier; 0: without one.
    hidden: Width of the classifier's hidden layers.
    image_size: Images of another size are resized to squares of this one; 0: they are taken as they are.
    pixel_mean, pixel_std: Mean and standard deviation by which pixels in [0, 1] are standardized.
    dtype: Type of the convolutions; parameters are float32.
  """

  width: int = 64
  num_classes: int = 0
  hidden: int = 4096
  image_size: int = 0
  pixel_mean: float | Sequence[float] = IMAGENET[0]
  pixel_std: float | Sequence[float] = IMAGENET[1]
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, images: Shaped[Array, "batch height width channels"], mask: Any = None, *,
               deterministic: bool = True, collect: bool = False, classify: bool = False) -> Any:
    """Returns the last map after its pooling, with `collect` the maps of all layers, with `classify` logits."""
    del mask, deterministic  # There is nothing that depends on other images.
    x = standardized(resized(images, self.image_size), self.pixel_mean, self.pixel_std).astype(self.dtype)
    maps: dict[str, Any] = {}
    for name, times in LAYERS.items():
      if name.endswith("conv1") and maps:
        x = nn.max_pool(x, (2, 2), (2, 2))
      x = nn.Conv(times * self.width, (3, 3), padding=1, dtype=self.dtype, name=name)(x)
      maps[name] = x = tapped(self, name, nn.relu(x))
    x = nn.max_pool(x, (2, 2), (2, 2))
    logits = self._classified(x) if self.num_classes and (classify or self.is_initializing()) else None
    return logits if classify else maps if collect else x

  def _classified(self, x):
    x = cell_means(x.astype(jnp.float32), CELLS, CELLS)
    x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
    for name in ("fc1", "fc2"):
      x = nn.relu(nn.Dense(self.hidden, name=name)(x))
    return nn.Dense(self.num_classes, name="predictions")(x)

  def grids(self, height: int, width: int) -> dict[str, Grid]:
    """Returns where the places of each layer lie in images of this size."""
    pool = lambda name: [(2, 2, 0)] if name.endswith("conv1") and name != "block1_conv1" else []
    return convolved(height, width, {name: [*pool(name), (3, 1, 1)] for name in LAYERS}, self.image_size)

  def tokens(self, images: Shaped[Array, "batch height width channels"]) -> dict[str, Array]:
    """Returns the vectors of all places of each layer, [B, places, D]."""
    return {name: x.reshape(len(x), -1, x.shape[-1]) for name, x in self(images, collect=True).items()}

  def first_filters(self, params: Mapping[str, Any]) -> Float[Array, "filters rows columns channels"]:
    """Returns the kernels of the first layer."""
    return jnp.moveaxis(jnp.asarray(params["block1_conv1"]["kernel"]), -1, 0)

  def features(self, batch: Mapping[str, Any], deterministic: bool = True) -> Float[Array, "batch places dim"]:
    """Returns the vectors of all places of the last map."""
    maps = self(batch["image"])
    return maps.reshape(maps.shape[0], -1, maps.shape[-1])

  def layers(self, batch: Mapping[str, Any], deterministic: bool = True) -> Float[Array, "batch 1 places dim"]:
    """Returns `features` as the only layer: the maps differ in shape."""
    return self.features(batch, deterministic)[:, None]

  def valid(self, batch: Mapping[str, Any]) -> Bool[Array, "batch places"]:
    """Returns all True: images are not padded."""
    return jnp.ones(self.features(batch).shape[:2], bool)


def encoder(
    *,
    width: int = 64,
    num_classes: int = 0,
    hidden: int = 4096,
    image_size: int = 0,
    pixel_mean: float | Sequence[float] = IMAGENET[0],
    pixel_std: float | Sequence[float] = IMAGENET[1],
    dtype: str = "float32",
) -> Vgg:
  """Returns a `Vgg` of checked hyperparameters."""
  if width < 1 or num_classes < 0 or hidden < 1 or image_size < 0:
    raise InputError(f"width={width}, num_classes={num_classes}, hidden={hidden}, image_size={image_size}: must be "
                     "at least 1, 0, 1 and 0")
  pixels = [tuple(value) if isinstance(value, Sequence) else value for value in (pixel_mean, pixel_std)]
  return Vgg(width, num_classes, hidden, image_size, *pixels, jnp.dtype(dtype))
