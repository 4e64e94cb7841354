"""Rows of a table that is split by rows over `model` and by features over `fsdp`."""
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from embeddings_jax.ops.sharding import DATA_AXES, constrain, num_data_shards, num_model_shards

TABLE = P("model", "fsdp")


def lookup(
    table: Float[Array, "rows dim"], ids: Int[Array, " batch *axes"], dtype: DTypeLike = jnp.float32,
) -> Float[Array, "batch *axes dim"]:
  """table[ids], float32; ids in [0, rows), `batch` split over the data axes.

  With an `fsdp` axis the table is gathered in `dtype`, in which the network computes anyway, and its float32 gradient
  is summed by a reduce-scatter: XLA's own way sends all of it to all devices.
  """
  mesh = jax.sharding.get_abstract_mesh()
  shape = {} if mesh.empty or AxisType.Manual in mesh.axis_types else mesh.shape
  fsdp = shape.get("fsdp", 1)
  if fsdp > 1 and table.shape[1] % fsdp == 0 and ids.shape[0] % num_data_shards() == 0:
    even = jnp.pad(table, ((0, -table.shape[0] % num_model_shards()), (0, 0)))
    return _lookup(even, ids, jnp.dtype(dtype))
  # A table that is split along its features would be gathered as a whole, row by row.
  return constrain(table, P("model", None))[ids]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _lookup(table: Array, ids: Array, dtype: Any) -> Array:
  def local(table, ids):
    rows = jax.lax.all_gather(table.astype(dtype), "fsdp", axis=1, tiled=True)
    place, owned = _own(ids, len(rows))
    return jax.lax.psum(jnp.where(owned[..., None], rows[place], 0).astype(jnp.float32), "model")

  return jax.shard_map(local, in_specs=(TABLE, P(DATA_AXES)), out_specs=P(DATA_AXES), check_vma=False)(table, ids)


def _forward(table, ids, dtype):
  return _lookup(table, ids, dtype), (ids, table.shape[0])


def _backward(dtype, saved, cotangent):
  ids, num_rows = saved
  share = num_rows // num_model_shards()

  def local(ids, slopes):
    place, owned = _own(ids, share)
    sums = jnp.zeros((share, slopes.shape[-1])).at[place].add(jnp.where(owned[..., None], slopes, 0))
    return jax.lax.psum(jax.lax.psum_scatter(sums, "fsdp", scatter_dimension=1, tiled=True), "data")

  gradient = jax.shard_map(local, in_specs=(P(DATA_AXES), P(DATA_AXES)), out_specs=TABLE, check_vma=False)
  # Else libtpu 0.0.42 fails, where it joins this sum with that of scores of a padded vocabulary.
  return jax.lax.optimization_barrier(gradient(ids, cotangent.astype(jnp.float32))), None


_lookup.defvjp(_forward, _backward)


def _own(ids, share):
  """Places of ids among a device's rows, and whether they are there."""
  place = ids - jax.lax.axis_index("model") * share
  owned = (place >= 0) & (place < share)
  return jnp.where(owned, place, 0), owned
