"""HuBERT: a network that predicts the units of hidden spans of speech.

Hsu, Bolte, Tsai, Lakhotia, Salakhutdinov, Mohamed 2021, "HuBERT: Self-Supervised Speech Representation Learning by
Masked Prediction of Hidden Units", arXiv:2106.07447. In nats:

  L = - mean_{(b,t) hidden} log p(u_bt | x̃_b),   p(c | x̃_b) = softmax_c(cos(A h_bt, e_c) / τ)

where u are clusters of the frames, first of MFCC, then of a layer of an earlier run (`pipelines/speech_units.py`),
and in x̃ the features of spans of frames are one learned vector (`ops/span_masks.py`). Frames that are seen have no
loss.

  symbol  name                shape
  x       encoder/convolutions  [batch, frames, channels[-1]]: features of the signal, projected to dim
  h       encoder/layers      [batch, frames, dim], the transformer's last layer
  A       projection          [dim, code_dim]
  e       units               [num_units, code_dim]
  u       `units`             int32 [batch, at least frames]; frame t begins at sample t * hop_length
  τ       temperature

Positions are convolutions of the features (Baevski et al. 2020). Deviations: LayerNorm after each convolution of the
signal and ReLU, as in `cpc`; positions by a depthwise convolution without weight normalization; the features have the
whole gradient, not a tenth; no layers are dropped; the features have no penalty.
Batch: `signal` int16 [batch, samples], perhaps `length`, and `units` to train. `embed` is the mean and the standard
deviation over time of the layer `embed_layer`. `reconstruct` fills in hidden segments: the likeliest units.

Split: utterance | its frames with spans hidden | the units of the hidden frames.

Expected: `embeddings_jax/configs/hubert.py`.
"""
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from embeddings_jax.gradient import gradient_model
from embeddings_jax.nets.conv import StridedConv, num_frames, receptive_field
from embeddings_jax.nets.transformer import RULES, Transformer
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.masking import content_keys
from embeddings_jax.ops.similarity import l2_normalize
from embeddings_jax.ops.span_masks import check_spans, span_mask
from embeddings_jax.types import Fact, InputError, Model


class Encoder(nn.Module):
  """The trunk: signals to the vectors of frames, all layers; arguments: see `encoder`."""

  channels: Sequence[int]
  kernel_sizes: Sequence[int]
  strides: Sequence[int]
  dim: int
  num_layers: int
  num_heads: int
  mlp_dim: int
  position_kernel: int
  dropout: float
  dtype: DTypeLike
  unroll: int

  def setup(self):
    self.convolutions = StridedConv(self.channels, self.kernel_sizes, self.strides, True, self.dtype)
    self.features_norm, self.project = nn.LayerNorm(), nn.Dense(self.dim, dtype=self.dtype)
    self.hidden_frame = self.param("hidden_frame", nn.initializers.uniform(1.0), (self.dim,))
    self.positions = nn.Conv(self.dim, (self.position_kernel,), feature_group_count=self.dim, dtype=self.dtype)
    self.drop = nn.Dropout(self.dropout)
    self.layers_ = Transformer(self.num_layers, self.num_heads, self.mlp_dim, "pre", dropout=self.dropout,
                               attention_dropout=self.dropout, norm_epsilon=1e-5, dtype=self.dtype,
                               unroll=self.unroll, name="layers")
    self.final_norm = nn.LayerNorm()

  def __call__(
      self,
      batch: Mapping[str, Any],
      hidden: Bool[Array, "batch time"] | None = None,
      deterministic: bool = True,
      collect: bool = False,
  ) -> Float[Array, "batch *layers time dim"]:
    """Returns the last layer, or all of them, the features first; `hidden` says which frames are not seen."""
    valid = self.valid(batch)
    signal = jnp.where(jnp.arange(batch["signal"].shape[1]) < _lengths(batch)[:, None], batch["signal"], 0)
    short = max(0, receptive_field(self.kernel_sizes, self.strides)[0] - signal.shape[1])
    signal = jnp.pad(signal, ((0, 0), (0, short))).astype(jnp.float32) * 2.0**-15
    x = self.project(self.features_norm(self.convolutions(signal[..., None])))
    if hidden is not None:
      x = jnp.where(hidden[..., None], self.hidden_frame.astype(x.dtype), x)
    x = jnp.where(valid[..., None], x, 0)
    x = self.drop(x + nn.gelu(self.positions(x)), deterministic)
    layers = self.layers_(x, valid, deterministic=deterministic, collect="layers" if collect else "")
    if not collect:
      return self.final_norm(layers)
    return layers.at[:, -1].set(self.final_norm(layers[:, -1]).astype(layers.dtype))

  def features(self, batch: Mapping[str, Any], deterministic: bool = True) -> Float[Array, "batch time dim"]:
    return self(batch, deterministic=deterministic)

  def layers(self, batch: Mapping[str, Any], deterministic: bool = True) -> Float[Array, "batch layers time dim"]:
    return self(batch, deterministic=deterministic, collect=True)

  def valid(self, batch: Mapping[str, Any]) -> Bool[Array, "batch time"]:
    """Returns which frames see nothing beyond the signal; a row has one at least."""
    longest = max(1, num_frames(batch["signal"].shape[1], self.kernel_sizes, self.strides))
    count = jnp.maximum(num_frames(_lengths(batch), self.kernel_sizes, self.strides), 1)
    return jnp.arange(longest) < count[:, None]


