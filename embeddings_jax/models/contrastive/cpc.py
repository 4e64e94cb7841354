"""Contrastive predictive coding: a network that predicts its own future codes among others.

van den Oord, Li, Vinyals 2018, "Representation Learning with Contrastive Predictive Coding", arXiv:1807.03748.

A convolutional encoder makes a code z_t of every short piece of a sequence, a GRU sums up the codes so far in a
context c_t, and for each k = 1 ... K a bilinear score tells the code k places ahead from other codes x_j (equations
3 and 4, in nats, mean over t, k and sequences):

  f_k(x_j, c_t) = exp(z_j^T W_k c_t / τ)
  L = -1/K Σ_k E_t log( f_k(x_t+k, c_t) / Σ_{j in S} f_k(x_j, c_t) ),   I(x_t+k; c_t) >= log N - L_k

  symbol  name             shape
  z       frames           [sequences, frames, channels[-1]]
  c       context          [sequences, frames, context_dim]
  W_k     predictor        [num_predictions, context_dim, channels[-1]]
  K       num_predictions
  S, N    negatives        the table below
  τ       temperature      1 in the paper

Where the others come from (`ops/contrastive.py`; all valid sequences of the global batch), and what the paper calls
it, with the accuracies on phones of its table 2 (12 steps; of 2, 4, 8, 16 steps: 28.5, 57.6, 63.6, 63.8):

  negatives     N                       paper
  all           sequences + frames - 1  mixed speaker           64.6
  other         sequences               mixed speaker (excl.)   57.3
  group         group + frames - 1      same speaker            65.5
  group_other   group                   same speaker (excl.)    64.6
  same          frames                  current sequence only   65.2

What a sequence is, and its codes, by `inputs`:

  inputs      batch                                       a sequence is         a code is of     embed
  waveform    `signal` int16 [batch, samples]             the samples           a short piece    c: mean, deviation
  bytes       `signal` uint8 [batch, bytes], embedded     the bytes             a short piece    c: mean, deviation
  images      `image` uint8 [batch, height, width, 1|3]   a column of patches   a patch          z: mean
  sentences   `tokens` int32 [batch, sentences, length]   the sentences         a sentence       z of the text

Where signals are padded there is `length`, their valid elements; tokens are -1 past a sentence's end, and sentences
that are not there have none. For negatives of one group there is `group`, int32 [batch]; of images a group is the
image. Samples are scaled by 2^-15, pixels to -1 ... 1.

With `direction="backward"` the past is predicted from the present: codes are read in reverse (those of padding stay
behind), so that c_t sums up z_t and what follows it, and k counts places back.

Images (section 3.2): patches of `patch_size` pixels overlap by half, 7 x 7 of them where that is a quarter of the
image. Rows below are predicted from rows above: the GRU runs down each column and sees with a patch its left and
its right neighbor, so that c of a row knows a triangle of the rows above it, and nothing of those below.
Sentences (section 3.3): convolutions and ReLU over embedded words, and their mean; `embed` takes a text for one
sentence, and gives what the sentence encoder does.

Deviations: LayerNorm over the channels of each frame after every convolution (`norm=False` for the paper's network);
the paper's negatives of other sequences come from any time, here from the same. Of images: the row GRU stands for a
PixelCNN, a small residual network for 23 blocks of ResNet-101, and patches are neither cropped nor made gray. Of
sentences: subwords for words, and no vocabulary expansion.

Split: sequence | what came before a time | the vector at a later time, among others.

Expected: `embeddings_jax/configs/cpc.py`, `cpc_images.py` and `cpc_text.py`.
"""
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Shaped

from embeddings_jax.gradient import gradient_model
from embeddings_jax.nets.conv import StridedConv, num_frames, receptive_field
from embeddings_jax.nets.patches import PatchEncoder, image_patches
from embeddings_jax.nets.recurrent import GRU
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.contrastive import NEGATIVES, sequence_info_nce
from embeddings_jax.types import Batch, Fact, InputError, Model

