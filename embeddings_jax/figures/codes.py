"""Codes of images: the plane of two-dimensional codes, walks between images, and what a model makes of noise."""
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from embeddings_jax.types import Figure

NUM_POINTS = 5000
GRID = 15  # Decoded codes each way.
WALKS, STEPS = 4, 12
NUM_IMAGES = 12  # In a row.
NUM_LIKELIHOODS, DRAWS = 100, 10


class Plane(NamedTuple):
  """Two-dimensional codes, and what a grid of codes is decoded to.

  Attributes:
    codes: [n, 2].
    label: Class of each code; None for one color.
    x, y: Coordinates of the grid's columns, from left to right, and rows, from bottom to top.
    images: [len(y), len(x), height, width, channels], the lowest row first.
  """

  codes: np.ndarray
  label: np.ndarray | None
  x: np.ndarray
  y: np.ndarray
  images: np.ndarray


def plane_of(codes: np.ndarray, labels: Mapping[str, Any], decode: Callable[[np.ndarray], np.ndarray]) -> Plane:
  """Returns the plane of codes [n, 2], with the first of the items' labels that has at most ten classes."""
  chosen = np.linspace(0, len(codes) - 1, min(len(codes), NUM_POINTS)).astype(int)
  label = next((np.asarray(values)[chosen] for values in labels.values() if len(np.unique(np.asarray(values))) <= 10),
               None)
  x, y = (np.linspace(*np.percentile(codes[:, axis], (1, 99)), GRID) for axis in (0, 1))
  images = decode(np.stack(np.meshgrid(x, y), -1).reshape(-1, 2).astype(np.float32))
  return Plane(np.asarray(codes)[chosen], label, x, y, images.reshape(GRID, GRID, *images.shape[1:]))


def planes(plt: Any, by_name: Mapping[str, Plane]) -> Any:
  """Draws a row for each plane: its codes, colored by label, and the decoded grid."""
  figure, axes = plt.subplots(len(by_name), 2, figsize=(12, 6 * len(by_name)), squeeze=False, layout="constrained")
  for (left, right), (name, one) in zip(axes, by_name.items()):
    if one.label is None:
      left.scatter(*one.codes.T, s=3, linewidths=0)
    else:
      for number, each in enumerate(np.unique(one.label)):
        left.scatter(*one.codes[one.label == each].T, s=3, linewidths=0, color=plt.get_cmap("tab10")(number % 10),
                     label=each)
      left.legend(markerscale=4, fontsize=8, loc="upper right")
    before = f"{name}: " if name else ""
    left.set(title=f"{before}codes", xlabel="unit 1", ylabel="unit 2")
    rows, columns, height, width, channels = one.images.shape
    tiled = one.images[::-1].transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)
    right.imshow(np.clip(tiled, 0, 1), cmap="gray", vmin=0, vmax=1, aspect="auto",
                 extent=(one.x[0], one.x[-1], one.y[0], one.y[-1]))
    right.set(title=f"{before}decoded", xlabel="unit 1", ylabel="unit 2")
  return figure


def rows_of_images(plt: Any, rows: list[np.ndarray], labels: list[str], title: str) -> Any:
  """Draws rows of images, each [number, height, width, channels], with a label in front."""
  strips = [np.concatenate(list(np.clip(images, 0, 1)), 1) for images in rows]
  height, width = strips[0].shape[:2]
  figure, axes = plt.subplots(len(rows), 1, figsize=(12, 12.5 * height / width * len(rows) + 0.4), squeeze=False,
                              layout="constrained")
  for axis, strip, label in zip(axes[:, 0], strips, labels):
    axis.imshow(strip, cmap="gray", vmin=0, vmax=1)
    axis.set(xticks=[], yticks=[])
    axis.set_ylabel(label, fontsize=8)
  figure.suptitle(title)
  return figure


def histogram(plt: Any, images: np.ndarray, noise: np.ndarray) -> Any:
  """Draws how log likelihoods [n] of images and of uniformly random ones are distributed."""
  figure, axes = plt.subplots(figsize=(6, 4))
  edges = np.histogram_bin_edges(np.concatenate([images, noise]), 60)
  axes.hist(images, edges, alpha=0.7, label=f"images (mean {images.mean():.4g})")
  axes.hist(noise, edges, alpha=0.7, label=f"uniform noise (mean {noise.mean():.4g})")
  axes.set(xlabel="bound on the log likelihood, nats per image", ylabel="number",
           title=f"Images and noise, {DRAWS} draws of the code")
  axes.legend()
  return figure


def _draw_plane(plt: Any, drawing: Any) -> Any:
  return planes(plt, {"": plane_of(drawing.embeddings, drawing.dataset.labels,
                                   lambda codes: _decode(drawing, codes))})


