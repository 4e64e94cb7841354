"""CorLoc of boxes from maps."""
from types import SimpleNamespace

import numpy as np
import pytest

from embeddings_jax.data.boxes import Boxes
from embeddings_jax.eval.localization import activation_box, box_around, center_box, corloc, localization, lost_box
from embeddings_jax.types import InputError


def planted(number=12):
  """Images of 16 x 16 with one bright object of 8 x 8 at a multiple of 2, and its box."""
  rng = np.random.default_rng(0)
  images, corners = rng.integers(0, 30, (number, 16, 16, 1)).astype(np.uint8), []
  for image in images:
    top, left = 2 * rng.integers(0, 5, 2)
    image[top:top + 8, left:left + 8] = 250
    corners.append([top, left, top + 8, left + 8])
  zeros = np.zeros(number, int)
  boxes = Boxes(np.array(corners, np.float32), np.arange(number), zeros, zeros > 0, ["a"])
  return SimpleNamespace(name="planted", items=images, split={"train": np.arange(6), "test": np.arange(6, number)},
                         boxes=boxes)


def cells(images):
  """Maps of 8 x 8 cells: brightness, and darkness in the direction of the background."""
  mean = images.reshape(len(images), 8, 2, 8, 2, -1).mean((2, 4, 5)) / 255
  return {"last": np.stack([mean, 0.2 * (1 - mean)], -1)}


@pytest.mark.parametrize("method", ["activation", "lost"])
def test_a_bright_object_is_found(method):
  dataset = planted()
  actual = localization(None, dataset, maps=cells, shape=(16, 16, 1))
  assert actual[f"last-8x8/{method}/test/corloc"] == 1 and actual["center/test/corloc"] < 1
  noise = lambda images: {"last": np.random.default_rng(0).normal(size=(len(images), 8, 8, 3))}
  assert localization(None, dataset, maps=noise, shape=(16, 16, 1))[f"last-8x8/{method}/test/corloc"] < 0.5


def test_boxes_by_hand():
  mask = np.array([[1, 1, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]], bool)
  assert box_around(mask, (0, 1)).tolist() == [0, 0, 0.5, 0.5]
  assert box_around(mask, (0, 3)).tolist() == [0, 0.75, 0.5, 1]
  assert box_around(mask, (2, 2)).tolist() == [0.5, 0.5, 0.75, 0.75]
  features = np.full((4, 4, 1), 0.1)
  features[1:3, 2] = 2
  assert activation_box(features).tolist() == [0.25, 0.5, 0.75, 0.75] == lost_box(features).tolist()
  assert center_box(planted()).tolist() == [0.25, 0.25, 0.75, 0.75]


def test_corloc_counts_any_true_box():
  found = np.array([[0, 0, 1, 1], [0, 0, 0.5, 0.5], [0, 0, 0.1, 0.1]])
  truth = [np.array([[0, 0, 1, 0.5]]), np.array([[0.5, 0.5, 1, 1], [0, 0, 0.5, 0.4]]), np.zeros((0, 4))]
  assert corloc(found, truth) == 1  # The first overlaps by exactly .5; the last image has none.
  assert corloc(found, [truth[0] * 0.9, truth[1][:1], truth[2]]) == 0


def test_mistakes_are_named():
  dataset = planted()
  with pytest.raises(InputError, match="layer='block_9': must be one of last"):
    localization(None, dataset, maps=cells, shape=(16, 16, 1), layer="block_9")
  with pytest.raises(InputError, match="planted has no boxes"):
    localization(None, SimpleNamespace(**{**vars(dataset), "boxes": None}), maps=cells, shape=(16, 16, 1))
