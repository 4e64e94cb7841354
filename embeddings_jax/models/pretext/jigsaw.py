"""Jigsaw puzzles: predicts by which permutation the tiles of an image were shuffled.

Noroozi & Favaro 2016, "Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles", arXiv:1603.09246.
An image has one tile at a random place of each cell of a grid, standardized by itself. Shuffled by permutation p_l of
a set, place i shows tile p_l(i). In nats, with n images and k puzzles of each:

  z_t = g(f(tile_t)),   L = -1/nk Σ log softmax(q(z_{p_l(1)}, ..., z_{p_l(9)}))_l

  symbol  name                 shape
  f       encoder              [batch tiles, h, w, dim], the trunk's last map
  g       projector            [batch tiles, projector_dims[-1]], on means of the map over `grid` x `grid` cells
  q       predictor            [batch, k, num_permutations]
  p       extra/permutations   int32 [num_permutations, tiles]
  l       label                int32 [batch, k]

The trunk sees a tile once, whatever the number of puzzles. The permutations (`ops/patch_layouts.py: permutation_set`)
are a part of the state. `embed` is the trunk on the whole image, standardized as a tile is, or with
`embed_by="patches"` the mean over the tiles in the middle of the cells (Kolesnikov et al. 2019, arXiv:1901.09005).
Deviations: the trunk is any encoder; the channels are not shifted against each other, `gray` hides aberration.

Split: image | its tiles in a permuted order | the permutation.

Expected: `embeddings_jax/configs/jigsaw.py`.
"""
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int

from embeddings_jax.gradient import gradient_model
from embeddings_jax.nets.pretext import (
    PretextNetwork,
    applied,
    cross_entropy,
    embedder,
    forgetful,
    masked_mean,
    patch_embedder,
    side_by_side,
    started,
    sums,
)
from embeddings_jax.nets.siamese import Mlp, check_images
from embeddings_jax.nets.transformer import RULES
from embeddings_jax.ops import patch_layouts
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.pixels import to_float
from embeddings_jax.ops.tables import read_table
from embeddings_jax.types import InputError, Model

EMBED_BY = ("image", "patches")


