"""Localization without a detector: one box of each image from a layer's maps, without any training.

Protocol. Images, at the network's size, are those of the test split, the first `max_images` of them. A map of
saliency becomes a box: of the places whose saliency is above a threshold, those that are connected with a seed, and
the smallest box around them. CorLoc is the share of images whose box overlaps a true box, of any class, by an IoU of
.5 (Deselaers et al. 2010; difficult boxes do not count).

  activation   saliency A_p · mean(A), the class activation map of the image's own embedding; seed: its maximum;
               threshold: the middle between the map's mean and its maximum
  lost         LOST (Siméoni et al. 2021, arXiv:2109.14279): with A_p less the image's mean, the seed is the place
               that correlates positively with the fewest others; of the `NEAREST` share of such places those that
               correlate with the seed are its friends; saliency is the sum of the scalar products with them, the
               threshold 0
  center       a box in the middle, with the mean height and width of the training split's boxes, the baseline

Metrics: `{layer}-{h}x{w}/{method}/{split}/corloc`; of the center `center/{split}/corloc`.
"""
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from embeddings_jax.data.boxes import overlaps
from embeddings_jax.eval.detection import warped
from embeddings_jax.types import InputError, Metric, Protocol

RIGHT = 0.5
NEAREST = 0.5


def localization(
    embed: Any,
    dataset: Any,
    *,
    maps: Callable[..., Mapping[str, np.ndarray]],
    shape: Sequence[int],
    layer: str = "",
    max_images: int = 256,
    seed: int = 0,
) -> dict[str, float]:
  """CorLoc of boxes from the maps of a layer.

  Args:
    embed: Not used.
    dataset: Images with `boxes`.
    maps: uint8 images [n, *shape] -> name -> [n, rows, columns, dim].
    shape: Height, width and channels of the network's images.
    layer: Name of the layer; "" for the last.
    max_images: Most images.
    seed: Not used.

  Raises:
    InputError: There are no boxes, or there is no such layer.
  """
  del embed, seed
  if dataset.boxes is None:
    raise InputError(f"localization: {dataset.name} has no boxes; pasted-digits and folders of PASCAL VOC have")
  every = np.arange(len(dataset.items))
  part = "test" if "test" in dataset.split else "all"
  rows = [int(i) for i in np.asarray(dataset.split.get("test", every))[:max_images]]
  images, truth = [], []
  for i in rows:
    image, own = np.asarray(dataset.items[i]), dataset.boxes.of(i)
    sides = np.tile(image.shape[:2], 2)
    images.append(warped(image, np.array([[0.0, 0.0, *image.shape[:2]]]), shape, 0.0)[0])
    truth.append(own.corners[~own.difficult] / sides)  # Of the image's sides.
  by_layer = maps(np.stack(images))
  if layer and layer not in by_layer:
    raise InputError(f"layer={layer!r}: must be one of {', '.join(by_layer)}")
  layer = layer or list(by_layer)[-1]
  features = np.asarray(by_layer[layer], np.float64)
  height, width = features.shape[1:3]
  boxes = {f"{layer}-{height}x{width}/activation": [activation_box(one) for one in features],
           f"{layer}-{height}x{width}/lost": [lost_box(one) for one in features],
           "center": [center_box(dataset)] * len(rows)}
  return {f"{name}/{part}/corloc": corloc(np.array(proposed), truth) for name, proposed in boxes.items()}


def corloc(proposed: np.ndarray, truth: Sequence[np.ndarray]) -> float:
  """Returns the share of images [n, 4] whose box overlaps one of its true boxes by `RIGHT`; images without any are
  left out."""
  hits = [overlaps(box[None], own).max() >= RIGHT for box, own in zip(proposed, truth) if len(own)]
  if not hits:
    raise InputError("localization: no image has a true box that is not difficult")
  return float(np.mean(hits))


def activation_box(features: np.ndarray) -> np.ndarray:
  """Returns the box of the class activation map of an image's own embedding, see above; features [h, w, dim]."""
  saliency = features @ features.mean((0, 1))
  return box_around(saliency > (saliency.mean() + saliency.max()) / 2, np.unravel_index(saliency.argmax(),
                                                                                       saliency.shape))


def lost_box(features: np.ndarray) -> np.ndarray:
  """Returns the box of LOST, see above; features [h, w, dim]."""
  height, width, dim = features.shape
  rows = features.reshape(-1, dim) - features.mean((0, 1))
  similar = rows @ rows.T
  degree = (similar > 0).sum(1)
  order = np.argsort(degree, kind="stable")
  first = order[0]
  near = order[:max(1, int(NEAREST * len(order)))]
  friends = near[similar[first, near] > 0]
  friends = friends if len(friends) else np.array([first])
  return box_around((similar[:, friends].sum(1) > 0).reshape(height, width), np.unravel_index(first, (height, width)))


def box_around(mask: np.ndarray, seed: tuple[Any, ...]) -> np.ndarray:
  """Returns the box around what is connected with a place, which counts as marked, in shares of the sides."""
  from scipy.ndimage import label

  mask = mask.copy()
  mask[seed] = True
  numbers, _ = label(mask)
  rows, columns = np.nonzero(numbers == numbers[seed])
  return np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]) / np.tile(mask.shape, 2)


def center_box(dataset: Any) -> np.ndarray:
  """Returns the box in the middle with the mean size of the training split's boxes, in shares of the sides."""
  rows = np.asarray(dataset.split.get("train", np.arange(len(dataset.items))))
  sizes = []
  for row in rows[:256]:
    corners = dataset.boxes.of(int(row)).corners
    if len(corners):
      sizes.append((corners[:, 2:] - corners[:, :2]) / np.asarray(dataset.items[int(row)]).shape[:2])
  size = np.concatenate(sizes).mean(0) if sizes else np.full(2, 0.5)
  return np.concatenate([0.5 - size / 2, 0.5 + size / 2])


PROTOCOL = Protocol(localization, needs=("maps", "image_shape"), default="pasted-digits",
                    metrics={"corloc": Metric(True, "fraction")})
