"""Transformers (Vaswani et al. 2017, arXiv:1706.03762): one stack for BERT, GPT, their relatives and vision.

Parameters of a stack (L layers are stacked along a leading axis, D = dim, H heads, Dh = D / H, M = mlp_dim):

  layers/qkv             kernel [L, D, 3, H, Dh], bias [L, 3, H, Dh]
  layers/out             kernel [L, H, Dh, D], bias [L, D]
  layers/up, down        kernel [L, D, M], [L, M, D], bias [L, M], [L, D]
  layers/attention_norm  scale, bias [L, D]; mlp_norm alike

  norm="post"            x <- LN(x + attention(x)),  x <- LN(x + mlp(x))       (the paper, BERT, GPT)
  norm="pre"             x <- x + attention(LN(x)),  x <- x + mlp(LN(x))       (GPT-2, ViT; a last LN is the caller's)
"""
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from embeddings_jax.ops.dropout import dropout
from embeddings_jax.ops.layer_norm import folded, layer_norm, unit_norm
from embeddings_jax.ops.product import affine
from embeddings_jax.ops.sharding import DATA_AXES, constrain
from embeddings_jax.types import InputError


def _in_float32(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
  """Of bfloat16 XLA would round each factor."""
  return lambda x: function(x.astype(jnp.float32)).astype(x.dtype)


ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    # By erf, as PyTorch has it: JAX's erfc takes twice as long on CPUs.
    "gelu": _in_float32(lambda x: x * (0.5 + 0.5 * jax.lax.erf(x * 0.5**0.5))),
    "gelu_tanh": _in_float32(lambda x: nn.gelu(x, approximate=True)), "relu": nn.relu}
