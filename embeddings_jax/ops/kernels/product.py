"""Matrix products whose factors may be rounded to bfloat16, and whose sums never are."""
import functools

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from embeddings_jax.ops.sharding import platform
from embeddings_jax.types import Array


def affine(x: Array, kernel: Array, bias: Array, dtype: DTypeLike = jnp.float32, result: DTypeLike = None) -> Array:
  """x @ kernel + bias as `product` has it, [..., m] of type `result`, by default `dtype`."""
  return _affine(x, kernel, bias, dtype, result or dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _affine(x, kernel, bias, dtype, result):
  # On accelerators the product itself rounds its sums, so that they are never written as float32.
  sums = jnp.float32 if platform() == "cpu" else result
  return (product(x, kernel, dtype, sums).astype(jnp.float32) + bias).astype(result)


def _affine_backward(dtype, result, saved, cotangent):
  if cotangent.dtype != dtype and platform() != "cpu":
    # A large one, of a vocabulary's scores, is to be written once and in half of the bytes.
    cotangent = jax.lax.optimization_barrier(cotangent.astype(dtype))
  cotangent = cotangent.astype(dtype)
  # In float32: the backward pass of JAX's own addition would add up rows of bfloat16 in bfloat16.
  rows = cotangent.reshape(-1, cotangent.shape[-1]).astype(jnp.float32)
  return *_backward(dtype, result, saved, cotangent), rows.sum(0)


_affine.defvjp(lambda x, kernel, bias, dtype, result: (_affine(x, kernel, bias, dtype, result), (x, kernel)),
               _affine_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def product(x: Array, kernel: Array, dtype: DTypeLike = jnp.float32, result: DTypeLike = jnp.float32) -> Array:
  """x @ kernel with factors of type `dtype` and sums in float32, forward and backward.

  The kernel's gradient comes in float32, unrounded. JAX's own backward pass of such a product multiplies float32 by
  bfloat16, which CPUs do in float32; bfloat16 by bfloat16 takes those with a matrix unit (AMX) a quarter of the time.

  Args:
    x: [..., n] of any type.
    kernel: [n, m] float32.
    dtype: `float32` or `bfloat16`.
    result: what the sums are rounded to.

  Returns:
    [..., m] of type `result`.
  """
  return _dot(x.astype(dtype), kernel.astype(dtype), x.ndim - 1, 0, result)


def _forward(x, kernel, dtype, result):
  return product(x, kernel, dtype, result), (x, kernel)


def _backward(dtype, result, saved, cotangent):
  x, kernel = saved
  cotangent = cotangent.astype(dtype)
  rows, columns = (y.reshape(-1, y.shape[-1]) for y in (x.astype(dtype), cotangent))
  if platform() != "cpu":
    along = _dot(cotangent, kernel.astype(dtype), x.ndim - 1, 1, x.dtype)
    return along, _dot(rows, columns, 0, 0).astype(kernel.dtype)
  along = _dot(cotangent, kernel.astype(dtype), x.ndim - 1, 1).astype(x.dtype)
  if dtype == jnp.float32:
    return along, _dot(rows, columns, 0, 0).astype(kernel.dtype)
  # XLA's CPU products of bfloat16 are several times as fast, by the processor's matrix unit, where neither factor has
  # to be turned. Where there are two axes to sum over XLA turns the factors beforehand, at little cost; with one it
  # computes in float32. The barrier keeps it from turning the result, and so the factors once more.
  if len(rows) % 2 == 0:
    rows, columns = (y.reshape(2, -1, y.shape[-1]) for y in (rows, columns))
  axes = tuple(range(rows.ndim - 1))
  gradient = jax.lax.dot_general(rows, columns, ((axes, axes), ((), ())), preferred_element_type=jnp.float32)
  return along, jax.lax.optimization_barrier(gradient).astype(kernel.dtype)


def _dot(x, y, x_axis, y_axis, result=jnp.float32):
  return jax.lax.dot_general(x, y, (((x_axis,), (y_axis,)), ((), ())), preferred_element_type=result)


product.defvjp(_forward, _backward)
