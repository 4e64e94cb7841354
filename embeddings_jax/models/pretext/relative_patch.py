"""Relative patches: predicts which of eight neighbors of a patch another patch is.

Doersch, Gupta, Efros 2015, "Unsupervised Visual Representation Learning by Context Prediction", arXiv:1505.05192.
Both patches go through the same trunk and meet late. In nats, with n images and k neighbors of each:

  z = g(f(patch)),   L = -1/nk Σ log softmax(q(z_first, z_neighbor))_l,   l = 0 ... 7

  symbol  name        shape
  f       encoder     [batch (1 + k), h, w, dim], the trunk's last map
  g       projector   [batch (1 + k), projector_dims[-1]], on means of the map over `grid` x `grid` cells
  q       predictor   [batch, k, 8]
  l       label       int32 [batch, k], neighbors in reading order, `ops/patch_layouts.py: NEIGHBORS`

Without care a network reads the label from continued lines and textures (`gap`, `jitter`), from a lens's color
fringes, which grow with the distance from the middle of an image (`color`), or from ramps of brightness
(`standardize`). Each is an option, as are `downsample` (section 3) and the trunk's `norm_affine`, BatchNorm without
scale and shift.

`embed` is the trunk on the whole image, standardized as a patch is, or with `embed_by="patches"` the mean over nine
patches (Kolesnikov et al. 2019, arXiv:1901.09005). Deviations: the trunk is any encoder; the first patch is only
where all eight neighbors fit, so that its place tells nothing of the label.

Split: image | two neighboring patches | where the second lies.

Expected: `embeddings_jax/configs/relative_patch.py`.
"""
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int

from embeddings_jax.gradient import gradient_model
from embeddings_jax.nets.pretext import (
    PretextNetwork,
    applied,
    cross_entropy,
    embedder,
    forgetful,
    masked_mean,
    patch_embedder,
    side_by_side,
    started,
    sums,
)
from embeddings_jax.nets.siamese import Mlp, check_images
from embeddings_jax.nets.transformer import RULES
from embeddings_jax.ops import patch_layouts
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.pixels import to_float
from embeddings_jax.types import InputError, Model

COLORS = ("keep", "drop", "project", "gray")
EMBED_BY = ("image", "patches")
LEAST_PIXELS = 100  # Of a downsampled patch in all, section 3 of the paper.