NORMS = ("post", "pre")
POSITIONS = ("learned", "sinusoidal")
POSITION_INITS = ("normal", "sinusoidal", "neighbours")
PEAK = 8.0  # Score of the place that a head begins by attending to; of those one and two further 7 and 5 or so.
# What a layer keeps for its backward pass: all of it, nothing, or the results of the products with parameters.
REMAT: Mapping[str, Any] = {
    "none": None, "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.save_only_these_names("product")}

# Data and fully sharded data parallelism by the first axis of products, tensor parallelism by heads and hidden units.
RULES = (
    (r"layers/qkv/kernel", P(None, "fsdp", None, "model")),
    (r"layers/qkv/bias", P(None, None, "model")),
    (r"layers/out/kernel", P(None, "model", None, "fsdp")),
    (r"layers/up/kernel", P(None, "fsdp", "model")),
    (r"layers/up/bias", P(None, "model")),
    (r"layers/down/kernel", P(None, "model", "fsdp")),
    (r"token_embedding", P("model", "fsdp")),
)


class Transformer(nn.Module):
  """The stack: [B, T, D] -> [B, T, D], or all L + 1 layers, the input first.

  Attributes:
    num_layers, num_heads, mlp_dim: L, H, M.
    norm: `post` or `pre`.
    causal: a position sees itself and those before it.
    activation: of `ACTIVATIONS`; `gelu` is the exact one.
    norm_epsilon: of LayerNorm.
    dropout: of what attention and MLP give back; `attention_dropout`: of the attention's weights.
    kernel_init: of the kernels; where `neighbours`, not of the first layer's queries and keys (see `_neighbours`).
    dtype: of the products; parameters, LayerNorm and softmax are float32.
    remat: of `REMAT`, to trade time for memory.
    unroll: layers in a piece of the compiled program; all of them, or more, where compiling time is no matter (a
      training step of 12 layers on a GPU took 0.6 of the time then).
  """

  num_layers: int
  num_heads: int
  mlp_dim: int
  norm: str = "post"
  causal: bool = False
  activation: str = "gelu"
  norm_epsilon: float = 1e-12
  dropout: float = 0.0
  attention_dropout: float = 0.0
  kernel_init: Callable[..., Array] = nn.initializers.truncated_normal(0.02)
  dtype: DTypeLike = jnp.float32
  remat: str = "none"
  unroll: int = 1
  neighbours: bool = False

  @nn.compact
  def __call__(
      self,
      x: Float[Array, "batch time dim"],
      valid: Bool[Array, "batch *query time"] | None = None,
      *,
      deterministic: bool = True,
      collect: str = "",
      only: slice | None = None,
  ) -> Any:
    """Applies the stack.

    Args:
      x: the input.
      valid: False on padding, which nobody attends to, or [B, T, T], what each position may attend to; None: all.
      deterministic: without dropout; else the `dropout` rng collection is used.
      collect: `layers` gives [B, L + 1, T, D] instead, `attention` the weights [B, L, H, T, T].
      only: positions that are asked for, [B, T', D]; of the others the last layer computes keys and values alone.
        With `causal` they have to begin at the first; not with `collect`.
    """
    params = self._parameters(x.shape[-1])
    shape = x.shape
    # All but attention sees rows of features: with three axes XLA put the batch last on a GPU, and turned them often.
    x = x.reshape(-1, shape[-1])
    rng = None if deterministic or not (self.dropout or self.attention_dropout) else self.make_rng("dropout")

    def body(x, layer, only=None):
      x, weights = self._layer(layer["params"], x, shape[:2], valid, layer.get("rng"), collect == "attention", only)
      return x, x.reshape(shape) if collect == "layers" else weights

    layers = {"params": params}
    if rng is not None:
      layers["rng"] = jax.random.split(rng, self.num_layers)
    bodies = [body, functools.partial(body, only=only)]
    if self.remat != "none":
      bodies = [jax.checkpoint(f, policy=REMAT[self.remat], prevent_cse=False) for f in bodies]
    last, collected = self._through(*bodies, x, layers, only is not None)
    if collect == "layers":
      return jnp.moveaxis(jnp.concatenate([x.reshape(1, *shape), collected]), 0, 1)
    return last.reshape(shape[0], -1, shape[-1]) if not collect else jnp.moveaxis(collected, 0, 1)

  def _through(self, body, top, x, layers, apart):
    """The layers, the last one by `top`: `jax.lax.scan`, after which `top` follows if it is to stand `apart`, or a
    loop where all would be unrolled. A scan, unrolled or not, copies what each layer keeps for its backward pass into
    one array of all layers, and out of it again."""
    if self.unroll < self.num_layers:
      if not apart:
        return jax.lax.scan(body, x, layers, unroll=max(1, self.unroll))
      lower, last = (jax.tree.map(lambda leaf, part=part: leaf[part], layers) for part in (slice(-1), -1))
      return top(jax.lax.scan(body, x, lower, unroll=max(1, self.unroll))[0], last)
    collected = []
    for i, params in enumerate(_unstacked(layers["params"], self.num_layers)):
      step = top if i == self.num_layers - 1 else body
      x, found = step(x, {"params": params, **({"rng": layers["rng"][i]} if "rng" in layers else {})})
      collected.append(found)
    return x, None if not collected or collected[0] is None else jnp.stack(collected)

  def _parameters(self, dim):
    """The stacked parameters, one name each, as a dict of dicts."""
    num, heads, width, hidden = self.num_layers, self.num_heads, dim // self.num_heads, self.mlp_dim
    zeros, ones = nn.initializers.zeros, nn.initializers.ones

    def dense(name, flat, kernel, bias):
      """Kernels are drawn as matrices `flat`, layer by layer, so that any initialiser sees the right fans."""
      def init(rng):
        drawn = jax.vmap(lambda key: self.kernel_init(key, flat, jnp.float32))(jax.random.split(rng, num))
        drawn = drawn.reshape(num, *kernel)
        if name == "qkv" and self.neighbours:
          drawn = drawn.at[0, :, :2].set(_neighbours(dim, heads))
        return {"kernel": drawn, "bias": jnp.zeros((num, *bias))}
      return self.param(name, init)

    def norm(name):
      return self.param(name, lambda rng: {"scale": ones(rng, (num, dim)), "bias": zeros(rng, (num, dim))})

    return {
        "attention_norm": norm("attention_norm"),
        "qkv": dense("qkv", (dim, 3 * dim), (dim, 3, heads, width), (3, heads, width)),
        "out": dense("out", (dim, dim), (heads, width, dim), (dim,)),
        "mlp_norm": norm("mlp_norm"),
        "up": dense("up", (dim, hidden), (dim, hidden), (hidden,)),
        "down": dense("down", (hidden, dim), (hidden, dim), (dim,))}

  def _layer(self, params, x, shape, valid, rng, with_weights, only):
    """[B T, D] -> [B T, D], `shape` being (B, T), or of the positions `only`; and the attention's weights."""
    keys = [None] * 3 if rng is None else list(jax.random.split(rng, 3))
    drop = lambda x, key: x if key is None else dropout(x, key, self.dropout)

    y, first = self._before(x, params, "attention_norm", "qkv")
    y, weights = self._attention(first, params["out"], y, shape, valid, keys[0], with_weights, only)
    x = self._after((x if only is None else _take(x, shape, only)) + drop(y, keys[1]), params["attention_norm"])
    y, first = self._before(x, params, "mlp_norm", "up")
    y = self._dense(ACTIVATIONS[self.activation](self._dense(y, *first)), *_flat(params["down"]))
    return self._after(x + drop(y, keys[2]), params["mlp_norm"]), weights

  def _before(self, x, params, norm, first):
    """What the product `first` sees, and its kernel and bias: those of the norm before it are folded into them."""
    kernel, bias = _flat(params[first])
    if self.norm == "post":
      return x, (kernel, bias)
    return unit_norm(x, self.norm_epsilon, self.dtype), folded(params[norm], kernel, bias)

  def _after(self, x, norm):
    return layer_norm(x, norm, self.norm_epsilon, self.dtype) if self.norm == "post" else x

  def _attention(self, qkv, out, x, shape, valid, rng, with_weights, only):
    dim = x.shape[-1]
    kernel, bias = qkv
    if only is None:
      qkv = self._dense(x, kernel, bias)
      if jax.default_backend() != "cpu":  # XLA would join the three gradients anew for each product that reads them.
        qkv = jax.lax.optimization_barrier(qkv)
      heads = jnp.split(qkv, 3, axis=-1)
    else:
      query = self._dense(_take(x, shape, only), kernel[:, :dim], bias[:dim])
      heads = [query, *jnp.split(self._dense(x, kernel[:, dim:], bias[dim:]), 2, axis=-1)]
    heads = [x.reshape(shape[0], -1, self.num_heads, dim // self.num_heads) for x in heads]
    rate = 0.0 if rng is None else self.attention_dropout
    y, weights = attention(*heads, valid, causal=self.causal, rate=rate, rng=rng, with_weights=with_weights)
    return self._dense(y.reshape(-1, dim), *_flat(out)), weights

  def _dense(self, x, kernel, bias):
    return checkpoint_name(affine(x, kernel, bias, self.dtype), "product")


def _flat(params):
  """Kernel and bias as a matrix and a row."""
  kernel, bias = params["kernel"], params["bias"].ravel()
  return kernel.reshape(-1, len(bias)), bias


def _take(x, shape, positions):
  """[B T, D] -> [B T', D]"""
  return x.reshape(*shape, -1)[:, positions].reshape(-1, x.shape[-1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _unstacked(tree: Any, num: int) -> list[Any]:
  """The `num` trees that are stacked in one. The gradients are stacked as they are: those of slices would each be
  filled up with zeros to the size of the whole, and added."""
  take = lambda i: jax.tree.map(lambda leaf: leaf[i], tree)
  return [take(i) for i in range(num)]


_unstacked.defvjp(lambda tree, num: (_unstacked(tree, num), None),
                  lambda num, _, slopes: (jax.tree.map(lambda *leaves: jnp.stack(leaves), *slopes),))


def attention(
    query: Float[Array, "batch time heads dim"],
    key: Float[Array, "batch keys heads dim"],
    value: Float[Array, "batch keys heads dim"],
    valid: Bool[Array, "batch *query keys"] | None = None,
    *,
    causal: bool = False,
    rate: float = 0.0,
    rng: Array | None = None,
    with_weights: bool = False,
) -> tuple[Float[Array, "batch time heads dim"], Array | None]:
  """softmax(q k^T / sqrt(d)) v, and the weights [B, H, T, T] where they are asked for.

  On accelerators, without dropout and weights, it is `jax.nn.dot_product_attention`, by cuDNN on GPUs where that has
  the type and the shape; dropout of the weights it lacks. Padding stands at the end of a row.
  """
  if not rate and not with_weights and jax.default_backend() != "cpu":
    if _cudnn_takes(query, key, valid):
      return _by_cudnn(query, key, value, valid, causal), None
    mask = None if valid is None else _over_heads(valid)
    return jax.nn.dot_product_attention(query, key, value, mask=mask, is_causal=causal), None
  # Heads go first, so that each product finds its rows side by side: on CPUs forward and backward took half the time.
  query, key, value = (jnp.swapaxes(x, 1, 2) for x in (query, key, value))
  seen = None if valid is None else _over_heads(valid)
  if causal:
    lower = jnp.tril(jnp.ones((query.shape[2], key.shape[2]), bool))
    seen = lower if seen is None else seen & lower
  if not rate and not with_weights:
    return jnp.swapaxes(_attend(query, key, value, seen), 1, 2), None
  weights = jax.nn.softmax(_scores(query, key, seen), axis=-1)
  kept = dropout(weights, rng, rate) if rate else weights
  found = jnp.einsum("bhqk,bhkd->bhqd", kept.astype(value.dtype), value)
  return jnp.swapaxes(found, 1, 2), weights if with_weights else None


def _scores(query, key, seen):
  """q k^T / sqrt(d) in float32, heads first."""
  scores = jnp.einsum("bhqd,bhkd->bhqk", query, key, preferred_element_type=jnp.float32) / query.shape[-1] ** 0.5
  # Finite: a row of padding alone sees everything instead of nothing.
  return scores if seen is None else jnp.where(seen, scores, -1e30)


@jax.custom_vjp
def _attend(query, key, value, seen):
  """Attention, heads first, with a backward pass that needs the weights alone: .97 of a training step on CPUs."""
  return _attend_forward(query, key, value, seen)[0]


def _attend_forward(query, key, value, seen):
  weights = jax.nn.softmax(_scores(query, key, seen), axis=-1)
  found = jnp.einsum("bhqk,bhkd->bhqd", weights.astype(value.dtype), value)
  return found, (query, key, value, seen, weights)


def _attend_backward(saved, cotangent):
  query, key, value, seen, weights = saved
  slopes = jnp.einsum("bhqd,bhkd->bhqk", cotangent, value, preferred_element_type=jnp.float32)
  slopes = weights * (slopes - (weights * slopes).sum(-1, keepdims=True)) / query.shape[-1] ** 0.5
  if seen is not None:
    slopes = jnp.where(seen, slopes, 0)
  slopes, weights = slopes.astype(query.dtype), weights.astype(value.dtype)
  return (jnp.einsum("bhqk,bhkd->bhqd", slopes, key), jnp.einsum("bhqk,bhqd->bhkd", slopes, query),
          jnp.einsum("bhqk,bhqd->bhkd", weights, cotangent), None)


_attend.defvjp(_attend_forward, _attend_backward)


def _cudnn_takes(query, key, valid) -> bool:
  width = query.shape[-1]
  even = query.shape[1] % 2 == 0 and key.shape[1] % 2 == 0
  return (jax.default_backend() == "gpu" and query.dtype in (jnp.bfloat16, jnp.float16) and width % 8 == 0
          and width <= 128 and (even or valid is None or valid.ndim == 2))


def _by_cudnn(query, key, value, valid, causal):
  """Odd lengths are padded, for it has even ones alone; it takes no mask without an axis of queries, but lengths."""
  batch, time = key.shape[:2]
  seen = {}
  if valid is not None and valid.ndim == 3:
    seen["mask"] = _over_heads(valid)
  elif valid is not None:  # Of a row that is padding alone it would make no number.
    seen["key_value_seq_lengths"] = jnp.maximum(valid.sum(-1, dtype=jnp.int32), 1)
  elif time % 2:
    seen["key_value_seq_lengths"] = jnp.full(batch, time, jnp.int32)
  even = [jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0))) for x in (query, key, value)]
  found = jax.nn.dot_product_attention(*even, is_causal=causal, implementation="cudnn", **seen)
  return found[:, :query.shape[1]]


def _over_heads(valid):
  """[B, 1, T or 1, T]"""
  return valid[:, None, None, :] if valid.ndim == 2 else valid[:, None]


class TextEncoder(nn.Module):
  """Token ids to vectors: embeddings of tokens, positions and segments, and a `Transformer` over them.

  The hyperparameters are checked by `text_encoder`, which makes one.

  Attributes:
    vocab_size: V.
    dim: D.
    max_length: longest input.
    num_segments: 0 where there are none.
    positions: `learned`, or `sinusoidal` as in the paper.
    position_init: of learned ones: `normal`, or `sinusoidal` of the same deviation: neighbours are then alike from
      the first step, which a short training has no time to learn. With `neighbours` the heads of the first layer
      attend to them from the first step, too, as `_neighbours` says.
    position_offset: the row of the position embedding that the first token has (RoBERTa: 2).
    embedding_norm: LayerNorm and after it dropout, as in BERT; else dropout alone.
    init_std: of embeddings and kernels, normal, cut off at two deviations; `kernel_std`: of kernels if another.
    others: see `Transformer`.
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
        self.dtype, self.remat, self.unroll, self.position_init == "neighbours", name="layers")

  def __call__(
      self,
      tokens: Int[Array, "batch time"],
      segments: Int[Array, "batch time"] | None = None,
      *,
      deterministic: bool = True,
      parts: Int[Array, "batch time"] | None = None,
  ) -> Float[Array, "batch time dim"]:
    """The last layer. `tokens` are -1 on padding, at the end of a row.

    Several texts may stand in a row, one after another: `parts` numbers them, -1 on padding. Each has positions of
    its own and is as if it were alone.
    """
    x = self._embed(tokens, segments, deterministic, parts)
    return self._final(self.layers_(x, _visible(tokens, parts), deterministic=deterministic))

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

  def decode(self, x: Float[Array, "*shape dim"], bias: Float[Array, " vocab"] | None = None,
             ) -> Float[Array, "*shape vocab"]:
    """Scores of the vocabulary by the token embeddings, in float32."""
    bias = jnp.zeros(self.vocab_size) if bias is None else bias
    # An H200 multiplied matrices of 30,522 columns at a third to a half of its speed.
    extra = 0 if jax.default_backend() == "cpu" else -self.vocab_size % 128
    table = jnp.pad(self.token_embedding, ((0, extra), (0, 0)))
    return affine(x, table.T, jnp.pad(bias, (0, extra)), self.dtype, jnp.float32)[..., :self.vocab_size]

  def _waves(self, rng, shape):
    """Positions to begin with."""
    del rng
    waves = 2**0.5 * self.init_std * sinusoidal_positions(*shape)
    if self.position_init == "sinusoidal":
      return waves
    width = self.dim // self.num_heads
    return waves.at[:, -width:].set(waves[:, :width])  # For `_neighbours`.

  def _embed(self, tokens, segments, deterministic, parts=None):
    time = tokens.shape[1]
    if time > self.max_length:
      raise InputError(f"{time} tokens: the encoder knows positions up to {self.max_length}; cut the text")
    # A table that is split along its features would be gathered as a whole, row by row.
    table = constrain(self.token_embedding, P("model", None))
    x = table[jnp.maximum(tokens, 0)]
    if self.positions == "learned":
      places = self.position_embedding[self.position_offset:self.position_offset + time]
    else:
      places = sinusoidal_positions(time, self.dim)
    x = x + (places if parts is None else places[_places(parts)])
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
  """What may be attended to: bool [B, T], or [B, T, T] where texts share a row."""
  return tokens >= 0 if parts is None else parts[:, :, None] == parts[:, None, :]


def _neighbours(dim: int, heads: int) -> Float[Array, "dim 2 heads width"]:
  """Kernels of queries and keys by which the heads attend to the places at -1, +1, -2, +2, ... from each.

  A position p has waves sin(wp), cos(wp) among its first Dh features, and again among its last. A head's keys are the
  latter; its queries are the former, turned into those of p + k, so that the score of p' is in proportion to
  Σ_w cos(w (p + k - p')). Were both the same features, every token would be most like itself, not like its position.
  The factor takes the input for normalised, and for a sum of three parts alike in size (token, position, segment).
  """
  width = dim // heads
  waves, pairs = 10_000.0 ** (-np.arange(0, width, 2) / dim), np.arange(0, width, 2)
  kernels = np.zeros((dim, 2, heads, width), np.float32)
  for head in range(heads):
    offset = (head // 2 + 1) * (1 if head % 2 else -1)
    sin, cos = np.sin(waves * offset), np.cos(waves * offset)
    kernels[pairs, 0, head, pairs], kernels[pairs + 1, 0, head, pairs] = cos, sin
    kernels[pairs, 0, head, pairs + 1], kernels[pairs + 1, 0, head, pairs + 1] = -sin, cos
    kernels[dim - width + np.arange(width), 1, head, np.arange(width)] = 1
  return jnp.asarray((3 * PEAK) ** 0.5 / width**0.25 * kernels)


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
  if hyper.get("position_init") == "neighbours" and (
      hyper.get("positions", "learned") != "learned" or hyper["num_heads"] < 2
      or hyper["dim"] // hyper["num_heads"] % 2):
    raise InputError("position_init='neighbours': needs learned positions, at least two heads, and an even number of "
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
