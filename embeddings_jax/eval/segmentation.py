"""Segmentation without labels: clusters of the places of feature maps, matched with classes of pixels.

Protocol. Of each clip of the test split, the first `max_clips` of them, `frames` frames evenly spaced are taken.
The vectors of all places of a layer's maps, of length 1, are clustered by k-means into as many clusters as there are
classes (k-means++, the best of 3 starts, fitted to at most 20,000 places drawn with `seed`). Each pixel has the
cluster of its place, by the nearest. Clusters are matched with classes once for the whole test set, one to one, so
that the sum of the intersections is largest (Hungarian method). Classes are the kinds of objects where they are known
(`kinds`; of moving digits: background, digit, patch), else background and object.

Metrics: `miou`, the mean over classes of intersection over union; `pixel_accuracy`. The metric's name says the layer
and its map. Beside it `pixels/...` clusters the pixels' colors themselves, and `background/...` calls all pixels
background.
"""
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from embeddings_jax.eval.propagation import nearest, pixel_features
from embeddings_jax.types import InputError, Metric, Protocol

FITTED = 20_000  # Places.
STARTS = 3


def segmentation(
    embed: Any,
    dataset: Any,
    *,
    maps: Callable[..., Mapping[str, np.ndarray]],
    layer: str = "",
    frames: int = 4,
    max_clips: int = 64,
    seed: int = 0,
) -> dict[str, float]:
  """Mean IoU of clusters and classes.

  Args:
    embed: Not used.
    dataset: Clips with `masks`, and maybe `kinds`.
    maps: Frames uint8 [n, height, width, channels] -> name -> [n, h, w, dim].
    layer: Name of the layer; "" for the last.
    frames: Frames of each clip.
    max_clips: Number of clips.
    seed: Random seed of k-means.

  Returns:
    `{layer}-{h}x{w}/{split}/` `miou` and `pixel_accuracy`, and the same of `pixels` and `background`.
  """
  del embed
  clips = dataset.items
  if dataset.kind != "video" or "masks" not in getattr(clips, "beside", {}):
    raise InputError(f"segmentation: {dataset.name} has no masks of clips; moving-digits has")
  part = "test" if "test" in dataset.split else "all"
  chosen = np.asarray(dataset.split.get("test", np.arange(len(clips))))[:max_clips]
  images, classes = _labeled(clips, chosen, frames)
  num_classes = int(classes.max()) + 1
  if num_classes < 2:
    raise InputError(f"segmentation: the masks of {dataset.name} are empty")
  by_layer = maps(images)
  if layer and layer not in by_layer:
    raise InputError(f"layer={layer!r}: must be one of {', '.join(by_layer)}")
  layer = layer or list(by_layer)[-1]
  features = np.asarray(by_layer[layer], np.float32)
  unit = features / np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), 1e-6)
  name = f"{layer}-{features.shape[1]}x{features.shape[2]}"
  height, width = images.shape[1:3]
  results = {"": clusters(unit, num_classes, seed), "pixels/": clusters(pixel_features(images, height, width),
                                                                        num_classes, seed),
             "background/": np.zeros(classes.shape, int)}
  return {f"{prefix}{name}/{part}/{key}": value for prefix, guess in results.items()
          for key, value in matched(enlarged(guess, height, width), classes, num_classes).items()}


def _labeled(clips: Any, chosen: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns frames, [n, height, width, channels], and the classes of their pixels."""
  images, classes = [], []
  for i in chosen:
    shown = np.unique(np.linspace(0, clips.lengths[i] - 1, frames).round().astype(int))
    masks = np.asarray(clips.of("masks", i))[shown]
    images.append(np.asarray(clips[i])[shown])
    if "kinds" in clips.beside:
      kinds = np.asarray(clips.of("kinds", i))[shown].astype(int)
      kinds = np.concatenate([np.zeros((len(shown), 1), int), kinds], 1)
      classes.append(np.take_along_axis(kinds, masks.reshape(len(shown), -1).astype(int), 1).reshape(masks.shape))
    else:
      classes.append((masks > 0).astype(int))
  return np.concatenate(images), np.concatenate(classes)


def clusters(vectors: np.ndarray, number: int, seed: int) -> np.ndarray:
  """Returns the cluster of each vector, [...], of vectors [..., dim]."""
  import warnings

  from sklearn.cluster import KMeans
  from sklearn.exceptions import ConvergenceWarning

  rows = vectors.reshape(-1, vectors.shape[-1]).astype(np.float64)
  fitted = rows
  if len(rows) > FITTED:
    fitted = rows[np.random.default_rng(seed).choice(len(rows), FITTED, replace=False)]
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", ConvergenceWarning)  # There may be fewer different rows than clusters.
    kmeans = KMeans(number, n_init=STARTS, random_state=seed).fit(fitted)
  return kmeans.predict(rows).reshape(vectors.shape[:-1])


def enlarged(labels: np.ndarray, height: int, width: int) -> np.ndarray:
  """Returns labels [n, h, w] at each pixel, by the nearest place."""
  rows, columns = nearest(labels.shape[1], height), nearest(labels.shape[2], width)
  return labels[:, rows[:, None], columns]


def matched(guess: np.ndarray, truth: np.ndarray, number: int) -> dict[str, float]:
  """Returns `miou` and `pixel_accuracy` after the best matching of clusters with classes, one to one."""
  from scipy.optimize import linear_sum_assignment

  table = np.bincount((number * truth + guess).ravel(), minlength=number**2).reshape(number, number)
  rows, columns = linear_sum_assignment(-table)
  same = table[rows, columns]
  union = table.sum(1)[rows] + table.sum(0)[columns] - same
  return {"miou": float(np.mean(same / np.maximum(union, 1))), "pixel_accuracy": float(same.sum() / table.sum())}


PROTOCOL = Protocol(segmentation, needs=("maps",),
                    metrics={"miou": Metric(True, "fraction"), "pixel_accuracy": Metric(True, "fraction")})
