"""Similarity of two images."""
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from embeddings_jax.eval.image_similarity import image_similarity, pairs_of
from embeddings_jax.types import InputError


def test_pairs_are_the_same_or_not():
  labels = np.array(list("abacba"))  # One class has one member, which has no partner of its own.
  one, other, same = pairs_of(labels, 20, seed=0)
  assert (one != other).all() and ((labels[one] == labels[other]) == same).all()
  assert same.tolist() == [True] * 20 + [False] * 20 and 3 in [*one, *other]
  with pytest.raises(InputError, match="there must be two classes"):
    pairs_of(np.zeros(4), 2, seed=0)
  with pytest.raises(InputError, match="two images of one of them"):
    pairs_of(np.arange(4), 2, seed=0)


def test_the_area_is_scikit_learns():
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 3, 60)
  vectors = np.eye(3)[labels] + rng.normal(size=(60, 3))
  data = SimpleNamespace(items=np.arange(60), labels={"class": labels}, split={"test": np.arange(20, 60)})
  actual = image_similarity(lambda items: vectors[items], data, num_pairs=50)
  one, other, same = pairs_of(labels[20:], 50, 0)
  unit = vectors[20:] / np.linalg.norm(vectors[20:], axis=1)[:, None]
  assert actual == {"class/test/similarity_auc": pytest.approx(roc_auc_score(same, (unit[one] * unit[other]).sum(1)))}
  assert image_similarity(lambda items: np.eye(3)[labels[items]], data)["class/test/similarity_auc"] == 1
