"""Order verification: tells whether three frames of a video stand in the order of time.

Misra, Zitnick, Hebert 2016, "Shuffle and Learn: Unsupervised Learning using Temporal Order Verification",
arXiv:1603.08561, section 3. Five frames a < b < c < d < e are drawn from a part of the window with much motion (its
first frame in proportion to the motion that follows). Triples of them are

  valid     (b, c, d) and its reverse (d, c, b)
  invalid   (b, a, d) and (b, e, d)

with `invalid_fraction` ρ of the latter. All frames go through one trunk and meet late. In nats, with n windows and k
triples of each:

  s = q(g(f(x_1)), g(f(x_2)), g(f(x_3))),   L = -1/nk Σ y log σ(s) + (1 - y) log σ(-s)

  symbol  name        shape
  f       encoder     [batch 5, h, w, dim], the trunk's last map
  g       projector   [batch 5, projector_dims[-1]], on means of the map over `grid` x `grid` cells
  q       predictor   [batch, k, 1]
  y       valid       bool [batch, k]

Held out, all four triples of each window are judged, so that the accuracy is balanced, and a triple is called valid
where s exceeds the prior log (1 - ρ) / ρ. `embed` is the mean over the frames of a clip. Deviations: motion is the
mean absolute difference of frames (the paper's: optical flow); the distances of frames are not bounded from below.

Split: clip | three of its frames | whether they are in order.

Expected: `embeddings_jax/configs/order_verification.py`.
"""
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, Shaped

from embeddings_jax.gradient import gradient_model
from embeddings_jax.nets.clips import check_clips, check_length, clip_embedder, motion
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
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.patch_layouts import row_keys
from embeddings_jax.ops.pixels import to_float
from embeddings_jax.types import InputError, Model

# Numbers of frames among (a, b, c, d, e): two valid triples, then two invalid ones.
TRIPLES = ((1, 2, 3), (3, 2, 1), (1, 0, 3), (1, 4, 3))
NUM_FRAMES = 5


@takes(clip=5)
def order_verification(
    *,
    encoder: nn.Module,
    span: int = 0,
    triples: int = 4,
    invalid_fraction: float = 0.75,
    center: bool = False,
    projector_dims: Sequence[int] = (128,),
    predictor_dims: Sequence[int] = (128,),
    grid: int = 4,
    embed_layer: str = "",
    embed_grid: int = 1,
    optimizer: optax.GradientTransformation | None = None,
    ema_decay: float | None = None,
) -> Model:
  """Verifies the order of frames.

  Args:
    encoder: Trunk; has `features(batch, deterministic)` of `image`.
    span: Frames of the part of a window that the five are drawn from; 0: the whole window.
    triples: Triples of each window, k.
    invalid_fraction: ρ.
    center: Whether the mean of a window's frames is subtracted from each, so that what rests disappears.
    projector_dims: Layers of g.
    predictor_dims: Hidden layers of q.
    grid: Cells per side over which the map of a frame is averaged for g.
    embed_layer: Block that is embedded, as `block_3`; "" for the last.
    embed_grid: Cells per side over which that block is averaged.
    optimizer: Adam with a learning rate of 1e-3 by default.
    ema_decay: See `gradient_model`.
  """
  if triples < 1 or not 0 < invalid_fraction < 1 or span and span < NUM_FRAMES:
    raise InputError(f"triples={triples}, invalid_fraction={invalid_fraction}, span={span}: must be at least 1, lie "
                     f"in (0, 1), and be 0 or at least {NUM_FRAMES}")
  network = PretextNetwork(encoder, Mlp(tuple(projector_dims)), Mlp((*predictor_dims, 1)), grid)
  prior = math.log((1 - invalid_fraction) / invalid_fraction)
  shown = centered if center else to_float
  embed_fn, layers = clip_embedder(encoder, embed_layer, embed_grid, shown)

  def examples(batch, rng):
    """Returns five frames of each window, [n, 5, h, w, c], and the numbers of its triples, [n, k]."""
    check_length(batch["clip"].shape[1], max(span, NUM_FRAMES), "order_verification")

    def one(key, clip):
      rng_frames, rng_kinds = jax.random.split(key)
      numbers = five_frames(rng_frames, to_float(clip), span)
      return shown(clip[None])[0, numbers], triple_kinds(rng_kinds, triples, invalid_fraction)

    return jax.vmap(one)(row_keys(rng, len(batch["clip"])), batch["clip"])

  def judged(params, extra, frames, kinds, mask, *, deterministic=False, network=network):
    """Returns the scores of triples, [n, k], and the new `extra`."""
    views = {"image": side_by_side(frames), "mask": jnp.repeat(mask, frames.shape[1])}
    scores, extra = applied(network, params, extra, views, jnp.asarray(TRIPLES)[kinds], mask,
                            deterministic=deterministic, method="joined")
    return scores[..., 0], extra

  def init_params(rng, batch):
    check_clips(encoder, batch, max(span, NUM_FRAMES), "order_verification")
    frames, kinds = examples(batch, rng)
    return started(network, rng, {"image": side_by_side(frames)}, jnp.asarray(TRIPLES)[kinds], row_mask(batch),
                   method="joined")

  def loss_fn(params, extra, batch, rng):
    frames, kinds = examples(batch, rng)
    mask = row_mask(batch)
    scores, extra = judged(params, extra, frames, kinds, mask)
    hits = ((scores > prior) == is_valid(kinds)).astype(jnp.float32)
    return masked_mean(log_losses(scores, is_valid(kinds)), mask), ({"accuracy": masked_mean(hits, mask)}, extra)

  def measures(params, extra, batch):
    """Balanced accuracy, and the loss at equal shares of valid and invalid triples."""
    frames, _ = examples(batch, jax.random.key(0))
    kinds = jnp.broadcast_to(jnp.arange(len(TRIPLES)), (len(frames), len(TRIPLES)))
    scores, _ = judged(params, extra, frames, kinds, row_mask(batch), deterministic=True)
    hits = ((scores > prior) == is_valid(kinds)).astype(jnp.float32)
    return {"pretext_loss": sums(log_losses(scores - prior, is_valid(kinds)), row_mask(batch)),
            "balanced_accuracy": sums(hits, row_mask(batch))}

  def calibrated(params, extra, batch):
    return judged(params, extra, *examples(batch, jax.random.key(0)), row_mask(batch),
                  network=forgetful(network))[1]

  def predict(params, extra, batch):
    """Log odds, at equal shares, that frames (i, j, k) of each clip are in order, [n, frames, frames, frames]."""
    clips = shown(batch["clip"])
    number = clips.shape[1]
    order = jnp.stack(jnp.meshgrid(*[jnp.arange(number)] * 3, indexing="ij"), -1).reshape(-1, 3)
    order = jnp.broadcast_to(order, (len(clips), *order.shape))
    scores, _ = applied(network, params, extra, {"image": side_by_side(clips)}, order, row_mask(batch),
                        deterministic=True, method="joined")
    return scores.reshape(len(clips), number, number, number) - prior

  def draws(params, extra, batch, rng):
    """The five frames of each window, and the numbers of its triples in `TRIPLES`."""
    frames, kinds = examples(batch, rng)
    return {"frames": frames, "kinds": kinds}

  outputs = {"layers": layers, "measures": measures, "calibrated": calibrated, "predict": predict, "draws": draws}
  return gradient_model(init_params, loss_fn, embed_fn, optimizer or optax.adam(1e-3), coupled=True,
                        ema_decay=ema_decay, outputs=outputs, rules=RULES)


