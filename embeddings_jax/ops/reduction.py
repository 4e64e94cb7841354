"""Sums of gradients over data shards whose terms are sent in fewer bits.

A device rounds its gradient to `dtype` and sends a share to each other device; the shares are added up in float32,
rounded once more, and sent back. So an element of the sum of g_s is wrong by at most u (sum_s |g_s| + |sum_s g_s|),
u being the unit roundoff (2^-8 for bfloat16), however many devices there are, and half the bytes move.
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
from embeddings_jax.types import Array, InputError, PyTree

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
  num, shape = num_data_shards(), jax.sharding.get_abstract_mesh().shape
  if num == 1:
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
    return (loss, metrics), jax.tree.map(lambda x: shared(weight * x, request.dtype, num), grads)

  def call(params, extra, batch, rng):
    if any(jnp.issubdtype(x.dtype, jnp.inexact) for x in jax.tree.leaves(extra)):
      raise InputError(f"{refused}the loss moves statistics of whole batches, as BatchNorm does")
    rows = len(row_mask(batch))
    layout = jax.tree.map(lambda x: P(DATA_AXES) if x.shape[:1] == (rows,) else P(), batch)
    (loss, metrics), grads = jax.shard_map(local, in_specs=(P(), P(), layout, P()), out_specs=P(), check_vma=False)(
        params, extra, batch, rng)
    return (loss, (metrics, extra)), grads

  return call


def shared(x: Array, dtype: str, num: int, axis: str = "data") -> Array:
  """Returns the sum of `x` over the devices of an axis of the mesh, in `jax.shard_map`; see above.

  Args:
    x: The device's term.
    dtype: What is sent; arrays of less than `SMALLEST` elements, or of which no axis can be divided, go as they are.
    num: Devices of the axis.
  """
  split = next((i for i in sorted(range(x.ndim), key=lambda i: -x.shape[i]) if x.shape[i] % num == 0), None)
  if split is None or x.size < SMALLEST or x.dtype != jnp.float32:
    return jax.lax.psum(x, axis)
  # As integers: compilers for CPUs would turn the numbers back into float32 before they move.
  sent = lambda x: jax.lax.bitcast_convert_type(x.astype(dtype), jnp.uint16)
  received = lambda x: jax.lax.bitcast_convert_type(x, jnp.dtype(dtype)).astype(jnp.float32)
  parts = received(jax.lax.all_to_all(sent(x), axis, split, split, tiled=True))
  total = parts.reshape(*x.shape[:split], num, -1, *x.shape[split + 1:]).sum(split)
  return received(jax.lax.all_gather(sent(total), axis, axis=split, tiled=True))
