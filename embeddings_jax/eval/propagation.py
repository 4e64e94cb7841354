"""Masks and points of a clip's first frame, carried through the clip by the features of its frames.

Protocol (Caron et al. 2021, arXiv:2104.14294, section 4.2.2, after Jabri et al. 2020). Features have length 1. Each
place of a frame copies the soft labels of the `top_k` places that look most like it, with weights exp(cosine /
`temperature`) of sum 1, from a neighborhood of `radius` places each way, in the first frame and in the `context`
frames before. The labels of the first frame are its mask at the map's resolution, by the nearest pixel. Labels are
enlarged by linear interpolation, each object is scaled to [0, 1], and the largest one wins.

Metrics as DAVIS defines them (Perazzi et al. 2016; Pont-Tuset et al. 2017), over all objects of the first frame, on
all frames but the first and the last:

  j   intersection over union of the masks; 1 where both are empty
  f   F measure of the boundaries, which match within .008 of the diagonal
  jf  the mean of both

`pck` is the share of visible points (`tracks`) that are carried to within a tenth of the longer side. Clips are those
of the test split, the first `max_clips` of them. As the figures depend on all of it, the metric's name says the
neighborhood, the context, top-k, the temperature, the size of the frames, the layer and the size of its map. Beside
it, `first_mask/...` leaves the first mask where it is, and `pixels/...` takes the pixels of a place for its features,
`gray_pixels/...` without their color.

ViT-S/16 of DINO has a J&F of 61.8 on DAVIS 2017, ViT-B/8 71.4, in frames of 480 pixels.
"""
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from embeddings_jax.ops.augment import LUMA
from embeddings_jax.types import InputError, Metric, Protocol

BOUNDARY = 0.008  # Of the diagonal.
CLOSE = 0.1  # Of the longer side, for points.


def propagation(
    embed: Any,
    dataset: Any,
    *,
    maps: Callable[..., Mapping[str, np.ndarray]],
    layer: str = "",
    radius: int = 12,
    context: int = 7,
    top_k: int = 5,
    temperature: float = 0.1,
    max_clips: int = 24,
) -> dict[str, float]:
  """J and F of masks that are carried through clips.

  Args:
    embed: Not used.
    dataset: Clips with `masks`, and maybe `tracks`.
    maps: Frames uint8 [n, height, width, channels] -> name -> [n, h, w, dim].
    layer: Name of the layer; "" for the last.
    radius: Places each way of the neighborhood.
    context: Frames before, beside the first one.
    top_k: Places that are copied from.
    temperature: Temperature of the weights.
    max_clips: Number of clips.

  Returns:
    `{name}/{split}/` `j`, `f`, `jf` and perhaps `pck`, and the same of the baselines.
  """
  del embed
  clips = dataset.items
  if dataset.kind != "video" or "masks" not in getattr(clips, "beside", {}):
    raise InputError(f"propagation: {dataset.name} has no masks of clips; moving-digits has, or give folders as "
                     "DAVIS has them")
  part = "test" if "test" in dataset.split else "all"
  chosen = np.asarray(dataset.split.get("test", np.arange(len(clips))))[:max_clips]
  options = dict(radius=radius, context=context, top_k=top_k, temperature=temperature)
  totals: dict[str, list[dict[str, float]]] = {}
  for i in chosen:
    frames, masks = np.asarray(clips[i]), np.asarray(clips.of("masks", i))
    if not masks[0].any() or len(frames) < 3:
      continue
    by_layer = maps(frames)
    if layer and layer not in by_layer:
      raise InputError(f"layer={layer!r}: must be one of {', '.join(by_layer)}")
    chosen_layer = layer or list(by_layer)[-1]
    features = by_layer[chosen_layer]
    grid = features.shape[1:3]
    name = (f"radius{radius}-context{context}-top{top_k}-t{temperature:g}-{frames.shape[1]}x{frames.shape[2]}-"
            f"{chosen_layer}-{grid[0]}x{grid[1]}")
    tracks = np.asarray(clips.of("tracks", i)) if "tracks" in clips.beside else None
    gray = (frames @ np.array(LUMA, np.float32)[:, None]) if frames.shape[3] == 3 else frames
    for prefix, source in (("", features), ("pixels/", pixel_features(frames, *grid)), ("first_mask/", None),
                           ("gray_pixels/", pixel_features(gray, *grid))):
      carried = None if source is None else lambda labels, source=source: propagated(source, labels, **options)
      totals.setdefault(prefix + name, []).append(_measured(masks, tracks, carried, grid))
  if not totals:
    raise InputError(f"propagation: no clip of {dataset.name} has three frames and an object in the first one")
  metrics = {}
  for name, measured in totals.items():
    for key in ("j", "f", "pck"):
      values = [value for each in measured for value in each.get(key, [])]
      if values:
        metrics[f"{name}/{part}/{key}"] = float(np.mean(values))
    metrics[f"{name}/{part}/jf"] = (metrics[f"{name}/{part}/j"] + metrics[f"{name}/{part}/f"]) / 2
  return metrics


