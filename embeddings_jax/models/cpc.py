"""Contrastive predictive coding: a network that predicts its own future codes among others.

van den Oord, Li, Vinyals 2018, "Representation Learning with Contrastive Predictive Coding", arXiv:1807.03748.

A strided convolutional encoder makes a code z_t of every short piece of the signal, a GRU sums up
the codes so far in a context c_t, and for each k = 1 ... K a bilinear score tells the code k frames
ahead from other codes x_j (equations 3 and 4, in nats, mean over t, k and sequences):

  f_k(x_j, c_t) = exp(z_j^T W_k c_t / τ)
  L = -1/K Σ_k E_t log( f_k(x_t+k, c_t) / Σ_{j in S} f_k(x_j, c_t) ),   I(x_t+k; c_t) >= log N - L_k

  symbol  name             shape
  z       frames           [batch, frames, channels[-1]]
  c       context          [batch, frames, context_dim]
  W_k     predictor        [num_predictions, context_dim, channels[-1]]
  K       num_predictions
  S, N    negatives        the table below
  τ       temperature      1 in the paper

Where the others come from (`ops/contrastive.py`; all valid sequences of the global batch), and what the paper calls
it, with the accuracies on phones of its table 2 (12 steps; of 2, 4, 8, 16 steps: 28.5, 57.6, 63.6, 63.8):

  negatives     N                     paper
  all           batch + frames - 1    mixed speaker           64.6
  other         batch                 mixed speaker (excl.)   57.3
  group         group + frames - 1    same speaker            65.5
  group_other   group                 same speaker (excl.)    64.6
  same          frames                current sequence only   65.2

Deviations: LayerNorm over the channels of each frame after every convolution (`norm=False` for the
paper's network); the paper's negatives of other sequences come from any time, here from the same.
Batch: `signal`, int16 samples (scaled by 2^-15) or uint8 bytes (embedded), where sequences are padded `length`,
their valid elements, and for negatives of one group `group`, int32 [batch]. `embed` is the mean and the standard deviation of the context over
valid frames.

Expected: `experiments/configs/cpc.py`.
"""
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from embeddings_jax.gradient import gradient_model
from embeddings_jax.nets.conv import StridedConv, num_frames, receptive_field
from embeddings_jax.nets.recurrent import GRU
from embeddings_jax.ops.contrastive import NEGATIVES, sequence_info_nce
from embeddings_jax.types import Batch, InputError, Model

INPUTS = ("waveform", "bytes")


class Encoder(nn.Module):
  """The trunk: `signal [batch, length] -> (frames [batch, time, channels], context [batch, time, context_dim])`."""

  inputs: str
  channels: Sequence[int]
  kernel_sizes: Sequence[int]
  strides: Sequence[int]
  context_dim: int
  embedding_dim: int
  norm: bool
  dtype: DTypeLike

  @nn.compact
  def __call__(self, signal):
    if self.inputs == "bytes":
      x = nn.Embed(256, self.embedding_dim, dtype=self.dtype, name="embedding")(signal.astype(jnp.int32))
    else:
      x = signal.astype(jnp.float32)[..., None] * 2.0**-15
    conv = StridedConv(self.channels, self.kernel_sizes, self.strides, self.norm, self.dtype, name="conv")
    frames = conv(x)
    return frames, GRU(self.context_dim, self.dtype, name="gru")(frames)


class _Cpc(nn.Module):
  """Encoder and predictors: `signal -> (frames, one prediction [batch, time - k, channels] per step ahead k)`."""

  trunk: Mapping[str, Any]
  num_predictions: int

  def setup(self):
    self.encoder = Encoder(**self.trunk)
    shape = (self.num_predictions, self.trunk["context_dim"], self.trunk["channels"][-1])
    self.predictor = self.param("predictor", nn.initializers.lecun_normal(batch_axis=0), shape)

  def __call__(self, signal):
    frames, context = self.encoder(signal)
    context, kernels = context.astype(frames.dtype), self.predictor.astype(frames.dtype)
    # One product per step: slices of a joint one would be padded and summed in the backward pass.
    return frames, [context[:, :-k] @ kernel for k, kernel in enumerate(kernels, 1)]

  def encode(self, signal):
    return self.encoder(signal)


def encoder(
    *,
    inputs: str = "waveform",
    channels: int | Sequence[int] = 512,
    kernel_sizes: Sequence[int] = (10, 8, 4, 4, 4),
    strides: Sequence[int] = (5, 4, 2, 2, 2),
    context_dim: int = 256,
    embedding_dim: int = 64,
    norm: bool = True,
    dtype: str = "float32",
) -> Encoder:
  """The network whose parameters lie under `params/encoder`."""
  return Encoder(**_trunk(inputs, channels, kernel_sizes, strides, context_dim, embedding_dim, norm, dtype))


