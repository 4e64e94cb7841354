"""Tracking by colorization: copies colors of earlier frames to a gray one, and so learns what corresponds.

Vondrick, Shrivastava, Fathi, Guadarrama, Murphy 2018, "Tracking Emerges by Colorizing Videos", arXiv:1806.09594. All
frames of a window are gray; colors are known of all but the last. A place j of the last frame points to the places i
of the references, and copies their colors, clusters c of ab. In nats, over n windows and the places of a map:

  A_ij = softmax_i(f_i . f_j / τ),   y_j = Σ_i A_ij onehot(c_i),   L = -mean_j log y_j[c_j]

  symbol  name               shape
  f       projector(encoder) [batch frames, h, w, feature_dim], of length 1 times `scale`
  c       colors             int32 [batch, frames, h, w], the nearest center to the mean ab of a place
          extra/centers      float32 [num_colors, 2], clusters of ab by k-means on the first batch

The references are all frames of a window but the last, so the window is one longer than their number (three in the
paper). Attention is computed in blocks of queries (`ops/pointers.py`). `embed` is the mean over places and frames of
the trunk's map; `layers` has f under the name `features`, which `eval/propagation.py` carries masks along by.
Deviations: f has length 1 and a temperature, for the paper's plain product; a 2-D trunk of any kind, for a ResNet-18
with a 3-D network on top; no smoothness of colors in time.

Split: clip | a gray frame, and earlier ones in color | the frame's colors.

Expected: `embeddings_jax/configs/video_colorization.py`.
"""
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int, Shaped

from embeddings_jax.gradient import gradient_model
from embeddings_jax.nets.clips import check_clips, check_length, clip_embedder
from embeddings_jax.nets.pretext import (
  PretextNetwork,
  applied,
  forgetful,
  masked_mean,
  side_by_side,
  started,
  sums,
)
from embeddings_jax.nets.siamese import Mlp
from embeddings_jax.nets.transformer import RULES
from embeddings_jax.ops import color
from embeddings_jax.ops.augment import LUMA
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.centers import squared_distances, starting_centers
from embeddings_jax.ops.feature_maps import cell_means
from embeddings_jax.ops.pixels import to_float
from embeddings_jax.ops.pointers import copied
from embeddings_jax.ops.similarity import l2_normalize
from embeddings_jax.types import InputError, Model

KMEANS_TURNS = 20