def encoder(
    *,
    channels: int | Sequence[int] = 512,
    kernel_sizes: Sequence[int] = (10, 3, 3, 3, 3, 2, 2),
    strides: Sequence[int] = (5, 2, 2, 2, 2, 2, 2),
    dim: int = 768,
    num_layers: int = 12,
    num_heads: int = 12,
    mlp_dim: int | None = None,
    position_kernel: int = 128,
    dropout: float = 0.1,
    dtype: str = "float32",
    unroll: int = 1,
) -> Encoder:
  """The network whose parameters lie under `params/encoder`."""
  receptive_field(kernel_sizes, strides)
  channels = (channels,) * len(strides) if isinstance(channels, int) else tuple(channels)
  if len(channels) != len(strides):
    raise InputError(f"channels={channels} and strides={tuple(strides)}: must be equally many")
  if dim % num_heads or position_kernel < 1 or not 0 <= dropout < 1:
    raise InputError(f"dim={dim}, num_heads={num_heads}, position_kernel={position_kernel}, dropout={dropout}: heads "
                     "must divide dim, a kernel has at least 1 frame, dropout lies in [0, 1)")
  return Encoder(channels, tuple(kernel_sizes), tuple(strides), dim, num_layers, num_heads, mlp_dim or 4 * dim,
                 position_kernel, dropout, jnp.dtype(dtype), unroll)


