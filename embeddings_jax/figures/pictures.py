"""What becomes of pictures: what is hidden of them, and how they are changed."""
import functools
import io
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from embeddings_jax.data.files.atomic import replacing
from embeddings_jax.figures import canvas
from embeddings_jax.ops.augment import augmented
from embeddings_jax.ops.pixels import unit

NUM_PICTURES = 12  # Of which masks and reconstructions are drawn.


def hidden_patches(plt: Any, found: Mapping[str, np.ndarray]) -> Any:
  """Rows of pictures, of what an autoencoder sees of them, and of what it makes of it."""
  rows = ("original", "masked", "reconstructed")
  columns = len(found["original"])
  figure, axes = plt.subplots(len(rows), columns, figsize=(0.95 * columns, 0.95 * len(rows)), squeeze=False)
  for row, name in zip(axes, rows):
    for place, picture in zip(row, found[name]):
      place.imshow(picture, cmap="gray", vmin=0, vmax=1)
      place.set(xticks=[], yticks=[])
      place.set_frame_on(False)
    row[0].set_ylabel(name, fontsize=8)
  figure.suptitle(f"{found['mask'].mean():.0%} of the patches hidden, and filled in")
  figure.subplots_adjust(wspace=0.05, hspace=0.05)
  return figure


def draw_augmentations(path: str, images: np.ndarray, ops: Mapping[str, Callable], *, num_draws: int = 2,
                       seed: int = 0) -> None:
  """Draws pictures, and several draws of each change of them, into the file `path`.

  Args:
    path: of the picture, a PNG.
    images: [n, height, width, channels], bytes or floats in [0, 1].
    ops: what to do with a picture, as in `ops/augment.py`, by what it is called.
    num_draws: of each picture and change.
    seed: of the draws.
  """
  from PIL import Image

  plt = canvas.pyplot()
  figure = augmentations(plt, images, ops, num_draws, seed)
  drawn = io.BytesIO()
  figure.savefig(drawn, dpi=100, bbox_inches="tight", format="png")
  plt.close(figure)
  with replacing(path) as file:  # 256 colours: a third of the bytes, and hardly to be seen.
    Image.open(drawn).convert("RGB").quantize(256).save(file, format="PNG", optimize=True)


def augmentations(plt: Any, images: np.ndarray, ops: Mapping[str, Callable], num_draws: int, seed: int) -> Any:
  """A block for the originals and for each change: a row for each picture, a column for each draw."""

  def block(columns):
    """[column, picture, height, width, channels] side by side, with white lines between them."""
    framed = np.pad(np.asarray(columns), ((0, 0), (0, 0), (0, 2), (0, 2), (0, 0)), constant_values=1)
    rows = framed.transpose(1, 2, 0, 3, 4).reshape(-1, framed.shape[0] * framed.shape[3], framed.shape[4])
    return rows if rows.shape[-1] == 3 else np.repeat(rows, 3, -1)

  images = jax.device_put(images)
  blocks = {"original": block([unit(images)])}
  for rng, (name, op) in zip(jax.random.split(jax.random.key(seed), len(ops)), ops.items()):
    many = jax.jit(functools.partial(augmented, op))
    blocks[name] = block([many(key, images) for key in jax.random.split(rng, num_draws)])
  num_columns = min(5, len(blocks))
  num_rows = -(-len(blocks) // num_columns)
  height, width = max(block.shape[0] for block in blocks.values()), max(block.shape[1] for block in blocks.values())
  scale = 2 / max(height, width)  # Inches.
  figure, axes = plt.subplots(num_rows, num_columns, squeeze=False, layout="constrained",
                              figsize=(num_columns * width * scale, num_rows * (height * scale + 0.3)))
  for axis in axes.flat:
    axis.axis("off")
  for axis, (name, picture) in zip(axes.flat, blocks.items()):
    axis.imshow(picture)
    around = (width - picture.shape[1]) / 2  # The original is as large as the draws.
    axis.set(xlim=(-around, width - around), ylim=(height, 0))
    axis.set_title(name, fontsize=10)
  return figure
