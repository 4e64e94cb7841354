"""Trunks of images: the network below the heads of a run, of a Hugging Face directory or of VGG16's weights."""
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from embeddings_jax.data.encoders.images import ImageEncoder
from embeddings_jax.errors import InputError, nearest
from embeddings_jax.interop import vgg as vgg_files
from embeddings_jax.nets.grids import Grid, grids_of, layer_tokens
from embeddings_jax.runs import build, load, pretrained

AT_ONCE = 1 << 17  # Pixels that go through a trunk at a time.
VGG_SIDE = 224


class Trunk(NamedTuple):
  """A trunk with its variables.

  Attributes:
    name: Name of the network, as `resnet`.
    network: The Flax module, see `nets/grids.py`.
    variables: `params`, and the running statistics if there are any.
    encoder: Turns images into batches; its `shape` is height, width and channels.
    run: The run whose trunk it is; None for a file of weights.
  """

  name: str
  network: Any
  variables: Mapping[str, Any]
  encoder: Any
  run: Any = None

  @property
  def shape(self) -> tuple[int, int, int]:
    return self.encoder.shape

  @property
  def grids(self) -> dict[str, Grid]:
    """Grids of all layers for images of the encoder's shape."""
    return grids_of(self.network, jnp.zeros((1, *self.shape)))

  def checked(self) -> "Trunk":
    """Returns the trunk if it has maps of images, of this size too; else raises."""
    return self if self.grids else self

  def layer(self, name: str = "") -> str:
    """Returns a layer's name, the last one's for "".

    Raises:
      InputError: There is no such layer; those present are listed.
    """
    grids = self.grids
    if name and name not in grids:
      raise InputError(f"layer={name}: {nearest(name, list(grids))}{self.name} has {', '.join(grids)}")
    return name or list(grids)[-1]

  def images(self, items: Any) -> np.ndarray:
    """Returns items as the trunk gets them, uint8 [n, height, width, channels]."""
    return np.asarray(self.encoder.encode(items)["image"])

  def mapper(self, layer: str) -> Callable[[np.ndarray], np.ndarray]:
    """Returns `images -> maps of a layer [n, rows, columns, dim]`, compiled once."""
    grid = self.grids[layer]
    compiled = jax.jit(lambda variables, images: grid.maps(layer_tokens(self.network, variables, images)[layer]))
    return lambda images: over_rows(lambda part: compiled(self.variables, part), images)

  def maps(self, images: np.ndarray, layer: str) -> np.ndarray:
    """Returns the maps of a layer, [n, rows, columns, dim]; for many calls take `mapper`."""
    return self.mapper(layer)(images)


def over_rows(function: Any, images: np.ndarray) -> np.ndarray:
  """Returns a function of images for many of them, some at a time, filled up so that few sizes are compiled."""
  size = min(-(-len(images) // 16) * 16, max(1, AT_ONCE // int(np.prod(images.shape[1:3]))))
  pieces = []
  for first in range(0, len(images), size):
    part = images[first:first + size]
    padded = np.pad(part, [(0, size - len(part))] + [(0, 0)] * 3)
    pieces.append(np.asarray(function(padded))[:len(part)])
  return np.concatenate(pieces)


def load_trunk(path: str | os.PathLike, *, size: int = 0) -> Trunk:
  """Loads the trunk of a work directory, a Hugging Face directory, or a safetensors file of VGG16's weights.

  Args:
    path: Directory or file.
    size: Side of the images, of a file of weights; 0: 224 pixels.

  Raises:
    InputError: There is none, or what there is has no maps of images.
  """
  location = epath.Path(path)
  if location.is_file() and location.suffix == ".safetensors":
    hyper, params = vgg_files.read(str(path))
    side = size or VGG_SIDE
    network = build.network_module("vgg").encoder(**hyper)
    return Trunk("vgg", network, jax.device_put({"params": params}), ImageEncoder(side, side, 3)).checked()
  if location.is_file():
    raise InputError(f"{path}: is no .safetensors file of VGG16's weights, nor a directory")
  if not location.exists():
    raise InputError(f"{path}: no such file or directory")
  return of_run(load.load(path))


def of_run(run: Any) -> Trunk:
  """Returns the trunk of a run.

  Raises:
    InputError: The run's model has none.
  """
  if len(getattr(run.encoder, "shape", ())) != 3:
    raise InputError(f"{run.path or 'run'}: is a run of {run.config['name']}, which has no trunk of images")
  network = pretrained.of_run(run) if "trajectory" in run.record or run.prepared else pretrained.load(str(run.path))
  if getattr(network.encoder, "kind", "") != "images" or "encoder" not in network.params:
    raise InputError(f"{network.path}: is no run of images with a trunk, but a {network.name} of "
                     f"{getattr(network.encoder, 'kind', 'other data')}")
  statistics = network.statistics.get("encoder")
  variables = {"params": network.params["encoder"], **({"batch_stats": statistics} if statistics else {})}
  module = build.network_module(network.name).encoder(**network.hyper)
  return Trunk(network.name, module, jax.device_put(variables), network.encoder, run).checked()


def untrained(trunk: Trunk, images: np.ndarray, seed: int = 0) -> Trunk:
  """Returns the trunk before training, with the running statistics of some images, for a fair comparison."""
  network = trunk.network
  start = jax.jit(lambda key, images: network.init(key, images, method="tokens"))
  variables = start(jax.random.key(seed), images[:1])
  if "batch_stats" in variables:
    forgetful = network.clone(norm_decay=0.0)
    _, moved = jax.jit(lambda variables, images: forgetful.apply(
        variables, images, deterministic=False, mutable=["batch_stats"]))(variables, images)
    variables = {**variables, **moved}
  return trunk._replace(variables=variables)
