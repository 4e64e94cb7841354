"""Transformers (Vaswani et al. 2017, arXiv:1706.03762): one stack for BERT, GPT, their relatives and vision.

Parameters of a stack (L layers are stacked along a leading axis, D = dim, H heads, Dh = D / H, M = mlp_dim):

  layers/qkv             kernel [L, D, 3, H, Dh], bias [L, 3, H, Dh]
  layers/out             kernel [L, H, Dh, D], bias [L, D]
  layers/up, down        kernel [L, D, M], [L, M, D], bias [L, M], [L, D]
  layers/attention_norm  scale, bias [L, D]; mlp_norm alike

and of a decoder (`cross`), which attends to the memory of an encoder between its self-attention and its MLP:

  layers/cross_query     kernel [L, D, H, Dh], bias [L, H, Dh]
  layers/cross_memory    kernel [L, D, 2, H, Dh], bias [L, 2, H, Dh], keys and values
  layers/cross_out, cross_norm   as `out`, `attention_norm`

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
from jaxtyping import Array, Bool, Float

from embeddings_jax.ops.kernels import splash
from embeddings_jax.ops.kernels.attention import attention
from embeddings_jax.ops.kernels.dropout import dropout
from embeddings_jax.ops.kernels.layer_norm import folded, layer_norm, unit_norm
from embeddings_jax.ops.kernels.product import affine
from embeddings_jax.ops.sharding import DATA_AXES, constrain, num_model_shards, platform


def _in_float32(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
  """Returns the product with float32 factors: XLA would round each factor to bfloat16."""
  return lambda x: function(x.astype(jnp.float32)).astype(x.dtype)


ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    # By erf, as PyTorch has it: JAX's erfc takes twice as long on CPUs.
    "gelu": _in_float32(lambda x: x * (0.5 + 0.5 * jax.lax.erf(x * 0.5**0.5))),
    "gelu_tanh": _in_float32(lambda x: nn.gelu(x, approximate=True)), "relu": nn.relu}
NORMS = ("post", "pre")
PEAK = 8.0  # Initial attention score of the nearest neighbor; the next ones have about 7 and 5.
# What a layer keeps for its backward pass: all of it, nothing, or the results of the products with parameters and of
# the attention kernel of TPUs.
REMAT: Mapping[str, Any] = {
    "none": None, "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.save_only_these_names("product", splash.KEPT)}

# Data and fully sharded data parallelism by the first axis of products, tensor parallelism by heads and hidden units.
RULES = (
    (r"layers/qkv/kernel", P(None, "fsdp", None, "model")),
    (r"layers/qkv/bias", P(None, None, "model")),
    (r"layers/out/kernel", P(None, "model", None, "fsdp")),
    (r"layers/up/kernel", P(None, "fsdp", "model")),
    (r"layers/up/bias", P(None, "model")),
    (r"layers/down/kernel", P(None, "model", "fsdp")),
    (r"layers/cross_query/kernel", P(None, "fsdp", "model")),
    (r"layers/cross_memory/kernel", P(None, "fsdp", None, "model")),
    (r"layers/cross_out/kernel", P(None, "model", None, "fsdp")),
    (r"token_embedding", P("model", "fsdp")),
)


class Transformer(nn.Module):
  """The stack: [B, T, D] -> [B, T, D], or all L + 1 layers, the input first.

  Attributes:
    num_layers, num_heads, mlp_dim: L, H, M.
    norm: `post` or `pre`.
    causal: a position sees itself and those before it.
    activation: One of `ACTIVATIONS`; `gelu` is the exact one.
    norm_epsilon: Epsilon of LayerNorm.
    dropout: Dropout rate of the outputs of attention and MLP; `attention_dropout`: of the attention weights.
    kernel_init: Initializer of the kernels; with `neighbors`, not of the first layer's queries and keys (see
      `neighbor_kernels`).
    dtype: Data type of the products; parameters, LayerNorm and softmax are float32.
    remat: One of `REMAT`, to trade time for memory.
    unroll: layers in a piece of the compiled program; all of them, or more, where compiling time is no matter (a
      training step of 12 layers on a GPU took 0.6 of the time then).
    cross: Whether the layers attend to a memory, as those of a decoder.
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
  neighbors: bool = False
  cross: bool = False

  @nn.compact
  def __call__(
      self,
      x: Float[Array, "batch time dim"],
      valid: Bool[Array, "batch *query time"] | None = None,
      *,
      deterministic: bool = True,
      collect: str = "",
      only: slice | None = None,
      memory: Float[Array, "batch places dim"] | None = None,
      seen: Bool[Array, "batch places"] | None = None,
      shifts: Float[Array, "layers batch time dim"] | None = None,
  ) -> Any:
    """Applies the stack.

    Args:
      x: the input.
      valid: False on padding, which nobody attends to, or [B, T, T], what each position may attend to; None: all.
      deterministic: without dropout; else the `dropout` rng collection is used.
      collect: `layers` gives [B, L + 1, T, D] instead, `attention` the weights [B, L, H, T, T].
      only: positions that are asked for, [B, T', D]; of the others the last layer computes keys and values alone.
        With `causal` they have to begin at the first; not with `collect`.
      memory: Vectors that the layers of a decoder attend to; not with `only`.
      seen: False on padding of the memory.
      shifts: Added to the output of each layer, for gradients with respect to it; not with `only`.
    """
    params = self._parameters(x.shape[-1])
    shape = x.shape
    # All but attention sees rows of features: with three axes XLA put the batch last on a GPU, and turned them often.
    x = x.reshape(-1, shape[-1])
    rng = None if deterministic or not (self.dropout or self.attention_dropout) else self.make_rng("dropout")

    def body(x, layer, only=None):
      # Without it the layout of a scan's carry follows the parameters, and fsdp becomes tensor parallelism.
      x = constrain(x, P(DATA_AXES))
      x, weights = self._layer(layer["params"], x, shape[:2], valid, layer.get("rng"), collect == "attention", only,
                               (memory, seen))
      x = x + layer["shift"] if "shift" in layer else x
      return x, x.reshape(shape) if collect == "layers" else weights

    layers = {"params": params}
    if rng is not None:
      layers["rng"] = jax.random.split(rng, self.num_layers)
    if shifts is not None:
      layers["shift"] = shifts.reshape(self.num_layers, *x.shape)
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
      x, output = step(x, {"params": params, **{key: value[i] for key, value in layers.items() if key != "params"}})
      collected.append(output)
    return x, None if not collected or collected[0] is None else jnp.stack(collected)

  def _parameters(self, dim):
    """The stacked parameters, one name each, as a dict of dicts."""
    num, heads, width, hidden = self.num_layers, self.num_heads, dim // self.num_heads, self.mlp_dim
    zeros, ones = nn.initializers.zeros, nn.initializers.ones

    def dense(name, flat, kernel, bias):
      """Kernels are drawn as matrices `flat`, layer by layer, so that any initializer sees the right fans."""
      def init(rng):
        drawn = jax.vmap(lambda key: self.kernel_init(key, flat, jnp.float32))(jax.random.split(rng, num))
        drawn = drawn.reshape(num, *kernel)
        if name == "qkv" and self.neighbors:
          drawn = drawn.at[0, :, :2].set(neighbor_kernels(dim, heads))
        return {"kernel": drawn, "bias": jnp.zeros((num, *bias))}
      return self.param(name, init)

    def norm(name):
      return self.param(name, lambda rng: {"scale": ones(rng, (num, dim)), "bias": zeros(rng, (num, dim))})

    cross = {} if not self.cross else {
        "cross_norm": norm("cross_norm"),
        "cross_query": dense("cross_query", (dim, dim), (dim, heads, width), (heads, width)),
        "cross_memory": dense("cross_memory", (dim, 2 * dim), (dim, 2, heads, width), (2, heads, width)),
        "cross_out": dense("cross_out", (dim, dim), (heads, width, dim), (dim,))}
    return cross | {
        "attention_norm": norm("attention_norm"),
        "qkv": dense("qkv", (dim, 3 * dim), (dim, 3, heads, width), (3, heads, width)),
        "out": dense("out", (dim, dim), (heads, width, dim), (dim,)),
        "mlp_norm": norm("mlp_norm"),
        "up": dense("up", (dim, hidden), (dim, hidden), (hidden,)),
        "down": dense("down", (hidden, dim), (hidden, dim), (dim,))}

  def _layer(self, params, x, shape, valid, rng, with_weights, only, memory):
    """[B T, D] -> [B T, D], `shape` being (B, T), or of the positions `only`; and the attention's weights."""
    keys = [None] * 3 if rng is None else list(jax.random.split(rng, 3))
    drop = lambda x, key: x if key is None else dropout(x, key, self.dropout)

    y, first = self._before(x, params, "attention_norm", "qkv")
    y, weights = self._attention(first, params["out"], y, shape, valid, keys[0], with_weights, only)
    x = self._after((x if only is None else _take(x, shape, only)) + drop(y, keys[1]), params["attention_norm"])
    if self.cross:
      x = self._crossed(params, x, shape[0], *memory, rng, drop)
    y, first = self._before(x, params, "mlp_norm", "up")
    y = self._dense(ACTIVATIONS[self.activation](self._dense(y, *first)), *_flat(params["down"]))
    return self._after(x + drop(y, keys[2]), params["mlp_norm"]), weights

  def _crossed(self, params, x, num_rows, memory, seen, rng, drop):
    """Attention to a memory [B, M, D], with the residual around it."""
    keys = [None] * 2 if rng is None else list(jax.random.split(jax.random.fold_in(rng, 3)))
    y, first = self._before(x, params, "cross_norm", "cross_query")
    query = self._dense(y, *first)
    pair = self._dense(memory.reshape(-1, memory.shape[-1]).astype(self.dtype), *_flat(params["cross_memory"]))
    heads = [y.reshape(num_rows, -1, self.num_heads, x.shape[-1] // self.num_heads)
             for y in (query, *jnp.split(pair, 2, axis=-1))]
    rate = 0.0 if rng is None else self.attention_dropout
    y, _ = attention(*heads, seen, rate=rate, rng=keys[0])
    y = self._dense(y.reshape(x.shape), *_flat(params["cross_out"]))
    return self._after(x + drop(y, keys[1]), params["cross_norm"])

  def _before(self, x, params, norm, first):
    """Returns the input of the product `first`, and its kernel and bias: those of the norm before it are folded
    into them."""
    kernel, bias = _flat(_by_head(params[first]) if first == "qkv" else params[first])
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
      if platform() != "cpu":  # XLA would join the three gradients anew for each product that reads them.
        qkv = jax.lax.optimization_barrier(qkv)
      heads = self._split(qkv, 3)
    else:
      (kernel, *kernels), (bias, *biases) = self._split(kernel, 3), self._split(bias, 3)
      query = self._dense(_take(x, shape, only), kernel, bias)
      heads = [query, *self._split(self._dense(x, self._joined(kernels), self._joined(biases)), 2)]
    heads = [x.reshape(shape[0], -1, self.num_heads, dim // self.num_heads) for x in heads]
    rate = 0.0 if rng is None else self.attention_dropout
    y, weights = attention(*heads, valid, causal=self.causal, rate=rate, rng=rng, with_weights=with_weights)
    return self._dense(y.reshape(-1, dim), *_flat(out)), weights

  def _split(self, x, num):
    """[..., num D] -> `num` times [..., D], of columns in the order of `_by_head`."""
    if num_model_shards() == 1:
      return jnp.split(x, num, axis=-1)
    parts = x.reshape(*x.shape[:-1], self.num_heads, num, -1)
    return [parts[..., i, :].reshape(*x.shape[:-1], -1) for i in range(num)]

  def _joined(self, parts):
    """Inverts `_split`."""
    if num_model_shards() == 1:
      return jnp.concatenate(parts, -1)
    shape = parts[0].shape[:-1]
    return jnp.stack([x.reshape(*shape, self.num_heads, -1) for x in parts], -2).reshape(*shape, -1)

  def _dense(self, x, kernel, bias):
    return checkpoint_name(affine(x, kernel, bias, self.dtype), "product")


def _flat(params):
  """Kernel and bias as a matrix and a row."""
  kernel, bias = params["kernel"], params["bias"].ravel()
  return kernel.reshape(-1, len(bias)), bias


def _by_head(params):
  """Orders the columns of queries, keys and values by head where heads are split over devices: each has its own
  heads' then, and none has to be moved."""
  return params if num_model_shards() == 1 else jax.tree.map(lambda x: x.swapaxes(-3, -2), params)


def _take(x, shape, positions):
  """[B T, D] -> [B T', D]"""
  return x.reshape(*shape, -1)[:, positions].reshape(-1, x.shape[-1])


def neighbor_kernels(dim: int, heads: int) -> Float[Array, "dim 2 heads width"]:
  """Returns kernels of queries and keys by which the heads attend to the places at -1, +1, -2, +2, ... from each.

  A position p has waves sin(wp), cos(wp) among its first Dh features, and again among its last. A head's keys are the
  latter; its queries are the former, turned into those of p + k, so that the score of p' is in proportion to
  Σ_w cos(w (p + k - p')). Were both the same features, every token would be most like itself, not like its position.
  The factor takes the input for normalized, and for a sum of three parts alike in size (token, position, segment).
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _unstacked(tree: Any, num: int) -> list[Any]:
  """The `num` trees that are stacked in one. The gradients are stacked as they are: those of slices would each be
  filled up with zeros to the size of the whole, and added."""
  take = lambda i: jax.tree.map(lambda leaf: leaf[i], tree)
  return [take(i) for i in range(num)]


_unstacked.defvjp(lambda tree, num: (_unstacked(tree, num), None),
                  lambda num, _, slopes: (jax.tree.map(lambda *leaves: jnp.stack(leaves), *slopes),))
