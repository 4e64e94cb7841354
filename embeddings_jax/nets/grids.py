"""Grids: where in an image the tokens, or the places of a feature map, of each layer of a trunk lie.

Every trunk of images (`convnet`, `resnet`, `vgg`, the vision transformer of `mae`) has

  grids(height, width)    name of a layer -> its `Grid`, for images of this size
  tokens(images)          name of a layer -> [n, leading + rows * columns, dim], after its nonlinearity
  first_filters(params)   kernels of the first layer, [n, rows, columns, channels]

so that nobody has to know how tokens are turned into a map: `Grid.maps` does it. To have gradients with respect to a
layer's values, `with_gradient` adds a perturbation of 0 to them (Flax's `perturb`).
"""
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Shaped

from embeddings_jax.types import InputError

Pair = tuple[float, float]


class Grid(NamedTuple):
  """The places of a layer, by rows from the top; lengths are pixels of the image, vertical and horizontal.

  Attributes:
    rows, columns: Number of places.
    stride: Distance of neighboring places.
    first: Center of the first place; the center of the image's first pixel is (0, 0).
    field: Height and width of the receptive field of a place, of which a part may lie outside the image.
    leading: Tokens that stand in front of those of the grid, as CLS.
  """

  rows: int
  columns: int
  stride: Pair
  first: Pair
  field: Pair
  leading: int = 0

  def maps(self, tokens: Float[Array, "batch tokens dim"]) -> Float[Array, "batch rows columns dim"]:
    """Returns a layer's tokens as a map, without the leading ones."""
    return tokens[:, self.leading:].reshape(len(tokens), self.rows, self.columns, tokens.shape[-1])

  def box(self, row: int, column: int) -> tuple[int, int, int, int]:
    """Returns the receptive field of a place: top, left, bottom and right, the last two exclusive."""
    center = [first + stride * place for first, stride, place in zip(self.first, self.stride, (row, column))]
    low = [round(middle - (length - 1) / 2) for middle, length in zip(center, self.field)]
    return *low, *(start + round(length) for start, length in zip(low, self.field))


def convolved(
    height: int, width: int, layers: Mapping[str, Sequence[tuple[int, int, int]]], image_size: int = 0,
) -> dict[str, Grid]:
  """Returns the grids of a sequence of convolutions.

  Args:
    height, width: Size of the image.
    layers: Name -> (size, stride, padding) of the convolutions and poolings that follow the layer before.
    image_size: The network resizes images to squares of this size; 0: it takes them as they are.
  """
  sides = (image_size, image_size) if image_size else (height, width)
  scale = height / sides[0], width / sides[1]
  grids, field, hop, start, places = {}, 1.0, 1, 0.0, list(sides)
  for name, steps in layers.items():
    for size, stride, padding in steps:
      field, start = field + (size - 1) * hop, start + ((size - 1) / 2 - padding) * hop
      hop *= stride
      places = [(length + 2 * padding - size) // stride + 1 for length in places]
    if min(places) < 1:
      raise InputError(f"images of {height} x {width} pixels are too small: layer {name} has no place for them")
    grids[name] = Grid(places[0], places[1], (hop * scale[0], hop * scale[1]),
                       ((start + 0.5) * scale[0] - 0.5, (start + 0.5) * scale[1] - 0.5),
                       (field * scale[0], field * scale[1]))
  return grids


def tapped(module: nn.Module, name: str, x: Float[Array, "batch *places dim"]) -> Float[Array, "batch *places dim"]:
  """Adds the perturbation of a layer to its values where one is given; inside a module."""
  if not module.has_variable("perturbations", f"{name}_tokens"):  # `perturb` would make one in `init`.
    return x
  return module.perturb(f"{name}_tokens", x.reshape(len(x), -1, x.shape[-1])).reshape(x.shape)


def grids_of(encoder: Any, images: Shaped[Array, "batch height width channels"]) -> dict[str, Grid]:
  """Returns the grids of a trunk for these images.

  Raises:
    InputError: The encoder is no trunk that has any.
  """
  if not hasattr(encoder, "grids"):
    raise InputError(f"encoder: {type(encoder).__name__} has no maps of images; convnet, resnet, vgg and mae have")
  return encoder.grids(*images.shape[1:3])


def layer_tokens(encoder: Any, variables: Mapping[str, Any], images: Shaped[Array, "batch height width channels"],
                 ) -> dict[str, Float[Array, "batch tokens dim"]]:
  """Returns the tokens of all layers by name, float32."""
  tokens = encoder.apply(variables, images, method="tokens")
  return {name: value.astype(jnp.float32) for name, value in tokens.items()}


def with_gradient(
    encoder: Any, variables: Mapping[str, Any], images: Shaped[Array, "batch height width channels"], layer: str,
    score: Callable[[Mapping[str, Array]], Float[Array, " batch"]],
) -> tuple[Float[Array, "batch rows columns dim"], Float[Array, "batch rows columns dim"]]:
  """Returns the map of a layer, and the gradient of each image's score with respect to it.

  Args:
    encoder: A trunk.
    variables: Its variables.
    images: Images.
    layer: Name of the layer.
    score: Tokens of all layers -> a number for each image, which depends on that image alone.
  """
  grid = grids_of(encoder, images)[layer]

  def total(shift):
    perturbed = {**variables, "perturbations": {f"{layer}_tokens": shift}}
    tokens = layer_tokens(encoder, perturbed, images)
    return score(tokens).sum(), tokens[layer]

  shape = jax.eval_shape(lambda: layer_tokens(encoder, variables, images)[layer])
  slopes, tokens = jax.grad(total, has_aux=True)(jnp.zeros(shape.shape, shape.dtype))
  return grid.maps(tokens), grid.maps(slopes)
