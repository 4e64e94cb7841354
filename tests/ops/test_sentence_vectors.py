"""Sentence vectors against NumPy and scikit-learn, sentence by sentence."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer

from embeddings_jax.ops import sentence_vectors as sv

SENTENCES = [[0, 3, 3, 1], [], [4], [2, 0, 1, 4, 5, 0, 1], [5, 5]]
COUNTS = np.array([50, 30, 10, 5, 4, 1])


@pytest.fixture(scope="module")
def table():
  return np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def device(table):
  return jnp.asarray(table)


def padded(length=7):
  tokens = np.full((len(SENTENCES), length), -1, np.int32)
  for row, sentence in zip(tokens, SENTENCES):
    row[:len(sentence)] = sentence
  return jnp.asarray(tokens)


def by_hand(table, weights):
  return np.stack([sum((weights[w] * table[w] for w in s), np.zeros(4)) / max(len(s), 1) for s in SENTENCES])


def test_means(table, device):
  np.testing.assert_allclose(sv.mean(device, padded()), by_hand(table, np.ones(6)), rtol=1e-5, atol=1e-6)
  idf = np.log(5 / np.array([2, 2, 1, 1, 2, 2]))
  frequency = sv.document_frequency(padded(), 6)
  assert frequency.tolist() == [2, 2, 1, 1, 2, 2]
  np.testing.assert_allclose(sv.idf_weights(frequency, 5), idf, rtol=1e-5)
  np.testing.assert_allclose(sv.mean(device, padded(), jnp.asarray(idf)), by_hand(table, idf), rtol=1e-5, atol=1e-6)
  assert sv.idf_weights(jnp.array([0, 5]), 5).tolist() == pytest.approx([np.log(5), 0])


def test_idf_equals_scikit_learn():
  counts = np.array([[s.count(w) for w in range(6)] for s in SENTENCES])
  theirs = TfidfTransformer(smooth_idf=False, norm=None).fit(counts).idf_ - 1  # Its idf is log(n / df) + 1.
  np.testing.assert_allclose(sv.idf_weights(sv.document_frequency(padded(), 6), 5), theirs, rtol=1e-5)


def test_sif_equals_the_published_recipe(table, device):
  weights = 1e-2 / (1e-2 + COUNTS / 100)
  vectors = by_hand(table, weights)
  component = TruncatedSVD(1, algorithm="arpack").fit(vectors).components_[0]
  expected = vectors - np.outer(vectors @ component, component)
  np.testing.assert_allclose(sv.sif(device, padded(), jnp.asarray(COUNTS), 1e-2), expected, rtol=1e-4, atol=1e-6)
  assert sv.sif_weights(jnp.array([0, 999])).tolist() == pytest.approx([1, 1e-3 / 1.001])


def test_a_removed_component_is_gone_and_the_rest_is_kept():
  vectors = np.random.default_rng(1).normal(size=(20, 5)).astype(np.float32) + 3
  vectors = jnp.asarray(vectors)
  u = sv.first_component(vectors)
  assert float(jnp.linalg.norm(u)) == pytest.approx(1, abs=1e-5) and float((vectors @ u).sum()) > 0
  left = sv.remove_component(vectors, u)
  np.testing.assert_allclose(left @ u, 0, atol=1e-5)
  np.testing.assert_allclose(np.linalg.svd(left)[1][:4], np.linalg.svd(vectors)[1][1:], rtol=1e-4)


def test_concatenation_is_cut_and_filled(table, device):
  actual = sv.concatenation(device, padded(), 3)
  expected = [np.concatenate([*(table[w] for w in s[:3]), np.zeros(4 * max(0, 3 - len(s)))]) for s in SENTENCES]
  np.testing.assert_array_equal(actual, np.stack(expected).astype(np.float32))
  assert sv.concatenation(device, padded(), 9).shape == (5, 36)
  np.testing.assert_array_equal(sv.concatenation(device, padded(), 9)[:, 28:], 0)


def test_components_span_what_svd_finds(table, device):
  actual = np.asarray(sv.components(device, padded(), 3)).reshape(5, 3, 4)
  for sentence, rows in zip(SENTENCES, actual):
    words = table[sentence]
    if len(sentence) == 0:
      assert not rows.any()
      continue
    _, _, directions = np.linalg.svd(words, full_matrices=False)
    rank = len(set(sentence))
    for k in range(3):
      if k >= rank:
        assert not rows[k].any()
      else:
        expected = directions[k] * np.sign((words @ directions[k]).sum())
        np.testing.assert_allclose(rows[k], expected, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "sif", "components"])
def test_padding_changes_nothing_and_gets_no_gradient(device, pooling):
  function = {"mean": lambda t, x: sv.mean(t, x), "sif": lambda t, x: sv.sif(t, x, jnp.asarray(COUNTS)),
              "components": lambda t, x: sv.components(t, x, 2)}[pooling]
  np.testing.assert_allclose(function(device, padded(7)), function(device, padded(12)), atol=1e-6)
  if pooling == "mean":  # Neither the last row, at which -1 points in NumPy, nor any other is touched.
    tokens = jnp.array([[0, -1, -1]])
    gradient = jax.grad(lambda t: function(t, tokens).sum())(device)
    assert gradient[0].tolist() == [1] * 4 and not gradient[1:].any()
