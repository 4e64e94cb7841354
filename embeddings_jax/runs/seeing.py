"""Visualization of a trunk: images and inputs that excite its units, activation maps, inverted features.

A unit is a channel of a layer. An image excites it as much as the largest value on the channel's map.
"""
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from embeddings_jax.errors import InputError, check_choice
from embeddings_jax.nets.grids import layer_tokens, with_gradient
from embeddings_jax.ops import activation_maps
from embeddings_jax.ops.ascent import ascend, color_basis, feature_distance
from embeddings_jax.runs.trunks import Trunk, over_rows

FIRST_UNITS = 64
MAPS = ("cam", "gradcam", "rollout")
UNITS_AT_ONCE = 1 << 16  # Pixels of the images that are ascended together.
_SLOPE = 0.01  # Weight of the mean of a map beside its maximum, so that the silent places of a unit have a gradient.


class Exciting(NamedTuple):
  """Images that excite units most.

  Attributes:
    values: [units, k], excitations, the greatest first.
    images: int [units, k], numbers of the images.
    places: int [units, k, 2], row and column on the map.
    crops: Receptive fields, cut where they leave the image: crops[unit][k] uint8 [height, width, channels].
  """

  values: np.ndarray
  images: np.ndarray
  places: np.ndarray
  crops: list[list[np.ndarray]]


def chosen_units(trunk: Trunk, layer: str, units: Sequence[int] = ()) -> np.ndarray:
  """Returns numbers of units, by default the first `FIRST_UNITS`.

  Raises:
    InputError: There is no such layer or unit.
  """
  dim = jax.eval_shape(lambda: layer_tokens(trunk.network, trunk.variables, jnp.zeros((1, *trunk.shape))))[
      layer].shape[-1]
  for unit in units:
    if not 0 <= unit < dim:
      raise InputError(f"units={unit}: layer {layer} has {dim} units, 0 to {dim - 1}")
  return np.asarray(units, int) if len(units) else np.arange(min(dim, FIRST_UNITS))


