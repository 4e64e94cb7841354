"""Figures of what a network looks for: filters, maps, exciting images and inputs, and where it looks."""
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embeddings_jax.types import Figure

COLUMNS = 8
CROPS = 3  # Crops of a unit stand in a square of so many.


def filters(plt: Any, kernels: np.ndarray) -> Any:
  """Draws kernels [n, rows, columns, channels], each scaled by its own largest weight; gray is 0."""
  scale = np.maximum(np.abs(kernels).max((1, 2, 3), keepdims=True), 1e-12)
  shown = 0.5 + kernels / (2 * scale)
  if shown.shape[-1] not in (1, 3):
    shown = shown[..., :1]
  return _grid(plt, list(shown), [str(i) for i in range(len(shown))], "Filters of the first layer")


def maps(plt: Any, image: np.ndarray, layer_maps: np.ndarray, layer: str) -> Any:
  """Draws all maps of a layer [rows, columns, dim] for one image, each from its least to its greatest value."""
  channels = np.moveaxis(layer_maps, -1, 0)
  low, high = channels.min((1, 2), keepdims=True), channels.max((1, 2), keepdims=True)
  tiles = [image, *((channels - low) / np.maximum(high - low, 1e-12))]
  return _grid(plt, tiles, ["image", *map(str, range(len(channels)))], f"Maps of {layer}", columns=2 * COLUMNS,
               cmap="viridis")


def crops(plt: Any, units: np.ndarray, fields: Sequence[Sequence[np.ndarray]], layer: str) -> Any:
  """Draws the images that excite each unit most, 3 x 3 receptive fields a unit; fields[unit] is a list of crops."""
  return _grid(plt, [_square(nine) for nine in fields], [str(unit) for unit in units],
               f"What excites units of {layer} most, by receptive field")


def inputs(plt: Any, units: np.ndarray, images: np.ndarray, layer: str) -> Any:
  """Draws an input [units, height, width, channels] for each unit, found by gradient ascent."""
  return _grid(plt, list(images), [str(unit) for unit in units], f"Inputs that excite units of {layer}")


def overlays(plt: Any, images: np.ndarray, shown: Mapping[str, np.ndarray], titles: Sequence[str] = ()) -> Any:
  """Draws images [n, height, width, channels] in [0, 1], and below them maps laid over them.

  Args:
    plt: `matplotlib.pyplot`.
    images: The images.
    shown: Name -> maps [n, height, width] in [0, 1].
    titles: Title of each image, as its class.
  """
  figure, axes = plt.subplots(1 + len(shown), len(images), squeeze=False, layout="constrained",
                              figsize=(1.3 * len(images), 1.35 * (1 + len(shown))))
  for line, (name, heat) in zip(axes, {"image": None, **shown}.items()):
    for i, axis in enumerate(line):
      _show(axis, images[i])
      if heat is not None:
        axis.imshow(heat[i], cmap="jet", alpha=0.5, vmin=0, vmax=1)
    line[0].set_ylabel(name, fontsize=8)
  for axis, title in zip(axes[0], titles):
    axis.set_title(title, fontsize=7)
  return figure


def inversion(plt: Any, images: np.ndarray, restored: np.ndarray, distances: np.ndarray, layer: str) -> Any:
  """Draws images and below them those that have their features, with the relative distance."""
  figure, axes = plt.subplots(2, len(images), squeeze=False, layout="constrained",
                              figsize=(1.3 * len(images), 3.0))
  for axis, image in zip(axes.flat, [*images, *restored]):
    _show(axis, image)
  for axis, distance in zip(axes[1], distances):
    axis.set_title(f"{distance:.3f}", fontsize=7)
  axes[0, 0].set_ylabel("image", fontsize=8)
  axes[1, 0].set_ylabel("from features", fontsize=8)
  figure.suptitle(f"Images of the features of {layer}, with their relative squared distance", fontsize=9)
  return figure


