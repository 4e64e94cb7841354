"""Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1), by the fastest kernel that takes the case."""
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from embeddings_jax.ops.kernels import splash
from embeddings_jax.ops.kernels.dropout import dropout, keep_mask
from embeddings_jax.ops.sharding import platform

CHUNK = 128  # Queries.


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

  Without dropout and weights it is splash attention on TPUs, cuDNN's on GPUs, where these have the type and the
  shape, and else on both `jax.nn.dot_product_attention`; dropout of the weights they lack. With dropout, TPUs score
  some queries at a time, and again in the backward pass. Padding stands at the end of a row.
  """
  if not rate and not with_weights and platform() != "cpu":
    if platform() == "tpu" and splash.takes(query, key, valid, causal):
      return splash.splash(query, key, value, valid, causal=causal), None
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
  if rate and not with_weights and platform() == "tpu" and query.shape[2] >= 2 * CHUNK:
    return jnp.swapaxes(in_chunks(query, key, value, seen, rate, rng), 1, 2), None
  weights = jax.nn.softmax(_scores(query, key, seen), axis=-1)
  kept = dropout(weights, rng, rate) if rate else weights
  output = jnp.einsum("bhqk,bhkd->bhqd", kept.astype(value.dtype), value)
  return jnp.swapaxes(output, 1, 2), weights if with_weights else None


def in_chunks(query: Array, key: Array, value: Array, seen: Array | None, rate: float, rng: Array,
              size: int = CHUNK) -> Array:
  """Attention with dropout of the weights, heads first, of `size` queries at a time: nothing of [T, T] is stored.

  Values are those of all queries at once. `seen` is [B or 1, 1, T or 1, T], or None.
  """
  batch, heads, time, width = query.shape
  extra = -time % size
  rows = lambda x: jnp.moveaxis(jnp.pad(x, ((0, 0), (0, 0), (0, extra), (0, 0))).reshape(
      *x.shape[:2], -1, size, x.shape[-1]), 2, 0)
  by_chunk = {"query": rows(query)} | ({"seen": rows(seen)} if seen is not None and seen.shape[-2] > 1 else {})

  @functools.partial(jax.checkpoint, prevent_cse=False)
  def one(number, part):
    weights = jax.nn.softmax(_scores(part["query"], key, part.get("seen", seen)), axis=-1)
    start = (number * size * key.shape[2]).astype(jnp.uint32)
    keep = keep_mask(rng, weights.shape, rate, start, (batch, heads, time, key.shape[2]))
    weights = jnp.where(keep, weights * (1 / (1 - rate)), 0)
    return jnp.einsum("bhqk,bhkd->bhqd", weights.astype(value.dtype), value)

  numbers = jnp.arange(len(by_chunk["query"]))
  outputs = jax.lax.map(lambda args: one(*args), (numbers, by_chunk))
  return jnp.moveaxis(outputs, 0, 2).reshape(batch, heads, -1, width)[:, :, :time]


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
  output = jnp.einsum("bhqk,bhkd->bhqd", weights.astype(value.dtype), value)
  return output, (query, key, value, seen, weights)


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
  return (platform() == "gpu" and query.dtype in (jnp.bfloat16, jnp.float16) and width % 8 == 0
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
  output = jax.nn.dot_product_attention(*even, is_causal=causal, implementation="cudnn", **seen)
  return output[:, :query.shape[1]]


def _over_heads(valid):
  """[B, 1, T or 1, T]"""
  return valid[:, None, None, :] if valid.ndim == 2 else valid[:, None]
