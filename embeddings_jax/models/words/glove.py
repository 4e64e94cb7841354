"""GloVe (Pennington, Socher & Manning 2014, "GloVe: Global Vectors for Word Representation").

Minimizes over the cells X_ij > 0 of a co-occurrence matrix (equation 8)

  J = sum_ij f(X_ij) (w_i . w~_j + b_i + b~_j - log X_ij)^2,   f(x) = min(1, x / x_max)^alpha   (equation 9)

by AdaGrad, and gives the vectors w + w~. `weighting="none"` is plain least squares: f = 1.

| paper | here | shape |
|---|---|---|
| w, w~ | `state.word`, `state.context` | [n, R, d]: word i is row floor(i / n) of group i mod n (`data/tiles.py`) |
| b, b~ | `state.word_bias`, `state.context_bias` | [n, R] |
| x_max, alpha | `x_max`, `alpha` | [] |
| AdaGrad's sums of squares | `state.word_squares`, ... | [n, R, d] (or [n, R, 1]), [n, R] |

AdaGrad as in the authors' C program: sums of squares start at 1; those of the vectors add up (eta g)^2, g clipped to
[-100, 100], and the step is eta g / sqrt(sum); the biases do the same with a rate of 1, whatever eta.
`accumulators="row"` keeps one sum per vector, the mean over its coordinates: half the memory of the state.

How it is computed: a batch is one tile or several (`data/tiles.py`), each with some 16,000 cells of a thousand rows
and columns, the tiles of a batch sharing none. Errors are computed cell by cell; sums over a row's or a column's
cells (of g, of g^2) are products of sparse matrices with the tile's vectors. Rows are read and written once per tile.
Several devices share the rows of every group, and each computes its own tiles: see `ops/grouped_rows.py`.

Deviations from the C program. (1) A row's cells in a tile make one step: with G = sum g and S = sum g^2 over them,
first sum += eta^2 S, then the step eta G / sqrt(sum). For a frequent word a thousand steps made as one would
overshoot, so it is bounded by `max_newton` times G / sum_j f_ij (|w~_j|^2 + 1): up to 2, the rows' step cannot raise
the tile's part of J while the columns stand still. Without it J explodes in the first pass. (2) The order of cells is
that of tiles. (3) The loss is the mean over cells of f (...)^2, without the C program's factor 1/2.

Split: pair of words | one word | the logarithm of its count beside the other.

Expected: see `embeddings_jax/configs/glove.py`.
"""
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Float

from embeddings_jax.ops import grouped_rows
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.sharding import DATA_AXES, constrain, num_data_shards
from embeddings_jax.ops.sparse import csr_matmul, sampled_products
from embeddings_jax.types import Array, Batch, Fact, InputError, Model

LARGEST_GRADIENT = 100.0
WIDTH_MULTIPLE = 8  # Of what sparse products read: rows that begin at a cache line are twice as fast.
BIAS_RATE = 1.0
GROUPS = {"word": "row_group", "context": "col_group"}  # Side of a tile -> what names its group.


class GloveState(NamedTuple):
  """Two tables of vectors and biases, and AdaGrad's sums of squares; rows are 0 where there is no word."""

  step: Array
  word: Array
  context: Array
  word_bias: Array
  context_bias: Array
  word_squares: Array
  context_squares: Array
  word_bias_squares: Array
  context_bias_squares: Array


class Side(NamedTuple):
  """Statistics of one side of a tile (R rows, or C columns): sums over each row's cells."""

  gradient: Array  # [R, d] G
  squares: Array  # [R, d] S, or their mean over the coordinates [R, 1]
  bias_gradient: Array  # [R]
  bias_squares: Array  # [R]
  curvature: Array  # [R] sum_j f_ij (|w~_j|^2 + 1)
  weight: Array  # [R] sum_j f_ij


