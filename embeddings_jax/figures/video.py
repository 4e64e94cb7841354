"""Figures of models of video: sorted frames, evidence of the direction of time, carried masks, predicted frames."""
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from embeddings_jax.eval import propagation
from embeddings_jax.ops.ordering import MOST, best_order, kendall_tau
from embeddings_jax.types import Figure

NUM_CLIPS = 4
# Colors of objects in masks, the background first.
COLORS = np.array([[0, 0, 0], [0.9, 0.2, 0.2], [0.2, 0.8, 0.3], [0.3, 0.4, 1], [0.9, 0.8, 0.2], [0.8, 0.3, 0.9]])


def strips(plt: Any, rows: Sequence[tuple[str, Sequence[np.ndarray]]], title: str) -> Any:
  """Draws rows of images [height, width, 1 or 3] in [0, 1], each row with its name."""
  columns = max(len(images) for _, images in rows)
  figure, axes = plt.subplots(len(rows), columns, figsize=(1.1 * columns + 0.6, 1.15 * len(rows) + 0.4),
                              squeeze=False, layout="constrained")
  for line, (name, images) in zip(axes, rows):
    for axis in line:
      axis.set(xticks=[], yticks=[])
      axis.set_frame_on(False)
    for axis, image in zip(line, images):
      axis.imshow(np.clip(image, 0, 1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    line[0].set_ylabel(name, fontsize=7)
  figure.suptitle(title)
  return figure


def painted(frames: np.ndarray, masks: np.ndarray) -> np.ndarray:
  """Returns frames uint8 [t, h, w, c] as [t, h, w, 3] in [0, 1], objects in colors of their own."""
  gray = np.broadcast_to(frames.mean(-1, keepdims=True) / 255, (*frames.shape[:3], 3))
  color = COLORS[np.where(masks > 0, 1 + (masks - 1) % (len(COLORS) - 1), 0)]
  return np.where(masks[..., None] > 0, 0.35 * gray + 0.65 * color, gray)


def sorted_rows(frames: np.ndarray, scores: np.ndarray, shuffled: np.ndarray) -> tuple[list, float]:
  """Returns rows of the frames as they were shuffled and as the scores sort them, and |tau|."""
  order = shuffled[best_order(scores)]
  return [("shuffled", frames[shuffled] / 255), ("sorted", frames[order] / 255)], abs(kendall_tau(order))


def _chosen(drawing: Any) -> np.ndarray:
  """Numbers of some clips, of the test split if there is one."""
  rows = np.asarray(drawing.dataset.split.get("test", np.arange(len(drawing.dataset.items))))
  return rows[np.linspace(0, len(rows) - 1, min(NUM_CLIPS, len(rows))).astype(int)]


def _clips(drawing: Any) -> np.ndarray:
  return drawing.encoder.encode([drawing.dataset.items[i] for i in _chosen(drawing)])["clip"]


def _draw_sorted(plt: Any, drawing: Any) -> Any:
  clips = _clips(drawing)[:, :MOST]
  shuffled = np.random.default_rng(drawing.seed).permutation(clips.shape[1])
  scores = drawing.output("predict", {"clip": clips[:, shuffled]})
  rows, taus = [], []
  for clip, odds in zip(clips, scores):
    indices, tau = sorted_rows(clip, odds, shuffled)
    rows += indices
    taus.append(tau)
  return strips(plt, rows, f"Frames sorted up to the direction of time, |tau| {np.mean(taus):.2f}")


def _draw_arrow(plt: Any, drawing: Any) -> Any:
  """Evidence over time, forwards and backwards, and where it lies at the middle of each clip."""
  clips = _clips(drawing)
  forwards = drawing.output("predict", {"clip": clips})
  backwards = drawing.output("predict", {"clip": clips[:, ::-1]})
  figure, axes = plt.subplots(len(clips), 3, figsize=(9, 1.9 * len(clips)), squeeze=False, layout="constrained")
  for line, clip, one, other in zip(axes, clips, forwards, backwards):
    middle = one.shape[0] // 2
    most = max(float(np.abs(one).max()), 1e-6)
    line[0].imshow(clip[clip.shape[0] // 2] / 255, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    line[1].imshow(one[middle], cmap="RdBu", vmin=-most, vmax=most)
    for place in line[:2]:
      place.set(xticks=[], yticks=[])
    line[2].plot(one.mean((1, 2)), marker="o", label="forwards")
    line[2].plot(other.mean((1, 2)), marker="o", label="backwards")
    line[2].axhline(0, color="gray", linewidth=0.5)
  axes[0, 0].set_title("frame")
  axes[0, 1].set_title("class activation")
  axes[0, 2].set_title("evidence over time")
  axes[0, 2].legend(fontsize=7)
  axes[-1, 2].set_xlabel("segment")
  return figure


def _draw_masks(plt: Any, drawing: Any) -> Any:
  """Masks carried from the first frame, beside the true ones."""
  maps = drawing.evaluator.provided("maps")
  if maps is None:
    return None
  items, rows = drawing.dataset.items, []
  for i in _chosen(drawing)[:3]:
    frames, masks = np.asarray(items[i]), np.asarray(items.of("masks", i))
    features = list(maps["maps"](frames).values())[-1]
    guesses = propagation.carried_masks(features, masks[0])
    shown = np.linspace(0, len(frames) - 1, min(8, len(frames))).astype(int)
    rows += [("carried", painted(frames[shown], np.stack(guesses)[shown])),
             ("true", painted(frames[shown], masks[shown]))]
  return strips(plt, rows, "Masks carried from the first frame")


def _draw_copied(plt: Any, drawing: Any) -> Any:
  """A reference, and the last frame of each clip in gray, with the colors copied, and as it is."""
  clips = _clips(drawing)
  images = drawing.output("reconstruct", {"clip": clips})
  rows = [(f"clip {i + 1}", [clip[-2] / 255, true.mean(-1, keepdims=True), copied, true])
          for i, (clip, true, copied) in enumerate(zip(clips, images["original"], images["reconstructed"]))]
  return strips(plt, rows, "The frame before; the last one in gray, colored, and as it is")


def _draw_following(plt: Any, drawing: Any) -> Any:
  """The next frame for each action, beside the two that it is predicted from."""
  clips = _clips(drawing)
  images = drawing.output("predict", {"clip": clips})
  rows = [(f"clip {i + 1}", [*clip[:3] / 255, *following]) for i, (clip, following) in enumerate(zip(clips, images))]
  return strips(plt, rows, "Two frames and the next one; the next one as predicted for each action")


def _axes_of_predict(drawing: Any) -> int:
  """Number of axes of `predict` of clips; 0 for other models."""
  if getattr(drawing.dataset, "kind", "") != "video":
    return 0
  batch = {"clip": jax.ShapeDtypeStruct(_clips(drawing).shape, np.uint8)}
  return jax.eval_shape(drawing.outputs["predict"], drawing.state, batch).ndim


def _has_masks(drawing: Any) -> bool:
  items = getattr(drawing.dataset, "items", None)
  return getattr(drawing.dataset, "kind", "") == "video" and "masks" in getattr(items, "beside", {}) and any(
      name.startswith("propagation") for name in drawing.evals)


FIGURES = (
    Figure("sorted_frames", _draw_sorted, outputs=("predict", "draws"),
           applies=lambda drawing: _axes_of_predict(drawing) == 4),
    Figure("arrow_of_time", _draw_arrow, outputs=("predict",),
           applies=lambda drawing: "draws" not in drawing.outputs and _axes_of_predict(drawing) == 4),
    Figure("predicted_frames", _draw_following, outputs=("predict",),
           applies=lambda drawing: _axes_of_predict(drawing) == 5),
    Figure("copied_colors", _draw_copied, outputs=("reconstruct",),
           applies=lambda drawing: getattr(drawing.dataset, "kind", "") == "video"),
    Figure("carried_masks", _draw_masks, outputs=("layers",), applies=_has_masks),
)
