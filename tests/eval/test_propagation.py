"""Masks carried through clips: J and F by hand, perfect and useless features, and the protocol's steps."""
import numpy as np
import pytest
from scipy import ndimage

from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.video import Clips
from embeddings_jax.eval import propagation as module
from embeddings_jax.eval.propagation import boundary, propagated, propagation, region
from embeddings_jax.types import InputError

NAME = "radius12-context7-top5-t0.1-16x16-last-16x16/all"


def square(row, column, size=4, shape=(16, 16)):
  mask = np.zeros(shape, bool)
  mask[row:row + size, column:column + size] = True
  return mask


def moving_squares(speed=2, frames=6):
  """Two squares on rows of their own; a place's feature, one of three directions, says what it is."""
  masks = np.stack([np.where(square(1, 1 + speed * t), 1, 0) + np.where(square(9, 11 - speed * t), 2, 0)
                    for t in range(frames)]).astype(np.uint8)
  pictures = np.repeat((60 + 60 * masks[..., None]).astype(np.uint8), 3, -1)
  tracks = np.stack([[[2.5, 2.5 + speed * t], [10.5, 12.5 - speed * t]] for t in range(frames)]).astype(np.float32)
  return Dataset("squares", "video", Clips(pictures, [frames], {"masks": masks, "tracks": tracks}))


def test_j_and_f_by_hand():
  one, other = square(2, 2), square(2, 4)
  assert region(one, other) == 8 / 24 and region(one, one) == boundary(one, one) == 1
  nothing = np.zeros((16, 16), bool)
  assert region(nothing, nothing) == boundary(nothing, nothing) == 1
  assert region(one, nothing) == boundary(one, nothing) == boundary(nothing, one) == 0
  # The outline lies on rows 1 ... 5 and columns 1 ... 5: pixels left of or above an edge, 16 in all.
  outline = np.argwhere(module.outline(one))
  assert len(outline) == 16 and outline.min() == 1 and outline.max() == 5
  # A shift of one pixel lies within the tolerance of ceil(.008 * 22.6) = 1 pixel, of two it does not: of the 16
  # pixels of the outline the 4 of the side that was passed and those of the corners' reach are missed.
  assert boundary(one, square(2, 3)) == 1 and 0.5 < boundary(one, other) < 1
  assert boundary(one, square(9, 9)) == 0


def test_perfect_features_carry_masks_and_points():
  dataset = moving_squares()
  kinds = np.eye(3)
  maps = lambda frames: {"first": np.ones((len(frames), 4, 4, 2)), "last": kinds[frames[..., 0] // 60 - 1]}
  actual = propagation(None, dataset, maps=maps)
  assert {key: actual[f"{NAME}/{key}"] for key in ("j", "f", "jf")} == {"j": 1, "f": 1, "jf": 1}
  assert actual[f"first_mask/{NAME}/j"] < 0.3 and actual[f"first_mask/{NAME}/f"] < 0.7
  assert actual[f"pixels/{NAME}/j"] < 0.6  # Gray values of one sign have one direction.
  constant = propagation(None, dataset, maps=maps, layer="first")
  name = "radius12-context7-top5-t0.1-16x16-first-4x4/all"
  assert constant[f"{name}/j"] < 0.3 and constant[f"first_mask/{name}/j"] == actual[f"first_mask/{NAME}/j"]
  with pytest.raises(InputError, match="layer='none': must be one of first, last"):
    propagation(None, dataset, maps=maps, layer="none")


def test_points_are_followed_where_they_are_visible():
  dataset = moving_squares(speed=1)
  codes = np.random.default_rng(0).normal(size=(2, 4, 4, 8))
  features = np.zeros((6, 16, 16, 9))
  features[..., 8] = 1
  for t in range(6):
    features[t, 1:5, 1 + t:5 + t, :8] = codes[0]
    features[t, 9:13, 11 - t:15 - t, :8] = codes[1]
  maps = lambda frames: {"last": features}
  assert propagation(None, dataset, maps=maps, top_k=1)[f"{NAME.replace('top5', 'top1')}/pck"] == 1
  hidden = dataset._replace(items=Clips(dataset.items.frames, [6], {
      "masks": dataset.items.beside["masks"], "tracks": np.zeros((6, 2, 2), np.float32)}))
  assert not [key for key in propagation(None, hidden, maps=maps) if key.endswith("pck")]
  still = propagation(None, dataset, maps=maps)[f"first_mask/{NAME}/pck"]
  assert still == 1 / 4  # Within 1.6 pixels in frame 1 of frames 1 ... 4.


def test_a_step_is_the_protocol_written_out():
  """All pairs of places at once, as DINO's program does it."""
  rng = np.random.default_rng(1)
  features, labels = rng.normal(size=(4, 5, 6, 3)), rng.random((5, 6, 2))
  actual = propagated(features, labels, radius=2, context=1, top_k=3, temperature=0.5)
  unit = features / np.linalg.norm(features, axis=-1, keepdims=True)
  places = np.stack(np.meshgrid(np.arange(5), np.arange(6), indexing="ij"), -1).reshape(-1, 2)
  near = (np.abs(places[:, None] - places) <= 2).all(-1)
  soft = [labels.reshape(30, 2)]
  for t in (1, 2, 3):
    sources = [0, t - 1] if t > 1 else [0]
    weights = np.concatenate([np.where(near, np.exp(unit[t].reshape(30, 3) @ unit[s].reshape(30, 3).T / 0.5), 0)
                              for s in sources], 1)
    weights = np.where(weights >= np.sort(weights, 1)[:, -3:][:, :1], weights, 0)
    soft.append(weights / weights.sum(1, keepdims=True) @ np.concatenate([soft[s] for s in sources]))
  for one, other in zip(actual, soft):
    np.testing.assert_allclose(one.reshape(30, 2), other, rtol=1e-4, atol=1e-6)


def test_labels_are_enlarged_linearly_and_scaled():
  soft = np.random.default_rng(2).random((4, 5, 3)).astype(np.float32)
  large = ndimage.zoom(soft, (4, 3, 1), order=1, mode="nearest", grid_mode=True)
  low, high = large.min((0, 1)), large.max((0, 1))
  np.testing.assert_array_equal(module.winner(soft, (16, 15)), ((large - low) / (high - low)).argmax(-1))


def test_a_set_without_masks_is_named():
  with pytest.raises(InputError, match="propagation: x has no masks of clips; moving-digits has"):
    propagation(None, Dataset("x", "video", Clips(np.zeros((3, 4, 4, 3), np.uint8), [3])), maps=dict)
  blank = Clips(np.zeros((3, 4, 4, 3), np.uint8), [3], {"masks": np.zeros((3, 4, 4), np.uint8)})
  with pytest.raises(InputError, match="no clip of x has three frames and an object in the first one"):
    propagation(None, Dataset("x", "video", blank), maps=dict)
