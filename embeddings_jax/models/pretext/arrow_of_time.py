"""Arrow of time: tells whether a video runs forwards or backwards.

Pickup et al. 2014, "Seeing the Arrow of Time"; Wei, Lim, Zisserman, Freeman 2018, "Learning and Using the Arrow of
Time". A window is cut into segments t of m successive frames, or of their differences, which lie in the channels of
one image. In nats, with each of n windows in both directions:

  s_t = mean over places of w . f(x_t ... x_t+m-1) + b,   s = mean_t s_t
  L = -1/2n Σ log σ(s) forwards + log σ(-s) backwards

  symbol  name       shape
  f       encoder    [batch segments, h, w, dim], the trunk's last map
  w, b    projector  [dim], []; at places of a map it gives the class activation, [batch, segments, h, w]
  m       segment

As the head is linear, s is the mean of the class activations (Zhou et al. 2016), so that `predict` shows when and
where time is seen. Black borders and the camera's motion tell the direction by artifacts (Wei et al., section 4):
`border` cuts, `stabilize` holds the background still. `embed` is the mean over segments of the clip as it is.
Deviations: differences of pixels for optical flow; any trunk (the paper's: VGG-16, fused over ten segments).

Split: clip | its frames, played forwards or backwards | the direction.

Expected: `embeddings_jax/configs/arrow_of_time.py`.
"""
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Shaped

from embeddings_jax.gradient import gradient_model
from embeddings_jax.nets.clips import check_clips, check_length, clip_embedder, differences
from embeddings_jax.nets.pretext import PretextNetwork, applied, forgetful, masked_mean, side_by_side, started, sums
from embeddings_jax.nets.siamese import Mlp
from embeddings_jax.nets.transformer import RULES
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.pixels import to_float
from embeddings_jax.ops.stabilize import stabilized
from embeddings_jax.types import InputError, Model

INPUTS = ("frames", "differences")


@takes(clip=5)
def arrow_of_time(
    *,
    encoder: nn.Module,
    inputs: str = "differences",
    segment: int = 4,
    segment_stride: int = 2,
    border: int = 0,
    stabilize: bool = False,
    embed_layer: str = "",
    embed_grid: int = 1,
    optimizer: optax.GradientTransformation | None = None,
    ema_decay: float | None = None,
) -> Model:
  """Predicts the direction of time.

  Args:
    encoder: Trunk; has `features(batch, deterministic)` of `image`, whose channels are those of a segment.
    inputs: `frames`, or their `differences`.
    segment: Frames, or differences, of a segment, m.
    segment_stride: Distance of the segments' beginnings.
    border: Pixels that are cut off at each side.
    stabilize: Whether the background is held still.
    embed_layer: Block that is embedded, as `block_3`; "" for the last.
    embed_grid: Cells per side over which that block is averaged.
    optimizer: Adam with a learning rate of 1e-3 by default.
    ema_decay: See `gradient_model`.
  """
  if inputs not in INPUTS:
    raise InputError(f"inputs={inputs!r}: must be one of {', '.join(INPUTS)}")
  if segment < 1 or segment_stride < 1 or border < 0:
    raise InputError(f"segment={segment}, segment_stride={segment_stride}, border={border}: must be at least 1, 1 "
                     "and 0")
  least = segment + (inputs == "differences")
  network = PretextNetwork(encoder, Mlp((1,)))

  def prepare(clips):
    """Returns the segments of clips, [n, segments, h, w, channels]."""
    check_length(clips.shape[1], least, "arrow_of_time")
    return segments(cleaned(clips, border, stabilize), inputs, segment, segment_stride)

  embed_fn, layers = clip_embedder(encoder, embed_layer, embed_grid, prepare)

  def both_directions(clips):
    """Returns the segments of clips and of their reverses, [2n, segments, h, w, channels], side by side."""
    clips = cleaned(clips, border, stabilize)
    pairs = side_by_side(jnp.stack([clips, clips[:, ::-1]], 1))
    return segments(pairs, inputs, segment, segment_stride)

  def activations(params, extra, views, mask, *, deterministic=False, network=network):
    """Returns the class activations of segments, [n, segments, h, w], and the new `extra`."""
    batch = {"image": side_by_side(views), "mask": jnp.repeat(mask, views.shape[1])}
    maps, extra = applied(network, params, extra, batch, deterministic=deterministic, method="places")
    return maps[..., 0].reshape(*views.shape[:2], *maps.shape[1:3]), extra

  def init_params(rng, batch):
    check_clips(encoder, batch, least, "arrow_of_time")
    return started(network, rng, {"image": side_by_side(prepare(batch["clip"]))}, method="places")

  def predicted(params, extra, batch, *, deterministic=False, network=network):
    """Returns losses and hits of both directions, [n, 2], and the new `extra`."""
    maps, extra = activations(params, extra, both_directions(batch["clip"]), jnp.repeat(row_mask(batch), 2),
                              deterministic=deterministic, network=network)
    scores = maps.mean((1, 2, 3)).reshape(-1, 2) * jnp.array([1, -1])
    return -jax.nn.log_sigmoid(scores), (scores > 0).astype(jnp.float32), extra

  def loss_fn(params, extra, batch, rng):
    del rng  # There is nothing random here.
    losses, hits, extra = predicted(params, extra, batch)
    mask = row_mask(batch)
    return masked_mean(losses, mask), ({"accuracy": masked_mean(hits, mask)}, extra)

  def measures(params, extra, batch):
    losses, hits, _ = predicted(params, extra, batch, deterministic=True)
    return {"pretext_loss": sums(losses, row_mask(batch)), "pretext_accuracy": sums(hits, row_mask(batch))}

  def calibrated(params, extra, batch):
    return predicted(params, extra, batch, network=forgetful(network))[2]

  def predict(params, extra, batch):
    """Class activations of clips as they are, positive where time runs forwards, [n, segments, h, w]."""
    return activations(params, extra, prepare(batch["clip"]), row_mask(batch), deterministic=True)[0]

  outputs = {"layers": layers, "measures": measures, "calibrated": calibrated, "predict": predict}
  return gradient_model(init_params, loss_fn, embed_fn, optimizer or optax.adam(1e-3), coupled=True,
                        ema_decay=ema_decay, outputs=outputs, rules=RULES)


def cleaned(clips: Shaped[Array, "n frames height width channels"], border: int, stabilize: bool) -> Float[
    Array, "n frames new_height new_width channels"]:
  """Returns clips in [0, 1], their background perhaps held still, without `border` pixels at each side."""
  if 2 * border >= min(clips.shape[2:4]):
    raise InputError(f"border={border}: leaves nothing of frames of {clips.shape[2]} x {clips.shape[3]} pixels")
  clips = to_float(clips)
  clips = jax.vmap(stabilized)(clips) if stabilize else clips
  return clips[:, :, border:clips.shape[2] - border, border:clips.shape[3] - border]


def segments(clips: Float[Array, "n frames height width channels"], inputs: str, length: int, stride: int) -> Float[
    Array, "n segments height width stacked"]:
  """Returns successive frames, or differences, as channels of one image, the first ones first."""
  values = differences(clips) if inputs == "differences" else clips
  starts = range(0, values.shape[1] - length + 1, stride)
  parts = [jnp.concatenate([values[:, start + i] for i in range(length)], -1) for start in starts]
  return jnp.stack(parts, 1)
