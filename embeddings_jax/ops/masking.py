"""Masks of denoising models."""
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from embeddings_jax.types import Array, InputError

PATCH_MASKINGS = ("random", "block", "grid", "top", "future")


class Masked(NamedTuple):
  """Text with some tokens hidden, and what is to be predicted.

  Attributes:
    tokens: int32 [B, T], corrupted.
    positions: int32 [B, P], where tokens were chosen; the rest of a row is filled up with any positions.
    targets: int32 [B, P], the tokens that stood there.
    weights: float32 [B, P], 1 where a token was chosen, 0 where the row is filled up.
  """

  tokens: Int[Array, "b t"]
  positions: Int[Array, "b p"]
  targets: Int[Array, "b p"]
  weights: Float[Array, "b p"]


def mask_tokens(
    rng: Array,
    tokens: Int[Array, "b t"],
    *,
    mask_id: int,
    vocab_size: int,
    special_ids: Sequence[int] = (),
    rate: float = 0.15,
    mask_share: float = 0.8,
    random_share: float = 0.1,
    continues: Bool[Array, " V"] | None = None,
) -> Masked:
  """Chooses `rate` of a text's tokens for prediction; of these 80 % become [MASK], 10 % another token, 10 % stay.

  Devlin et al. 2019, section 3.1 (arXiv:1810.04805). Of a row with n tokens that are not special, floor(rate * n + u)
  are chosen, u uniform: `rate` of them on average, where the paper's program rounds. Another token is any of the
  vocabulary but the special ones.

  Args:
    rng: a key.
    tokens: int32 [B, T], -1 past a row's end.
    mask_id: id of [MASK].
    vocab_size: number of ids.
    special_ids: never chosen, and never drawn as another token.
    rate: share of the tokens that is chosen.
    mask_share, random_share: Fractions of the chosen ones.
    continues: bool [V], whether a token continues the word before it. Then whole words are chosen; the last word of a
      row that is not wanted as a whole is taken with a probability that keeps the share.
  """
  if not 0 < rate < 1:
    raise InputError(f"mask rate {rate}: must lie between 0 and 1")
  if mask_share < 0 or random_share < 0 or mask_share + random_share > 1:
    raise InputError(f"of the chosen tokens {mask_share} masked and {random_share} random: must be shares of 1")
  length = tokens.shape[1]
  eligible = tokens >= 0
  for special in special_ids:
    eligible &= tokens != special
  rng_order, rng_count, rng_kind, rng_token = jax.random.split(rng, 4)
  num_masked = rate * eligible.sum(1)
  slack = jax.random.uniform(rng_count, num_masked.shape)
  order = jax.random.uniform(rng_order, tokens.shape)
  capacity = min(length, int(rate * length) + 1)
  if continues is None:
    count = jnp.floor(num_masked + slack).astype(jnp.int32)
    _, positions = jax.lax.top_k(jnp.where(eligible, order, -1.0), capacity)
  else:
    capacity = min(length, capacity + 8)
    positions, count = _whole_words(eligible, continues[jnp.maximum(tokens, 0)], order, num_masked, slack, capacity)
  weights = (jnp.arange(capacity) < count[:, None]).astype(jnp.float32)
  targets = jnp.take_along_axis(tokens, positions, 1)

  kind = jax.random.uniform(rng_kind, targets.shape)
  drawn = jax.random.randint(rng_token, targets.shape, 0, vocab_size - len(set(special_ids)))
  for special in sorted(set(special_ids)):
    drawn += drawn >= special
  new = jnp.where(kind < mask_share, mask_id, jnp.where(kind < mask_share + random_share, drawn, targets))
  new = jnp.where(weights > 0, new, targets)
  rows = jnp.arange(len(tokens))[:, None]
  corrupted = tokens.at[rows, positions].set(new.astype(tokens.dtype), unique_indices=True)
  return Masked(corrupted, positions, jnp.maximum(targets, 0), weights)


def _whole_words(eligible, continues, order, num_masked, slack, capacity):
  """Positions [B, P], word by word in random order, and how many of them are chosen."""
  # A special token ends a word: what follows it starts a new one, whatever it looks like.
  previous = jnp.pad(eligible, ((0, 0), (1, 0)))[:, :-1]
  starts = eligible & ~(continues & previous)
  word = jnp.cumsum(starts, 1) - 1  # [B, T], for eligible tokens.
  rank = jnp.take_along_axis(order, jnp.maximum(word, 0), 1)  # One number for all tokens of a word.
  positions = jnp.argsort(jnp.where(eligible, rank, 2.0), axis=1, stable=True)
  sorted_word = jnp.take_along_axis(word, positions, 1)
  sorted_eligible = jnp.take_along_axis(eligible, positions, 1)
  same = (sorted_word[:, :, None] == sorted_word[:, None, :]) & sorted_eligible[:, None, :]
  size = same.sum(2)
  before = jnp.argmax(same, 2)  # Tokens of the words before this one.
  taken = sorted_eligible & (before + slack[:, None] * size <= num_masked[:, None]) & (before < num_masked[:, None])
  taken &= before + size <= capacity
  return positions[:, :capacity], jnp.cumprod(taken, 1).sum(1).astype(jnp.int32)


def content_keys(tokens: Int[Array, "b t"]) -> Array:
  """A key for each row of int32 [B, T] that depends on its content alone: for masks that are drawn once forever."""
  length = tokens.shape[1]
  factors = jax.random.bits(jax.random.key(length), (length,), jnp.uint32) | jnp.uint32(1)
  hashed = ((tokens.astype(jnp.uint32) + jnp.uint32(2)) * factors).sum(1, dtype=jnp.uint32)
  return jax.vmap(lambda x: jax.random.fold_in(jax.random.key(0), x))(hashed)


def patch_noise(rng: Array, masking: str, num_images: int, rows: int, columns: int) -> Float[Array, "b N"]:
  """float32 [B, N]: of an image's patches, counted by rows, those with the lowest values stay visible.

  `random`: uniform. `block`: a square is hidden, those nearest to a random place by the larger of the distances in
  rows and in columns, then by the smaller. `grid`: evenly spread ones stay, one of four being those of even rows and
  columns (counted from 0), by Bayer's matrix of 8 x 8 (1973); equals at random. `top`: the last patches stay, and the
  upper rows are to be predicted; `future`: the first stay, and what comes later by rows is.
  """
  if masking not in PATCH_MASKINGS:
    raise InputError(f"masking={masking!r}: must be one of {', '.join(PATCH_MASKINGS)}")
  rng, rng_place = jax.random.split(rng)
  noise = jax.random.uniform(rng, (num_images, rows * columns))
  row, column = np.divmod(np.arange(rows * columns), columns)
  if masking == "random":
    return noise
  if masking == "block":
    center = jax.random.uniform(rng_place, (num_images, 2)) * jnp.array([rows, columns]) - 0.5
    distances = abs(row - center[:, :1]), abs(column - center[:, 1:])
    return -jnp.maximum(*distances) - 1e-3 * jnp.minimum(*distances)
  if masking == "grid":
    order = np.zeros((1, 1), int)
    for _ in range(3):
      order = np.block([[4 * order, 4 * order + 2], [4 * order + 3, 4 * order + 1]])
    return order[row % 8, column % 8] + noise
  index = jnp.broadcast_to(jnp.arange(rows * columns, dtype=jnp.float32), noise.shape)
  return -index if masking == "top" else index
