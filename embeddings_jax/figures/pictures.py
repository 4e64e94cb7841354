"""Figures of images: masks, reconstructions, samples and augmentations."""
import functools
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from embeddings_jax.data.files.atomic import replacing
from embeddings_jax.figures import canvas
from embeddings_jax.ops.augment import augmented
from embeddings_jax.ops.image_quality import psnr
from embeddings_jax.ops.pixels import to_float
from embeddings_jax.types import Figure, InputError

NUM_PICTURES = 12  # Images in a row.
NUM_SAMPLES = 5 * NUM_PICTURES


def reconstructions(plt: Any, images: Mapping[str, np.ndarray]) -> Any:
  """Draws rows of images: the original, where there is one the masked or corrupted image, and the reconstruction.

  Args:
    plt: `matplotlib.pyplot`.
    images: `original`, `reconstructed` and maybe `masked` or `corrupted` [n, height, width, channels]; with `masked`
      also `mask`. The mean PSNR stands beside rows of denoising models.
  """
  rows = [name for name in ("original", "masked", "corrupted", "reconstructed") if name in images]
  title = "Reconstructions"
  if "masked" in images:
    title = f"{images['mask'].mean():.0%} of the patches hidden, and filled in"
  labels = rows
  if "corrupted" in images:
    decibels = lambda name: float(np.mean(psnr(jnp.asarray(images["original"]), jnp.asarray(images[name]))))
    labels = [name if name == "original" else f"{name}\n{decibels(name):.1f} dB" for name in rows]
  return _grid(plt, [images[name] for name in rows], title, labels)


def samples(plt: Any, images: np.ndarray) -> Any:
  """Draws generated images [n, height, width, channels]."""
  rows = [images[first:first + NUM_PICTURES] for first in range(0, len(images), NUM_PICTURES)]
  return _grid(plt, rows, "Samples")


def _grid(plt: Any, rows: Sequence[np.ndarray], title: str, labels: Sequence[str] = ()) -> Any:
  figure, axes = plt.subplots(len(rows), len(rows[0]), figsize=(0.95 * len(rows[0]), 0.95 * len(rows)), squeeze=False)
  for line, images in zip(axes, rows):
    for axis, image in zip(line, images):
      axis.imshow(np.clip(image, 0, 1), cmap="gray", vmin=0, vmax=1)
    for axis in line:
      axis.set(xticks=[], yticks=[])
      axis.set_frame_on(False)
  for line, label in zip(axes, labels):
    line[0].set_ylabel(label, fontsize=8)
  figure.suptitle(title)
  figure.subplots_adjust(wspace=0.05, hspace=0.05)
  return figure


def draw_augmentations(path: str, images: np.ndarray, ops: Mapping[str, Callable], *, num_draws: int = 2,
                       seed: int = 0) -> None:
  """Draws images, and several draws of each change of them, into the file `path`.

  Args:
    path: Path of the figure, a PNG file.
    images: [n, height, width, channels], bytes or floats in [0, 1].
    ops: Name -> change of an image, as in `ops/augment.py`.
    num_draws: Number of draws for each image and augmentation.
    seed: Random seed of the draws.
  """
  from PIL import Image

  plt = canvas.pyplot()
  figure = augmentations(plt, images, ops, num_draws, seed)
  drawn = io.BytesIO()
  figure.savefig(drawn, dpi=100, bbox_inches="tight", format="png")
  plt.close(figure)
  with replacing(path) as file:  # 256 colors: a third of the bytes, and hardly to be seen.
    Image.open(drawn).convert("RGB").quantize(256).save(file, format="PNG", optimize=True)


def augmentations(plt: Any, images: np.ndarray, ops: Mapping[str, Callable], num_draws: int, seed: int) -> Any:
  """A block for the originals and for each change: a row for each image, a column for each draw."""

  def block(columns):
    """[column, image, height, width, channels] side by side, with white lines between them."""
    framed = np.pad(np.asarray(columns), ((0, 0), (0, 0), (0, 2), (0, 2), (0, 0)), constant_values=1)
    rows = framed.transpose(1, 2, 0, 3, 4).reshape(-1, framed.shape[0] * framed.shape[3], framed.shape[4])
    return rows if rows.shape[-1] == 3 else np.repeat(rows, 3, -1)

  images = jax.device_put(images)
  blocks = {"original": block([to_float(images)])}
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


def _are_images(value: Any) -> bool:
  """Returns whether an output is [n, height, width, channels]."""
  return getattr(value, "ndim", 0) == 4 and value.shape[-1] in (1, 3)


def _draw_reconstructions(plt: Any, drawing: Any) -> Any:
  items = drawing.dataset.items
  batch = drawing.encoder.encode([items[i] for i in np.linspace(0, len(items) - 1, NUM_PICTURES).astype(int)])
  if not any(_are_images(value) for value in batch.values()):
    return None
  images = drawing.output("reconstruct", batch)
  images = dict(images) if hasattr(images, "keys") else {"reconstructed": images}
  if not _are_images(images.get("reconstructed")):
    return None
  if "original" not in images:
    images["original"] = np.asarray(to_float(jax.device_put(next(filter(_are_images, batch.values())))))
  return reconstructions(plt, images)


def _draw_samples(plt: Any, drawing: Any) -> Any:
  draw = lambda state, rng: drawing.outputs["sample"](state, rng, NUM_SAMPLES)
  rng = jax.random.key(drawing.seed)
  return samples(plt, np.asarray(jax.jit(draw)(drawing.state, rng)))


def _samples_images(drawing: Any) -> bool:
  """Returns whether the model draws images without a condition."""
  try:
    shape = jax.eval_shape(lambda state, rng: drawing.outputs["sample"](state, rng, NUM_SAMPLES), drawing.state,
                           jax.random.key(0))
  except (TypeError, InputError):  # It needs a batch, as the prompt of a language model.
    return False
  return _are_images(shape)


FIGURES = (
    Figure("reconstructions", _draw_reconstructions, outputs=("reconstruct",)),
    Figure("samples", _draw_samples, outputs=("sample",), applies=_samples_images),
)