@takes(image=4)
def jigsaw(
    *,
    encoder: nn.Module,
    num_permutations: int = 100,
    permutation_seed: int = 0,
    permutation_file: str = "",
    puzzles: int = 1,
    cells: int = 3,
    tile: int = 64,
    crop: int = 0,
    gray: float = 0.7,
    standardize: bool = True,
    projector_dims: Sequence[int] = (512,),
    predictor_dims: Sequence[int] = (4096,),
    grid: int = 2,
    embed_by: str = "image",
    embed_layer: str = "",
    embed_grid: int = 1,
    optimizer: optax.GradientTransformation | None = None,
    ema_decay: float | None = None,
) -> Model:
  """Predicts permutations of tiles.

  Args:
    encoder: Trunk; has `features(batch, deterministic)` of `image`.
    num_permutations: Number of permutations; 100 and 1,000 are usual.
    permutation_seed: Random seed of their choice.
    permutation_file: `.npy` or text file with a permutation in each row, counted from 0 or 1, instead.
    puzzles: Puzzles of each image, k.
    cells: Cells per side of the puzzle.
    tile: Size of a tile in pixels.
    crop: Size of a random crop of the image that the grid covers; 0: the whole image.
    gray: Probability that all tiles of an image are gray.
    standardize: Standardize each tile by itself, so that its mean and contrast tell nothing.
    projector_dims: Layers of g.
    predictor_dims: Hidden layers of q.
    grid: Cells per side over which the map of a tile is averaged for g.
    embed_by: `image` or `patches`.
    embed_layer: Block that is embedded, as `block_3`; "" for the last.
    embed_grid: Cells per side over which that block is averaged.
    optimizer: Adam with a learning rate of 1e-3 by default.
    ema_decay: See `gradient_model`.
  """
  if not 0 <= gray <= 1 or puzzles < 1 or crop < 0:
    raise InputError(f"gray={gray}, puzzles={puzzles}, crop={crop}: must lie in [0, 1], be at least 1, at least 0")
  if embed_by not in EMBED_BY:
    raise InputError(f"embed_by={embed_by!r}: must be one of {', '.join(EMBED_BY)}")
  if permutation_file:
    table = patch_layouts.check_permutations(
        read_table(permutation_file, "permutation_file"), cells**2, f"permutation_file={permutation_file}")
  else:
    table = patch_layouts.permutation_set(num_permutations, cells**2, permutation_seed)
  network = PretextNetwork(encoder, Mlp(tuple(projector_dims)), Mlp((*predictor_dims, len(table))), grid)
  change = patch_layouts.standardized_patch if standardize else lambda patch: patch
  middle = lambda images: jax.vmap(jax.vmap(change))(middle_tiles(to_float(images), cells, tile))
  embed_fn, layers = embedder(encoder, embed_layer, embed_grid, lambda images: jax.vmap(change)(to_float(images)))
  if embed_by == "patches":
    embed_fn = patch_embedder(encoder, embed_layer, embed_grid, middle)

  def init_params(rng, batch):
    check_images(encoder, batch)
    shown = {"image": side_by_side(middle(batch["image"]))}
    order = jnp.zeros((len(batch["image"]), 1, cells**2), jnp.int32)
    params, extra = started(network, rng, shown, order, row_mask(batch), method="joined")
    return params, {**extra, "permutations": jnp.asarray(table)}

  def predicted(params, extra, batch, rng, *, deterministic=False, network=network):
    """Returns losses and hits of all puzzles, [n, k], and the new `extra`."""
    images, mask = batch["image"], row_mask(batch)
    shown, labels = jax.vmap(lambda key, image: puzzle(
        key, to_float(image), cells=cells, tile=tile, crop=crop, gray=gray, standardize=standardize,
        num_permutations=len(table), puzzles=puzzles))(patch_layouts.row_keys(rng, len(images)), images)
    views = {"image": side_by_side(shown), "mask": jnp.repeat(mask, cells**2)}
    logits, extra = applied(network, params, extra, views, extra["permutations"][labels], mask,
                            deterministic=deterministic, method="joined")
    return cross_entropy(logits, labels), (logits.argmax(-1) == labels).astype(jnp.float32), extra

  def loss_fn(params, extra, batch, rng):
    losses, hits, extra = predicted(params, extra, batch, rng)
    return masked_mean(losses, row_mask(batch)), ({"accuracy": masked_mean(hits, row_mask(batch))}, extra)

  def measures(params, extra, batch):
    losses, hits, _ = predicted(params, extra, batch, jax.random.key(0), deterministic=True)
    return {"pretext_loss": sums(losses, row_mask(batch)), "pretext_accuracy": sums(hits, row_mask(batch))}

  def calibrated(params, extra, batch):
    return predicted(params, extra, batch, jax.random.key(0), network=forgetful(network))[2]

  def draws(params, extra, batch, rng):
    """Tiles of each image in their places, and as the first puzzle shows them."""
    keys = patch_layouts.row_keys(rng, len(batch["image"]))
    shown, labels = jax.vmap(lambda key, image: puzzle(
        key, to_float(image), cells=cells, tile=tile, crop=crop, gray=gray, standardize=standardize,
        num_permutations=len(table), puzzles=1))(keys, batch["image"])
    order = extra["permutations"][labels[:, 0]]
    return {"tiles": shown, "shuffled": jax.vmap(lambda tiles, order: tiles[order])(shown, order)}

  outputs = {"layers": layers, "measures": measures, "calibrated": calibrated, "draws": draws}
  return gradient_model(init_params, loss_fn, embed_fn, optimizer or optax.adam(1e-3), coupled=True,
                        ema_decay=ema_decay, outputs=outputs, rules=RULES)


def puzzle(
    rng: Array, image: Float[Array, "height width channels"], *, cells: int, tile: int, crop: int, gray: float,
    standardize: bool, num_permutations: int, puzzles: int,
) -> tuple[Float[Array, "tiles {tile} {tile} channels"], Int[Array, " puzzles"]]:
  """Returns the tiles of an image in their places, and the numbers of the permutations that shuffle them."""
  rng_crop, rng_tiles, rng_gray, rng_order = jax.random.split(rng, 4)
  if crop:
    if crop > min(image.shape[:2]):
      raise InputError(f"crop={crop}: exceeds images of {image.shape[0]} x {image.shape[1]} pixels")
    room = jnp.array([image.shape[0] - crop + 1, image.shape[1] - crop + 1])
    image = patch_layouts.patch_at(image, jax.random.randint(rng_crop, (2,), 0, room), crop)
  if gray and image.shape[2] == 3:
    image = jnp.where(jax.random.bernoulli(rng_gray, gray), patch_layouts.gray_patch(image), image)
  corners = patch_layouts.tile_corners(rng_tiles, *image.shape[:2], cells, tile)
  pieces = patch_layouts.tiles(image, corners, tile)
  pieces = jax.vmap(patch_layouts.standardized_patch)(pieces) if standardize else pieces
  return pieces, jax.random.randint(rng_order, (puzzles,), 0, num_permutations)


def middle_tiles(images: Float[Array, "batch height width channels"], cells: int, tile: int) -> Float[
    Array, "batch tiles {tile} {tile} channels"]:
  """Returns the tiles in the middle of all cells."""
  corners = patch_layouts.tile_corners(None, *images.shape[1:3], cells, tile)
  return jax.vmap(lambda image: patch_layouts.tiles(image, corners, tile))(images)