def centered(clips: Shaped[Array, "n frames height width channels"]) -> Float[
    Array, "n frames height width channels"]:
  """Returns frames without the mean of their clip, scaled from [-1, 1] to [0, 1]."""
  clips = to_float(clips)
  return (clips - clips.mean(1, keepdims=True) + 1) / 2


def five_frames(rng: Array, clip: Float[Array, "frames height width channels"], span: int) -> Int[Array, "5"]:
  """Returns the numbers of five frames in order, from `span` successive ones with much motion; 0: from all."""
  rng_start, rng_frames = jax.random.split(rng)
  start, span = jnp.zeros((), jnp.int32), span or len(clip)
  if span < len(clip):
    start = jax.random.categorical(rng_start, jnp.log(window_motion(clip, span) + 1e-6)).astype(jnp.int32)
  return start + jnp.sort(jax.random.permutation(rng_frames, span)[:NUM_FRAMES])


def window_motion(clip: Float[Array, "frames height width channels"], span: int) -> Float[Array, " starts"]:
  """Returns the motion in all `span` successive frames: the sum of the mean absolute differences."""
  total = jnp.concatenate([jnp.zeros(1), jnp.cumsum(motion(clip))])
  return total[span - 1:] - total[:len(clip) - span + 1]


def triple_kinds(rng: Array, num: int, invalid_fraction: float) -> Int[Array, " {num}"]:
  """Returns the numbers of random triples in `TRIPLES`."""
  rng_valid, rng_which = jax.random.split(rng)
  invalid = jax.random.bernoulli(rng_valid, invalid_fraction, (num,))
  return 2 * invalid.astype(jnp.int32) + jax.random.randint(rng_which, (num,), 0, 2)


def is_valid(kinds: Int[Array, "*shape"]) -> Bool[Array, "*shape"]:
  """Returns whether triples of these numbers are valid."""
  return kinds < 2


def log_losses(scores: Float[Array, "*shape"], valid: Bool[Array, "*shape"]) -> Float[Array, "*shape"]:
  """Returns -log σ(s) of valid and -log σ(-s) of invalid triples, nats."""
  return -jax.nn.log_sigmoid(jnp.where(valid, scores, -scores))
