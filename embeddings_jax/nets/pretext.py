"""Heads of pretext tasks on a trunk, and the trunk's layers for probes.

A trunk is any encoder of images: `convnet`, `resnet` (a map of features), or `mae` (patches). Its parameters lie
under `params/encoder`, its running statistics under `extra/batch_stats/encoder`.
"""
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from embeddings_jax.nets.siamese import Mlp
from embeddings_jax.ops.feature_maps import pooled
from embeddings_jax.types import InputError


class PretextNetwork(nn.Module):
  """A trunk, a head for each image, and perhaps a head on the joined vectors of several images (late fusion).

  Attributes:
    encoder: The trunk.
    projector: Head of one image.
    predictor: Head of joined images.
    grid: The trunk's map is averaged over `grid` x `grid` cells, which the projector sees side by side.
  """

  encoder: nn.Module
  projector: Mlp
  predictor: Mlp | None = None
  grid: int = 1

  def __call__(self, batch: Mapping[str, Any], *, deterministic: bool = True) -> Float[Array, "batch out"]:
    """Returns the projector's output for `image`, with `mask`, float32."""
    maps = feature_map(self.encoder, batch, deterministic)
    return self.projector(pooled(maps, self.grid), batch.get("mask"), deterministic=deterministic)

  def places(self, batch: Mapping[str, Any], *, deterministic: bool = True) -> Float[Array, "batch h w out"]:
    """Returns the projector's output at each place of the trunk's map, float32."""
    maps = feature_map(self.encoder, batch, deterministic)
    mask = batch.get("mask")
    mask = None if mask is None else jnp.repeat(mask, maps.shape[1] * maps.shape[2])
    out = self.projector(maps.reshape(-1, maps.shape[-1]), mask, deterministic=deterministic)
    return out.reshape(*maps.shape[:3], -1)

  def joined(self, batch: Mapping[str, Any], order: Array, mask: Array, *, deterministic: bool = True,
             ) -> Float[Array, "n k out"]:
    """Returns the predictor's output for the tiles of each image in several orders.

    Args:
      batch: `image` [n * tiles, height, width, channels] and `mask`, the tiles of an image side by side.
      order: int32 [n, k, m], numbers of tiles that the predictor sees side by side.
      mask: [n], 1 for valid images.
      deterministic: Use running statistics.
    """
    z = self(batch, deterministic=deterministic)
    z = z.reshape(order.shape[0], -1, z.shape[-1])
    rows = jnp.take_along_axis(z[:, None], order[..., None], 2)  # [n, k, m, dim]
    rows = rows.reshape(order.shape[0] * order.shape[1], -1)
    out = self.predictor(nn.relu(rows), jnp.repeat(mask, order.shape[1]), deterministic=deterministic)
    return out.reshape(*order.shape[:2], -1)


def feature_map(encoder: nn.Module, batch: Mapping[str, Any], deterministic: bool) -> Float[Array, "batch h w dim"]:
  """Returns the trunk's last map, float32; inside a module."""
  if hasattr(encoder, "grid"):  # Patches of a vision transformer.
    maps = encoder.patches(batch, deterministic)
    maps = maps.reshape(len(maps), *encoder.grid(batch["image"]), -1)
  else:
    maps = encoder(batch["image"], batch.get("mask"), deterministic=deterministic)
  return maps.astype(jnp.float32)


def variables_of(params: Any, extra: Mapping[str, Any], part: str = "encoder") -> dict[str, Any]:
  """Returns the variables of one part of a network, its parameters and running statistics."""
  variables = {"params": params[part]}
  statistics = extra.get("batch_stats", {})
  return variables | ({"batch_stats": statistics[part]} if part in statistics else {})


def layer_maps(encoder: nn.Module, variables: Mapping[str, Any], batch: Mapping[str, Any]) -> dict[
    str, Float[Array, "batch h w dim"]]:
  """Returns the maps of all blocks of a trunk by name, `block_0` first, float32."""
  if hasattr(encoder, "grid"):
    hidden = encoder.apply(variables, batch, method="layers")[:, 1:, 1:]
    grid = encoder.grid(batch["image"])
    maps = {f"block_{i}": hidden[:, i].reshape(len(hidden), *grid, -1) for i in range(hidden.shape[1])}
  else:
    is_block = lambda module, method: method == "__call__" and (module.name or "").startswith("block_")
    _, captured = encoder.apply(variables, batch["image"], capture_intermediates=is_block, mutable=["intermediates"])
    captured = captured["intermediates"]
    maps = {f"block_{i}": captured[f"block_{i}"]["__call__"][0] for i in range(len(captured))}
  return {name: value.astype(jnp.float32) for name, value in maps.items()}


