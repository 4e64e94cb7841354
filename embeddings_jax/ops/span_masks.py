"""Masks of spans of frames, as masked prediction of speech hides them."""
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from embeddings_jax.types import InputError


def check_spans(rate: float, length: int) -> None:
  """Raises unless these options of `span_mask` make sense."""
  if not 0 < rate < 1 or length < 1:
    raise InputError(f"mask_rate={rate}, span_length={length}: must lie between 0 and 1, and be at least 1")


def span_mask(rng: Array, valid: Bool[Array, "batch time"], rate: float, length: int) -> Bool[Array, "batch time"]:
  """Returns which frames are hidden: spans of `length` frames, which may overlap (Baevski et al. 2020, section 3.1).

  Of a row's n frames at which a whole span fits, max(1, floor(rate n + u)) begin one, u uniform; a row shorter than a
  span is hidden from its first frame on but for its last, a row of one frame not at all.

  Args:
    rng: A key.
    valid: False on padding, at the end of a row.
    rate: Fraction of the frames that begin a span.
    length: Frames of a span.
  """
  rng_order, rng_count = jax.random.split(rng)
  time = jnp.arange(valid.shape[1])
  size = valid.sum(1)
  fits = jnp.maximum(size - length + 1, 1)
  count = jnp.maximum(1, jnp.floor(rate * fits + jax.random.uniform(rng_count, size.shape))).astype(jnp.int32)
  order = jnp.where(time < fits[:, None], jax.random.uniform(rng_order, valid.shape), 2.0)
  begins = jnp.argsort(jnp.argsort(order, axis=1), axis=1) < jnp.minimum(count, fits)[:, None]
  started = jnp.cumsum(begins, 1)
  before = jnp.pad(started, ((0, 0), (length, 0)))[:, :valid.shape[1]]
  hidden = (started > before) & valid
  # Something has to be seen.
  return hidden & ((time < size[:, None] - 1) | (size[:, None] > length))
