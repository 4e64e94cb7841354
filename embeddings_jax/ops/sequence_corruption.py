"""Random corruption of token sequences, as denoising autoencoders of text undo it.

Lewis et al. 2020 (arXiv:1910.13461) and Wang et al. 2021 (arXiv:2104.06979). A row is special tokens, the content,
special tokens, and padding (-1). Only the content is changed, and a row keeps at least one token of it. Shapes are
static: shortened rows are padded, and rows that would become too long are cut.
"""
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from embeddings_jax.types import InputError

Tokens = Int[Array, "batch time"]


class Noise(NamedTuple):
  """Corruptions in the order in which they are applied.

  Attributes:
    permute_sentences: Sentences come in random order.
    infilling: Fraction of the tokens that lie in spans, each of which becomes one mask token.
    span_length: Mean of the spans' lengths, which have a Poisson distribution; one of length 0 inserts a mask token.
    masking: Probability of a token to become the mask token.
    deletion: Probability of a token to be left out.
    rotate: The content begins at a random token, and what stood before it follows at the end.
  """

  permute_sentences: bool = False
  infilling: float = 0.0
  span_length: float = 3.0
  masking: float = 0.0
  deletion: float = 0.0
  rotate: bool = False


def check_noise(noise: Noise, max_length: int, mask_id: int | None, stop_ids: Sequence[int]) -> None:
  """Raises unless the corruptions are possible for texts of so many tokens, with these special tokens."""
  for name in ("infilling", "masking", "deletion"):
    if not 0 <= getattr(noise, name) < 1:
      raise InputError(f"{name}={getattr(noise, name)}: must lie in [0, 1)")
  if not 1 <= noise.span_length <= 100:
    raise InputError(f"span_length={noise.span_length}: must lie from 1 to 100")
  if noise.infilling and noise.span_length > max_length:
    raise InputError(f"span_length={noise.span_length}: longer than the texts, of max_length={max_length} tokens")
  if (noise.infilling or noise.masking) and mask_id is None:
    raise InputError("infilling, masking: the tokenizer has no mask token; use deletion")
  if noise.permute_sentences and not len(stop_ids):
    raise InputError("permute_sentences: the tokenizer has no token that ends a sentence, as a full stop")


def corrupt(rng: Array, tokens: Tokens, noise: Noise, *, special_ids: Sequence[int] = (), mask_id: int | None = None,
            stop_ids: Sequence[int] = ()) -> Tokens:
  """Returns corrupted rows.

  Args:
    rng: A key.
    tokens: int32 [B, T], -1 past the end.
    noise: The corruptions.
    special_ids: Tokens around the content, which stay.
    mask_id: The mask token.
    stop_ids: Tokens that end a sentence.
  """
  keys = jax.random.split(rng, 5)
  lead, count, trail = _regions(tokens, special_ids)
  place = jnp.arange(tokens.shape[1])
  x = jnp.where(place < count[:, None], _take(tokens, place + lead[:, None]), -1)
  if noise.permute_sentences:
    x = permute_sentences(keys[0], x, stop_ids)
  if noise.infilling:
    x = infill(keys[1], x, noise.infilling, noise.span_length, mask_id)
  if noise.masking:
    x = jnp.where((jax.random.uniform(keys[2], x.shape) < noise.masking) & (x >= 0), mask_id, x)
  if noise.deletion:
    x = delete(keys[3], x, noise.deletion)
  if noise.rotate:
    x = rotate(keys[4], x)
  size = jnp.minimum((x >= 0).sum(1), tokens.shape[1] - lead - trail)
  # Back between the special tokens.
  inner, behind = place - lead[:, None], place - (lead + size)[:, None]
  after = _take(tokens, place + (count - size)[:, None])
  new = jnp.where(inner < 0, tokens, jnp.where(behind < 0, _take(x, inner), after))
  return jnp.where(place < (lead + size + trail)[:, None], new, -1).astype(tokens.dtype)


def delete(rng: Array, content: Tokens, rate: float) -> Tokens:
  """Leaves out each token with probability `rate`; of a row of which none would be left, a random one stays."""
  draws = jnp.where(content >= 0, jax.random.uniform(rng, content.shape), -1.0)
  kept = (draws >= rate) | ((draws == draws.max(1, keepdims=True)) & (content >= 0))
  return jnp.where(jnp.sort(~kept, axis=1), -1, _take(content, jnp.argsort(~kept, axis=1, stable=True)))


