"""Sums over the rows of a batch in pieces that fit the memory."""
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from embeddings_jax.ops.sharding import DATA_AXES, num_data_shards
from embeddings_jax.types import PyTree


def sum_over_chunks(fn: Callable[[Any, PyTree], PyTree], args: Any, batch: PyTree, size: int,
                    rows_last: bool = False) -> PyTree:
  """`sum of fn(args, chunk)` over chunks of `size` rows, without ever moving a row between devices.

  A `reshape` and `scan` over a sharded batch would gather all of it on every device; here each data
  shard scans its own rows and one all-reduce adds the sums up.

  Args:
    fn: `(args, chunk) -> tree of sums`. Rows that fill up the last chunk are zero, so what they add
      must be removed by a `mask` in the batch.
    args: a tree that is the same on all devices (parameters).
    batch: a tree of arrays `[num_rows, ...]`, sharded over the data axes.
    size: rows of a chunk on one device.
    rows_last: give `fn` arrays whose last axis is the rows. They are laid out so before the loop: kernels within it
      would read across the rows again and again.

  Returns:
    The tree of sums, the same on all devices.
  """

  def local_sum(args, batch):
    num_rows = jax.tree.leaves(batch)[0].shape[0]
    if num_rows <= size:
      return fn(args, jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), batch) if rows_last else batch)
    num_chunks = -(-num_rows // size)
    padded = jax.tree.map(
        lambda x: jnp.pad(x, [(0, num_chunks * size - num_rows)] + [(0, 0)] * (x.ndim - 1)), batch)
    chunks = jax.tree.map(lambda x: x.reshape((num_chunks, size) + x.shape[1:]), padded)
    if rows_last:
      chunks = jax.tree.map(lambda x: jnp.moveaxis(x, 1, -1), chunks)
    shapes = jax.eval_shape(fn, args, jax.tree.map(lambda x: x[0], chunks))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    if num_data_shards() > 1:
      zeros = jax.lax.pcast(zeros, DATA_AXES, to="varying")
    return jax.lax.scan(lambda total, chunk: (jax.tree.map(jnp.add, total, fn(args, chunk)), None), zeros, chunks)[0]

  if num_data_shards() == 1:
    return local_sum(args, batch)
  return jax.shard_map(
      lambda args, batch: jax.lax.psum(local_sum(args, batch), DATA_AXES),
      in_specs=(P(), P(DATA_AXES)), out_specs=P())(args, batch)
