"""From the vectors of a text's tokens to one vector of the text."""
import re
from typing import Any

import jax
import jax.numpy as jnp

from embeddings_jax.types import Array, InputError

POOLINGS = ("cls", "mean", "max", "last", "mean_sqrt_len", "first_last_mean")


def check_pooling(pooling: str) -> str:
  """Raises unless `pooling` is one of `POOLINGS`, or `mean:K` or `cls:K` of layer K."""
  if pooling not in POOLINGS and not re.fullmatch(r"(cls|mean):\d+", pooling):
    raise InputError(f"pooling={pooling!r}: must be one of {', '.join(POOLINGS)}, or cls:K or mean:K of layer K")
  return pooling


def needs_layers(pooling: str) -> bool:
  """Returns whether more than the last layer is asked for."""
  return ":" in pooling or pooling == "first_last_mean"


def reading(encoder: Any, pooling: str) -> str:
  """The method of an encoder that gives what `pool` reads and, of those it has, computes the smallest."""
  if needs_layers(pooling):
    return "layers"
  best = {"cls": "first", "mean": "patches"}.get(pooling, "features")  # Of images the first token is no patch.
  return best if hasattr(encoder, best) else "features"


def pool_parts(hidden: Array, parts: Array, num_parts: int, pooling: str) -> Array:
  """[B, num_parts, D]: `pool` of each of the texts that stand in a row; `parts` int32 [B, T] numbers them from 0."""
  one = lambda part: pool(hidden, parts == part, pooling)
  return jnp.moveaxis(jax.vmap(one)(jnp.arange(num_parts)), 0, 1)


def pool(hidden: Array, valid: Array, pooling: str) -> Array:
  """[B, D] from `hidden`: [B, T, D] of the last layer, or [B, L + 1, T, D] where `needs_layers(pooling)`.

  Args:
    hidden: vectors of the tokens, or of the first of them alone; layer 0 is the embeddings.
    valid: bool [B, T], True on the tokens of the text, which follow each other.
    pooling: `cls` (the first token), `last` (the last token), `mean` or `max` over tokens, `mean_sqrt_len` (their
      sum divided by the square root of their number), `first_last_mean` (over tokens of layers 1 and L; Su et al.
      2021, arXiv:2103.15316), or `cls:K`, `mean:K` of layer K.
  """
  how, _, layer = check_pooling(pooling).partition(":")
  valid = valid[:, :hidden.shape[-2]]
  if layer:
    if int(layer) >= hidden.shape[1]:
      raise InputError(f"pooling={pooling!r}: layers are 0 (the embeddings) to {hidden.shape[1] - 1}")
    hidden = hidden[:, int(layer)]
  if how == "first_last_mean":
    hidden = (hidden[:, 1] + hidden[:, -1]) / 2
  if how in ("cls", "last"):
    position = valid.argmax(1) + (jnp.maximum(valid.sum(1) - 1, 0) if how == "last" else 0)
    return jnp.take_along_axis(hidden, position[:, None, None], 1)[:, 0]
  if how == "max":
    return jnp.where(valid.any(1)[:, None], jnp.where(valid[..., None], hidden, -jnp.inf).max(1), 0)
  weights = valid.astype(hidden.dtype)
  length = jnp.maximum(weights.sum(1, keepdims=True), 1)
  return jnp.einsum("bt,btd->bd", weights, hidden) / (jnp.sqrt(length) if how == "mean_sqrt_len" else length)
