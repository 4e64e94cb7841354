"""Dynamics: what an action does to a picture, and which actions lead from one picture to another.

Agrawal, Nair, Abbeel, Malik, Levine 2016, "Learning to Poke by Poking", arXiv:1606.07419, and Pathak, Agrawal, Efros,
Darrell 2017, "Curiosity-driven Exploration by Self-supervised Prediction", arXiv:1705.05363: a forward and an inverse
model on one trunk f. Here the forward model predicts pixels, and the inverse one the *sequence* of the k actions
between two frames, one class for each of the A^k sequences. With frames x_t and actions a_t, means over windows:

  x'_t+1 = x_t + u(f(x_t-1), f(x_t), a_t) + W_a * (x_t - x_t-1),   L_f = mean |x'_t+1 - x_t+1|^2 / σ^2
  L_i = -log softmax(q(f(x_t), f(x_t+k)))_(a_t, ..., a_t+k-1),   L = forward_weight L_f + inverse_weight L_i

  symbol  name        shape
  f       encoder     [2 or more batch, h, w, dim], the trunk's last map
  u, W    forward     convolutions of the maps, and of the last change, with kernels of the action's own
  q       inverse     `predictor_dims` on correlations of both maps, where these differ, [batch, A^k]
  σ       pixel_std   .1: both losses are then of one size

Held out, `forward_mse` stands beside `linear_mse` (2 x_t - x_t-1, in [0, 1]), `still_mse` (x_t) and `shuffled_mse`,
where each window gets the action of another. `embed` is the mean over the frames of a clip. Deviation: the maps are
those of one frame each; Pathak et al. predict features, which needs their inverse loss not to collapse.

Split: two frames and the actions between them | a frame and the actions; both frames | the later frame; the actions.

Expected: `embeddings_jax/configs/dynamics.py`.
"""
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int

from embeddings_jax.gradient import gradient_model
from embeddings_jax.nets.clips import check_clips, clip_embedder
from embeddings_jax.nets.images import Conv
from embeddings_jax.nets.pretext import (
    applied,
    cross_entropy,
    feature_map,
    forgetful,
    masked_mean,
    side_by_side,
    started,
    sums,
)
from embeddings_jax.nets.siamese import Mlp
from embeddings_jax.nets.transformer import RULES
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.pixels import to_float
from embeddings_jax.types import Fact, InputError, Model

MAX_SEQUENCES = 10_000


class Dynamics(nn.Module):
  """The trunk with the forward and the inverse model.

  Attributes:
    encoder: The trunk.
    num_actions: A.
    width: Channels of the convolutions of both models.
    reach: Pixels that an action moves things by, at most, and places of the maps for the inverse model.
    predictor: Head of the inverse model.
  """

  encoder: nn.Module
  num_actions: int
  width: int
  reach: int
  predictor: Mlp

  @nn.compact
  def __call__(self, frames: Float[Array, "n 3 h w c"], actions: Int[Array, " n"], mask: Array, *,
               deterministic: bool = True) -> tuple[Array, Array]:
    """Returns the frame after the second one, [n, h, w, c], and the logits of sequences from the second frame to the
    third, [n, A^k]."""
    n, number, height, width, channels = frames.shape
    batch = {"image": side_by_side(frames), "mask": jnp.repeat(mask, number)}
    maps = feature_map(self.encoder, batch, deterministic)
    maps = maps.reshape(n, number, *maps.shape[1:])
    rows, columns = maps.shape[2:4]
    if height % rows or width % columns:
      raise InputError(f"dynamics: maps of {rows} x {columns} places do not divide frames of {height} x {width} "
                       "pixels; take other strides or data.image_size")
    known = jax.nn.one_hot(actions, self.num_actions)

    def of_action(x, features):
      """The action's own of A groups of features."""
      return jnp.einsum("nhwaf,na->nhwf", x.reshape(*x.shape[:3], self.num_actions, features), known)

    x = nn.relu(Conv(self.width, name="forward_0")(jnp.concatenate([maps[:, 0], maps[:, 1]], -1)))
    x = nn.relu(of_action(Conv(self.num_actions * self.width, name="forward_1")(x), self.width))
    cell = height // rows, width // columns
    x = nn.Dense(cell[0] * cell[1] * channels, kernel_init=nn.initializers.zeros, name="forward_pixels")(x)
    x = x.reshape(n, rows, columns, *cell, channels).transpose(0, 1, 3, 2, 4, 5).reshape(n, height, width, channels)
    # What the last step has changed, moved on by the action.
    moved = nn.Conv(self.num_actions * channels, (2 * self.reach + 1,) * 2, use_bias=False,
                    kernel_init=nn.initializers.zeros, name="forward_moved")(frames[:, 1] - frames[:, 0])
    following = frames[:, 1] + x + of_action(moved, channels)

    changed = nn.relu(Conv(1, name="inverse_changed")(jnp.abs(maps[:, 2] - maps[:, 1])))
    features = nn.Dense(self.width, name="inverse_features")(maps[:, 1:]) * changed[:, None]
    scores = displacements(features[:, 0], features[:, 1], self.reach) / (jnp.square(changed).sum((1, 2)) + 1)
    return following, self.predictor(scores, mask, deterministic=deterministic)


