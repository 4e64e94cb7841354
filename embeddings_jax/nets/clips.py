"""Trunks of images on the frames of clips."""
from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn
from jaxtyping import Array, Float, Shaped

from embeddings_jax.nets.pretext import layer_maps, side_by_side, variables_of
from embeddings_jax.ops.feature_maps import pooled
from embeddings_jax.types import InputError


def clip_embedder(
    encoder: nn.Module, layer: str, grid: int,
    prepare: Callable[[Array], Array] = lambda clip: clip,
) -> tuple[Callable[..., Array], Callable[..., dict[str, Array]]]:
  """Returns `embed`, the mean over the frames of a clip, and the output `layers`, name -> [n, frames, h, w, dim].

  Args:
    encoder: The trunk, of images.
    layer: Block that is embedded, as `block_3`; "" for the last.
    grid: Cells per side over which its map is averaged.
    prepare: Clips [n, frames, h, w, c] -> what the trunk sees, [n, views, h, w, c].
  """
  def layers(params, extra, batch):
    views = prepare(batch["clip"])
    maps = layer_maps(encoder, variables_of(params, extra), {"image": side_by_side(views)})
    return {name: value.reshape(*views.shape[:2], *value.shape[1:]) for name, value in maps.items()}

  def embed(params, extra, batch):
    maps = layers(params, extra, batch)
    if layer and layer not in maps:
      raise InputError(f"embed_layer={layer!r}: must be one of {', '.join(maps)}")
    chosen = maps[layer or list(maps)[-1]]
    vectors = pooled(side_by_side(chosen), grid)
    return vectors.reshape(*chosen.shape[:2], -1).mean(1)

  return embed, layers


def check_clips(encoder: Any, batch: Mapping[str, Any], least: int, model: str) -> None:
  """Raises unless an encoder reads images, and the batch has two clips of `least` frames at least."""
  if not hasattr(encoder, "features"):
    raise InputError(f"encoder: {type(encoder).__name__} gives no features of images; take convnet, resnet or mae")
  number, frames = batch["clip"].shape[:2]
  if number < 2:
    raise InputError("batch_size=1: BatchNorm needs other clips beside; take 2 or more")
  check_length(frames, least, model)


def check_length(frames: int, least: int, model: str) -> None:
  """Raises if a window has fewer than `least` frames."""
  if frames < least:
    raise InputError(f"{model}: windows of {frames} frames are shorter than the {least} that it needs; raise "
                     "data.window")


def motion(clip: Float[Array, "frames height width channels"]) -> Float[Array, " steps"]:
  """Returns the mean absolute difference of each frame and the next."""
  return abs(clip[1:] - clip[:-1]).mean((1, 2, 3))


def differences(clips: Shaped[Array, "n frames height width channels"]) -> Shaped[
    Array, "n steps height width channels"]:
  """Returns differences of successive frames, scaled from [-1, 1] to [0, 1]."""
  return (clips[:, 1:] - clips[:, :-1] + 1) / 2