@takes(clip=5)
def video_colorization(
    *,
    encoder: nn.Module,
    feature_dim: int = 64,
    hidden_dims: Sequence[int] = (),
    num_colors: int = 16,
    temperature: float = 0.05,
    block: int = 0,
    embed_layer: str = "",
    embed_grid: int = 1,
    optimizer: optax.GradientTransformation | None = None,
    ema_decay: float | None = None,
) -> Model:
  """Copies colors.

  Args:
    encoder: Trunk; has `features(batch, deterministic)` of `image`, which is gray, in one channel.
    feature_dim: Dimension of f.
    hidden_dims: Hidden layers between the trunk's map and f, at each place.
    num_colors: Clusters of ab.
    temperature: τ.
    block: Places of the target whose pointers are held at a time; 0: all.
    embed_layer: Block that is embedded, as `block_3`; "" for the last.
    embed_grid: Cells per side over which that block is averaged.
    optimizer: Adam with a learning rate of 1e-3 by default.
    ema_decay: See `gradient_model`.
  """
  if feature_dim < 1 or num_colors < 2 or not temperature > 0 or block < 0:
    raise InputError(f"feature_dim={feature_dim}, num_colors={num_colors}, temperature={temperature}, block={block}: "
                     "must be at least 1, at least 2, above 0, at least 0")
  network = PretextNetwork(encoder, Mlp((*hidden_dims, feature_dim)))
  embed_fn, trunk_layers = clip_embedder(encoder, embed_layer, embed_grid, gray_frames)

  def init_params(rng, batch):
    check_clips(encoder, batch, 2, "video_colorization")
    rng_network, rng_centers = jax.random.split(rng)
    params, extra = started(network, rng_network, {"image": side_by_side(gray_frames(batch["clip"]))},
                            method="places")
    ab = lab_of(batch["clip"])[..., 1:]
    # One pixel of each patch of 4 x 4 is enough to know the colors by.
    rows = ab[:, :, ::4, ::4].reshape(-1, 2)
    return params, {**extra, "centers": color_centers(rng_centers, rows, num_colors)}

  def features(params, extra, clips, mask, *, deterministic=False, network=network):
    """Returns f of all frames, [n, frames, h, w, dim], and the new `extra`."""
    views = gray_frames(clips)
    batch = {"image": side_by_side(views), "mask": jnp.repeat(mask, views.shape[1])}
    maps, extra = applied(network, params, extra, batch, deterministic=deterministic, method="places")
    return l2_normalize(maps).reshape(*views.shape[:2], *maps.shape[1:]), extra

  def predicted(params, extra, batch, **options):
    """Returns the copied colors y, [n, places, colors], all true ones, [n, frames, h, w], and the new `extra`."""
    clips = batch["clip"]
    check_length(clips.shape[1], 2, "video_colorization")
    maps, extra = features(params, extra, clips, row_mask(batch), **options)
    colors = nearest_colors(lab_of(clips)[..., 1:], extra["centers"], *maps.shape[2:4])
    places = lambda x, *last: x.reshape(len(clips), -1, *last)
    known = jax.nn.one_hot(places(colors[:, :-1]), num_colors)
    copies = copied(places(maps[:, -1], maps.shape[-1]), places(maps[:, :-1], maps.shape[-1]), known,
                    temperature=temperature, block=block)
    return copies, colors, extra

  def judged(copies, colors):
    """Returns losses and hits of the last frame's places, [n, places]."""
    colors = colors[:, -1].reshape(len(colors), -1)
    losses = -jnp.log(jnp.maximum(jnp.take_along_axis(copies, colors[..., None], -1)[..., 0], 1e-6))
    return losses, (copies.argmax(-1) == colors).astype(jnp.float32)

  def loss_fn(params, extra, batch, rng):
    del rng  # There is nothing random here.
    copies, colors, extra = predicted(params, extra, batch)
    losses, hits = judged(copies, colors)
    mask = row_mask(batch)
    return masked_mean(losses, mask), ({"accuracy": masked_mean(hits, mask)}, extra)

  def measures(params, extra, batch):
    """Held-out loss and accuracy, and the accuracy of the color at the same place of the frame before."""
    copies, colors, _ = predicted(params, extra, batch, deterministic=True)
    losses, hits = judged(copies, colors)
    mask = row_mask(batch)
    return {"pretext_loss": sums(losses, mask), "pretext_accuracy": sums(hits, mask),
            "still_accuracy": sums((colors[:, -2] == colors[:, -1]).astype(jnp.float32), mask)}

  def layers(params, extra, batch):
    maps, _ = features(params, extra, batch["clip"], row_mask(batch), deterministic=True)
    return {**trunk_layers(params, extra, batch), "features": maps}

  def reconstruct(params, extra, batch):
    """The last frame of each clip, and its lightness with the colors copied, in the grid of the map."""
    copies, colors, _ = predicted(params, extra, batch, deterministic=True)
    lab = lab_of(batch["clip"][:, -1])
    ab = jnp.matmul(copies, extra["centers"], precision="highest").reshape(len(copies), *colors.shape[2:], 2)
    ab = jax.image.resize(ab, (*lab.shape[:3], 2), "bilinear")
    return {"original": to_float(batch["clip"][:, -1]),
            "reconstructed": color.lab_to_rgb(jnp.concatenate([lab[..., :1], ab], -1))}

  def calibrated(params, extra, batch):
    return predicted(params, extra, batch, network=forgetful(network))[2]

  outputs = {"layers": layers, "measures": measures, "calibrated": calibrated, "reconstruct": reconstruct}
  return gradient_model(init_params, loss_fn, embed_fn, optimizer or optax.adam(1e-3), coupled=True,
                        ema_decay=ema_decay, outputs=outputs, rules=RULES)


def gray_frames(clips: Shaped[Array, "n frames height width channels"]) -> Float[Array, "n frames height width 1"]:
  """Returns frames in gray, [0, 1]."""
  clips = to_float(clips)
  weights = LUMA if clips.shape[-1] == 3 else (1.0,)
  return sum(weight * clips[..., i] for i, weight in enumerate(weights))[..., None]


def lab_of(clips: Shaped[Array, "*shape channels"]) -> Float[Array, "*shape 3"]:
  """Returns Lab of frames in color."""
  if clips.shape[-1] != 3:
    raise InputError(f"video_colorization: frames of {clips.shape[-1]} channels have no colors to copy; give video "
                     "with red, green and blue")
  return color.rgb_to_lab(to_float(clips))


def nearest_colors(ab: Float[Array, "n frames height width 2"], centers: Float[Array, "k 2"], rows: int,
                   columns: int) -> Int[Array, "n frames {rows} {columns}"]:
  """Returns the nearest center to the mean ab of each of `rows` x `columns` cells."""
  means = cell_means(side_by_side(ab), rows, columns)
  distance = jnp.square(means[..., None, :] - centers).sum(-1)
  return distance.argmin(-1).astype(jnp.int32).reshape(*ab.shape[:2], rows, columns)


def color_centers(rng: Array, rows: Float[Array, "n 2"], num: int) -> Float[Array, "{num} 2"]:
  """Returns the centers of k-means from k-means++; a cluster that is empty keeps its center."""
  if num > len(rows):
    raise InputError(f"num_colors={num}: exceeds the {len(rows)} pixels of the first batch that they start from")

  def turn(centers, _):
    member = jax.nn.one_hot(squared_distances(rows.T, centers).argmin(0), num)
    size = member.sum(0)[:, None]
    return jnp.where(size > 0, jnp.matmul(member.T, rows, precision="highest") / jnp.maximum(size, 1), centers), None

  start = starting_centers(rng, "kmeans++", rows, jnp.ones(len(rows)), num)
  return jax.lax.scan(turn, start, None, KMEANS_TURNS)[0]