@takes(signal=2, units=None, length=None)
def hubert(
    *,
    num_units: Fact[int],
    hop_length: Fact[int] = 0,
    channels: int | Sequence[int] = 512,
    kernel_sizes: Sequence[int] = (10, 3, 3, 3, 3, 2, 2),
    strides: Sequence[int] = (5, 2, 2, 2, 2, 2, 2),
    dim: int = 768,
    num_layers: int = 12,
    num_heads: int = 12,
    mlp_dim: int | None = None,
    position_kernel: int = 128,
    dropout: float = 0.1,
    code_dim: int = 256,
    temperature: float = 0.1,
    mask_rate: float = 0.08,
    span_length: int = 10,
    embed_layer: int = -1,
    dtype: str = "float32",
    unroll: int = 1,
    optimizer: optax.GradientTransformation | None = None,
    accumulate: int = 1,
    ema_decay: float | None = None,
) -> Model:
  """HuBERT; the defaults are those of the paper's base size, for 16 kHz.

  Args:
    num_units, hop_length: Facts of the units; a hop of 0 is not checked.
    channels, kernel_sizes, strides: Convolutions of the signal; one number of channels for all, or one of each.
    dim, num_layers, num_heads, mlp_dim: Sizes of the transformer; `mlp_dim` is 4 dim by default.
    position_kernel: Frames of the convolution that tells positions.
    dropout: Dropout rate.
    code_dim: Size of A h and of the units' vectors.
    temperature: τ.
    mask_rate, span_length: Fraction of the frames that begin a hidden span, and frames of a span.
    embed_layer: Layer of `embed`: 0 are the features, -1 is the last.
    dtype: Data type of the computation (`float32` or `bfloat16`); parameters and loss are float32.
    unroll: See `nets/transformer.py`.
    optimizer: By default Adam with a learning rate of 5e-4.
    accumulate, ema_decay: See `gradient_model`; parts of a batch weigh by their rows, not by their hidden frames.
  """
  check_spans(mask_rate, span_length)
  _, hop = receptive_field(kernel_sizes, strides)
  if hop_length and hop != hop_length:
    raise InputError(f"strides={tuple(strides)}: make a frame every {hop} samples, the units have one every "
                     f"hop_length={hop_length}; set data.hop_length={hop}")
  if not temperature > 0 or num_units < 2 or code_dim < 1:
    raise InputError(f"temperature={temperature}, num_units={num_units}, code_dim={code_dim}: must be above 0, at "
                     "least 2 and at least 1")
  if not -num_layers - 1 <= embed_layer <= num_layers:
    raise InputError(f"embed_layer={embed_layer}: the layers are 0 to {num_layers}, or -1 for the last")
  network = encoder(channels=channels, kernel_sizes=kernel_sizes, strides=strides, dim=dim, num_layers=num_layers,
                    num_heads=num_heads, mlp_dim=mlp_dim, position_kernel=position_kernel, dropout=dropout,
                    dtype=dtype, unroll=unroll)

  def init_params(rng, batch):
    keys = jax.random.split(rng, 3)
    time = num_frames(batch["signal"].shape[1], kernel_sizes, strides)
    if time <= span_length:
      raise InputError(f"span_length={span_length}: windows of {batch['signal'].shape[1]} samples have {time} "
                       "frames, no more; use longer windows or shorter spans")
    params = {"encoder": network.init(keys[0], batch)["params"]}
    init = nn.initializers.lecun_normal()
    params["projection"] = {"kernel": init(keys[1], (dim, code_dim)), "bias": jnp.zeros(code_dim)}
    params["units"] = jax.random.uniform(keys[2], (num_units, code_dim))
    return params, {}

  def predicted(params, batch, hidden, **options):
    """Logits of the units of all frames, the frames' units, and which frames are there."""
    h = network.apply({"params": params["encoder"]}, batch, hidden, **options).astype(jnp.float32)
    a = h @ params["projection"]["kernel"] + params["projection"]["bias"]
    return l2_normalize(a) @ l2_normalize(params["units"]).T / temperature, batch["units"][:, :h.shape[1]]

  def hidden_frames(rng, batch):
    valid = network.valid(batch)
    if rng is not None:
      return span_mask(rng, valid, mask_rate, span_length)
    one = lambda key, row: span_mask(key, row[None], mask_rate, span_length)[0]
    return jax.vmap(one)(content_keys(batch["units"]), valid)

  def sums(logits, units, weight):
    """name -> (sum, count) over the hidden frames."""
    error = optax.softmax_cross_entropy_with_integer_labels(logits, units)
    right = jnp.take_along_axis(logits, units[..., None], -1)[..., 0] >= logits.max(-1)
    return {"masked_loss": ((weight * error).sum(), weight.sum()),
            "masked_accuracy": ((weight * right).sum(), weight.sum())}

  def loss_fn(params, extra, batch, rng):
    rng_mask, rng_dropout = jax.random.split(rng)
    hidden = hidden_frames(rng_mask, batch)
    logits, units = predicted(params, batch, hidden, deterministic=False, rngs={"dropout": rng_dropout})
    weight = hidden * row_mask(batch)[:, None]
    means = {name: total / jnp.maximum(count, 1) for name, (total, count) in sums(logits, units, weight).items()}
    some = weight.sum() > 0
    used = lambda values: (jnp.zeros(num_units).at[values].add(weight) > 0).sum(dtype=jnp.float32) * some
    metrics = {"accuracy": means["masked_accuracy"], "predicted_units": used(logits.argmax(-1)),
               "hidden_units": used(units), "hidden_fraction": weight.mean()}
    return means["masked_loss"], (metrics, extra)

  def measures(params, extra, batch):
    hidden = hidden_frames(None, batch)
    totals = sums(*predicted(params, batch, hidden), hidden * row_mask(batch)[:, None])
    return {name: jnp.stack(pair) for name, pair in totals.items()}

  def loss(params, extra, batch):
    total, count = measures(params, extra, batch)["masked_loss"]
    return total / jnp.maximum(count, 1)

  def embed_fn(params, extra, batch):
    x = network.apply({"params": params["encoder"]}, batch, method="layers")[:, embed_layer].astype(jnp.float32)
    mask = network.valid(batch).astype(jnp.float32)
    weight = (mask / mask.sum(1, keepdims=True))[..., None]
    mean = (weight * x).sum(1)
    return jnp.concatenate([mean, jnp.sqrt((weight * jnp.square(x - mean[:, None])).sum(1))], -1)

  def reconstruct(params, extra, batch):
    hidden = hidden_frames(None, batch)
    logits, units = predicted(params, batch, hidden)
    return {"original": units, "reconstructed": logits.argmax(-1).astype(jnp.int32), "mask": hidden}

  def layers(params, extra, batch):
    return network.apply({"params": params["encoder"]}, batch, method="layers")

  outputs = {"loss": loss, "measures": measures, "reconstruct": reconstruct, "hidden": layers}
  return gradient_model(init_params, loss_fn, embed_fn, optimizer or optax.adam(5e-4), accumulate=accumulate,
                        ema_decay=ema_decay, outputs=outputs, rules=RULES)


def _lengths(batch: Mapping[str, Any]) -> Array:
  """Samples of each signal that are no padding."""
  num_rows, length = batch["signal"].shape
  return batch["length"] if "length" in batch else jnp.full(num_rows, length)
