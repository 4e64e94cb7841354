"""Steps of skip-gram on blocks of tokens: negative sampling with shared noise words, or the hierarchical softmax.

The choices of a batch are `word_blocks.Draws`. With negative sampling a step lowers, over the n_i pairs of each
position and the K noise words m that a group of positions shares,

  L = - sum_i [ sum_j log sigma(v_i . v'_j) + (k n_i / K) sum_m log sigma(-v_i . v'_m) ].

A tile's rows are gathered once: `tile` centers, and side by side its `tile` + 2 c contexts and K noise words, so that
one matrix product scores all, and two more give the rows' steps, which are scattered once. A dense gradient of a
table never exists. On CPU the products are fastest where tile + 2 c + K is a multiple of 16.
"""
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from embeddings_jax.ops import subwords, word_blocks
from embeddings_jax.ops.word_blocks import Draws, minus_log, tiled, transposed, window_pairs, with_halo
from embeddings_jax.types import Array, InputError

_product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


class Skipgram(NamedTuple):
  """Hyperparameters of a step; V tokens, tables [V', d].

  Attributes:
    vocab_size, num_rows: V and V'.
    window: Largest distance between a token and its context, c.
    num_negatives: Weight of the noise words per pair, k.
    shared_negatives: Noise words of a group, K.
    tile: Positions scored by one matrix product.
    tiles_per_group: Tiles that share their noise words.
    max_mass: Most pairs' worth of gradient that one batch may add to a row.
    dtype: Type of the factors of the products; sums, tables and steps are float32.
  """

  vocab_size: int
  num_rows: int
  window: int
  num_negatives: int
  shared_negatives: int
  tile: int
  tiles_per_group: int
  max_mass: float
  dtype: str

  @property
  def group(self) -> int:
    """Positions that share their noise words."""
    return self.tile * self.tiles_per_group


def check(model: str, options: Skipgram, dim: int) -> None:
  """Raises unless the hyperparameters are within bounds."""
  if options.dtype not in ("float32", "bfloat16"):
    raise InputError(f"{model}: dtype={options.dtype!r}: must be one of float32, bfloat16")
  for name, value in {"dim": dim, "window": options.window, "tile": options.tile,
                      "shared_negatives": options.shared_negatives,
                      "tiles_per_group": options.tiles_per_group}.items():
    if value < 1:
      raise InputError(f"{model}: {name}={value}: must be at least 1")
  if options.window > options.tile:
    raise InputError(f"{model}: window={options.window} exceeds tile={options.tile}; raise config.model.tile")


def _signs(options: Skipgram) -> np.ndarray:
  """1 for the contexts of a tile, -1 for its noise words, [tile + 2 c + K]."""
  contexts = options.tile + 2 * options.window
  return np.where(np.arange(contexts + options.shared_negatives) < contexts, 1.0, -1.0).astype(np.float32)


def arranged(draws: Draws, options: Skipgram) -> tuple[Array, Array, Array, Array]:
  """Returns ids of the centers and of what they are scored with, the number of pairs, and all terms of the objective.

  Contexts and noise words stand side by side and share each product: [B, tiles, tile + 2 c + K]; terms are the
  weights of log sigma(sign * score) in -L, [B, tiles, tile, tile + 2 c + K].
  """
  center = tiled(draws.tokens, options.tile)
  others = jnp.concatenate([with_halo(center, options.window, options.vocab_size),
                            jnp.repeat(draws.negatives, options.tiles_per_group, 1)], 2)
  paired = window_pairs(draws.document, draws.radius, window=options.window, tile=options.tile,
                        extra=options.shared_negatives)
  noise_weight = paired.sum(-1, keepdims=True) * (options.num_negatives / options.shared_negatives)
  return center, others, paired.sum(), jnp.where(_signs(options) > 0, paired, noise_weight)


def scored(tables: tuple[Array, Array], center: Array, others: Array, terms: Array, pairs: Array, options: Skipgram,
           members: Array | None = None) -> tuple[tuple[Array, Array], Array, Array]:
  """Returns rows of both tables, sigma(sign * score), and the mean loss of a pair.

  With `members` [B, tiles, tile, M] the rows of centers are means over rows of the table.
  """
  first = (word_blocks.take_rows(tables[0], center) if members is None
           else subwords.means(tables[0], members, options.vocab_size))
  rows = (first.astype(options.dtype), word_blocks.take_rows(tables[1], others).astype(options.dtype))
  right = jax.nn.sigmoid(_signs(options) * _product("btid,btdj->btij", rows[0], transposed(rows[1])))
  return rows, right, (terms * minus_log(right)).sum() / jnp.maximum(pairs, 1)


def negative_step(tables: tuple[Array, Array], draws: Draws, rate: Array, options: Skipgram,
                  members: Array | None = None) -> tuple[tuple[Array, Array], Array, Array]:
  """Returns the tables after a step of negative sampling, the mean loss of a pair, and the number of pairs.

  With `members` [V', M] the vector of a word is the mean over rows of the first table; see `subwords.py`.
  """
  center, others, pairs, terms = arranged(draws, options)
  listed = None if members is None else members[center]
  (row_center, row_others), right, loss = scored(tables, center, others, terms, pairs, options, listed)
  sizes = lambda ids, axis: word_blocks.step_sizes(options.num_rows, ids, terms.sum(axis), rate, options.max_mass)
  # Step sizes go into the small matrices, not into the rows.
  error = _signs(options) * terms * (1 - right)
  of_center = error if listed is not None else error * sizes(center, -1)[..., None]
  step_center = _product("btij,btjd->btid", of_center.astype(options.dtype), row_others)
  of_others = error * sizes(others, -2)[:, :, None]
  step_others = _product("btji,btid->btjd", transposed(of_others.astype(options.dtype)), row_center)
  # One gather feeds one scatter, so that XLA updates each table in place.
  if listed is None:
    first = word_blocks.add_rows(tables[0], center, step_center)
  else:
    first = subwords.add_steps(tables[0], listed, step_center, terms.sum(-1), rate, options.max_mass,
                               options.vocab_size)
  return (first, word_blocks.add_rows(tables[1], others, step_others)), loss, pairs


def negative_loss(tables: tuple[Array, Array], draws: Draws, options: Skipgram,
                  members: Array | None = None) -> Array:
  """Returns the mean loss of a pair."""
  center, others, pairs, terms = arranged(draws, options)
  listed = None if members is None else members[center]
  return scored(tables, center, others, terms, pairs, options, listed)[2]
