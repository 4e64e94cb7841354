"""Matrix products whose factors may be rounded to bfloat16, and whose sums never are."""
import functools

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from embeddings_jax.types import Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(x: Array, kernel: Array, dtype: DTypeLike = jnp.float32) -> Array:
  """x @ kernel with factors of type `dtype` and sums in float32, forward and backward.

  The kernel's gradient comes in float32, unrounded. JAX's own backward pass of such a product multiplies float32 by
  bfloat16; on CPUs that have bfloat16 dot products these take half of the time of float32, mixed ones do not.

  Args:
    x: [..., n] of any type.
    kernel: [n, m] float32.
    dtype: `float32` or `bfloat16`.

  Returns:
    [..., m] float32.
  """
  return _dot(x.astype(dtype), kernel.astype(dtype), x.ndim - 1, 0)


def _forward(x, kernel, dtype):
  return product(x, kernel, dtype), (x, kernel)


def _backward(dtype, saved, cotangent):
  x, kernel = saved
  cotangent = cotangent.astype(dtype)
  along = _dot(cotangent, kernel.astype(dtype), x.ndim - 1, 1).astype(x.dtype)
  rows, columns = (y.reshape(-1, y.shape[-1]) for y in (x.astype(dtype), cotangent))
  if jax.default_backend() != "cpu":
    return along, _dot(rows, columns, 0, 0).astype(kernel.dtype)
  # XLA's CPU products are slow where both factors lie along the sum; so the narrow one is turned beforehand, which
  # took a tenth off a training step in bfloat16. The barriers keep XLA from turning it back.
  if kernel.shape[0] <= kernel.shape[1]:
    return along, _dot(jax.lax.optimization_barrier(rows.T), columns, 1, 0).astype(kernel.dtype)
  turned = _dot(jax.lax.optimization_barrier(columns.T), rows, 1, 0)
  return along, jax.lax.optimization_barrier(turned).T.astype(kernel.dtype)


def _dot(x, y, x_axis, y_axis):
  return jax.lax.dot_general(x, y, (((x_axis,), (y_axis,)), ((), ())), preferred_element_type=jnp.float32)


product.defvjp(_forward, _backward)