@takes(row=None, col=None, count=None, row_group=None, col_group=None, mask=None, tokens=2)
def glove(
    *,
    vocab_size: Fact[int],
    num_groups: Fact[int],
    group_size: Fact[int],
    marginals: Fact[Any] = None,
    dim: int = 100,
    weighting: str = "power",
    x_max: float = 100.0,
    alpha: float = 0.75,
    learning_rate: float = 0.05,
    biases: str = "learned",
    accumulators: str = "coordinate",
    max_newton: float = 2.0,
) -> Model:
  """GloVe. A batch is what `data.tiles.tile_source` says.

  Args:
    vocab_size: number of words.
    num_groups, group_size: n and R, of the tiles.
    marginals: [vocab_size] row sums of X, for `biases="marginals"`.
    dim: Dimension of the vectors.
    weighting: `power` (f above) or `none` (f = 1).
    x_max, alpha: Parameters of the weighting f.
    learning_rate: eta.
    biases: `learned`; or held at half of log `marginals`, so that w_i . w~_j fits log X_ij / sqrt(X_i X_j).
    accumulators: AdaGrad's sums, one per `coordinate` or one per `row`.
    max_newton: bound of a row's step, see the docstring above.
  """
  for name, value, choices in (("weighting", weighting, ("power", "none")), ("biases", biases, ("learned",
                               "marginals")), ("accumulators", accumulators, ("coordinate", "row"))):
    if value not in choices:
      raise InputError(f"glove: {name}={value!r}: must be {' or '.join(choices)}")
  if dim < 1 or not 1 <= vocab_size <= num_groups * group_size:
    raise InputError(f"glove: dim={dim}, vocab_size={vocab_size}: must be at least 1, and there is room for "
                     f"{num_groups * group_size} words")
  if weighting == "power" and not x_max > 0:
    raise InputError(f"glove: x_max={x_max}: must be above 0")
  size, shape = group_size, (num_groups, grouped_rows.even_size(group_size))
  number = np.arange(shape[1]) * num_groups + np.arange(num_groups)[:, None]  # Of each row's word.
  there = (number < vocab_size) & (np.arange(shape[1]) < size)
  if biases == "marginals":
    marginals = np.asarray(marginals, np.float64)
    if marginals.shape != (vocab_size,):
      raise InputError(f"glove: marginals of shape {marginals.shape} do not fit vocab_size={vocab_size}")
    held = np.where(there, np.log(np.maximum(marginals, 1e-30))[np.minimum(number, vocab_size - 1)] / 2, 0)
  sum_width = dim if accumulators == "coordinate" else 1
  weigh = functools.partial(cell_weight, x_max=x_max, alpha=alpha) if weighting == "power" else jnp.ones_like

  def init(rng, batch):
    del batch

    def start(rng, *rest):
      values = jax.random.uniform(rng, (num_groups * size, *rest), jnp.float32, -0.5 / dim, 0.5 / dim)
      values = values.reshape(num_groups, size, *rest)
      padding = [(0, 0), (0, shape[1] - size)] + [(0, 0)] * len(rest)
      return jnp.where(there.reshape(shape + (1,) * len(rest)), jnp.pad(values, padding), 0)

    rngs = jax.random.split(rng, 4)
    vectors, bias = [start(key, dim) for key in rngs[:2]], [start(key) for key in rngs[2:]]
    if biases == "marginals":
      bias = [jnp.asarray(held, jnp.float32)] * 2
    ones = lambda *rest: jnp.ones(shape + rest, jnp.float32)
    return GloveState(jnp.zeros((), jnp.int32), *vectors, *bias, ones(sum_width), ones(sum_width), ones(), ones())

  def tables_of(state, batch):
    """Vectors [B, R, d] and biases [B, R] of both sides of a batch's tiles."""
    return {name: jax.tree.map(lambda x: x[:, :size], grouped_rows.read(
        (getattr(state, name), getattr(state, f"{name}_bias")), batch[of])) for name, of in GROUPS.items()}

  def update(state, batch, rng):
    del rng
    gradients = functools.partial(tile_gradients, weigh, accumulators=accumulators)
    sums, *sides = _over_tiles(gradients, tables_of(state, batch), batch)
    valid = row_mask(batch) > 0
    changed = {}
    for (name, of), side in zip(GROUPS.items(), sides):
      # A tile that is only padding has no place.
      groups = jnp.where(valid, batch[of], num_groups)
      changed |= change(state, name, side, groups)
    loss, cells = ((x * valid).sum() for x in sums)
    metrics = {"loss": loss / jnp.maximum(cells, 1), "cells": cells}
    return state._replace(step=state.step + 1, **changed), metrics

  def change(state, name, side, groups):
    """The changed tables of one side."""
    names = [name, f"{name}_squares"] + [f"{name}_bias", f"{name}_bias_squares"] * (biases == "learned")

    def step(tables, side, rows):
      bound = max_newton / jnp.maximum(side.curvature, 1e-30)
      new = _adagrad(*tables[:2], rows, side.gradient, side.squares, learning_rate, bound[:, None])
      if biases == "learned":
        bound = max_newton / jnp.maximum(side.weight, 1e-30)
        new += _adagrad(*tables[2:], rows, side.bias_gradient, side.bias_squares, BIAS_RATE, bound)
      return new

    side = jax.tree.map(lambda x: jnp.pad(x, [(0, 0), (0, shape[1] - size)] + [(0, 0)] * (x.ndim - 2)), side)
    return dict(zip(names, grouped_rows.write(step, tuple(getattr(state, name) for name in names), side, groups)))

  def embed(state, batch):
    tokens = batch["tokens"]
    valid = (tokens >= 0) & (tokens < vocab_size)
    # Ids are few: seen by every device, they spare the tables a way to other devices.
    groups, rows = constrain((jnp.where(valid, tokens % num_groups, num_groups), tokens // num_groups), P())
    vectors = sum(table.at[groups, rows].get(mode="fill", fill_value=0) for table in (state.word, state.context))
    return vectors.sum(-2) / jnp.maximum(valid.sum(-1, keepdims=True), 1)

  def loss(state, batch):
    def tile_loss(tables, tile):
      scale, difference, _, _ = tile_errors(weigh, tables, tile)
      return (scale * difference**2).sum(), (tile["count"] > 0).sum().astype(jnp.float32)

    total, cells = ((x * row_mask(batch)).sum() for x in _over_tiles(tile_loss, tables_of(state, batch), batch))
    return total / jnp.maximum(cells, 1)

  def components(state):
    return {name: grouped_rows.in_order(getattr(state, name), size)[:vocab_size]
            for name in ("word", "context", "word_bias", "context_bias")}

  rules = ((r"(^|/)(word|context)(_bias)?(_squares)?$", grouped_rows.ROWS),)
  return Model(init, update, embed, {"loss": loss, "components": components}, rules)


def cell_weight(log_count: Float[Array, " cells"], *, x_max: float, alpha: float) -> Float[Array, " cells"]:
  """Returns f(X) = min(1, (X / x_max)^alpha), equation 9, of log X."""
  return jnp.exp(jnp.minimum(0, alpha * (log_count - np.float32(np.log(x_max)))))


def tile_errors(weigh: Callable[[Array], Array], tables: Any, tile: Batch) -> tuple[Array, Array, Array, Array]:
  """Returns f and the difference w_i . w~_j + b_i + b~_j - log X_ij of each cell of a tile, and the widened tables.

  Args:
    weigh: f of log X.
    tables: `word` and `context`: vectors `[R, d]` and biases `[R]` of the tile's two sides.
    tile: Cells of one tile; f is 0 for padding.

  Returns:
    f and difference `[cells]`; both tables with their biases, and a 1 for the other's, as columns d and d + 1.
  """
  (vectors, bias), (others, other_bias) = tables["word"], tables["context"]
  size, dim = vectors.shape
  ones, empty = jnp.ones((size, 1)), jnp.zeros((size, -(dim + 2) % WIDTH_MULTIPLE))
  left = jnp.concatenate([vectors, bias[:, None], ones, empty], 1)
  right = jnp.concatenate([others, ones, other_bias[:, None], empty], 1)
  count = tile["count"]
  log_count = jnp.log(jnp.where(count > 0, count, 1))
  row, col = (tile[name].astype(jnp.int32) for name in ("row", "col"))
  scale = jnp.where(count > 0, weigh(log_count), 0)
  return scale, sampled_products(left, right, row, col) - log_count, left, right


def tile_gradients(weigh: Callable[[Array], Array], tables: Any, tile: Batch, *,
                   accumulators: str) -> tuple[tuple[Array, Array], Side, Side]:
  """Returns a tile's loss and number of cells, and the sums of its word and context side."""
  scale, difference, left, right = tile_errors(weigh, tables, tile)
  dim = tables["word"][0].shape[1]
  error = scale * difference
  clipped = jnp.clip(error, -LARGEST_GRADIENT, LARGEST_GRADIENT)
  row, col, turned = (tile[name].astype(jnp.int32) for name in ("row", "col", "turned"))
  sums = (error * difference).sum(), (tile["count"] > 0).sum().astype(jnp.float32)
  word = _side(clipped, scale, col, tile["row_start"], right, dim, dim, accumulators)
  context = _side(clipped[turned], scale[turned], row[turned], tile["col_start"], left, dim, dim + 1, accumulators)
  return sums, word, context


def _side(error, scale, columns, starts, table, dim, bias_column, accumulators) -> Side:
  """Returns sums over each row's cells, from the widened table of the other side, whose `bias_column` is 1."""
  squares = jnp.square(table)
  length = squares[:, :dim].sum(1, keepdims=True)
  curvature = csr_matmul(scale, columns, starts, jnp.concatenate([length + 1, jnp.ones_like(length)], 1))
  gradient = csr_matmul(error, columns, starts, table)
  if accumulators == "row":
    squares = jnp.concatenate([length / dim, jnp.ones_like(length)], 1)
    squares = csr_matmul(jnp.square(error), columns, starts, squares)
    sums, bias_sum = squares[:, :1], squares[:, 1]
  else:
    squares = csr_matmul(jnp.square(error), columns, starts, squares)
    sums, bias_sum = squares[:, :dim], squares[:, bias_column]
  return Side(gradient[:, :dim], sums, gradient[:, bias_column], bias_sum, curvature[:, 0], curvature[:, 1])


def _over_tiles(fn: Any, tables: Any, batch: Batch) -> Any:
  """`fn` of each tile, tile after tile on every data shard."""
  tiles = {name: batch[name] for name in ("row", "col", "count", "turned", "row_start", "col_start")}

  def local(tables, tiles):
    if tiles["row"].shape[0] == 1:
      return jax.tree.map(lambda x: x[None], fn(*jax.tree.map(lambda x: x[0], (tables, tiles))))
    return jax.lax.map(lambda x: fn(*x), (tables, tiles))

  if num_data_shards() == 1:
    return local(tables, tiles)
  # Sparse products cannot be split by the compiler.
  return jax.shard_map(local, in_specs=P(DATA_AXES), out_specs=P(DATA_AXES))(tables, tiles)


def _adagrad(
    table: Array, squares: Array, rows: Array, gradient: Array, sums: Array, rate: float, bound: Array,
) -> tuple[Array, Array]:
  """One step on some rows of a table, each at most once; each write feeds a read, so XLA works in place."""
  squares = squares.at[rows].add(rate**2 * sums, mode="drop")
  scale = jnp.minimum(rate * jax.lax.rsqrt(squares.at[rows].get(mode="fill", fill_value=1)), bound)
  return table.at[rows].add(-scale * gradient, mode="drop"), squares