def _draw_walks(plt: Any, drawing: Any) -> Any:
  """Lines between the codes of evenly spaced items, and between the pixels of the first pair."""
  items = drawing.dataset.items
  rows = np.linspace(0, len(items) - 1, 2 * WALKS).astype(int)
  ends = np.asarray(drawing.evaluator.embed([items[i] for i in rows]), np.float32).reshape(WALKS, 2, -1)
  weight = np.linspace(0, 1, STEPS, dtype=np.float32)[:, None]
  walks = [_decode(drawing, (1 - weight) * first + weight * last) for first, last in ends]
  pixels = _pixels(drawing, [items[i] for i in rows[:2]])
  fade = (1 - weight[..., None, None]) * pixels[0] + weight[..., None, None] * pixels[1]
  return rows_of_images(plt, [*walks, fade], [f"walk {i + 1}" for i in range(WALKS)] + ["pixels of 1"],
                        "Walks between the codes of two images, and a fade between their pixels")


def _draw_samples_and_noise(plt: Any, drawing: Any) -> Any:
  rng = np.random.default_rng(drawing.seed)
  if "codes" in drawing.outputs:  # Discrete ones.
    example = drawing.output("codes", drawing.encoder.encode(drawing.dataset.items[:1]))
    number = len(drawing.state.extra["counts"])
    names = {"uniform codes": rng.integers(0, number, (NUM_IMAGES, *example.shape[1:])).astype(np.int32)}
  else:
    codes = np.asarray(drawing.embeddings, np.float64)
    names = {"uniform codes": rng.uniform(codes.min(0), codes.max(0), (NUM_IMAGES, codes.shape[1]))}
    root = np.linalg.cholesky(np.cov(codes.T).reshape(codes.shape[1], -1) + 1e-6 * np.eye(codes.shape[1]))
    names["Gaussian codes"] = codes.mean(0) + rng.normal(size=(NUM_IMAGES, codes.shape[1])) @ root.T
    if "sample" in drawing.outputs:
      names["prior"] = rng.normal(size=(NUM_IMAGES, codes.shape[1]))
    names = {name: value.astype(np.float32) for name, value in names.items()}
  rows = [_decode(drawing, value) for value in names.values()]
  return rows_of_images(plt, [*rows, rng.random(rows[0].shape)], [*names, "uniform pixels"],
                        "Decoded codes, and uniformly random images")


def _draw_likelihoods(plt: Any, drawing: Any) -> Any:
  items = drawing.dataset.items
  rows = drawing.dataset.split.get("test", np.arange(len(items)))
  rows = np.asarray(rows)[np.linspace(0, len(rows) - 1, min(len(rows), NUM_LIKELIHOODS)).astype(int)]
  batch = drawing.encoder.encode([items[i] for i in rows])
  noise = np.random.default_rng(drawing.seed).integers(0, 256, batch["image"].shape).astype(np.uint8)
  bound = jax.jit(drawing.outputs["likelihood_bound"], static_argnums=3)
  rng = jax.random.key(drawing.seed)
  return histogram(plt, *(np.asarray(bound(drawing.state, {**batch, "image": images}, rng, DRAWS))
                          for images in (batch["image"], noise)))


def _decode(drawing: Any, codes: np.ndarray) -> np.ndarray:
  return np.asarray(jax.jit(drawing.outputs["decode"])(drawing.state, codes))


def _pixels(drawing: Any, items: Any) -> np.ndarray:
  """Pixels of items as floats in [0, 1]."""
  return np.asarray(drawing.encoder.encode(items)["image"], np.float32) / 255


def _decodes_images(drawing: Any) -> bool:
  """Returns whether the embedding of an item is a code that is decoded to an image."""
  batch = drawing.encoder.example()
  if "image" not in batch:
    return False
  codes = jax.eval_shape(drawing.model.embed, drawing.state, batch)
  decoded = jax.eval_shape(drawing.outputs["decode"], drawing.state, codes)
  return codes.ndim == 2 and decoded.ndim == 4 and decoded.shape[-1] in (1, 3)


def _has_plane(drawing: Any) -> bool:
  return _decodes_images(drawing) and drawing.embeddings.shape[1] == 2


FIGURES = (
    Figure("codes", _draw_plane, outputs=("decode",), applies=_has_plane, embeds=True),
    Figure("walks", _draw_walks, outputs=("decode",), applies=_decodes_images, embeds=True),
    Figure("samples_and_noise", _draw_samples_and_noise, outputs=("decode",), applies=_decodes_images, embeds=True),
    Figure("likelihood_of_noise", _draw_likelihoods, outputs=("likelihood_bound",),
           applies=lambda drawing: "image" in drawing.encoder.example()),
)