def infill(rng: Array, content: Tokens, rate: float, span_length: float, mask_id: int | None) -> Tokens:
  """Replaces spans of Poisson lengths by one mask token each.

  Of a row with n tokens floor(rate n + u) lie in spans, u uniform, the last of which is cut. Their places are uniform
  over all in which tokens stand between them, as far as there are so many.
  """
  length = content.shape[1]
  rng_count, rng_length, rng_place = jax.random.split(rng, 3)
  count = (content >= 0).sum(1)
  num_masked = jnp.floor(rate * count + jax.random.uniform(rng_count, count.shape)).astype(jnp.int32)
  spans = jnp.searchsorted(_poisson(span_length), jax.random.uniform(rng_length, content.shape)).astype(jnp.int32)
  before = jnp.cumsum(spans, 1) - spans
  active = before < num_masked[:, None]
  spans = jnp.where(active, jnp.minimum(spans, num_masked[:, None] - before), 0)
  kept = count - spans.sum(1)
  # Each span gets one of the gaps in front of, between and behind the tokens that stay.
  draws = jax.random.uniform(rng_place, (len(content), length + 1))
  gaps = jnp.where(jnp.arange(length + 1) <= kept[:, None], draws, 2.0)
  gaps = jnp.take_along_axis(jnp.argsort(gaps, axis=1), jnp.arange(length) % (kept[:, None] + 1), 1)
  gaps = jnp.sort(jnp.where(active, gaps, length + 1), axis=1)
  rows, place = jnp.arange(len(content))[:, None], jnp.arange(length)

  def added(values):  # How many, or how much, up to each place.
    return jnp.zeros((len(content), length), jnp.int32).at[rows, gaps].add(values, mode="drop").cumsum(1)

  masks, skipped = added(active.astype(jnp.int32)), added(spans)
  stays = place < kept[:, None]
  new = jnp.where(place < (kept + active.sum(1))[:, None], mask_id, -1).astype(content.dtype)
  return new.at[rows, jnp.where(stays, place + masks, length)].set(_take(content, place + skipped), mode="drop")


def permute_sentences(rng: Array, content: Tokens, stop_ids: Sequence[int]) -> Tokens:
  """Puts the sentences in random order; a sentence ends behind each of `stop_ids`."""
  ends = is_in(content, stop_ids)
  order = _take(jax.random.uniform(rng, content.shape), jnp.cumsum(ends, 1) - ends)
  return _take(content, jnp.argsort(jnp.where(content >= 0, order, 2.0), axis=1, stable=True))


def rotate(rng: Array, content: Tokens) -> Tokens:
  """Begins each row at a random one of its tokens."""
  count = jnp.maximum((content >= 0).sum(1), 1)
  place = jnp.arange(content.shape[1])
  first = (jax.random.uniform(rng, count.shape) * count).astype(jnp.int32)
  rotated = _take(content, (place + first[:, None]) % count[:, None])
  return jnp.where(content >= 0, rotated, -1)


def is_in(tokens: Tokens, ids: Sequence[int]) -> Bool[Array, "batch time"]:
  """Returns which tokens are among some ids."""
  member = jnp.zeros(tokens.shape, bool)
  for i in ids:
    member |= tokens == i
  return member


def _regions(tokens: Tokens, special_ids: Sequence[int]) -> tuple[Array, Array, Array]:
  """Returns the numbers of special tokens in front, of tokens of the content, and of special ones behind."""
  special = is_in(tokens, special_ids)
  length = (tokens >= 0).sum(1)
  lead = jnp.cumprod(special, axis=1).sum(1)
  behind = jnp.cumprod((special | (tokens < 0))[:, ::-1], axis=1).sum(1) - (tokens.shape[1] - length)
  trail = jnp.minimum(behind, length - lead)
  return lead, length - lead - trail, trail


def _take(values: Array, index: Array) -> Array:
  return jnp.take_along_axis(values, jnp.clip(index, 0, values.shape[1] - 1), 1)


def _poisson(mean: float) -> np.ndarray:
  """Returns the distribution function at 0, 1, ..., as far as float32 tells it from 1."""
  k = np.arange(1, int(mean + 12 * mean**0.5 + 12))
  mass = np.exp(-mean + np.concatenate([[0.0], np.cumsum(np.log(mean / k))]))
  return np.cumsum(mass).astype(np.float32)
