"""Patches of images for tasks on their places, on the device: tiles of a grid, neighbors, and what hides shortcuts.

Doersch et al. 2015 (arXiv:1505.05192), sections 3 and 3.1; Noroozi & Favaro 2016 (arXiv:1603.09246), section 3.

Functions on one image take float32 [height, width, channels]; `jax.vmap` maps them over a batch with the keys of
`row_keys`, so that a row's draws do not depend on the mesh. Positions are (row, column) of a patch's first pixel.
"""
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from embeddings_jax.ops.augment import gray
from embeddings_jax.ops.sharding import DATA_AXES, constrain
from embeddings_jax.types import InputError

MEAN, STD = 0.5, 0.25  # Mean and standard deviation of a standardized patch: those of an ordinary image in [0, 1].
# Places around a patch in reading order: the label of a neighbor is its number here.
NEIGHBORS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


def row_keys(rng: Array, num: int) -> Array:
  """Returns a key for each row of the global batch, [num]."""
  numbers = constrain(jnp.arange(num), P(DATA_AXES))
  return jax.vmap(lambda number: jax.random.fold_in(rng, number))(numbers)


def patch_at(image: Float[Array, "height width channels"], corner: Int[Array, "2"], size: int) -> Float[
    Array, "{size} {size} channels"]:
  """Returns the square of `size` pixels whose first pixel is at `corner`."""
  return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (size, size, image.shape[2]))


# Tiles of a grid.


def check_tiles(height: int, width: int, grid: int, tile: int) -> int:
  """Returns the size of a cell of a `grid` x `grid` grid; raises if it is smaller than a tile."""
  if grid < 2 or tile < 1:
    raise InputError(f"grid={grid}, tile={tile}: must be at least 2 and 1")
  cell = min(height, width) // grid
  if tile > cell:
    raise InputError(f"tile={tile}: images of {height} x {width} pixels have cells of {cell}; tiles of {tile} pixels "
                     f"in a grid of {grid} x {grid} need images of at least {grid * tile} pixels")
  return cell


