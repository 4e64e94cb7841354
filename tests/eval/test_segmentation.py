"""Clusters of places: the matching by hand, perfect and useless features."""
import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.video import Clips
from embeddings_jax.eval import segmentation as module
from embeddings_jax.eval.segmentation import segmentation
from embeddings_jax.types import InputError


def made(kinds=True):
  """Two clips with a digit and a patch each."""
  masks = np.zeros((8, 6, 6), np.uint8)
  masks[:, :2, :3] = 1
  masks[:, 4:, 2:] = 2
  masks[4:] = masks[4:, ::-1]
  frames = np.full((8, 6, 6, 3), 9, np.uint8)
  beside = {"masks": masks} | ({"kinds": np.tile(np.array([1, 2], np.uint8), (8, 1))} if kinds else {})
  return Dataset("made", "video", Clips(frames, [4, 4], beside)), masks


def test_matching_is_one_to_one_for_the_whole_set():
  """Clusters 1, 0, 2 for classes 0, 1, 2 with one pixel of class 2 in cluster 0."""
  truth = np.array([[[0, 0, 0, 1, 1, 2, 2, 2]]])
  guess = np.array([[[1, 1, 1, 0, 0, 2, 2, 0]]])
  actual = module.matched(guess, truth, 3)
  assert actual == {"miou": pytest.approx((1 + 2 / 3 + 2 / 3) / 3), "pixel_accuracy": 7 / 8}
  renamed = np.array([1, 0, 2])[guess]
  assert actual["miou"] == pytest.approx(jaccard_score(truth.ravel(), renamed.ravel(), average="macro"))
  assert module.enlarged(np.array([[[0, 1], [2, 3]]]), 4, 6)[0, :, ::3].tolist() == [[0, 1]] * 2 + [[2, 3]] * 2


def test_perfect_features_and_baselines():
  dataset, masks = made()
  perfect = lambda frames: {"first": np.ones((len(frames), 3, 3, 2)), "last": np.eye(3)[masks]}
  actual = segmentation(None, dataset, maps=perfect)
  assert actual["last-6x6/all/miou"] == actual["last-6x6/all/pixel_accuracy"] == 1
  background = (masks == 0).mean()
  assert actual["background/last-6x6/all/miou"] == pytest.approx(background / 3)
  assert actual["pixels/last-6x6/all/pixel_accuracy"] == pytest.approx(background)  # All pixels are alike.
  constant = segmentation(None, dataset, maps=perfect, layer="first")
  assert constant["first-3x3/all/miou"] == pytest.approx(background / 3)


def test_without_kinds_objects_are_one_class():
  dataset, masks = made(kinds=False)
  maps = lambda frames: {"last": np.eye(2)[(masks > 0).astype(int)]}
  assert segmentation(None, dataset, maps=maps)["last-6x6/all/miou"] == 1
  with pytest.raises(InputError, match="segmentation: x has no masks of clips"):
    segmentation(None, Dataset("x", "video", Clips(np.zeros((3, 4, 4, 3), np.uint8), [3])), maps=dict)
