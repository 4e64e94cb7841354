"""Text encoder: embeddings of tokens, positions and segments, and a `Transformer` over them."""
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import PartitionSpec as P
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from embeddings_jax.nets.transformer import ACTIVATIONS, NORMS, REMAT, Transformer
from embeddings_jax.ops.kernels.dropout import dropout
from embeddings_jax.ops.kernels.layer_norm import layer_norm
from embeddings_jax.ops.kernels.product import affine
from embeddings_jax.ops.lookup import lookup
from embeddings_jax.ops.sharding import DATA_AXES, constrain, platform
from embeddings_jax.types import InputError

POSITIONS = ("learned", "sinusoidal")
POSITION_INITS = ("normal", "sinusoidal", "neighbors")


class TextEncoder(nn.Module):
  """Token ids to vectors: embeddings of tokens, positions and segments, and a `Transformer` over them.

  The hyperparameters are checked by `text_encoder`, which makes one.

  Attributes:
    vocab_size: V.
    dim: D.
    max_length: longest input.
    num_segments: 0 where there are none.
    positions: `learned`, or `sinusoidal` as in the paper.
    position_init: Learned positions start `normal`, or `sinusoidal` with the same std: neighbors are then alike from
      the first step, which a short training has no time to learn. With `neighbors` the heads of the first layer
      attend to them from the first step, too, as `transformer.neighbor_kernels` says.
    position_offset: the row of the position embedding that the first token has (RoBERTa: 2).
    embedding_norm: LayerNorm and after it dropout, as in BERT; else dropout alone.
    init_std: Std of the initial embeddings and kernels, a normal truncated at two std; `kernel_std`: of kernels
      alone.
    others: see `Transformer`; with `cross` and `causal` it is the decoder of an encoder's memory.
  """

  vocab_size: int
  dim: int
  num_layers: int
  num_heads: int
  mlp_dim: int
  max_length: int
  num_segments: int = 2
  positions: str = "learned"
  position_init: str = "normal"
  position_offset: int = 0
  embedding_norm: bool = True
  norm: str = "post"
  causal: bool = False
  activation: str = "gelu"
  norm_epsilon: float = 1e-12
  dropout: float = 0.1
  attention_dropout: float = 0.1
  init_std: float = 0.02
  kernel_std: float | None = None
  dtype: DTypeLike = jnp.float32
  remat: str = "none"
  unroll: int = 1
  cross: bool = False

  def setup(self):
    init = nn.initializers.truncated_normal(self.init_std)
    self.token_embedding = self.param("token_embedding", init, (self.vocab_size, self.dim))
    if self.positions == "learned":
      shape = (self.max_length + self.position_offset, self.dim)
      self.position_embedding = self.param(
          "position_embedding", init if self.position_init == "normal" else self._waves, shape)
    if self.num_segments:
      self.segment_embedding = self.param("segment_embedding", init, (self.num_segments, self.dim))
    norm = lambda rng: {"scale": jnp.ones(self.dim), "bias": jnp.zeros(self.dim)}
    if self.embedding_norm:
      self.embedding_norm_params = self.param("embedding_norm", norm)
    if self.norm == "pre":
      self.final_norm_params = self.param("final_norm", norm)
    self.layers_ = Transformer(
        self.num_layers, self.num_heads, self.mlp_dim, self.norm, self.causal, self.activation, self.norm_epsilon,
        self.dropout, self.attention_dropout, nn.initializers.truncated_normal(self.kernel_std or self.init_std),
        self.dtype, self.remat, self.unroll, self.position_init == "neighbors", self.cross, name="layers")

  def __call__(
      self,
      tokens: Int[Array, "batch time"],
      segments: Int[Array, "batch time"] | None = None,
      *,
      deterministic: bool = True,
      parts: Int[Array, "batch time"] | None = None,
      memory: Float[Array, "batch places dim"] | None = None,
      seen: Bool[Array, "batch places"] | None = None,
  ) -> Float[Array, "batch time dim"]:
    """The last layer. `tokens` are -1 on padding, at the end of a row; `memory` and `seen`: see `Transformer`.

    Several texts may stand in a row, one after another: `parts` numbers them, -1 on padding. Each has positions of
    its own and is as if it were alone.
    """
    x = self._embed(tokens, segments, deterministic, parts)
    visible = _visible(tokens, parts)
    return self._final(self.layers_(x, visible, deterministic=deterministic, memory=memory, seen=seen))

  def hidden(
      self,
      tokens: Int[Array, "batch time"],
      segments: Int[Array, "batch time"] | None = None,
      deterministic: bool = True,
      parts: Int[Array, "batch time"] | None = None,
  ) -> Float[Array, "batch layers time dim"]:
    """All L + 1 layers, the embeddings first; with `norm="pre"` the final norm is applied to the last alone."""
    x = self._embed(tokens, segments, deterministic, parts)
    layers = self.layers_(x, _visible(tokens, parts), deterministic=deterministic, collect="layers")
    return layers.at[:, -1].set(self._final(layers[:, -1])) if self.norm == "pre" else layers

  def attention(
      self, tokens: Int[Array, "batch time"], segments: Int[Array, "batch time"] | None = None,
  ) -> Float[Array, "batch layers heads time time"]:
    """The attention's weights."""
    return self.layers_(self._embed(tokens, segments, True), tokens >= 0, collect="attention")

  def features(self, batch: Mapping[str, Array], deterministic: bool = True) -> Float[Array, "batch time dim"]:
    """`__call__` on a batch of `tokens` and, where there are any, `segments`."""
    return self(batch["tokens"], batch.get("segments"), deterministic=deterministic)

  def first(self, batch: Mapping[str, Array], deterministic: bool = True) -> Float[Array, "batch 1 dim"]:
    """`features` of the first token alone, in which the last layer does little else than its keys and values."""
    x = self._embed(batch["tokens"], batch.get("segments"), deterministic)
    visible = _visible(batch["tokens"], None)
    return self._final(self.layers_(x, visible, deterministic=deterministic, only=slice(1)))

  def layers(self, batch: Mapping[str, Array], deterministic: bool = True) -> Float[Array, "batch layers time dim"]:
    """`hidden` on such a batch."""
    return self.hidden(batch["tokens"], batch.get("segments"), deterministic)

  def valid(self, batch: Mapping[str, Array]) -> Bool[Array, "batch time"]:
    """Which tokens are no padding."""
    return batch["tokens"] >= 0

  def decode(self, x: Float[Array, "*shape dim"], bias: Float[Array, " vocab"] | None = None,
             ) -> Float[Array, "*shape vocab"]:
    """Scores of the vocabulary by the token embeddings, in float32."""
    bias = jnp.zeros(self.vocab_size) if bias is None else bias
    # An H200 multiplied matrices of 30,522 columns at a third to a half of its speed.
    extra = 0 if platform() == "cpu" else -self.vocab_size % 128
    table = jnp.pad(self.token_embedding, ((0, extra), (0, 0)))
    return affine(x, table.T, jnp.pad(bias, (0, extra)), self.dtype, jnp.float32)[..., :self.vocab_size]

  def _waves(self, rng, shape):
    """Positions to begin with."""
    del rng
    waves = 2**0.5 * self.init_std * sinusoidal_positions(*shape)
    if self.position_init == "sinusoidal":
      return waves
    width = self.dim // self.num_heads
    return waves.at[:, -width:].set(waves[:, :width])  # For `neighbor_kernels`.

  def _embed(self, tokens, segments, deterministic, parts=None):
    time = tokens.shape[1]
    if time > self.max_length:
      raise InputError(f"{time} tokens: the encoder knows positions up to {self.max_length}; cut the text")
    x = lookup(self.token_embedding, jnp.maximum(tokens, 0), self.dtype)
    if self.positions == "learned":
      positions = self.position_embedding[self.position_offset:self.position_offset + time]
    else:
      positions = sinusoidal_positions(time, self.dim)
    x = x + (positions if parts is None else positions[_places(parts)])
    if self.num_segments:
      # A product with ones and zeros: its gradient is a sum, where that of a look-up is a scatter of all rows.
      segments = jnp.zeros_like(tokens) if segments is None else segments
      ones = jax.nn.one_hot(segments.ravel(), self.num_segments, dtype=x.dtype)
      x = x + (ones @ self.segment_embedding).reshape(x.shape)
    x = constrain(x, P(DATA_AXES))
    if self.embedding_norm:
      x = layer_norm(x, self.embedding_norm_params, self.norm_epsilon)
    if not deterministic and self.dropout:
      x = dropout(x, self.make_rng("dropout"), self.dropout)
    return x.astype(self.dtype)

  def _final(self, x):
    return layer_norm(x, self.final_norm_params, self.norm_epsilon, self.dtype) if self.norm == "pre" else x