@takes(clip=5, actions=2)
def dynamics(
    *,
    encoder: nn.Module,
    num_actions: Fact[int],
    num_steps_between: int = 2,
    width: int = 64,
    reach: int = 4,
    predictor_dims: Sequence[int] = (128,),
    forward_weight: float = 1.0,
    inverse_weight: float = 1.0,
    pixel_std: float = 0.1,
    embed_layer: str = "",
    embed_grid: int = 1,
    optimizer: optax.GradientTransformation | None = None,
    ema_decay: float | None = None,
) -> Model:
  """Learns a forward and an inverse model.

  Args:
    encoder: Trunk; has `features(batch, deterministic)` of `image`.
    num_actions: A.
    num_steps_between: k, actions between the two frames of the inverse model.
    width: Channels of the convolutions of both models.
    reach: Pixels that an action moves things by, at most, and places of the maps for the inverse model.
    predictor_dims: Hidden layers of q.
    forward_weight, inverse_weight: Weights of both losses.
    pixel_std: σ, with which squared errors of pixels are compared.
    embed_layer: Block that is embedded, as `block_3`; "" for the last.
    embed_grid: Cells per side over which that block is averaged.
    optimizer: Adam with a learning rate of 1e-3 by default.
    ema_decay: See `gradient_model`.
  """
  between = num_steps_between
  if between < 1 or width < 1 or reach < 1 or not pixel_std > 0:
    raise InputError(f"num_steps_between={between}, width={width}, reach={reach}, pixel_std={pixel_std}: must be at "
                     "least 1, 1, 1, and above 0")
  if num_actions < 2:
    raise InputError(f"dynamics: needs actions, and the data has {num_actions}; set data.actions, as of "
                     "moving-digits-actions")
  if num_actions**between > MAX_SEQUENCES:
    raise InputError(f"num_steps_between={between}: {num_actions} actions have {num_actions**between} sequences, "
                     f"more than {MAX_SEQUENCES}")
  least = 2 + between
  network = Dynamics(encoder, num_actions, width, reach, Mlp((*predictor_dims, num_actions**between)))
  embed_fn, layers = clip_embedder(encoder, embed_layer, embed_grid)

  def init_params(rng, batch):
    check_clips(encoder, batch, least, "dynamics")
    return started(network, rng, to_float(batch["clip"][:, :3]), batch["actions"][:, 1], row_mask(batch))

  def predicted(params, extra, batch, *, actions=None, deterministic=False, network=network):
    """Returns errors of the next frame, [n, h, w, c], losses and hits of sequences, [n], and the new `extra`."""
    clip = to_float(batch["clip"])
    frames = jnp.stack([clip[:, 0], clip[:, 1], clip[:, 1 + between]], 1)
    actions = batch["actions"][:, 1] if actions is None else actions
    (following, logits), extra = applied(network, params, extra, frames, actions, row_mask(batch),
                                         deterministic=deterministic)
    label = sequence_number(batch["actions"][:, 1:1 + between], num_actions)
    return (following - clip[:, 2], cross_entropy(logits, label), (logits.argmax(-1) == label).astype(jnp.float32),
            extra)

  def loss_fn(params, extra, batch, rng):
    del rng  # There is nothing random here.
    errors, losses, hits, extra = predicted(params, extra, batch)
    mask = row_mask(batch)
    forward, inverse = masked_mean(jnp.square(errors), mask), masked_mean(losses, mask)
    metrics = {"forward_mse": forward, "inverse_loss": inverse, "accuracy": masked_mean(hits, mask)}
    return forward_weight * forward / pixel_std**2 + inverse_weight * inverse, (metrics, extra)

  def measures(params, extra, batch):
    clip, mask = to_float(batch["clip"]), row_mask(batch)
    errors, losses, hits, _ = predicted(params, extra, batch, deterministic=True)
    # Padding lies behind the valid rows, whose actions are moved round by one.
    valid = mask.sum().astype(jnp.int32)
    other = (jnp.arange(len(mask)) + 1) % jnp.maximum(valid, 1)
    wrong = predicted(params, extra, batch, actions=batch["actions"][other, 1], deterministic=True)[0]
    linear = jnp.clip(2 * clip[:, 1] - clip[:, 0], 0, 1)
    differences = {"forward_mse": errors, "linear_mse": linear - clip[:, 2], "still_mse": clip[:, 1] - clip[:, 2],
                   "shuffled_mse": wrong}
    return {**{name: sums(jnp.square(value), mask) for name, value in differences.items()},
            "inverse_loss": sums(losses, mask), "inverse_accuracy": sums(hits, mask)}

  def calibrated(params, extra, batch):
    return predicted(params, extra, batch, network=forgetful(network))[-1]

  def predict(params, extra, batch):
    """The frame after the second of each clip for each action, [n, A, h, w, c]."""
    clip = to_float(batch["clip"])
    frames = jnp.stack([clip[:, 0], clip[:, 1], clip[:, 1]], 1)
    one = lambda action: applied(network, params, extra, frames, jnp.full(len(clip), action), row_mask(batch),
                                 deterministic=True)[0][0]
    return jnp.stack([one(action) for action in range(num_actions)], 1)

  outputs = {"layers": layers, "measures": measures, "calibrated": calibrated, "predict": predict}
  return gradient_model(init_params, loss_fn, embed_fn, optimizer or optax.adam(1e-3), coupled=True,
                        ema_decay=ema_decay, outputs=outputs, rules=RULES)


def displacements(one: Float[Array, "n h w dim"], other: Float[Array, "n h w dim"], reach: int) -> Float[
    Array, "n moves"]:
  """Returns sums over places p of one(p) . other(p + d) for moves d of up to `reach` rows and columns, row by row."""
  height, width = one.shape[1:3]
  number = 2 * reach + 1
  padded = jnp.pad(other, ((0, 0), (reach, reach), (reach, reach), (0, 0)))

  def of_row(row):
    rows = jax.lax.dynamic_slice_in_dim(padded, row, height, 1)
    moved = jnp.stack([rows[:, :, column:column + width] for column in range(number)], 1)
    return jnp.einsum("nhwd,nmhwd->nm", one, moved, precision="highest")

  return jnp.moveaxis(jax.lax.map(of_row, jnp.arange(number)), 0, 1).reshape(len(one), -1)


def sequence_number(actions: Int[Array, "n steps"], num_actions: int) -> Int[Array, " n"]:
  """Returns the number of a sequence of actions, in order of its first action, then of its second, ..."""
  number = jnp.zeros(len(actions), jnp.int32)
  for step in range(actions.shape[1]):
    number = number * num_actions + actions[:, step]
  return number
