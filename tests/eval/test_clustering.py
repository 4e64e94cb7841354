"""Clustering: a case by hand, a perfect and a random embedding."""
import types

import numpy as np
import pytest
import scipy.sparse
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from embeddings_jax.eval.clustering import clustering


def dataset(labels):
  return types.SimpleNamespace(items=np.arange(len(labels)), labels={"class": np.asarray(labels)})


def one_hot(clusters):
  return lambda items: np.eye(max(clusters) + 1)[np.asarray(clusters)[items]]


def test_by_hand():
  """Clusters {a, a, b}, {b}: purity 3/4; ARI of the contingency table [[2, 0], [1, 1]] is 0."""
  actual = clustering(one_hot([0, 0, 0, 1]), dataset(["a", "a", "b", "b"]))
  assert actual["class/all/purity"] == 0.75
  assert actual["class/all/ari"] == pytest.approx(0.0, abs=1e-12)
  mutual = 0.5 * np.log(4 / 3) + 0.25 * np.log(2 / 3) + 0.25 * np.log(2)
  entropies = (np.log(2) + -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))) / 2
  assert actual["class/all/nmi"] == pytest.approx(mutual / entropies)


def test_perfect_and_random():
  labels = np.random.default_rng(0).integers(0, 5, 5000)
  assert set(clustering(one_hot((labels + 2) % 5), dataset(labels)).values()) == {1.0}
  actual = clustering(lambda items: np.random.default_rng(1).random((len(items), 5)), dataset(labels))
  assert abs(actual["class/all/ari"]) < 0.005 and actual["class/all/nmi"] < 0.01


def test_other_embeddings_are_clustered_by_direction():
  """Three directions at lengths that overlap; a zero vector is in some cluster, and sparse is as dense."""
  noise = np.random.default_rng(0)
  label = noise.integers(0, 3, 300)
  vectors = (np.eye(3)[label] + 0.1 * noise.normal(size=(300, 3))) * noise.lognormal(0, 2, (300, 1))
  vectors[0] = 0
  for table in (vectors, scipy.sparse.csr_array(vectors)):
    actual = clustering(lambda items, table=table: table, dataset(label))
    assert actual["class/all/purity"] > 0.99 and actual["class/all/ari"] > 0.97
  noise = noise.normal(size=(300, 3))
  assert abs(clustering(lambda items: noise, dataset(label))["class/all/ari"]) < 0.05


def test_metrics_are_means_over_seeds_of_their_own():
  random = np.random.default_rng(0)
  label, vectors = random.integers(0, 4, 60), random.normal(size=(60, 5))
  actual = clustering(lambda items: vectors, dataset(label), seed=3)
  unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
  runs = [adjusted_rand_score(label, KMeans(4, n_init=5, random_state=seed).fit_predict(unit))
          for seed in range(15, 20)]
  assert actual["class/all/ari"] == pytest.approx(np.mean(runs), abs=1e-6)
  assert actual["class/all/ari/std"] == pytest.approx(np.std(runs, ddof=1), abs=1e-6) and np.std(runs) > 0
  assert set(actual) == {f"class/all/{key}{end}" for key in ("nmi", "ari", "purity") for end in ("", "/std")}


def test_without_labels_there_is_nothing_to_say():
  assert clustering(one_hot([0]), types.SimpleNamespace(items=np.arange(1), labels={})) == {}
