"""Dropout whose mask is computed again where it is needed, never stored."""
import functools

import jax
import jax.numpy as jnp

from embeddings_jax.types import Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def dropout(x: Array, rng: Array, rate: float) -> Array:
  """Sets each element to 0 with probability `rate`, and divides the others by 1 - rate (Srivastava et al. 2014).

  Whether an element is kept depends on a hash of its number and `rng` alone. Threefry's bits, which JAX would draw,
  took a third of a training step of a small transformer on CPUs, and are better than dropout needs; the hash is
  computed within the loop that multiplies, forward and backward, on any mesh alike.

  Args:
    x: [...], fewer than 2**32 elements.
    rng: a key.
    rate: in [0, 1), exact to 2**-32.
  """
  if not rate:
    return x
  # Of the factor bfloat16 would round off .2 %.
  return jnp.where(keep_mask(rng, x.shape, rate), x.astype(jnp.float32) * (1 / (1 - rate)), 0).astype(x.dtype)


def _forward(x, rng, rate):
  return dropout(x, rng, rate), rng


def _backward(rate, rng, cotangent):
  return dropout(cotangent, rng, rate), None


dropout.defvjp(_forward, _backward)


def keep_mask(rng: Array, shape: tuple[int, ...], rate: float, start: Array | int = 0,
              within: tuple[int, ...] | None = None) -> Array:
  """bool `shape`, False with probability `rate`, independent between elements and keys; see `hash_bits`."""
  return hash_bits(rng, shape, start, within) >= jnp.uint32(round(rate * 2**32))


def hash_bits(rng: Array, shape: tuple[int, ...], start: Array | int = 0,
              within: tuple[int, ...] | None = None) -> Array:
  """uint32 `shape`: two rounds of multiplying and shifting over each element's number and a key.

  The constants are those of Wellons' search for 32-bit mixers of little bias (hash-prospector, 2018).

  Args:
    rng: A key.
    shape: Shape of the result.
    start: Number of its first element, where it is a part of an array.
    within: Shape of that array.
  """
  first, second = jax.random.bits(rng, (2,), jnp.uint32)
  number = jnp.full(shape, start, jnp.uint32)
  stride = 1
  for axis in reversed(range(len(shape))):
    number += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride % 2**32)
    stride *= (within or shape)[axis]
  number = (number + first) * jnp.uint32(0x9E3779B1)  # Neighbors far apart, so that one key is no shift of another.
  for key in (second, jnp.uint32(0)):
    number = (number ^ (number >> 16)) * jnp.uint32(0x7FEB352D)
    number = (number ^ (number >> 15) ^ key) * jnp.uint32(0x846CA68B)
  return number ^ (number >> 16)
