"""Random bits by hashing: a function of a key and a position alone, and so the same however work is divided.

On CPU a fraction of threefry's cost, and fused into what uses it. Not for cryptography.
"""
import math

import jax
import jax.numpy as jnp
from jaxtyping import Shaped, UInt32

from embeddings_jax.types import Array


def mixed(x: UInt32[Array, "*any"]) -> UInt32[Array, "*any"]:
  """Returns the bits of x mixed one to one: the finalizer of MurmurHash3."""
  x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
  x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
  return x ^ (x >> 16)


def words(
    first: UInt32[Array, "..."], second: UInt32[Array, "..."], index: Shaped[Array, "..."],
) -> UInt32[Array, "..."]:
  """Returns 32 random bits for each index, from a key of two words; all broadcast against each other."""
  return mixed(mixed(index.astype(jnp.uint32) * jnp.uint32(0x9E3779B9) + first) ^ second)


def hashed_bits(rng: Array, stream: int, shape: tuple[int, ...]) -> UInt32[Array, "..."]:
  """Returns uniform uint32 of `shape`, a function of the key, the stream's number and the position alone."""
  halves = jax.random.key_data(rng).astype(jnp.uint32).ravel()
  index = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
  return words(mixed(halves[0] + jnp.uint32(stream)), halves[-1], index)