def _measured(masks, tracks, carried, grid) -> dict[str, list[float]]:
  """J and F of each object, and of each point and frame whether it is close; `carried` None: nothing moves."""
  shape = np.array(masks.shape[1:])
  objects = [i for i in np.unique(masks[0]) if i]
  points, visible = np.zeros(0, int), None
  if tracks is not None:
    places = np.clip(np.rint(tracks).astype(int), 0, shape - 1)
    visible = masks[np.arange(len(masks))[:, None], places[..., 0], places[..., 1]] == 1 + np.arange(tracks.shape[1])
    points = np.flatnonzero(visible[0])
  guesses = [masks[0]] * len(masks)
  where = np.zeros((len(masks), 0, 2)) if tracks is None else tracks[:, points]
  nearest = np.broadcast_to(where[0], where.shape)
  if carried:  # Masks and points together: finding the places that are copied from is what takes time.
    numbers, labels = mask_labels(masks[0], grid)
    cells = np.clip(((where[0] + 0.5) * grid / shape).astype(int), 0, np.array(grid) - 1)
    spots = np.zeros((*grid, len(points)), np.float32)
    spots[cells[:, 0], cells[:, 1], np.arange(len(points))] = 1
    soft = carried(np.concatenate([labels, spots], -1))
    guesses = [numbers[winner(each[..., :len(numbers)], masks.shape[1:])] for each in soft]
    best = np.stack([each[..., len(numbers):].reshape(math.prod(grid), -1).argmax(0) for each in soft])
    nearest = (np.stack(np.divmod(best, grid[1]), -1) + 0.5) * shape / grid - 0.5
  inner = range(1, len(masks) - 1)  # DAVIS leaves out the first frame and the last.
  result = {"j": [float(np.mean([region(guesses[t] == i, masks[t] == i) for t in inner])) for i in objects],
            "f": [float(np.mean([boundary(guesses[t] == i, masks[t] == i) for t in inner])) for i in objects]}
  if len(points):
    near = np.linalg.norm(nearest - where, axis=-1) <= CLOSE * shape.max()
    result["pck"] = near[1:-1][visible[1:-1, points]].astype(float).tolist()
  return result


def mask_labels(mask: np.ndarray, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
  """Returns the objects of a mask, from the background 0, and the labels of the places of a grid, [h, w, objects]."""
  numbers = np.unique(np.append(mask, 0))
  labels = (mask[..., None] == numbers).astype(np.float32)
  return numbers, labels[nearest(mask.shape[0], grid[0])[:, None], nearest(mask.shape[1], grid[1])]


def carried_masks(features: np.ndarray, mask: np.ndarray, *, radius: int = 12, context: int = 7, top_k: int = 5,
                  temperature: float = 0.1) -> list[np.ndarray]:
  """Returns the masks of all frames, [height, width], from features [frames, h, w, dim] and the mask of the first."""
  numbers, labels = mask_labels(np.asarray(mask), features.shape[1:3])
  carried = propagated(features, labels, radius=radius, context=context, top_k=top_k, temperature=temperature)
  return [numbers[winner(soft, mask.shape)] for soft in carried]


def propagated(features: np.ndarray, labels: np.ndarray, *, radius: int, context: int, top_k: int,
               temperature: float) -> list[np.ndarray]:
  """Returns the soft labels of all frames, [h, w, channels], those of the first as they are given.

  Args:
    features: [frames, h, w, dim].
    labels: Of the first frame, [h, w, channels].
    radius, context, top_k, temperature: See `propagation`.
  """
  features = np.asarray(features, np.float32)
  features = features / np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), 1e-6)
  carried = [np.asarray(labels, np.float32)]
  for t in range(1, len(features)):
    sources = [0, *range(max(1, t - context), t)]
    carried.append(_step(features[t], features[sources], np.stack([carried[s] for s in sources]), radius, top_k,
                         temperature))
  return carried


