"""Figures of pretext tasks on images: their examples as the network gets them, and bins of colors."""
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from embeddings_jax.ops.color import lab_to_rgb
from embeddings_jax.types import Figure

NUM_ROWS = 6  # Images of which examples are shown.
# Cells of a 3 x 3 grid, by rows, in which the neighbors of the middle one stand, by their label.
_CELLS = (0, 1, 2, 3, 5, 6, 7, 8)


def mosaic(tiles: np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
  """Returns tiles [n, size, size, channels] side by side with white lines between them, the rest white."""
  number, size, _, channels = tiles.shape
  rows = -(-number // columns)
  canvas = np.ones((rows * (size + gap) - gap, columns * (size + gap) - gap, channels), np.float32)
  for i, tile in enumerate(np.clip(tiles, 0, 1)):
    row, column = (size + gap) * np.array(divmod(i, columns))
    canvas[row:row + size, column:column + size] = tile
  return canvas


def relative_patches(patches: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Returns patches of one image in a 3 x 3 grid, the first in the middle and neighbors by their labels."""
  grid = np.ones((9, *patches.shape[1:]), np.float32)
  grid[4] = patches[0]
  for patch, label in zip(patches[1:], labels):
    grid[_CELLS[label]] = patch
  return mosaic(grid, 3)


def examples(plt: Any, images: np.ndarray, shown: Mapping[str, Sequence[np.ndarray]], title: str) -> Any:
  """Draws a row for each name, with the images above.

  Args:
    plt: `matplotlib.pyplot`.
    images: [n, height, width, channels] in [0, 1].
    shown: Name -> an image for each image.
    title: Title.
  """
  rows = {"image": list(images), **shown}
  figure, axes = plt.subplots(len(rows), len(images), figsize=(1.4 * len(images), 1.5 * len(rows)), squeeze=False,
                              layout="constrained")
  for line, (name, row) in zip(axes, rows.items()):
    for axis, picture in zip(line, row):
      axis.imshow(np.clip(picture, 0, 1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
      axis.set(xticks=[], yticks=[])
      axis.set_frame_on(False)
    line[0].set_ylabel(name, fontsize=8)
  figure.suptitle(title)
  return figure


def bins_of_ab(plt: Any, bins: np.ndarray, counts: np.ndarray) -> Any:
  """Draws the bins of ab in their colors at L = 60, beside the logarithm of their share of the places seen."""
  lab = np.concatenate([np.full((len(bins), 1), 60.0), bins], 1).astype(np.float32)
  size = max(20.0, 30_000 / len(bins))
  figure, (colors, shares) = plt.subplots(1, 2, figsize=(10, 4.5), sharey=True, layout="constrained")
  colors.scatter(bins[:, 1], bins[:, 0], c=np.asarray(lab_to_rgb(jax.device_put(lab))), marker="s", s=size / 2)
  colors.set(xlabel="b", ylabel="a", title=f"{len(bins)} bins of ab that sRGB falls into")
  share = np.log10(np.maximum(counts, 0.5) / max(counts.sum(), 1))
  drawn = shares.scatter(bins[:, 1], bins[:, 0], c=share, marker="s", s=size / 2, cmap="viridis")
  figure.colorbar(drawn, ax=shares, label="log10 of the share")
  shares.set(xlabel="b", title=f"{(counts > 0).sum()} were seen in training")
  for axes in (colors, shares):
    axes.set_aspect("equal")
  return figure


def _drawn(drawing: Any) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
  """Returns some images, and what `draws` makes of them."""
  items = drawing.dataset.items
  batch = drawing.encoder.encode([items[i] for i in np.linspace(0, len(items) - 1, NUM_ROWS).astype(int)])
  draws = jax.jit(drawing.outputs["draws"])(drawing.state, batch, jax.random.key(drawing.seed))
  return np.asarray(batch["image"]) / 255, jax.tree.map(np.asarray, draws)


def _draw_examples(plt: Any, drawing: Any) -> Any:
  images, draws = _drawn(drawing)
  if "shuffled" in draws:
    side = round(draws["tiles"].shape[1] ** 0.5)
    rows = {"tiles": [mosaic(tiles, side) for tiles in draws["tiles"]],
            "shuffled": [mosaic(tiles, side) for tiles in draws["shuffled"]]}
    return examples(plt, images, rows, "Tiles as the network gets them")
  if "labels" in draws:
    rows = {"patches": [relative_patches(*pair) for pair in zip(draws["patches"], draws["labels"])]}
    return examples(plt, images, rows, "Patches as the network gets them")
  if "hidden" in draws:
    return examples(plt, images, {"hole": list(draws["holes"]), "not shown": list(draws["hidden"])}, "Holes")
  rows = {f"view {i + 1}": list(draws["patches"][:, i]) for i in range(min(4, draws["patches"].shape[1]))}
  return examples(plt, images, rows, "Distortions of each image")


def _is_of_images(drawing: Any) -> bool:
  """Returns whether `draws` gives examples of images, and not words."""
  try:
    batch = drawing.encoder.encode([drawing.dataset.items[0]])
    shapes = jax.eval_shape(drawing.outputs["draws"], drawing.state, batch, jax.random.key(0))
  except (TypeError, ValueError, KeyError):
    return False
  return hasattr(shapes, "keys") and ({"patches", "tiles", "hidden"} & shapes.keys()) != set()


FIGURES = (
    Figure("examples", _draw_examples, outputs=("draws",), applies=_is_of_images),
    Figure("bins", lambda plt, drawing: bins_of_ab(plt, drawing.components["bins"], drawing.components["counts"]),
           outputs=("components",), applies=lambda drawing: {"bins", "counts"} <= drawing.components.keys()),
)