def _visible(tokens, parts):
  """Returns the attention mask: bool [B, T], or [B, T, T] where texts share a row."""
  return tokens >= 0 if parts is None else parts[:, :, None] == parts[:, None, :]


def _places(parts):
  """The place of each token in its own text: int32 [B, T]."""
  index = jnp.arange(parts.shape[1])
  first = jnp.pad(parts[:, 1:] != parts[:, :-1], ((0, 0), (1, 0)), constant_values=True)
  return index - jax.lax.cummax(jnp.where(first, index, 0), axis=1)


def text_encoder(**hyper: Any) -> TextEncoder:
  """A `TextEncoder` of checked hyperparameters; `dtype` may be a name."""
  for name, known in (("norm", NORMS), ("positions", POSITIONS), ("position_init", POSITION_INITS),
                      ("activation", tuple(ACTIVATIONS)), ("remat", tuple(REMAT))):
    if name in hyper and hyper[name] not in known:
      raise InputError(f"{name}={hyper[name]!r}: must be one of {', '.join(known)}")
  if hyper["dim"] % hyper["num_heads"]:
    raise InputError(f"dim={hyper['dim']}: must be a multiple of num_heads={hyper['num_heads']}")
  if hyper.get("position_init") == "neighbors" and (
      hyper.get("positions", "learned") != "learned" or hyper["num_heads"] < 2
      or hyper["dim"] // hyper["num_heads"] % 2):
    raise InputError("position_init='neighbors': needs learned positions, at least two heads, and an even number of "
                     f"features in each; dim={hyper['dim']}, num_heads={hyper['num_heads']}")
  for name in ("dropout", "attention_dropout"):
    if not 0 <= hyper.get(name, 0.0) < 1:
      raise InputError(f"{name}={hyper[name]}: must lie in [0, 1)")
  if "dtype" in hyper:
    hyper["dtype"] = jnp.dtype(hyper["dtype"])
  return TextEncoder(**hyper)


def sinusoidal_positions(time: int, dim: int) -> Float[Array, "time dim"]:
  """sin and cos of position / 10000^(2i / D), in turn (Vaswani et al. 2017, section 3.5)."""
  angle = jnp.arange(time)[:, None] / 10_000 ** (jnp.arange(0, dim, 2) / dim)
  return jnp.stack([jnp.sin(angle), jnp.cos(angle)], -1).reshape(time, -1)[:, :dim]
