"""Figures of words: what they show is what was computed."""
from types import SimpleNamespace

import numpy as np
import pytest
from etils import epath
from sklearn.decomposition import PCA

from experiments import figures

PAIRS = [pair.split() for pair in figures.RELATIONS["man and woman"]]


@pytest.fixture
def plt():
  import matplotlib

  matplotlib.use("Agg")
  from matplotlib import pyplot

  yield pyplot
  pyplot.close("all")


@pytest.mark.parametrize("shape", [(12, 5), (6, 1), (1, 3)])
def test_the_plane_is_that_of_the_principal_components(shape):
  points = np.random.default_rng(0).normal(size=shape)
  places, share = figures._principal_plane(points)
  assert places.shape == (shape[0], 2)
  if min(shape) > 1:
    pca = PCA(2).fit(points)
    np.testing.assert_allclose(np.abs(places), np.abs(pca.transform(points)), atol=1e-10)
    assert share == pytest.approx(pca.explained_variance_ratio_.sum())


def test_words_have_two_maps_and_the_first_relation_with_three_known_pairs(tmp_path):
  words = [word for pair in PAIRS[:4] for word in pair] + ["Paris", "france", "king's"]
  vectors = np.random.default_rng(0).normal(size=(len(words), 6))
  drawn = figures.draw(epath.Path(tmp_path), SimpleNamespace(outputs={}), None,
                       SimpleNamespace(encoder=SimpleNamespace(kind="words", names=words)), vectors, words,
                       evals=("word_similarity:men", "analogies"), data_dir=str(tmp_path))
  assert drawn == ["figures/words.png", "figures/words_pca.png", "figures/analogy.png"]  # There is no MEN.
  assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in drawn)


def test_the_parallelogram_names_all_its_words(plt):
  noise = np.random.default_rng(1)
  first = noise.normal(size=(4, 1, 8))
  pairs = first + np.stack([np.zeros(8), 3 * noise.normal(size=8)])
  pairs /= np.linalg.norm(pairs, axis=2, keepdims=True)
  figure = figures._parallelograms(plt, pairs, PAIRS[:4], "man and woman")
  axes = figure.axes[0]
  assert sorted(text.get_text() for text in axes.texts if text.get_text()) == sorted(sum(PAIRS[:4], []))
  assert axes.get_title().startswith("Man and woman (PCA")


@pytest.mark.data
def test_the_scatter_bears_the_correlation(plt):
  from embeddings_jax.data import wordsets

  pairs = wordsets.word_similarity("mc30")
  words = sorted({word for pair in pairs for word in pair[:2]})
  row = {word: i for i, word in enumerate(words)}
  vectors = np.random.default_rng(0).normal(size=(len(words), 4))
  figure = figures._similarity_scatter(plt, vectors, row, "mc30", None)
  cosine, rating = np.array([[vectors[row[a]] @ vectors[row[b]] / np.linalg.norm(vectors[row[a]])
                              / np.linalg.norm(vectors[row[b]]), score] for a, b, score in pairs]).T
  np.testing.assert_allclose(figure.axes[0].collections[0].get_offsets(), np.stack([rating, cosine], 1))
  from scipy.stats import spearmanr
  assert figure.axes[0].get_title() == f"mc30: 30 of 30 pairs, Spearman {spearmanr(rating, cosine)[0]:.3f}"