def embedder(encoder: nn.Module, layer: str, grid: int, prepare: Callable[[Array], Array] = lambda images: images,
             ) -> tuple[Callable[..., Array], Callable[..., dict[str, Array]]]:
  """Returns `embed` and the output `layers` of a model whose trunk is `encoder`.

  Args:
    encoder: The trunk.
    layer: Block that is embedded, as `block_3`; "" for the last.
    grid: Cells per side over which its map is averaged.
    prepare: Changes images before they are embedded.
  """
  def layers(params, extra, batch):
    batch = {**batch, "image": prepare(batch["image"])}
    return layer_maps(encoder, variables_of(params, extra), batch)

  def embed(params, extra, batch):
    maps = layers(params, extra, batch)
    if layer and layer not in maps:
      raise InputError(f"embed_layer={layer!r}: must be one of {', '.join(maps)}")
    return pooled(maps[layer or list(maps)[-1]], grid)

  return embed, layers


def patch_embedder(encoder: nn.Module, layer: str, grid: int, cut: Callable[[Array], Array]) -> Callable[..., Array]:
  """Returns an `embed` that is the mean over the patches of an image; `cut` makes [n, k, h, w, c] of images."""
  embed, _ = embedder(encoder, layer, grid)

  def of_patches(params, extra, batch):
    patches = cut(batch["image"])
    vectors = embed(params, extra, {"image": side_by_side(patches)})
    return vectors.reshape(*patches.shape[:2], -1).mean(1)

  return of_patches


def started(network: nn.Module, rng: Array, *arguments: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
  """Returns the first `(params, extra)` of a network; `extra` has the running statistics, `batch_stats`, if any."""
  variables = dict(network.init(rng, *arguments, **options))
  return variables.pop("params"), variables


def applied(network: nn.Module, params: Any, extra: Mapping[str, Any], *arguments: Any, deterministic: bool,
            method: str = "__call__") -> tuple[Any, dict[str, Any]]:
  """Returns a network's output, and `extra` with the running statistics after it."""
  variables = {"params": params} | {name: extra[name] for name in ("batch_stats",) if name in extra}
  if deterministic or "batch_stats" not in extra:
    return network.apply(variables, *arguments, deterministic=deterministic, method=method), dict(extra)
  outputs, moved = network.apply(variables, *arguments, deterministic=False, method=method, mutable=["batch_stats"])
  return outputs, {**extra, **moved}


def forgetful(network: nn.Module) -> nn.Module:
  """Returns the network with running statistics that are those of the last batch, for `calibrated`."""
  parts = {name: getattr(network, name) for name in network.__dataclass_fields__ if name not in ("parent", "name")}
  cloned = {name: part.clone(norm_decay=0.0) for name, part in parts.items()
            if isinstance(part, nn.Module) and hasattr(part, "norm_decay")}
  return network.clone(**cloned)


def masked_mean(values: Array, mask: Array) -> Array:
  """Returns the mean of `values` [n, ...] over valid rows; `mask` is [n]."""
  weights = jnp.broadcast_to(mask.reshape(-1, *[1] * (values.ndim - 1)), values.shape)
  return (weights * values).sum() / jnp.maximum(weights.sum(), 1)


def sums(values: Array, mask: Array) -> Array:
  """Returns [sum, count] of `values` [n, ...] over valid rows, for the output `measures`."""
  weights = jnp.broadcast_to(mask.reshape(-1, *[1] * (values.ndim - 1)), values.shape)
  return jnp.stack([(weights * values).sum(), weights.sum()])


def side_by_side(x: Array) -> Array:
  """[n, k, ...] -> [n k, ...]: what belongs to a row stays on its device."""
  return x.reshape(-1, *x.shape[2:])


def cross_entropy(logits: Array, labels: Array) -> Array:
  """-log softmax(logits)[label], nats."""
  return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], -1)[..., 0]
