"""Sums over the rows of a batch in pieces that fit the memory."""
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from embeddings_jax.ops.sharding import DATA_AXES, num_data_shards
from embeddings_jax.types import Array, PyTree


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
    chunks = _cut(batch, size)
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


def loss_over_chunks(fn: Callable[[PyTree, PyTree], tuple[Array, PyTree]], args: PyTree, batch: PyTree,
                     size: int) -> tuple[Array, PyTree]:
  """`sum_over_chunks` of a loss, whose gradient comes from the same pass: no chunk is computed twice or kept.

  Each chunk's gradient is taken as soon as its loss is known: with respect to `args` it is added up, with respect to
  the chunk it is stored. So the memory is that of one chunk's intermediate results and of the gradients themselves.

  Args:
    fn: `(args, chunk) -> (loss, tree of sums)`, both summed over the rows; the sums have no gradient. It may close
      over no traced array.
    args, batch, size: as for `sum_over_chunks`; arrays that are not floating point have no gradient.
  """

  @jax.custom_vjp
  def total(args, batch):
    return sum_over_chunks(fn, args, batch, size)

  def forward(args, batch):
    if num_data_shards() == 1:
      sums, slopes = _local_value_and_gradient(fn, args, batch, size)
    else:
      # Varying, because the gradient of what is equal everywhere would be added up over the devices in each chunk.
      local = lambda args, batch: _local_value_and_gradient(
          fn, jax.lax.pcast(args, DATA_AXES, to="varying"), batch, size)
      over_devices = lambda sums, slopes: (jax.lax.psum(sums, DATA_AXES), slopes)
      sums, slopes = jax.shard_map(lambda args, batch: over_devices(*local(args, batch)),
                                   in_specs=(P(), P(DATA_AXES)), out_specs=(P(), P(DATA_AXES)))(args, batch)
    *value, of_args = sums
    return tuple(value), (of_args, slopes)

  def backward(gradient, cotangents):
    of_args, slopes = jax.tree.map(lambda x: (cotangents[0] * x).astype(x.dtype), gradient)
    nothing = lambda tree: jax.tree.map(lambda x: x if _is_float(x) else None, tree)
    return _merged(nothing(args), of_args), _merged(nothing(batch), slopes)

  total.defvjp(forward, backward)
  return total(args, batch)


def _local_value_and_gradient(fn, args, batch, size):
  """`((loss, sums, gradient of the floats in args), gradient of the floats in batch)` of one device's rows."""

  def one(chunk):
    of_floats = lambda in_args, in_chunk: fn(_merged(args, in_args), _merged(chunk, in_chunk))
    (loss, sums), (of_args, of_chunk) = jax.value_and_grad(of_floats, (0, 1), has_aux=True)(
        _floats(args), _floats(chunk))
    return (loss, sums, of_args), of_chunk

  num_rows = jax.tree.leaves(batch)[0].shape[0]
  if num_rows <= size:
    return one(batch)
  chunks = _cut(batch, size)
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(
      one, jax.tree.map(lambda x: x[0], chunks))[0])
  if num_data_shards() > 1:
    zeros = jax.lax.pcast(zeros, DATA_AXES, to="varying")

  def body(total, chunk):
    sums, slopes = one(chunk)
    return jax.tree.map(jnp.add, total, sums), slopes

  sums, slopes = jax.lax.scan(body, zeros, chunks)
  return sums, jax.tree.map(lambda x: x.reshape((-1, *x.shape[2:]))[:num_rows], slopes)


def _cut(batch, size):
  """`[num_rows, ...] -> [num_chunks, size, ...]`, the last chunk filled up with zeros."""
  num_rows = jax.tree.leaves(batch)[0].shape[0]
  num_chunks = -(-num_rows // size)
  pad = lambda x: jnp.pad(x, [(0, num_chunks * size - num_rows)] + [(0, 0)] * (x.ndim - 1))
  return jax.tree.map(lambda x: pad(x).reshape((num_chunks, size) + x.shape[1:]), batch)


def _is_float(x):
  return jnp.issubdtype(x.dtype, jnp.inexact)


def _floats(tree):
  """The floating point leaves of a tree, a list."""
  return [x for x in jax.tree.leaves(tree) if _is_float(x)]


def _merged(tree, floats):
  """`tree` with other floating point leaves."""
  floats = iter(floats)
  return jax.tree.map(lambda x: next(floats) if _is_float(x) else x, tree)
