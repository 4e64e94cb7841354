"""Heads of contrastive and non-contrastive learning on an image encoder: a projector, perhaps a predictor."""
import functools
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Shaped

from embeddings_jax.types import InputError


class Mlp(nn.Module):
  """Dense layers, each but the last with BatchNorm and a relu: [B, D] -> [B, dims[-1]].

  Attributes:
    dims: Widths of the layers.
    last_norm: BatchNorm, without scale and shift, of what comes out.
    last_bias: Whether the output has a bias where no BatchNorm follows that would remove it.
    norm_decay: Decay of the running statistics.
  """

  dims: tuple[int, ...]
  last_norm: bool = False
  last_bias: bool = True
  norm_decay: float = 0.9

  @nn.compact
  def __call__(
      self, x: Float[Array, "batch dim"], mask: Shaped[Array, " batch"] | None = None, *, deterministic: bool = True,
  ) -> Float[Array, "batch out"]:
    norm = functools.partial(nn.BatchNorm, use_running_average=deterministic, momentum=self.norm_decay, epsilon=1e-5)
    valid = None if mask is None or deterministic else (mask > 0)[:, None]
    for i, dim in enumerate(self.dims):
      last = i == len(self.dims) - 1
      # BatchNorm takes a bias away again: it would be moved by rounding alone.
      x = nn.Dense(dim, use_bias=last and self.last_bias and not self.last_norm, name=f"dense_{i}")(x)
      if not last:
        x = nn.relu(norm(name=f"norm_{i}")(x, mask=valid))
      elif self.last_norm:
        x = norm(use_bias=False, use_scale=False, name=f"norm_{i}")(x, mask=valid)
    return x


class Siamese(nn.Module):
  """Images to the encoder's mean vector h, its projection z and, with a predictor, its prediction q.

  Attributes:
    encoder: has `features(batch, deterministic)` -> [batch, places, dim].
    projector, predictor: see `Mlp`.
  """

  encoder: nn.Module
  projector: Mlp
  predictor: Mlp | None = None

  def __call__(self, batch: Mapping[str, Any], *, deterministic: bool = True) -> dict[str, Array]:
    """`h` [B, dim], `z` and `q`, all float32; of `batch` its `image` and `mask`."""
    h, mask = self.represent(batch, deterministic), batch.get("mask")
    z = self.projector(h, mask, deterministic=deterministic)
    outputs = {"h": h, "z": z}
    if self.predictor is not None:
      outputs["q"] = self.predictor(z, mask, deterministic=deterministic)
    return outputs

  def represent(self, batch: Mapping[str, Any], deterministic: bool = True) -> Float[Array, "batch dim"]:
    """h, the mean over places."""
    patches = getattr(self.encoder, "patches", self.encoder.features)  # Without a first token that is none.
    return patches(batch, deterministic).astype(jnp.float32).mean(1)


def started(network: Siamese, rng: Array, batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
  """`(params, extra)` of a network that has seen nothing; `extra` has the running statistics, `batch_stats`."""
  variables = dict(network.init(rng, batch))
  return variables.pop("params"), variables


def applied(
    network: Siamese, params: Any, extra: Mapping[str, Any], batch: Mapping[str, Any], *, deterministic: bool,
) -> tuple[dict[str, Array], dict[str, Any]]:
  """Returns the network's output for a batch and the new statistics: those of `extra`, unless it is in training."""
  variables = {"params": params, **extra}
  if deterministic:
    return network.apply(variables, batch), dict(extra)
  return network.apply(variables, batch, deterministic=False, mutable=["batch_stats"])


def calibrated(network: Siamese, params: Any, extra: Mapping[str, Any], batch: Mapping[str, Any]) -> dict[str, Any]:
  """`extra` with the statistics of one batch alone. A network that was never trained needs them to be a fair
  baseline: its own, 0 and 1, are those of no data."""
  forgetful = lambda module: module and (module.clone(norm_decay=0.0) if hasattr(module, "norm_decay") else module)
  parts = (forgetful(part) for part in (network.encoder, network.projector, network.predictor))
  return applied(Siamese(*parts), params, extra, batch, deterministic=False)[1]


def check_images(encoder: Any, batch: Mapping[str, Any]) -> None:
  """Raises unless an encoder reads images, and the batch has two of them at least."""
  if not hasattr(encoder, "features"):
    raise InputError(f"encoder: {type(encoder).__name__} gives no features of images; take resnet or mae")
  if "image" not in batch:
    raise InputError(f"the batch has {', '.join(batch)} and no images")
  if len(batch["image"]) < 2:
    raise InputError("batch_size=1: BatchNorm and contrast need other images beside; take 2 or more")
