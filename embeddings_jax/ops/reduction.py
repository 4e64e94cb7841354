"""Sums of gradients over data shards whose terms are sent in fewer bits.

Each device computes the gradient of its own rows and rounds it, and one all-reduce adds the terms up: half the bytes
move in bfloat16. Terms and sum being rounded once, an element of the sum of g_s is wrong by at most
u (sum_s |g_s| + |sum_s g_s|), u being the unit roundoff (2^-8 for bfloat16); so it is on CPUs, which add in float32.
Where partial sums are rounded on their way, as in rings of GPUs, up to u sum_s |g_s| is added for each device.
"""
import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from embeddings_jax.ops.batches import row_mask
from embeddings_jax.ops.sharding import DATA_AXES, num_data_shards, one_device
from embeddings_jax.types import InputError, PyTree

DTYPES = ("bfloat16", "float16")
SMALLEST = 1 << 12  # Elements; smaller arrays are summed in float32.


class _Request:
  """A data type that somebody asked for, and whether an update took note of it."""

  def __init__(self, dtype: str):
    self.dtype, self.heeded = dtype, False


_request: contextvars.ContextVar[_Request | None] = contextvars.ContextVar("gradient_dtype", default=None)


@contextlib.contextmanager
def gradients_in(dtype: str) -> Iterator[None]:
  """Within, updates are traced whose gradients are summed over devices in `dtype`.

  Raises:
    InputError: at the end, if no update within was one that could heed it.
  """
  request = _Request(dtype)
  token = _request.set(request)
  try:
    yield
  finally:
    _request.reset(token)
  if not request.heeded:
    raise InputError(f"gradient_dtype={dtype}: the model's update is not one step along the gradient of a mean")


def by_shard(gradient: Callable[..., tuple[Any, PyTree]], *, sums: bool) -> Callable[..., tuple[Any, PyTree]]:
  """Returns `gradient`, or where `gradients_in` asks for it the same with each data shard's computed by itself.

  Shards weigh by their valid rows, and each has a key of its own, as parts of a batch have that are accumulated.

  Args:
    gradient: `(params, extra, batch, rng) -> ((loss, (metrics, extra)), gradients)`.
    sums: Whether the loss is a mean over rows, of which none depends on others.
  """
  request = _request.get()
  if request is None:
    return gradient
  request.heeded = True
  shape = jax.sharding.get_abstract_mesh().shape
  if num_data_shards() == 1:
    return gradient
  refused = f"gradient_dtype={request.dtype}: "
  if any(size > 1 for axis, size in shape.items() if axis != "data"):
    raise InputError(f"{refused}needs a mesh with the axis data alone, and this one is {dict(shape)}")
  if not sums:
    raise InputError(f"{refused}this loss couples the examples of a batch, and the mean over its shards is another")

  def local(params, extra, batch, rng):
    with one_device():
      valid = row_mask(batch).sum()
      weight = valid / jnp.maximum(jax.lax.psum(valid, "data"), 1)
      rng = jax.random.fold_in(rng, jax.lax.axis_index("data"))
      (loss, (metrics, _)), grads = gradient(params, extra, batch, rng)
    loss, metrics = jax.tree.map(lambda x: jax.lax.psum(weight * x, "data"), (loss, metrics))
    return (loss, metrics), summed(jax.tree.map(lambda x: weight * x, grads), request.dtype)

  def call(params, extra, batch, rng):
    if any(jnp.issubdtype(x.dtype, jnp.inexact) for x in jax.tree.leaves(extra)):
      raise InputError(f"{refused}the loss moves statistics of whole batches, as BatchNorm does")
    rows = len(row_mask(batch))
    layout = jax.tree.map(lambda x: P(DATA_AXES) if x.shape[:1] == (rows,) else P(), batch)
    (loss, metrics), grads = jax.shard_map(local, in_specs=(P(), P(), layout, P()), out_specs=P(), check_vma=False)(
        params, extra, batch, rng)
    return (loss, (metrics, extra)), grads

  return call


def summed(grads: PyTree, dtype: str, axis: str = "data") -> PyTree:
  """Returns the sums of float32 arrays over the devices of an axis of the mesh, in `jax.shard_map`; see above."""
  rounded = jax.tree.map(lambda x: x.astype(dtype) if x.size >= SMALLEST else x, grads)
  return jax.tree.map(lambda x, total: total.astype(x.dtype), grads, jax.lax.psum(rounded, axis))