def pairs(plt: Any, one: np.ndarray, other: np.ndarray, cosines: np.ndarray, same: np.ndarray) -> Any:
  """Draws pairs of images, those of one class first, with the cosine of their embeddings."""
  columns = (len(one) + 1) // 2
  figure, axes = plt.subplots(4, columns, squeeze=False, layout="constrained", figsize=(1.2 * columns, 5.4))
  for axis in axes.flat:
    axis.axis("off")
  for i, (first, second, cosine, alike) in enumerate(zip(one, other, cosines, same)):
    row, column = divmod(i, columns)
    _show(axes[2 * row, column], first)
    _show(axes[2 * row + 1, column], second)
    axes[2 * row, column].set_title(f"{'same' if alike else 'not'} {cosine:.2f}", fontsize=8)
  figure.suptitle("Pairs of images, and the cosine of their embeddings", fontsize=10)
  return figure


def detections(plt: Any, images: np.ndarray, boxes: Sequence[Sequence[tuple[Sequence[float], str, bool]]]) -> Any:
  """Draws boxes over images: boxes[i] has (top, left, bottom, right), a text, and whether it is a true box."""
  columns = min(COLUMNS, len(images))
  figure, axes = plt.subplots(-(-len(images) // columns), columns, squeeze=False, layout="constrained",
                              figsize=(1.5 * columns, 1.55 * -(-len(images) // columns)))
  for axis in axes.flat:
    axis.axis("off")
  for axis, image, drawn in zip(axes.flat, images, boxes):
    _show(axis, image)
    for (top, left, bottom, right), text, true in drawn:
      color = "white" if true else "red"
      axis.add_patch(plt.Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, edgecolor=color,
                                   linestyle="--" if true else "-"))
      axis.text(left, top - 1, text, color=color, fontsize=6)
  return figure


def _square(tiles: Sequence[np.ndarray]) -> np.ndarray:
  """Returns crops of unlike sizes in a square, with white lines between them, in [0, 1]."""
  side = max(max(tile.shape[:2]) for tile in tiles)
  canvas = np.ones((CROPS * (side + 1) - 1, CROPS * (side + 1) - 1, tiles[0].shape[2]), np.float32)
  for i, tile in enumerate(tiles[:CROPS**2]):
    row, column = (side + 1) * np.array(divmod(i, CROPS))
    canvas[row:row + tile.shape[0], column:column + tile.shape[1]] = tile / 255 if tile.dtype == np.uint8 else tile
  return canvas


def _grid(plt: Any, tiles: Sequence[np.ndarray], titles: Sequence[str], title: str, columns: int = COLUMNS,
          cmap: str = "gray") -> Any:
  """Draws tiles side by side, each with its title."""
  columns = min(columns, len(tiles))
  rows = -(-len(tiles) // columns)
  size = 1.3 if columns <= COLUMNS else 0.75
  figure, axes = plt.subplots(rows, columns, squeeze=False, figsize=(size * columns, (size + 0.2) * rows + 0.4),
                              layout="constrained")
  for axis in axes.flat:
    axis.axis("off")
  for axis, tile, name in zip(axes.flat, tiles, titles):
    _show(axis, tile, cmap)
    axis.set_title(name, fontsize=7, pad=2)
  figure.suptitle(title, fontsize=10)
  return figure


def _show(axis: Any, image: np.ndarray, cmap: str = "gray") -> None:
  image = image / 255 if image.dtype == np.uint8 else image
  image = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
  axis.imshow(np.clip(image, 0, 1), cmap=cmap, vmin=0, vmax=1, interpolation="nearest")
  axis.set(xticks=[], yticks=[])
  axis.set_frame_on(False)


def _kernels(drawing: Any) -> np.ndarray | None:
  """Returns the kernels of the first convolution of a trunk of images, or None."""
  part = getattr(drawing.state, "params", None)
  for name in ("encoder", "block_0", "conv"):
    part = part.get(name, part) if hasattr(part, "get") else None
  part = part.get("stem", part) if hasattr(part, "get") else None
  kernel = part.get("kernel") if hasattr(part, "get") else None
  return None if kernel is None or np.ndim(kernel) != 4 or kernel.shape[2] not in (1, 3) else np.moveaxis(
      np.asarray(kernel), -1, 0)


FIGURES = (
    Figure("filters", lambda plt, drawing: filters(plt, _kernels(drawing)),
           applies=lambda drawing: _kernels(drawing) is not None),
)