# Kinds of input -> the array of the batch.
INPUTS = {"waveform": "signal", "bytes": "signal", "images": "image", "sentences": "tokens"}
DIRECTIONS = ("forward", "backward")


class Encoder(nn.Module):
  """The trunk: `x -> (frames [sequences, time, channels], context [sequences, time, context_dim])`, both in reverse
  where the direction is `backward`; `count` [sequences] are the frames that are no padding, by default all."""

  inputs: str
  channels: Sequence[int]
  kernel_sizes: Sequence[int]
  strides: Sequence[int]
  context_dim: int
  embedding_dim: int
  vocab_size: int
  patch_size: int
  norm: bool
  dtype: DTypeLike
  direction: str = "forward"

  def setup(self):
    layers = self.channels, self.kernel_sizes, self.strides, self.norm, self.dtype
    if self.inputs in ("bytes", "sentences"):
      size = 256 if self.inputs == "bytes" else self.vocab_size
      self.embedding = nn.Embed(size, self.embedding_dim, dtype=self.dtype)
    if self.inputs == "sentences":  # One by one, for what lies beyond a sentence is 0 before each.
      self.conv = [StridedConv(*([value] for value in layer), self.norm, self.dtype)
                   for layer in zip(self.channels, self.kernel_sizes, self.strides)]
    else:
      self.conv = PatchEncoder(*layers) if self.inputs == "images" else StridedConv(*layers)
    self.gru = GRU(self.context_dim, self.dtype)

  def __call__(self, x, count=None):
    frames = self.frames(x)
    if self.direction == "backward":
      frames = in_reverse(frames, count)
    if self.inputs != "images":
      return frames, self.gru(frames)
    batch, columns = frames.shape[0], frames.shape[2]
    wide = jnp.pad(frames, ((0, 0), (0, 0), (1, 1), (0, 0)))
    wide = jnp.concatenate([frames, wide[:, :, :-2], wide[:, :, 2:]], axis=-1)
    downwards = lambda x: jnp.moveaxis(x, 2, 1).reshape(batch * columns, x.shape[1], -1)
    return downwards(frames), self.gru(downwards(wide))

  def frames(self, x) -> Array:
    """Codes: [batch, time, channels], of images [batch, rows, columns, channels]."""
    if self.inputs == "sentences":
      words, valid = self._words(x.reshape(-1, x.shape[-1]))
      mean = words.sum(1) / jnp.maximum(valid.sum(1, keepdims=True), 1).astype(words.dtype)
      return mean.reshape(*x.shape[:-1], -1)
    if self.inputs == "images":
      patches = image_patches(x, self.patch_size, max(1, self.patch_size // 2))
      pixels = patches.reshape(-1, *patches.shape[3:]).astype(jnp.float32) / 127.5 - 1
      return self.conv(pixels).reshape(*patches.shape[:3], -1)
    if self.inputs == "bytes":
      if x.dtype == jnp.int16 or jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(f"inputs='bytes': the batch has a waveform ({x.dtype}); set inputs='waveform', or "
                         "pipeline=byte_windows")
      return self.conv(self.embedding(x.astype(jnp.int32)))
    if x.dtype == jnp.uint8:
      raise InputError(f"inputs={self.inputs!r}: the batch has bytes; set inputs='bytes', or "
                       "pipeline=waveforms")
    return self.conv(x.astype(jnp.float32)[..., None] * 2.0**-15)

  def _words(self, tokens) -> tuple[Array, Array]:
    """Returns the features of each token of [n, length] after the convolutions, 0 on padding, and what is none."""
    valid = tokens >= 0
    x = jnp.where(valid[..., None], self.embedding(jnp.maximum(tokens, 0)), 0)
    for conv, size in zip(self.conv, self.kernel_sizes):
      x = conv(jnp.pad(x, ((0, 0), ((size - 1) // 2, size // 2), (0, 0))))
      x = jnp.where(valid[..., None], x, 0)
    return x, valid

  def read(self, batch: Mapping[str, Any]) -> tuple[Array, Array]:
    """Returns the features that heads read, [batch, time, dim], and which of it is no padding, [batch, time]:
    contexts of signals (what
    lies beyond `length` is silence, and each row has a frame at least), codes of patches, vectors of tokens."""
    x = batch[INPUTS[self.inputs]]
    if self.inputs == "sentences":
      return self._words(x)
    if self.inputs == "images":
      codes = self.frames(x)
      codes = codes.reshape(len(codes), -1, codes.shape[-1])
      return codes, jnp.ones(codes.shape[:2], bool)
    lengths = _lengths(batch)
    count = jnp.maximum(num_frames(lengths, self.kernel_sizes, self.strides), 1)
    context = self(self._silenced(batch), count)[1]
    if self.direction == "backward":
      context = in_reverse(context, count)
    return context, jnp.arange(context.shape[1]) < count[:, None]

  def features(self, batch: Mapping[str, Any], deterministic: bool = True) -> Float[Array, "batch time dim"]:
    del deterministic  # There is no dropout.
    return self.read(batch)[0]

  def valid(self, batch: Mapping[str, Any]) -> Bool[Array, "batch time"]:
    return self.read(batch)[1]

  def layers(self, batch: Mapping[str, Any], deterministic: bool = True) -> Float[Array, "batch layers time dim"]:
    return self.features(batch, deterministic)[:, None]

  def codes(self, batch: Mapping[str, Any]) -> Array:
    """`frames` of a batch."""
    x = batch[INPUTS[self.inputs]]
    return self.frames(x if self.inputs in ("images", "sentences") else self._silenced(batch))

  def _silenced(self, batch) -> Array:
    signal, (field, _) = batch["signal"], receptive_field(self.kernel_sizes, self.strides)
    signal = jnp.where(jnp.arange(signal.shape[1]) < _lengths(batch)[:, None], signal, 0)
    return jnp.pad(signal, ((0, 0), (0, max(0, field - signal.shape[1]))))


class _Cpc(nn.Module):
  """Encoder and predictors: `x -> (frames, one prediction [sequences, time - k, channels] per step ahead k)`."""

  trunk: Mapping[str, Any]
  num_predictions: int

  def setup(self):
    self.encoder = Encoder(**self.trunk)
    shape = (self.num_predictions, self.trunk["context_dim"], self.trunk["channels"][-1])
    self.predictor = self.param("predictor", nn.initializers.lecun_normal(batch_axis=0), shape)

  def __call__(self, x, count=None):
    frames, context = self.encoder(x, count)
    context, kernels = context.astype(frames.dtype), self.predictor.astype(frames.dtype)
    # One product per step: slices of a joint one would be padded and summed in the backward pass.
    return frames, [context[:, :-k] @ kernel for k, kernel in enumerate(kernels, 1)]

  def read(self, batch):
    return self.encoder.read(batch)

  def codes(self, batch):
    return self.encoder.codes(batch)


def encoder(
    *,
    inputs: str = "waveform",
    channels: int | Sequence[int] = 512,
    kernel_sizes: Sequence[int] = (10, 8, 4, 4, 4),
    strides: Sequence[int] = (5, 4, 2, 2, 2),
    context_dim: int = 256,
    embedding_dim: int = 64,
    vocab_size: Fact[int] = 0,
    patch_size: int = 8,
    norm: bool = True,
    dtype: str = "float32",
    direction: str = "forward",
) -> Encoder:
  """The network whose parameters lie under `params/encoder`."""
  return Encoder(**_trunk(inputs, channels, kernel_sizes, strides, context_dim, embedding_dim, vocab_size, patch_size,
                          norm, dtype, direction))


@takes(signal=2, tokens=(2, 3), image=4)
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
    vocab_size: Fact[int] = 0,
    patch_size: int = 8,
    norm: bool = True,
    dtype: str = "float32",
    direction: str = "forward",
    optimizer: optax.GradientTransformation | None = None,
    accumulate: int = 1,
    ema_decay: float | None = None,
) -> Model:
  """Contrastive predictive coding; the defaults are the paper's for speech.

  Args:
    inputs: One of `INPUTS`: `waveform`, `bytes`, `images` or `sentences`.
    channels: Channels of every convolution, or one number for all; for images those of `PatchEncoder`.
    kernel_sizes, strides: Kernel sizes and strides of the convolutions; for sentences the strides are 1.
    context_dim: Dimension of the GRU.
    num_predictions: places ahead (frames, rows, sentences) that are predicted, each by its own matrix.
    negatives: from the `same` sequence, from `other` sequences, or `all`; of the `group`, or its `group_other`.
    temperature: Temperature of the scores.
    embedding_dim: Dimension of a byte or a token.
    vocab_size: Number of tokens, for sentences.
    patch_size: Side of the patches of images; neighbors overlap by half.
    norm: LayerNorm after every convolution.
    dtype: Data type of the computation (`float32` or `bfloat16`); parameters and loss are float32.
    direction: `forward`, the future from what was; or `backward`, the past from what follows.
    optimizer: by default the paper's Adam with a rate of 2e-4.
    accumulate, ema_decay: as for `gradient_model`.
  """
  trunk = _trunk(inputs, channels, kernel_sizes, strides, context_dim, embedding_dim, vocab_size, patch_size, norm,
                 dtype, direction)
  if negatives not in NEGATIVES:
    raise InputError(f"negatives={negatives!r}: must be one of {', '.join(NEGATIVES)}")
  network, name = _Cpc(trunk, num_predictions), INPUTS[inputs]

  def init_params(rng, batch):
    return network.init(rng, batch[name])["params"], {}

  def frame_count(batch: Batch) -> Array | None:
    """Frames of each sequence that are no padding, where it matters where they end."""
    if direction == "forward" or inputs == "images":
      return None
    return ((batch["tokens"] >= 0).any(-1).sum(1) if inputs == "sentences" else
            num_frames(_lengths(batch), kernel_sizes, strides))

  def frame_mask(batch: Batch, shape: tuple[int, int]) -> Float[Array, "sequences frames"]:
    """1 for frames that see valid elements only, of rows that are no padding."""
    num_rows, times = len(batch[name]), jnp.arange(shape[1])
    if inputs == "images":
      valid = jnp.ones(shape)
    elif inputs == "sentences":
      valid = (batch["tokens"] >= 0).any(-1)
    else:
      valid = times < num_frames(_lengths(batch), kernel_sizes, strides)[:, None]
    rows = row_mask(batch).astype(jnp.float32)
    return valid * jnp.repeat(rows, shape[0] // num_rows)[:, None]

  def contrasts(params, batch):
    """One `Contrast` per prediction step."""
    frames, predictions = network.apply({"params": params}, batch[name], frame_count(batch))
    num_sequences, num_times = frames.shape[:2]
    if num_times <= num_predictions:
      what = {"images": "rows of patches", "sentences": "sentences"}.get(inputs, "frames")
      shape = batch[name].shape
      received = f"windows of {shape[1]} elements" if name == "signal" else f"{name} of {list(shape)}"
      raise InputError(f"{received} give {num_times} {what}, too few to predict {num_predictions} ahead: use longer "
                       "windows, fewer num_predictions or smaller strides or patches")
    group = batch.get("group")
    if inputs == "images":
      group = jnp.repeat(jnp.arange(len(batch[name])), num_sequences // len(batch[name]))
    mask = frame_mask(batch, (num_sequences, num_times))
    return [sequence_info_nce(prediction, frames, offset=k, mask=mask, group=group, negatives=negatives,
                              temperature=temperature) for k, prediction in enumerate(predictions, 1)]

  def loss_fn(params, extra, batch, rng):
    del rng
    steps = contrasts(params, batch)
    loss = jnp.stack([step.loss for step in steps]).mean()
    metrics = {f"bound_{k}": step.bound for k, step in enumerate(steps, 1)}
    metrics["accuracy"] = jnp.stack([step.accuracy for step in steps]).mean()
    metrics["log_num_candidates"] = jnp.stack([step.log_num_candidates for step in steps]).mean()
    return loss, (metrics, extra)

  def embed_fn(params, extra, batch):
    vectors, valid = network.apply({"params": params}, batch, method="read")
    vectors, mask = vectors.astype(jnp.float32), valid.astype(jnp.float32)
    weights = (mask / jnp.maximum(mask.sum(1, keepdims=True), 1))[..., None]
    mean = (weights * vectors).sum(1)
    if name != "signal":
      return mean
    variance = (weights * jnp.square(vectors - mean[:, None])).sum(1)
    return jnp.concatenate([mean, jnp.sqrt(variance)], axis=-1)

  outputs = {
      "loss": lambda params, extra, batch: loss_fn(params, extra, batch, None)[0],
      "hidden": lambda params, extra, batch: network.apply({"params": params}, batch, method="read")[0][:, None],
      "frames": lambda params, extra, batch: network.apply({"params": params}, batch, method="codes"),
      "bound": lambda params, extra, batch: jnp.stack([step.bound for step in contrasts(params, batch)]),
  }
  return gradient_model(init_params, loss_fn, embed_fn, optimizer or optax.adam(2e-4), coupled=True,
                        accumulate=accumulate, ema_decay=ema_decay, outputs=outputs)


def in_reverse(x: Shaped[Array, "sequences time ..."], count: Array | None = None) -> Shaped[
    Array, "sequences time ..."]:
  """Returns the first `count` [sequences] places of each sequence in reverse, and the others as they are."""
  if count is None:
    return x[:, ::-1]
  time = jnp.arange(x.shape[1])
  place = jnp.where(time < count[:, None], count[:, None] - 1 - time, time)
  return jnp.take_along_axis(x, place.reshape(*place.shape, *[1] * (x.ndim - 2)), 1)


def _lengths(batch):
  """Elements of each signal that are no padding."""
  num_rows, length = batch["signal"].shape
  return batch["length"] if "length" in batch else jnp.full(num_rows, length)


def _trunk(inputs, channels, kernel_sizes, strides, context_dim, embedding_dim, vocab_size, patch_size, norm,
           dtype, direction) -> dict:
  """Checked arguments of `Encoder`."""
  if inputs not in INPUTS:
    raise InputError(f"inputs={inputs!r}: must be one of {', '.join(INPUTS)}")
  if direction not in DIRECTIONS:
    raise InputError(f"direction={direction!r}: must be one of {', '.join(DIRECTIONS)}")
  receptive_field(kernel_sizes, strides)
  channels = (channels,) * len(strides) if isinstance(channels, int) else tuple(channels)
  if len(channels) != len(strides):
    raise InputError(f"channels={channels} and strides={tuple(strides)}: must be equally many")
  if inputs == "sentences" and (vocab_size < 1 or set(strides) != {1}):
    raise InputError(f"vocab_size={vocab_size}, strides={tuple(strides)}: sentences need a vocabulary, and strides "
                     "of 1")
  if inputs == "images" and patch_size < 1:
    raise InputError(f"patch_size={patch_size}: must be at least 1")
  return dict(inputs=inputs, channels=channels, kernel_sizes=tuple(kernel_sizes), strides=tuple(strides),
              context_dim=context_dim, embedding_dim=embedding_dim, vocab_size=vocab_size, patch_size=patch_size,
              norm=norm, dtype=jnp.dtype(dtype), direction=direction)
