"""Blocks of running words as word2vec's models see them: random choices, neighboring positions, rows of tables.

A batch is `{"tokens": int32 [B, T], "mask": [B]}`: blocks of running tokens, -1 = document boundary or padding. What
subsampling leaves of a block is moved to its front: N positions, of which each knows its word, its document and the
radius of its window. Models gather rows once per position, work on positions, and scatter once per position; a dense
gradient of a table never exists.
"""
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec as P
from jaxtyping import Float, Int, Shaped, UInt32

from embeddings_jax.ops.batches import row_mask
from embeddings_jax.ops.hashing import hashed_bits
from embeddings_jax.ops.sharding import DATA_AXES, constrain, num_data_shards
from embeddings_jax.types import Array, InputError

ROW_MULTIPLE = 64  # Tables are padded to this, so that their rows can be split over `model`.


class Draws(NamedTuple):
  """One batch after all random choices: B blocks of N positions, the kept tokens at the front.

  Attributes:
    tokens: [B, N] int32, V where there is none: the number of a row of zeros.
    document: [B, N] int32, number of the document in the block, -1 where there is no token.
    radius: [B, N] int32.
    negatives: [B, groups, K] int32.
    words: [] float32, raw tokens behind the draws, before subsampling.
    overflow: [] float32, kept tokens for which a block had no room.
  """

  tokens: Array
  document: Array
  radius: Array
  negatives: Array
  words: Array
  overflow: Array


class Words(NamedTuple):
  """Tables determined by the counts of a vocabulary of V words; V' = V + 1 padded to a multiple of 64.

  Attributes:
    size: V.
    num_rows: V'.
    keep: [V'] probability that subsampling keeps a token (above 1: always), 0 past the vocabulary.
    noise: [V'] uint32, the noise distribution P_n: 2**32 sum_{u <= w} P_n(u).
    kept_share: Mean fraction of the running text that subsampling keeps.
  """

  size: int
  num_rows: int
  keep: np.ndarray
  noise: np.ndarray
  kept_share: float


