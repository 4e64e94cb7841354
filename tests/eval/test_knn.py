"""k nearest neighbors: votes by hand, scikit-learn's classifier, a perfect and a random embedding."""
import types

import numpy as np
import pytest
import scipy.sparse
from sklearn.neighbors import KNeighborsClassifier

from embeddings_jax.eval.knn import knn
from embeddings_jax.types import InputError


def dataset(labels, num_test):
  rows = np.arange(len(labels))
  return types.SimpleNamespace(name="set", items=rows, labels={"class": np.asarray(labels)},
                               split={"train": rows[:-num_test], "test": rows[-num_test:]})


def test_near_votes_count_more_by_hand():
  """One at cosine 1 against three at 0.8: e^(0.2 / 0.07) = 17 votes to 3; at 0.95 it would be 3 to 2.04."""
  for cosine, label in ((0.8, "a"), (0.95, "b")):
    near, far = [1, 0], [cosine, np.sqrt(1 - cosine ** 2)]
    vectors = np.array([near, far, far, far, near])
    actual = knn(lambda items, vectors=vectors: vectors[items], dataset(["a", "b", "b", "b", label], 1))
    assert actual["class/test/knn_accuracy"] == 1


def test_it_is_scikit_learns_classifier():
  noise = np.random.default_rng(0)
  label = noise.integers(0, 4, 600)
  vectors = noise.normal(size=(600, 6)) + 0.8 * np.eye(6)[label]
  unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
  expected = {}
  for name, k, temperature in (("knn", 20, 0.07), ("knn200", 200, 0.1)):
    reference = KNeighborsClassifier(k, metric="cosine", weights=lambda x, t=temperature: np.exp((1 - x) / t))
    expected[f"class/test/{name}_accuracy"] = reference.fit(unit[:400], label[:400]).score(unit[400:], label[400:])
  assert len(set(expected.values())) == 2
  for embed in (lambda items: vectors[items], lambda items: scipy.sparse.csr_array(vectors[items])):
    assert knn(embed, dataset(label, 200)) == pytest.approx(expected, abs=1e-9)


def test_k_and_temperature_decide_by_hand():
  """The nearest at cosine 1 is an a; of three the b's at 0.8 outvote it only where the temperature is high."""
  near, far = [1, 0], [0.8, 0.6]
  vectors = np.array([near, far, far, near])
  settings = {"one": (1, 1.0), "cold": (3, 0.07), "warm": (3, 1.0), "all": (99, 1.0)}
  actual = knn(lambda items: vectors[items], dataset(["a", "b", "b", "a"], 1), settings=settings)
  assert actual == {"class/test/one_accuracy": 1, "class/test/cold_accuracy": 1, "class/test/warm_accuracy": 0,
                    "class/test/all_accuracy": 0}


def test_perfect_and_random():
  label = np.random.default_rng(0).integers(0, 5, 1500)
  assert knn(lambda items: np.eye(5)[label[items]], dataset(label, 500)) == {
      "class/test/knn_accuracy": 1.0, "class/test/knn200_accuracy": 1.0}
  noise = np.random.default_rng(1).normal(size=(1500, 4))
  actual = knn(lambda items: noise[items], dataset(label, 500))
  assert actual["class/test/knn_accuracy"] == pytest.approx(0.2, abs=0.06)


def test_without_labels_it_is_refused():
  with pytest.raises(InputError, match="'set' has no labels"):
    knn(lambda items: items, types.SimpleNamespace(name="set", items=[0], labels={}, split={}))