def cpc(
    *,
    inputs: str = "waveform",
    channels: int | Sequence[int] = 512,
    kernel_sizes: Sequence[int] = (10, 8, 4, 4, 4),
    strides: Sequence[int] = (5, 4, 2, 2, 2),
    context_dim: int = 256,
    num_predictions: int = 12,
    negatives: str = "all",
    temperature: float = 1.0,
    embedding_dim: int = 64,
    norm: bool = True,
    dtype: str = "float32",
    optimizer: optax.GradientTransformation | None = None,
    accumulate: int = 1,
    ema_decay: float | None = None,
) -> Model:
  """Contrastive predictive coding; the defaults are the paper's for speech.

  Args:
    inputs: `waveform` (int16 samples) or `bytes` (uint8).
    channels: of every convolution, or one number for all of them.
    kernel_sizes, strides: of the convolutions.
    context_dim: of the GRU.
    num_predictions: frames ahead that are predicted, each by its own matrix.
    negatives: from the `same` sequence, from `other` sequences, or `all`; of the `group`, or its `group_other`.
    temperature: of the scores.
    embedding_dim: of a byte.
    norm: LayerNorm after every convolution.
    dtype: of the computation (`float32` or `bfloat16`); parameters and loss are float32.
    optimizer: by default the paper's Adam with a rate of 2e-4.
    accumulate, ema_decay: as for `gradient_model`.
  """
  trunk = _trunk(inputs, channels, kernel_sizes, strides, context_dim, embedding_dim, norm, dtype)
  if negatives not in NEGATIVES:
    raise InputError(f"negatives={negatives!r}: must be one of {', '.join(NEGATIVES)}")
  network = _Cpc(trunk, num_predictions)
  field, _ = receptive_field(kernel_sizes, strides)

  def init_params(rng, batch):
    return network.init(rng, batch["signal"])["params"], {}

  def frame_mask(batch: Batch) -> Float[Array, "batch frames"]:
    """1 for frames that see valid elements only, of rows that are no padding."""
    num_rows, length = batch["signal"].shape
    lengths = batch["length"] if "length" in batch else jnp.full(num_rows, length)
    times = jnp.arange(num_frames(length, kernel_sizes, strides))
    valid = times < num_frames(lengths, kernel_sizes, strides)[:, None]
    rows = batch["mask"] if "mask" in batch else jnp.ones(num_rows)
    return valid * rows[:, None].astype(jnp.float32)

  def contrasts(params, batch):
    """One `Contrast` per prediction step."""
    num_times = num_frames(batch["signal"].shape[1], kernel_sizes, strides)
    if num_times <= num_predictions:
      raise InputError(f"windows of {batch['signal'].shape[1]} elements give {num_times} frames, too few to predict "
                       f"{num_predictions} ahead: use longer windows, fewer num_predictions or smaller strides")
    frames, predictions = network.apply({"params": params}, batch["signal"])
    mask = frame_mask(batch)
    return [sequence_info_nce(prediction, frames, offset=k, mask=mask, group=batch.get("group"), negatives=negatives,
                              temperature=temperature)
            for k, prediction in enumerate(predictions, 1)]

  def loss_fn(params, extra, batch, rng):
    del rng
    steps = contrasts(params, batch)
    loss = jnp.stack([step.loss for step in steps]).mean()
    metrics = {f"bound_{k}": step.bound for k, step in enumerate(steps, 1)}
    metrics["accuracy"] = jnp.stack([step.accuracy for step in steps]).mean()
    metrics["log_num_candidates"] = jnp.stack([step.log_num_candidates for step in steps]).mean()
    return loss, (metrics, extra)

  def encode(params, batch):
    """Frames, context and mask; what lies beyond `length` is silence, and each row has a frame at least."""
    signal = batch["signal"]
    lengths = batch["length"] if "length" in batch else jnp.full(signal.shape[0], signal.shape[1])
    signal = jnp.where(jnp.arange(signal.shape[1]) < lengths[:, None], signal, 0)
    signal = jnp.pad(signal, ((0, 0), (0, max(0, field - signal.shape[1]))))
    frames, context = network.apply({"params": params}, signal, method="encode")
    count = jnp.maximum(num_frames(lengths, kernel_sizes, strides), 1)
    return frames, context, (jnp.arange(context.shape[1]) < count[:, None]).astype(jnp.float32)

  def embed_fn(params, extra, batch):
    _, context, mask = encode(params, batch)
    weights = (mask / mask.sum(1, keepdims=True))[..., None]
    mean = (weights * context).sum(1)
    variance = (weights * jnp.square(context - mean[:, None])).sum(1)
    return jnp.concatenate([mean, jnp.sqrt(variance)], axis=-1)

  outputs = {
      "hidden": lambda params, extra, batch, rng: encode(params, batch)[1][:, None],
      "frames": lambda params, extra, batch, rng: encode(params, batch)[0],
      "bound": lambda params, extra, batch, rng: jnp.stack([step.bound for step in contrasts(params, batch)]),
  }
  return gradient_model(init_params, loss_fn, embed_fn, optimizer or optax.adam(2e-4), coupled=True,
                        accumulate=accumulate, ema_decay=ema_decay, outputs=outputs)


def _trunk(inputs, channels, kernel_sizes, strides, context_dim, embedding_dim, norm, dtype) -> dict:
  """Checked arguments of `Encoder`."""
  if inputs not in INPUTS:
    raise InputError(f"inputs={inputs!r}: must be one of {', '.join(INPUTS)}")
  receptive_field(kernel_sizes, strides)
  channels = (channels,) * len(strides) if isinstance(channels, int) else tuple(channels)
  if len(channels) != len(strides):
    raise InputError(f"channels={channels} and strides={tuple(strides)}: must be equally many")
  return dict(inputs=inputs, channels=channels, kernel_sizes=tuple(kernel_sizes), strides=tuple(strides),
              context_dim=context_dim, embedding_dim=embedding_dim, norm=norm, dtype=jnp.dtype(dtype))