def excitations(trunk: Trunk, images: np.ndarray, layer: str, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the largest value on each unit's map, [n, units], and its place, int [n, units, 2]."""
  grid = trunk.grids[layer]

  def peaks(variables, images):
    tokens = layer_tokens(trunk.network, variables, images)[layer][:, grid.leading:, units]
    return jnp.concatenate([tokens.max(1), tokens.argmax(1).astype(jnp.float32)], 1)

  compiled = jax.jit(peaks)
  results = over_rows(lambda part: compiled(trunk.variables, part), images)
  values, places = np.split(results, 2, 1)
  return values, np.stack(np.divmod(places.astype(int), grid.columns), -1)


def exciting_images(trunk: Trunk, images: np.ndarray, layer: str, units: np.ndarray, k: int = 9) -> Exciting:
  """Finds the images that excite each unit most, and the receptive fields of the places that do."""
  values, places = excitations(trunk, images, layer, units)
  order = np.argsort(-values, 0, kind="stable")[:k].T  # [units, k]
  columns = np.arange(len(units))[:, None]
  best = places[order, columns]
  grid = trunk.grids[layer]
  crops = [[cropped(images[i], grid.box(*map(int, place))) for i, place in zip(*rows)] for rows in zip(order, best)]
  return Exciting(values[order, columns], order, best, crops)


def cropped(image: np.ndarray, box: Sequence[int]) -> np.ndarray:
  """Returns the part of a box (top, left, bottom, right) that lies in an image."""
  top, left, bottom, right = np.clip(box, 0, np.tile(image.shape[:2], 2))
  return image[top:bottom, left:right]


def exciting_inputs(
    trunk: Trunk,
    layer: str,
    units: np.ndarray,
    *,
    norms: np.ndarray | None = None,
    center: float = 0.5,
    scales: np.ndarray | None = None,
    colors: np.ndarray | None = None,
    starts: int = 1,
    seed: int = 0,
    **options: Any,
) -> tuple[np.ndarray, np.ndarray]:
  """Finds an input in [0, 1] that excites each unit, by gradient ascent.

  Args:
    trunk: The trunk.
    layer: Name of the layer.
    units: Numbers of the units.
    norms: [units], distance of each input from `center`; None: free.
    center: Gray value from which norms are measured.
    scales: [units], excitations that count as 1 beside the weights of the ascent's penalties; None: all 1.
    colors: Images [n, height, width, channels] in [0, 1] whose colors give the Fourier basis; None: a general one.
    starts: Random starts of each unit, of which the best is kept.
    seed: Random seed.
    **options: See `ops/ascent.py: ascend`.

  Returns:
    Images float32 [units, height, width, channels], and their excitations.
  """
  grid = trunk.grids[layer]
  if colors is not None:
    options["basis"] = color_basis(colors)

  def run(variables, key, unit, norm, scale):
    """Images of several units, one each."""
    def peaks(images, slope):
      tokens = layer_tokens(trunk.network, variables, images)[layer][:, grid.leading:]
      values = jnp.take_along_axis(tokens, unit[:, None, None], 2)[..., 0]
      return values.max(1) + slope * values.mean(1)

    result = ascend(lambda images: peaks(images, _SLOPE) / scale, (len(unit), *trunk.shape), key, norm=norm,
                    center=center, **options)
    return result.images, peaks(result.images, 0.0)

  compiled = jax.jit(run)
  each = np.repeat(units, starts)
  lengths = None if norms is None else np.repeat(np.asarray(norms, np.float32), starts)
  scales = np.repeat(np.ones(len(units)) if scales is None else np.maximum(scales, 1e-6), starts).astype(np.float32)
  size = min(len(each), max(1, UNITS_AT_ONCE // int(np.prod(trunk.shape[:2]))))
  parts = []
  for number, first in enumerate(range(0, len(each), size)):
    part = np.resize(each[first:first + size], size)  # Filled up, for one program.
    norm = None if lengths is None else np.resize(lengths[first:first + size], size)
    scale = np.resize(scales[first:first + size], size)
    done = compiled(trunk.variables, jax.random.fold_in(jax.random.key(seed), number), part, norm, scale)
    count = min(size, len(each) - first)
    parts.append([np.asarray(value)[:count] for value in done])
  images, values = (np.concatenate(part) for part in zip(*parts))
  values = values.reshape(len(units), starts)
  best = values.argmax(1) + starts * np.arange(len(units))
  return images[best], values.max(1)


def class_weights(vectors: np.ndarray, labels: np.ndarray, ridge: float = 1e-2) -> tuple[np.ndarray, np.ndarray]:
  """Returns weights [dim, classes] and biases of a linear classifier of vectors: ridge regression to -1 and 1.

  Args:
    vectors: [n, dim].
    labels: [n], numbers of classes.
    ridge: Weight of the penalty over the mean variance.
  """
  targets = 2.0 * (labels[:, None] == np.arange(labels.max() + 1)) - 1
  mean, middle = vectors.mean(0, dtype=np.float64), targets.mean(0)
  away = vectors - mean
  second = away.T @ away / len(vectors)
  weights = np.linalg.solve(second + ridge * np.trace(second) / len(second) * np.eye(len(second)),
                            away.T @ (targets - middle) / len(vectors))
  return weights.astype(np.float32), (middle - mean @ weights).astype(np.float32)


def looked_at(
    trunk: Trunk, images: np.ndarray, method: str, *, layer: str = "", weights: np.ndarray | None = None,
) -> np.ndarray:
  """Returns where a trunk looks, [n, rows, columns].

  Args:
    trunk: The trunk.
    images: uint8 [n, height, width, channels].
    method: `cam`, the last map weighted; `gradcam`, a layer's map weighted by the gradient of the same score; or
      `rollout`, of a vision transformer's attention.
    layer: Layer of `gradcam`; "" for the last.
    weights: [dim] or [n, dim], of a linear score of the mean over places of the last map, as a class's; None: the
      image's own mean, which shows what the embedding consists of.

  Raises:
    InputError: The trunk has no attention, or there is no such layer.
  """
  check_choice("method", method, MAPS)
  last, layer = trunk.layer(), trunk.layer(layer)
  leading = trunk.grids[last].leading
  rows = None if weights is None else np.broadcast_to(weights, (len(images), np.shape(weights)[-1]))

  def of_attention(variables, images, _):
    attention = trunk.network.apply(variables, {"image": images}, method="attention")
    grid = trunk.grids[last]
    return activation_maps.rollout(attention, leading=0)[:, leading:].reshape(-1, grid.rows, grid.columns)

  def of_class(variables, images, weights):
    maps = trunk.grids[last].maps(layer_tokens(trunk.network, variables, images)[last])
    return activation_maps.class_activation(maps, maps.mean((1, 2)) if weights is None else weights)

  def of_gradient(variables, images, weights):
    def score(tokens):
      mean = tokens[last][:, leading:].mean(1)
      return (mean * jax.lax.stop_gradient(mean if weights is None else weights)).sum(-1)

    return activation_maps.grad_cam(*with_gradient(trunk.network, variables, images, layer, score))

  if method == "rollout" and not hasattr(trunk.network, "attention"):
    raise InputError(f"rollout: a {trunk.name} has no attention; mae has")
  compiled = jax.jit({"rollout": of_attention, "cam": of_class, "gradcam": of_gradient}[method])
  results = []
  for first in range(0, len(images), 64):
    part = slice(first, first + 64)
    results.append(np.asarray(compiled(trunk.variables, images[part], None if rows is None else rows[part])))
  return np.concatenate(results)


def inverted(trunk: Trunk, images: np.ndarray, *, layer: str = "", pooled: bool = True, seed: int = 0,
             **options: Any) -> tuple[np.ndarray, np.ndarray]:
  """Finds images with the features of given ones (Mahendran & Vedaldi 2015).

  Args:
    trunk: The trunk.
    images: uint8 [n, height, width, channels].
    layer: Layer of the features; "" for the last.
    pooled: Invert the mean over places, which is what most models embed, and not the whole map.
    seed: Random seed.
    **options: See `ops/ascent.py: ascend`.

  Returns:
    Images float32 [n, height, width, channels] in [0, 1], and their relative squared distances [n].
  """
  layer = trunk.layer(layer)
  leading = trunk.grids[layer].leading

  def features(variables, images):
    tokens = layer_tokens(trunk.network, variables, images)[layer][:, leading:]
    return tokens.mean(1) if pooled else tokens.reshape(len(tokens), -1)

  def run(variables, images, key):
    target = features(variables, images)
    result = ascend(lambda x: -feature_distance(features(variables, x), target), images.shape, key, **options)
    return result.images, -result.objective

  results, distance = jax.jit(run)(trunk.variables, images, jax.random.key(seed))
  return np.asarray(results), np.asarray(distance)