def count_words(name: str, vocab_size: int, counts: Any, subsample: float, negative_power: float) -> Words:
  """`Words` of a vocabulary.

  Args:
    name: Name of the model, for errors.
    vocab_size: number of words.
    counts: [vocab_size] occurrences in the training text.
    subsample: threshold t of the relative frequency f; a token stays with probability sqrt(t / f) + t / f, as in
      word2vec's C program. 0 keeps all.
    negative_power: exponent of the unigram distribution for noise words.

  Raises:
    InputError: the counts do not fit the vocabulary, or all are 0.
  """
  counts = np.asarray(counts, np.float64)
  if vocab_size < 1 or counts.shape != (vocab_size,):
    raise InputError(f"{name}: counts of shape {counts.shape} do not fit vocab_size={vocab_size}")
  if not counts.sum() > 0:
    raise InputError(f"{name}: all counts are 0, so there is no noise distribution")
  ratio = subsample * counts.sum() / np.maximum(counts, 1)
  keep = np.sqrt(ratio) + ratio if subsample else np.full(vocab_size, 2.0)
  num_rows = (vocab_size // ROW_MULTIPLE + 1) * ROW_MULTIPLE
  padding = (0, num_rows - vocab_size)
  weights = np.cumsum(np.where(counts > 0, counts, 0) ** negative_power)
  # 32-bit integers: floats would distort the words whose share is near 2**-24.
  noise = np.minimum(np.round(weights / weights[-1] * 2.0**32), 2.0**32 - 1).astype(np.uint32)
  return Words(vocab_size, num_rows, np.pad(keep, padding).astype(np.float32), np.pad(noise, padding, mode="edge"),
               float((counts * np.minimum(1, keep)).sum() / counts.sum()))


def linear_decay(learning_rate: float | Callable[[Array], Array], num_steps: int | None) -> Callable[[Array], Array]:
  """The schedule given, or word2vec's: from `learning_rate` down to 1e-4 of it over `num_steps`."""
  if callable(learning_rate):
    return learning_rate
  if num_steps:
    return optax.linear_schedule(learning_rate, learning_rate * 1e-4, num_steps)
  return optax.constant_schedule(learning_rate)


def random_table(rng: Array, num_rows: int, vocab_size: int, dim: int) -> Float[Array, "rows d"]:
  """[num_rows, dim] uniform on +- 1 / (2 dim), as word2vec starts; rows past the vocabulary are 0."""
  vectors = jax.random.uniform(rng, (num_rows, dim), jnp.float32, -0.5 / dim, 0.5 / dim)
  return jnp.where(jnp.arange(num_rows)[:, None] < vocab_size, vectors, 0)


def draw_blocks(
    keep: Array, noise: Array | None, batch: Any, rng: Array, *, vocab_size: int, window: int,
    shared_negatives: int = 0, group: int = 1, room: float = 1.0,
) -> Draws:
  """Draws all that is random in an update.

  Args:
    keep, noise: Fields of `Words`; without `noise` no noise words are drawn.
    batch: tokens [B, T] and mask [B].
    rng: a key.
    vocab_size: V.
    window: radii are uniform on 1 ... window.
    shared_negatives: noise words of a group.
    group: positions that share them; N is a multiple of it.
    room: share of a block's tokens that have a place.
  """
  tokens = batch["tokens"]
  num_blocks, length = tokens.shape
  size = -(-math.ceil(length * room) // group) * group
  valid = (tokens >= 0) & (row_mask(batch)[:, None] > 0)
  uniform = (hashed_bits(rng, 0, tokens.shape) >> 8).astype(jnp.float32) * 2.0**-24
  kept = valid & (uniform < keep.at[tokens].get(mode="fill", fill_value=0, wrap_negative_indices=False))
  # The place of a kept token is the number of kept ones before it; the others fall off the end.
  position = jnp.where(kept, jnp.cumsum(kept, 1) - 1, size)
  document = jnp.cumsum(tokens < 0, 1)

  def compact(values, position, empty):
    return jnp.full(size, empty, jnp.int32).at[position].set(values, mode="drop")

  if noise is None:
    negatives = jnp.zeros((num_blocks, size // group, 0), jnp.int32)
  else:
    negatives = noise_words(noise, rng, 2, (num_blocks, size // group, shared_negatives))
  draws = Draws(
      tokens=jax.vmap(compact, (0, 0, None))(tokens, position, vocab_size),
      document=jax.vmap(compact, (0, 0, None))(document, position, -1),
      radius=1 + (hashed_bits(rng, 1, (num_blocks, size)) % window).astype(jnp.int32),
      negatives=negatives,
      words=valid.sum(dtype=jnp.float32),
      overflow=(kept & (position >= size)).sum(dtype=jnp.float32))
  return draws._replace(**constrain(
      {k: getattr(draws, k) for k in ("tokens", "document", "radius", "negatives")}, P(DATA_AXES)))


def noise_words(noise: UInt32[Array, " rows"], rng: Array, stream: int, shape: tuple[int, ...]) -> Int[Array, "..."]:
  """Returns noise words of `shape`, whose last axis is K: one from each K-th of the distribution `Words.noise`.

  The vocabulary is in the order of frequency, so this is systematic sampling: it leaves the expectation as it is and
  takes much of the variance away.
  """
  share = jnp.arange(shape[-1], dtype=jnp.uint32) * jnp.uint32(2**32 // shape[-1])
  share = jnp.minimum(share + hashed_bits(rng, stream, shape) // jnp.uint32(shape[-1]), jnp.uint32(2**32 - 2))
  return jnp.searchsorted(noise, share, side="right", method="scan_unrolled").astype(jnp.int32)


def take_rows(table: Float[Array, "rows d"], ids: Int[Array, "*ids"]) -> Float[Array, "*ids d"]:
  """Ids [B, ...] in [0, V'), as those of `Draws` are, to rows [B, ..., d] of a table."""
  return constrain(table.at[ids].get(mode="promise_in_bounds"), P(DATA_AXES))


def step_sizes(
    num_rows: int, ids: Int[Array, "*ids"], weight: Float[Array, "*ids"], rate: Float[Array, ""], max_mass: float,
) -> Float[Array, "*ids"]:
  """Returns the factors of gradients: the learning rate, less where a row would get too long a step.

  All terms of a batch see the tables of its start, as if each row's gradients were summed before one large step;
  where that step would overshoot it is scaled by min(1, max_mass / mass), mass = the summed `weight` of the row.

  Args:
    num_rows: V'.
    ids: [B, ...] rows in [0, V').
    weight: [B, ...] how many terms of the objective are in each gradient.
    rate: [] learning rate.
    max_mass: most terms whose gradients a row takes in full.

  Returns:
    [B, ...].
  """
  # Gathered by every device: the sums are over the whole batch.
  ids, weight = constrain((ids, weight), P())
  if num_data_shards() > 1 and num_rows > ids.size:  # XLA would sum whole vocabularies over the devices.
    mass = mass_of_rows(ids.ravel(), weight.ravel()).reshape(ids.shape)
    return constrain(rate * jnp.minimum(1, max_mass / jnp.maximum(mass, 1e-9)), P(DATA_AXES))
  mass = jnp.zeros(num_rows).at[ids].add(weight, mode="promise_in_bounds")
  sizes = rate * jnp.minimum(1, max_mass / jnp.maximum(mass, 1e-9))
  return constrain(sizes.at[ids].get(mode="promise_in_bounds"), P(DATA_AXES))


def mass_of_rows(ids: Int[Array, " n"], weight: Float[Array, " n"]) -> Float[Array, " n"]:
  """[n] the summed `weight` of all that has the same id, by sorting: nothing is as large as a table."""
  order = jnp.argsort(ids, stable=True)
  ids, weight = ids[order], weight[order]
  group = jnp.cumsum(jnp.pad(ids[1:] != ids[:-1], (1, 0)))
  sums = jnp.zeros(len(ids)).at[group].add(weight, indices_are_sorted=True)
  return jnp.zeros(len(ids)).at[order].set(sums[group], unique_indices=True)


def add_rows(
    table: Float[Array, "rows d"], ids: Int[Array, "*ids"], steps: Float[Array, "*ids d"],
) -> Float[Array, "rows d"]:
  """`table` with `steps` [B, ..., d] added to the rows `ids` [B, ...] in [0, V')."""
  # Small rows and ids, gathered by every device, spare an all-reduce of whole tables. They are computed where the
  # batch is: without the first constraint each device would compute all of them.
  ids, steps = constrain(constrain((ids, steps), P(DATA_AXES)), P())
  return table.at[ids].add(steps, mode="promise_in_bounds")


def mean_of_words(
    table: Float[Array, "rows d"], tokens: Int[Array, "*texts length"], vocab_size: int,
) -> Float[Array, "*texts d"]:
  """[..., T] word ids -> [..., d], the mean of the rows of valid ids (0 where there is none)."""
  valid = (tokens >= 0) & (tokens < vocab_size)
  rows = table.at[jnp.where(valid, tokens, vocab_size)].get(mode="promise_in_bounds")
  return rows.sum(-2) / jnp.maximum(valid.sum(-1, keepdims=True), 1)


def window_pairs(
    document: Int[Array, "b n"], radius: Int[Array, "b n"], *, window: int, tile: int, extra: int = 0,
) -> Float[Array, "b tiles tile columns"]:
  """Which positions are in each other's windows, in tiles.

  Position i looks at its document's words up to radius_i before and after it.

  Args:
    document, radius: [B, N] of `Draws`; N is a multiple of `tile`.
    window: largest radius.
    tile: positions of a tile.
    extra: columns of zeros at the end (cheaper here than padding afterwards).

  Returns:
    [B, N / tile, tile, tile + 2 window + extra] float32 of 0 and 1: row i of a tile, column j stands for the position
    `j - window` after the tile's first.
  """
  here = tiled(document, tile)
  neighbors = jnp.pad(with_halo(here, window, -1), [(0, 0), (0, 0), (0, extra)], constant_values=-1)
  distance = jnp.abs(jnp.arange(tile + 2 * window + extra) - window - jnp.arange(tile)[:, None])
  paired = (here[..., None] == neighbors[..., None, :]) & (here >= 0)[..., None]
  paired &= (distance > 0) & (distance <= tiled(radius, tile)[..., None])
  return paired.astype(jnp.float32)


def window_masks(
    document: Int[Array, "b n"], radius: Int[Array, "b n"], *, window: int, span: int = 1,
) -> dict[int, Float[Array, "b n"]]:
  """Offset o -> [B, N] float32, 1 where position i + o is in the window of position i.

  Position i looks at its document's words up to radius_i before i and up to radius_i after i + span - 1.
  """
  masks = {}
  for offset in (*range(-window, 0), *range(span, span + window)):
    neighbor_document = shifted(document, offset, -1)
    reach = -offset if offset < 0 else offset - (span - 1)
    masks[offset] = ((neighbor_document == document) & (document >= 0) & (reach <= radius)).astype(jnp.float32)
  return masks


def window_sums(masks: dict[int, Float[Array, "b n"]], rows: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
  """[B, N, d] rows -> [B, N, d], the sum over each position's window.

  Shifted sums, one loop over positions to the compiler: for rows that are only added up several times as fast on CPU
  as products with the bands of `window_pairs`.
  """
  return _sum_of_shifted(rows, masks)


def window_spread(masks: dict[int, Float[Array, "b n"]], x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
  """The transpose of `window_sums`: each position's x [B, N, d] goes to all of its window."""
  return _sum_of_shifted(x, {-offset: shifted(mask, -offset, 0) for offset, mask in masks.items()})


def _sum_of_shifted(x: Array, weights: dict[int, Array]) -> Array:
  """sum_o weights[o][:, i] * x[:, i + o]."""
  size, reach = x.shape[1], max(map(abs, weights))
  # Padded once and for all: within the loop it would be a branch for each element.
  padded = jax.lax.optimization_barrier(jnp.pad(x, [(0, 0), (reach, reach), (0, 0)]))
  part = lambda offset: padded[:, reach + offset:reach + offset + size]
  return sum(weight[..., None] * part(offset) for offset, weight in weights.items())


def document_sums(document: Int[Array, "b n"], rows: Float[Array, "b n d"], span: int = 1) -> Float[Array, "b n d"]:
  """[B, N, d] rows -> [B, N, d], the sum over each position's document without positions i ... i + span - 1."""
  size = document.shape[1]
  index = jnp.where(document >= 0, document, size)
  totals = jax.vmap(lambda x, i: jnp.zeros_like(x).at[i].add(x, mode="drop"))(rows, index)
  sums = jax.vmap(lambda x, i: x.at[i].get(mode="fill", fill_value=0))(totals, index)
  for offset in range(span):
    same = (shifted(document, offset, -1) == document) & (document >= 0)
    sums -= jnp.where(same[..., None], shifted(rows, offset, 0), 0)
  return sums


def shifted(x: Shaped[Array, "b n *rest"], offset: int, fill: float) -> Shaped[Array, "b n *rest"]:
  """[B, N, ...] -> the same, position i holding what was at i + offset. Filled with 0, -offset is its transpose."""
  size, reach = x.shape[1], abs(offset)
  padded = jnp.pad(x, [(0, 0), (reach, reach)] + [(0, 0)] * (x.ndim - 2), constant_values=fill)
  return padded[:, reach + offset:reach + offset + size]


def tiled(x: Shaped[Array, "b n *rest"], tile: int) -> Shaped[Array, "b tiles tile *rest"]:
  """[B, N, ...] -> [B, N / tile, tile, ...]."""
  return x.reshape((x.shape[0], -1, tile) + x.shape[2:])


def with_halo(
    x: Shaped[Array, "b tiles tile *rest"], window: int, fill: float,
) -> Shaped[Array, "b tiles wide *rest"]:
  """[B, tiles, tile, ...] -> [B, tiles, tile + 2 window, ...]: each tile with the ends of its neighbors."""
  edge = [(0, 0)] * (x.ndim - 2)
  left = jnp.pad(x[:, :-1, -window:], [(0, 0), (1, 0)] + edge, constant_values=fill)
  right = jnp.pad(x[:, 1:, :window], [(0, 0), (0, 1)] + edge, constant_values=fill)
  return jnp.concatenate([left, x, right], 2)


def minus_log(probability: Float[Array, "*any"]) -> Float[Array, "*any"]:
  """-log p: cheaper than softplus of the score, and finite (87) where the probability underflows."""
  return -jnp.log(jnp.maximum(probability, jnp.finfo(jnp.float32).tiny))


def computed_once(x: Float[Array, "*any"]) -> Float[Array, "*any"]:
  """x [...], finite, without a change.

  XLA's CPU compiler repeats what it holds for cheap, such as a sum of twenty products, within all that reads it, and
  drops optimization barriers before it decides so. A division, but by a broadcast, it does not repeat.
  """
  return x / (1 + 0 * x)


def transposed(x: Shaped[Array, "*any i j"]) -> Shaped[Array, "*any j i"]:
  """The last two axes swapped, for a product with the result."""
  # XLA would fold the transpose into the product, whose form without one is 1.4 times as fast on CPU.
  return jax.lax.optimization_barrier(x.swapaxes(-1, -2))
