"""Attention on TPUs by JAX's splash attention (Pallas), which never writes the scores to the main memory."""
import functools

import jax
import jax.numpy as jnp
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float

from embeddings_jax.ops.sharding import DATA_AXES, num_data_shards, num_model_shards

BLOCK = 128  # Lengths of queries and keys are multiples of it.
MOST_PADDING = 1.4  # Length with padding by the length without; beyond it the plain form moves less than this.
WIDEST_BLOCK = 512
KEPT = "attention"  # Name of what the backward pass needs of the kernel's results, for policies of `jax.checkpoint`.


def takes(query: Array, key: Array, valid: Array | None, causal: bool) -> bool:
  """Returns whether the kernel has the case, and gains by it."""
  lengths = query.shape[1], key.shape[1]
  mesh = jax.sharding.get_abstract_mesh()
  split = mesh.empty or AxisType.Manual in mesh.axis_types or (
      query.shape[0] % num_data_shards() == 0 and query.shape[2] % num_model_shards() == 0)
  return (all(_padded(length) <= MOST_PADDING * length for length in lengths) and split
          and (valid is None or valid.ndim == 2) and (not causal or lengths[0] == lengths[1]))


def splash(
    query: Float[Array, "batch time heads dim"],
    key: Float[Array, "batch keys heads dim"],
    value: Float[Array, "batch keys heads dim"],
    valid: Bool[Array, "batch keys"] | None = None,
    *,
    causal: bool = False,
    interpret: bool = False,
) -> Float[Array, "batch time heads dim"]:
  """softmax(q k^T / sqrt(d)) v.

  Lengths are padded to multiples of 128; keys that are padding belong to another segment than all queries.
  `interpret` computes on any platform what the kernel computes on TPUs.
  """
  time, keys = query.shape[1], key.shape[1]
  seen = jnp.ones(key.shape[:2], bool) if valid is None else valid
  seen |= ~seen.any(1, keepdims=True)  # A row of padding alone sees everything instead of nothing.
  segments = jnp.pad(seen.astype(jnp.int32), ((0, 0), (0, _padded(keys) - keys)))
  pad = lambda x: jnp.pad(x, ((0, 0), (0, _padded(x.shape[1]) - x.shape[1]), (0, 0), (0, 0))).swapaxes(1, 2)
  query, key, value = pad(query * query.shape[-1] ** -0.5), pad(key), pad(value)

  def local(query, key, value, segments):
    kernel = _kernel(query.shape[1], query.shape[2], key.shape[2], causal, interpret)
    ours = jnp.ones(query.shape[2], jnp.int32)
    return jax.vmap(lambda q, k, v, s: _call(kernel, q, k, v, ours, s))(query, key, value, segments)

  mesh = jax.sharding.get_abstract_mesh()
  if not mesh.empty and AxisType.Manual not in mesh.axis_types:
    heads = P(DATA_AXES, "model" if "model" in mesh.axis_names else None)
    local = jax.shard_map(local, in_specs=(heads, heads, heads, P(DATA_AXES)), out_specs=heads, check_vma=False)
  return local(query, key, value, segments).swapaxes(1, 2)[:, :time]


def _call(kernel, query, key, value, ours, segments):
  from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash_kernel

  return kernel(query, key, value, segment_ids=splash_kernel.SegmentIds(ours, segments))


def _kernel(num_heads: int, time: int, keys: int, causal: bool, interpret: bool):
  # Imported late: TPU kernels alone need it.
  from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash_kernel
  from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

  mask = masks.CausalMask((time, keys)) if causal else masks.FullMask((time, keys))
  q, k = _block(time), _block(keys)
  sizes = splash_kernel.BlockSizes(block_q=q, block_kv=k, block_kv_compute=k, block_q_dkv=q, block_kv_dkv=k,
                                   block_kv_dkv_compute=k, block_q_dq=q, block_kv_dq=k)
  return splash_kernel.make_splash_mha(masks.MultiHeadMask([mask] * num_heads), head_shards=1, q_seq_shards=1,
                                       block_sizes=sizes, residual_checkpoint_name=KEPT, interpret=interpret)


def _padded(length: int) -> int:
  return -(-length // BLOCK) * BLOCK


@functools.cache
def _block(length: int) -> int:
  """Largest block that divides a padded length."""
  return max(size for size in range(BLOCK, WIDEST_BLOCK + 1, BLOCK) if length % size == 0)