def tile_corners(rng: Array | None, height: int, width: int, grid: int, tile: int) -> Int[Array, "tiles 2"]:
  """Returns the corners of one tile in each cell of a centered grid, by rows: at random places, or without `rng` in
  the middle of the cells."""
  cell = check_tiles(height, width, grid, tile)
  first = jnp.array([(height - grid * cell) // 2, (width - grid * cell) // 2])
  cells = jnp.stack(jnp.divmod(jnp.arange(grid * grid), grid), 1) * cell
  room = cell - tile
  inside = room // 2 if rng is None else jax.random.randint(rng, (grid * grid, 2), 0, room + 1)
  return first + cells + inside


def tiles(image: Float[Array, "height width channels"], corners: Int[Array, "tiles 2"], size: int) -> Float[
    Array, "tiles {size} {size} channels"]:
  """Returns the patches at several corners."""
  return jax.vmap(lambda corner: patch_at(image, corner, size))(corners)


@functools.cache
def permutation_set(num: int, num_tiles: int = 9, seed: int = 0) -> np.ndarray:
  """Returns permutations chosen greedily by the largest smallest Hamming distance from those before, int32.

  The first is random; of equally distant ones a random one is next. Of nine tiles, 100 permutations differ in at
  least 6 places, 1,000 in at least 5. (Choosing by the mean distance, as is common, leaves pairs that differ in 2.)

  Args:
    num: Number of permutations.
    num_tiles: Length of a permutation, 2 to 9.
    seed: Random seed of the first permutation and of ties.
  """
  if not 2 <= num_tiles <= 9:
    raise InputError(f"permutations of {num_tiles} tiles: chosen among all, so from 2 to 9 tiles; give a file of "
                     "permutations for more")
  every = np.array(list(itertools.permutations(range(num_tiles))), np.uint8)
  if not 2 <= num <= len(every):
    raise InputError(f"num_permutations={num}: must be from 2 to {len(every)}, all permutations of {num_tiles} tiles")
  columns, rng = np.ascontiguousarray(every.T), np.random.default_rng(seed)
  order = rng.permutation(len(every))  # Ties go to the first in this order.
  chosen, nearest = [order[0]], np.full(len(every), num_tiles + 1, np.int8)
  for _ in range(num - 1):
    distance = (columns != columns[:, chosen[-1], None]).sum(0, dtype=np.int8)
    np.minimum(nearest, distance, out=nearest)
    chosen.append(order[np.argmax(nearest[order])])
  return every[chosen].astype(np.int32)


def check_permutations(table: np.ndarray, num_tiles: int, name: str) -> np.ndarray:
  """Returns a table of permutations as int32 [num, num_tiles]; `name` names it in errors."""
  table = np.asarray(table)
  if table.ndim != 2 or table.shape[1] != num_tiles or len(table) < 2:
    raise InputError(f"{name}: holds {list(table.shape)}, expected at least 2 rows of {num_tiles} numbers")
  if (table == np.round(table)).all() and table.min() == 1:
    table = table - 1  # MATLAB counts from 1.
  wrong = (np.sort(table, 1) != np.arange(num_tiles)).any(1)
  if wrong.any():
    raise InputError(f"{name}: row {wrong.argmax()} is no permutation of 0 to {num_tiles - 1}")
  if len(np.unique(table, axis=0)) < len(table):
    raise InputError(f"{name}: some permutations are there twice")
  return table.astype(np.int32)


# A patch and its neighbors.


def least_size(patch: int, gap: int, jitter: int) -> int:
  """Returns the smallest height and width of an image that holds a patch and its eight neighbors."""
  return 3 * patch + 2 * gap + 2 * jitter


def neighbor_corners(rng: Array, height: int, width: int, patch: int, gap: int, jitter: int) -> Int[Array, "9 2"]:
  """Returns the corners of a patch and of its eight neighbors in the order of `NEIGHBORS`.

  The first patch is anywhere where all neighbors fit, so that it tells nothing of the label. A neighbor is `patch` +
  `gap` pixels away in each direction, moved by up to `jitter` pixels in both, uniformly.
  """
  if patch < 1 or gap < 0 or jitter < 0:
    raise InputError(f"patch={patch}, gap={gap}, jitter={jitter}: must be at least 1, 0 and 0")
  least = least_size(patch, gap, jitter)
  if min(height, width) < least:
    raise InputError(f"patch={patch}, gap={gap}, jitter={jitter}: need images of at least {least} pixels, these have "
                     f"{height} x {width}")
  rng_first, rng_jitter = jax.random.split(rng)
  margin = patch + gap + jitter
  first = margin + jax.random.randint(rng_first, (2,), 0, jnp.array([height - least + 1, width - least + 1]))
  moved = jax.random.randint(rng_jitter, (8, 2), -jitter, jitter + 1)
  return jnp.concatenate([first[None], first + jnp.array(NEIGHBORS) * (patch + gap) + moved])


# What hides shortcuts.


def standardized_patch(patch: Float[Array, "height width channels"], epsilon: float = 1e-2) -> Float[
    Array, "height width channels"]:
  """Returns a patch with the mean `MEAN` and the standard deviation `STD` in each channel: its brightness and
  contrast tell nothing. Deviations below `epsilon` are not enlarged any further."""
  mean = patch.mean((0, 1))
  std = jnp.sqrt(jnp.square(patch - mean).mean((0, 1)))
  return MEAN + STD * (patch - mean) / jnp.maximum(std, epsilon)


def dropped_channels(rng: Array, patch: Float[Array, "height width channels"]) -> Float[
    Array, "height width channels"]:
  """Returns a patch with all channels but a random one replaced by noise around the mean of the one that is left,
  with a hundredth of its standard deviation (Doersch et al. 2015, section 3.1).

  The means of the dropped channels would still tell how they are shifted against the one that is left.
  """
  rng_channel, rng_noise = jax.random.split(rng)
  kept = jnp.arange(patch.shape[2]) == jax.random.randint(rng_channel, (), 0, patch.shape[2])
  mean, std = (patch.mean((0, 1)) * kept).sum(), (patch.std((0, 1)) * kept).sum()
  noise = mean + 0.01 * std * jax.random.normal(rng_noise, patch.shape)
  return jnp.where(kept, patch, noise)


def projected_colors(patch: Float[Array, "height width 3"]) -> Float[Array, "height width 3"]:
  """Returns colors without their part along green - magenta, a = (-1, 2, -1), along which lenses separate them:
  x (I - a'a / aa') (Doersch et al. 2015, section 3.1)."""
  axis = jnp.array([-1.0, 2.0, -1.0])
  return patch - (patch @ axis)[..., None] * axis / 6


def gray_patch(patch: Float[Array, "height width channels"]) -> Float[Array, "height width channels"]:
  """Returns a patch in gray, in as many channels as before."""
  return jnp.broadcast_to(gray(patch), patch.shape)


def shrunk_and_enlarged(patch: Float[Array, "size size channels"], side: Int[Array, ""]) -> Float[
    Array, "size size channels"]:
  """Returns a square patch shrunk to `side` pixels and enlarged again, both bilinear as Pillow's `resize`."""
  size = patch.shape[0]
  position = jnp.arange(size)
  step = size / side

  def weights(distance, valid=True):
    weight = jnp.maximum(1 - distance, 0) * valid
    return weight / jnp.maximum(weight.sum(1, keepdims=True), 1e-6)

  # Row i of `down` is pixel i < side of the small patch; the kernel widens with the step.
  down = weights(jnp.abs(position + 0.5 - step * (position[:, None] + 0.5)) / step, position[:, None] < side)
  up = weights(jnp.abs(position + 0.5 - (position[:, None] + 0.5) / step), position < side)
  both = jnp.matmul(up, down, precision="highest")
  rows = jnp.einsum("ih,hwc->iwc", both, patch, precision="highest")
  return jnp.einsum("jw,iwc->ijc", both, rows, precision="highest")