def _step(target: np.ndarray, sources: np.ndarray, labels: np.ndarray, radius: int, top_k: int,
          temperature: float) -> np.ndarray:
  """Soft labels of one frame, row by row, so that only the scores of a row's neighborhood are held."""
  height, width, dim = target.shape
  result = np.zeros((height, width, labels.shape[-1]), np.float32)
  far = np.abs(np.arange(width)[:, None] - np.arange(width)) > radius  # [target, source] columns.
  for row in range(height):
    rows = slice(max(0, row - radius), row + radius + 1)
    near, values = sources[:, rows], labels[:, rows].reshape(-1, labels.shape[-1])
    scores = target[row] @ near.reshape(-1, dim).T
    scores = np.where(np.tile(far, (1, near.shape[0] * near.shape[1])), -np.inf, scores)
    number = min(top_k, scores.shape[1])
    best = np.argpartition(-scores, number - 1, 1)[:, :number]
    top = np.take_along_axis(scores, best, 1)
    weights = np.exp((top - top.max(1, keepdims=True)) / temperature)
    weights = weights / weights.sum(1, keepdims=True)
    result[row] = np.einsum("qk,qkc->qc", weights, values[best])
  return result


def pixel_features(frames: np.ndarray, rows: int, columns: int) -> np.ndarray:
  """Returns the pixels of each place of a grid, from -1 to 1, as its features; by means where cells are unequal."""
  number, height, width, channels = frames.shape
  values = frames.astype(np.float32) / 127.5 - 1
  if height % rows or width % columns:
    return values[:, nearest(height, rows)[:, None], nearest(width, columns)]
  values = values.reshape(number, rows, height // rows, columns, width // columns, channels)
  return values.transpose(0, 1, 3, 2, 4, 5).reshape(number, rows, columns, -1)


def nearest(length: int, num: int) -> np.ndarray:
  """Returns the pixels in the middle of `num` cells."""
  return ((np.arange(num) + 0.5) * length / num).astype(int)


def winner(soft: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
  """Returns the channel that wins at each pixel: enlarged linearly, and each channel scaled to [0, 1]."""
  rows, columns = (_linear(new, old) for new, old in zip(shape, soft.shape))
  large = np.einsum("ih,jw,hwc->ijc", rows, columns, soft, optimize=True)
  low, high = large.min((0, 1)), large.max((0, 1))
  scaled = np.where(high > 0, (large - low) / np.maximum(high - low, 1e-12), large)
  return scaled.argmax(-1)


def _linear(new: int, old: int) -> np.ndarray:
  """Weights of linear interpolation between the middles of cells, [new, old]; borders are repeated."""
  place = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
  return np.maximum(1 - np.abs(place[:, None] - np.arange(old)), 0)


def region(guess: np.ndarray, truth: np.ndarray) -> float:
  """J: intersection over union of two masks."""
  union = (guess | truth).sum()
  return float((guess & truth).sum() / union) if union else 1.0


def boundary(guess: np.ndarray, truth: np.ndarray) -> float:
  """F: harmonic mean of precision and recall of the boundaries' pixels."""
  from scipy import ndimage

  reach = math.ceil(BOUNDARY * np.linalg.norm(truth.shape))
  near = lambda outlined: ndimage.distance_transform_edt(~outlined) <= reach
  of_guess, of_truth = outline(guess), outline(truth)
  num_guess, num_truth = of_guess.sum(), of_truth.sum()
  if not num_guess or not num_truth:
    return float(num_guess == num_truth)
  precision = (of_guess & near(of_truth)).sum() / num_guess
  recall = (of_truth & near(of_guess)).sum() / num_truth
  return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def outline(mask: np.ndarray) -> np.ndarray:
  """Returns the pixels that differ from the next one to the right, below, or both."""
  padded = np.pad(mask.astype(bool), ((0, 1), (0, 1)), mode="edge")
  return (mask != padded[:-1, 1:]) | (mask != padded[1:, :-1]) | (mask != padded[1:, 1:])


PROTOCOL = Protocol(
    propagation, needs=("maps",),
    metrics={"j": Metric(True, "fraction"), "f": Metric(True, "fraction"), "jf": Metric(True, "fraction"),
             "pck": Metric(True, "fraction")})