@takes(image=4)
def relative_patch(
    *,
    encoder: nn.Module,
    patch: int = 96,
    gap: int = 48,
    jitter: int = 7,
    pairs: int = 1,
    color: str = "drop",
    downsample: float = 1 / 3,
    standardize: bool = True,
    projector_dims: Sequence[int] = (512,),
    predictor_dims: Sequence[int] = (4096,),
    grid: int = 2,
    embed_by: str = "image",
    embed_layer: str = "",
    embed_grid: int = 1,
    optimizer: optax.GradientTransformation | None = None,
    ema_decay: float | None = None,
) -> Model:
  """Predicts relative positions of patches.

  Args:
    encoder: Trunk; has `features(batch, deterministic)` of `image`.
    patch: Size of a patch in pixels.
    gap: Pixels between a patch and its neighbors.
    jitter: A neighbor is moved by up to so many pixels in each direction.
    pairs: Neighbors of each image, k, all different; at most 8.
    color: `keep`, `drop` all channels but one of each patch, `project` out green - magenta, or `gray`.
    downsample: Share of patches that are shrunk to a random size, at least 100 pixels in all, and enlarged again.
    standardize: Standardize each patch by itself, so that its mean and contrast tell nothing.
    projector_dims: Layers of g.
    predictor_dims: Hidden layers of q.
    grid: Cells per side over which the map of a patch is averaged for g.
    embed_by: `image` or `patches`.
    embed_layer: Block that is embedded, as `block_3`; "" for the last.
    embed_grid: Cells per side over which that block is averaged.
    optimizer: Adam with a learning rate of 1e-3 by default.
    ema_decay: See `gradient_model`.
  """
  if not 1 <= pairs <= 8 or not 0 <= downsample <= 1:
    raise InputError(f"pairs={pairs}, downsample={downsample}: must lie in [1, 8] and [0, 1]")
  for name, value, known in (("color", color, COLORS), ("embed_by", embed_by, EMBED_BY)):
    if value not in known:
      raise InputError(f"{name}={value!r}: must be one of {', '.join(known)}")
  network = PretextNetwork(encoder, Mlp(tuple(projector_dims)), Mlp((*predictor_dims, 8)), grid)
  change = patch_layouts.standardized_patch if standardize else lambda patch: patch
  middle = lambda images: jax.vmap(jax.vmap(change))(nine_patches(to_float(images), patch))
  embed_fn, layers = embedder(encoder, embed_layer, embed_grid, lambda images: jax.vmap(change)(to_float(images)))
  if embed_by == "patches":
    embed_fn = patch_embedder(encoder, embed_layer, embed_grid, middle)
  order = jnp.stack([jnp.zeros(pairs, jnp.int32), jnp.arange(1, pairs + 1)], 1)  # Patches of each pair.

  def examples(batch, rng):
    return jax.vmap(lambda key, image: pair_examples(
        key, to_float(image), patch=patch, gap=gap, jitter=jitter, pairs=pairs, color=color, downsample=downsample,
        standardize=standardize))(patch_layouts.row_keys(rng, len(batch["image"])), batch["image"])

  def orders(batch):
    return jnp.broadcast_to(order, (len(batch["image"]), pairs, 2))

  def init_params(rng, batch):
    check_images(encoder, batch)
    shown = {"image": side_by_side(examples(batch, rng)[0])}
    return started(network, rng, shown, orders(batch), row_mask(batch), method="joined")

  def predicted(params, extra, batch, rng, *, deterministic=False, network=network):
    """Returns losses and hits of all pairs, [n, k], and the new `extra`."""
    shown, labels = examples(batch, rng)
    mask = row_mask(batch)
    views = {"image": side_by_side(shown), "mask": jnp.repeat(mask, 1 + pairs)}
    logits, extra = applied(network, params, extra, views, orders(batch), mask, deterministic=deterministic,
                            method="joined")
    return cross_entropy(logits, labels), (logits.argmax(-1) == labels).astype(jnp.float32), extra

  def loss_fn(params, extra, batch, rng):
    losses, hits, extra = predicted(params, extra, batch, rng)
    return masked_mean(losses, row_mask(batch)), ({"accuracy": masked_mean(hits, row_mask(batch))}, extra)

  def measures(params, extra, batch):
    losses, hits, _ = predicted(params, extra, batch, jax.random.key(0), deterministic=True)
    return {"pretext_loss": sums(losses, row_mask(batch)), "pretext_accuracy": sums(hits, row_mask(batch))}

  def calibrated(params, extra, batch):
    return predicted(params, extra, batch, jax.random.key(0), network=forgetful(network))[2]

  def draws(params, extra, batch, rng):
    """Patches as the trunk gets them, the first patch first, and the labels of its neighbors."""
    shown, labels = examples(batch, rng)
    return {"patches": shown, "labels": labels}

  outputs = {"layers": layers, "measures": measures, "calibrated": calibrated, "draws": draws}
  return gradient_model(init_params, loss_fn, embed_fn, optimizer or optax.adam(1e-3), coupled=True,
                        ema_decay=ema_decay, outputs=outputs, rules=RULES)


def pair_examples(
    rng: Array, image: Float[Array, "height width channels"], *, patch: int, gap: int, jitter: int, pairs: int,
    color: str, downsample: float, standardize: bool,
) -> tuple[Float[Array, "patches {patch} {patch} channels"], Int[Array, " {pairs}"]]:
  """Returns a patch and `pairs` of its neighbors, changed so as to hide shortcuts, and the neighbors' labels."""
  rng_corners, rng_labels, rng_patches = jax.random.split(rng, 3)
  corners = patch_layouts.neighbor_corners(rng_corners, *image.shape[:2], patch, gap, jitter)
  labels = jax.random.permutation(rng_labels, 8)[:pairs]
  patches = patch_layouts.tiles(image, jnp.concatenate([corners[:1], corners[1 + labels]]), patch)

  def changed(rng, one):
    rng_color, rng_whether, rng_side = jax.random.split(rng, 3)
    if one.shape[2] == 3 and color != "keep":
      one = (patch_layouts.dropped_channels(rng_color, one) if color == "drop" else
             patch_layouts.projected_colors(one) if color == "project" else patch_layouts.gray_patch(one))
    if downsample:
      least = min(patch, round(LEAST_PIXELS**0.5))
      side = jax.random.randint(rng_side, (), least, patch + 1)
      small = patch_layouts.shrunk_and_enlarged(one, side)
      one = jnp.where(jax.random.bernoulli(rng_whether, downsample), small, one)
    return patch_layouts.standardized_patch(one) if standardize else one

  return jax.vmap(changed)(jax.random.split(rng_patches, 1 + pairs), patches), labels


def nine_patches(images: Float[Array, "batch height width channels"], patch: int) -> Float[
    Array, "batch 9 {patch} {patch} channels"]:
  """Returns patches at the ends and in the middle of both axes, by rows."""
  height, width = images.shape[1:3]
  if patch > min(height, width):
    raise InputError(f"patch={patch}: exceeds images of {height} x {width} pixels")
  rows, columns = ([0, (length - patch) // 2, length - patch] for length in (height, width))
  return jnp.stack([images[:, i:i + patch, j:j + patch] for i in rows for j in columns], 1)
