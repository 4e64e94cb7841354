"""Figures of words: what they show is what was computed."""
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from sklearn.decomposition import PCA

from embeddings_jax import extensions, figures
from embeddings_jax.data.graphs import read
from embeddings_jax.figures import components, documents, graphs, pictures, sweeps, training, words
from embeddings_jax.runs.evaluation import Evaluator
from embeddings_jax.types import Model

PAIRS = [pair.split() for pair in words.RELATIONS["man and woman"]]


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
  places, share = words.principal_plane(points)
  assert places.shape == (shape[0], 2)
  if min(shape) > 1:
    pca = PCA(2).fit(points)
    np.testing.assert_allclose(np.abs(places), np.abs(pca.transform(points)), atol=1e-10)
    assert share == pytest.approx(pca.explained_variance_ratio_.sum())


def test_words_have_two_maps_and_the_first_relation_with_three_known_pairs(tmp_path):
  names = [word for pair in PAIRS[:4] for word in pair] + ["Paris", "france", "king's"]
  vectors = np.random.default_rng(0).normal(size=(len(names), 6))
  encoder = SimpleNamespace(names=names, adapt=lambda dataset, cache_dir: dataset)
  evaluator = Evaluator(None, None, encoder, embed=lambda items: vectors, data_dir=str(tmp_path))
  drawn = figures.draw(epath.Path(tmp_path), figures.Drawing(
      evaluator, vectors=vectors, metrics={"men/pairs": 3.0}, evals=("word_similarity:men", "analogies")))
  assert drawn == ["figures/words.png", "figures/words_pca.png", "figures/analogy.png"]  # There is no MEN.
  assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in drawn)


def test_the_parallelogram_names_all_its_words(plt):
  noise = np.random.default_rng(1)
  first = noise.normal(size=(4, 1, 8))
  pairs = first + np.stack([np.zeros(8), 3 * noise.normal(size=8)])
  pairs /= np.linalg.norm(pairs, axis=2, keepdims=True)
  figure = words.parallelograms(plt, pairs, PAIRS[:4], "man and woman")
  axes = figure.axes[0]
  assert sorted(text.get_text() for text in axes.texts if text.get_text()) == sorted(sum(PAIRS[:4], []))
  assert axes.get_title().startswith("Man and woman (PCA")


def test_hidden_patches_are_three_rows_of_pictures(plt):
  shown = {name: np.random.default_rng(i).random((4, 6, 8, 3)).astype(np.float32)
           for i, name in enumerate(("original", "masked", "reconstructed"))}
  figure = pictures.reconstructions(plt, shown | {"mask": np.repeat([[1, 1, 1, 0]], 4, 0)})
  assert figure.get_suptitle() == "75% of the patches hidden, and filled in"
  assert len(figure.axes) == 12
  for place, picture in zip(figure.axes, np.concatenate(list(shown.values()))):
    np.testing.assert_array_equal(place.images[0].get_array(), picture)
  assert [figure.axes[row].get_ylabel() for row in (0, 4, 8)] == list(shown)


@pytest.mark.data
def test_the_scatter_bears_the_correlation(plt):
  from embeddings_jax.data import wordsets

  pairs = wordsets.word_similarity("mc30")
  row = {word: i for i, word in enumerate(sorted({word for pair in pairs for word in pair[:2]}))}
  vectors = np.random.default_rng(0).normal(size=(len(row), 4))
  figure = words.similarity_scatter(plt, vectors, row, "mc30", None)
  cosine, rating = np.array([[vectors[row[a]] @ vectors[row[b]] / np.linalg.norm(vectors[row[a]])
                              / np.linalg.norm(vectors[row[b]]), score] for a, b, score in pairs]).T
  np.testing.assert_allclose(figure.axes[0].collections[0].get_offsets(), np.stack([rating, cosine], 1))
  from scipy.stats import spearmanr
  assert figure.axes[0].get_title() == f"mc30: 30 of 30 pairs, Spearman {spearmanr(rating, cosine)[0]:.3f}"


def test_topics_are_drawn_by_their_weight_with_their_best_words(plt):
  beta = np.array([[0.7, 0.2, 0.1, 0], [0, 0.1, 0.3, 0.6]])
  figure = documents.topics(plt, beta, np.array([0.25, 0.75]), ["a", "b", "c", "d"])
  first, second = figure.axes
  assert first.get_title() == "topic 1: 75.0% of the words" and second.get_title() == "topic 0: 25.0% of the words"
  assert [label.get_text() for label in first.get_yticklabels()] == ["d", "c", "b", "a"]
  np.testing.assert_allclose([bar.get_width() for bar in first.patches], [0.6, 0.3, 0.1, 0])


def test_documents_are_colored_by_group_and_those_without_words_left_out(plt):
  noise = np.random.default_rng(0)
  group = np.repeat(["x", "y"], 15)
  vectors = np.where(group[:, None] == "x", [0.9, 0.1], [0.1, 0.9]) + 0.05 * noise.random((30, 2))
  vectors[3] = 0.5
  figure = documents.document_map(plt, vectors, "kind", group)
  axes = figure.axes[0]
  assert [len(part.get_offsets()) for part in axes.collections] == [14, 15]
  assert axes.get_title() == "29 documents by kind (t-SNE of cosine distances)"
  x, y = (part.get_offsets() for part in axes.collections)
  middle = np.linalg.norm(x.mean(0) - y.mean(0))
  assert middle > np.linalg.norm(x - x.mean(0), axis=1).mean()  # The groups stand apart.


def test_components_and_reconstructions_are_pictures(plt):
  """With all components the last reconstruction is the image; rows that were standardized are pixels again."""
  from embeddings_jax.data import catalog
  from embeddings_jax.data.encoders.rows import RowEncoder

  dataset = catalog.load("digits")
  encoder = RowEncoder.standardizing(dataset.items)
  x = encoder.encode(dataset.items)["x"]
  pca = PCA(64).fit(x)
  parts = {"mean": pca.mean_, "components": pca.components_, "explained_variance": pca.explained_variance_,
           "explained_variance_ratio": pca.explained_variance_ratio_}
  data = SimpleNamespace(encoder=encoder, dataset=dataset)
  made = components.principal_components(plt, parts, data)
  assert set(made) == {"explained_variance", "components", "reconstructions"}
  np.testing.assert_allclose(made["explained_variance"].axes[0].lines[0].get_ydata()[-1], 1, atol=1e-5)
  pictures = [axes.images[0].get_array() for axes in made["reconstructions"].axes]
  rows = np.array(pictures).reshape(10, -1, 8, 8)
  assert rows.shape[1] == 9  # The mean, k = 1, 2, 4, ..., 32, 64, and the image.
  np.testing.assert_allclose(rows[:, -2], rows[:, -1], atol=1e-4)
  three = dataset.items[np.flatnonzero(dataset.labels["class"] == 3)[0]]
  np.testing.assert_allclose(rows[3, -1], three.reshape(8, 8), atol=1e-5)
  errors = np.abs(rows - rows[:, -1:]).mean((0, 2, 3))
  assert np.all(np.diff(errors[:-1]) < 0)


def test_points_are_tied_to_the_line(plt):
  rng = np.random.default_rng(0)
  x = (rng.normal(size=(50, 1)) * [3, 1] + 0.2 * rng.normal(size=(50, 2)) + 5).astype(np.float32)
  pca = PCA(1).fit(x)
  parts = {"mean": pca.mean_, "components": pca.components_, "explained_variance": pca.explained_variance_}
  figure = components.line_and_plane(plt, parts, x, SimpleNamespace(labels={}, columns=None))
  ties = figure.axes[0].lines[0].get_xydata().reshape(-1, 3, 2)
  np.testing.assert_allclose(ties[:, 0], x, atol=1e-6)
  np.testing.assert_allclose(ties[:, 1], pca.inverse_transform(pca.transform(x)), atol=1e-4)


def test_cosines_against_scores(plt, tmp_path):
  score, cosine = np.array([0, 0.4, 2, 5, 5]), np.array([0.1, 0.3, 0.2, 0.7, 0.9])
  axes = words.score_scatter(plt, score, cosine, "set").axes[0]
  np.testing.assert_allclose(axes.collections[0].get_offsets(), np.stack([score, cosine], 1))
  np.testing.assert_allclose(axes.lines[0].get_xydata(), [[0, 0.2], [2, 0.2], [5, 0.8]])
  assert axes.get_title() == "set: 5 pairs, Spearman 0.872"  # Ranks 1 2 3 4.5 4.5, 1 3 2 4 5: 8.5 / sqrt(95).
  evaluator = Evaluator(None, None, None, embed=lambda items: items, data_dir=tmp_path)
  for metrics in ({"class/test/knn_accuracy": 1.0}, {"sts-12/all/spearman": 1.0}):  # Not of the STS Benchmark.
    assert figures.draw(epath.Path(tmp_path), figures.Drawing(evaluator, metrics=metrics), of_evaluations=True) == []


def test_a_collapse_shows_beside_the_loss(plt):
  records = [{"step": step, "loss": -step / 10, "deviation": 1 / step} for step in (1, 2, 5)]
  top, bottom = training.collapse(plt, records).axes
  np.testing.assert_allclose(top.lines[0].get_ydata(), [-0.1, -0.2, -0.5])
  np.testing.assert_allclose(bottom.lines[0].get_xydata(), [[1, 1], [2, 0.5], [5, 0.2]])


def test_accuracy_by_the_number_of_labels_has_a_line_for_each_way(tmp_path, monkeypatch):
  from matplotlib import pyplot as plt

  monkeypatch.setattr(plt, "close", lambda figure: None)  # So that it can be looked at.
  rows = [{"labels": n, "fine-tuned": n / 1e3, "frozen": 0.1, "fine-tuned std": 0.01, "frozen std": 0.0}
          for n in (100, 300)]
  sweeps.draw_label_gain(str(tmp_path / "gain.png"), rows, "mae")
  axes = plt.gcf().axes[0]
  assert axes.get_legend_handles_labels()[1] == ["fine-tuned", "frozen"] and axes.get_xscale() == "log"
  np.testing.assert_allclose(axes.lines[0].get_xydata(), [[100, 0.1], [300, 0.3]])
  assert (tmp_path / "gain.png").read_bytes().startswith(b"\x89PNG")
  plt.close("all")


def test_images_that_a_model_makes_are_drawn_for_any_model(plt, tmp_path, monkeypatch):
  from embeddings_jax.data.dataset import Dataset
  from embeddings_jax.data.encoders.images import ImageEncoder

  images = np.random.default_rng(0).integers(0, 256, (20, 4, 6, 1), np.uint8)
  outputs = {"sample": lambda state, rng, num, batch=None: jnp.full((num, 4, 6, 1), state),
             "reconstruct": lambda state, batch: batch["image"] / 255 * state}
  evaluator = Evaluator(Model(None, None, None, outputs), jnp.float32(0.5), ImageEncoder(4, 6, 1),
                        embed=lambda items: items, dataset=Dataset("d", "images", images))
  made = {}
  monkeypatch.setattr(figures.canvas, "save", lambda plt, figure, path: made.__setitem__(path.name, figure))
  assert figures.draw(epath.Path(tmp_path), figures.Drawing(evaluator)) == [
      "figures/reconstructions.png", "figures/samples.png"]
  shown = [axes.images[0].get_array() for axes in made["reconstructions.png"].axes]
  chosen = images[np.linspace(0, 19, 12).astype(int)] / np.float32(255)
  np.testing.assert_allclose(shown, [*chosen[..., 0], *chosen[..., 0] / 2], atol=1e-6)
  grid = [axes.images[0].get_array() for axes in made["samples.png"].axes]
  assert len(grid) == pictures.NUM_SAMPLES and all((image == 0.5).all() for image in grid)


def test_a_figure_of_ones_own_is_a_file(tmp_path, monkeypatch):
  monkeypatch.setattr(extensions, "_folders", [])
  extensions.extend(tmp_path)
  (tmp_path / "figures").mkdir()
  (tmp_path / "figures" / "own.py").write_text("""
from embeddings_jax.types import Figure

def draw(plt, drawing):
  figure, axes = plt.subplots()
  axes.set_title(f"spread {drawing.log[-1]['spread']}")
  return figure

FIGURES = (Figure("own", draw, metrics=("spread",)), Figure("none", draw, metrics=("other",)))
""")
  made = {}
  monkeypatch.setattr(figures.canvas, "save", lambda plt, figure, path: made.__setitem__(path.name, figure))
  encoder = SimpleNamespace(names=None, adapt=lambda dataset, cache_dir: dataset)
  evaluator = Evaluator(None, None, encoder, embed=lambda items: items)
  drawing = figures.Drawing(evaluator, log=[{"step": 1, "spread": 2.0}, {"step": 5, "loss": 1.0, "spread": 3.0}])
  assert figures.draw(epath.Path(tmp_path), drawing) == ["figures/own.png"]
  assert made["own.png"].axes[0].get_title() == "spread 3.0"


def test_the_club_is_colored_by_faction_and_its_edges_are_drawn(plt):
  club = read("karate")
  side = np.where(club.labels["club"] == "Officer", 1.0, -1.0)
  axes = graphs.node_map(plt, np.stack([side, np.random.default_rng(0).normal(size=34) / 9], 1), club).axes[0]
  lines, *groups = axes.collections
  assert len(lines.get_segments()) == 156 and [len(part.get_offsets()) for part in groups] == [17, 17]
  assert [text.get_text() for text in axes.get_legend().get_texts()] == ["Mr. Hi", "Officer"]
  x, y = (part.get_offsets()[:, 0] for part in groups)
  assert max(x) < min(y) or max(y) < min(x)


def test_of_several_labels_the_most_frequent_counts():
  member = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0], [1, 0, 1]], bool)
  name, group, classes = graphs._colors(SimpleNamespace(labels={"topic": member}), np.arange(5))
  assert name == "topic" and classes == [0, 2, 1] and group.tolist() == [0, 0, 1, -1, 0]


def test_visits_are_shares_against_degrees(plt):
  axes = graphs.visits(plt, np.array([1.0, 3, 4, 0]), np.array([10, 30, 40, 0])).axes[0]
  np.testing.assert_allclose(axes.collections[0].get_offsets(), [[1, 1 / 8], [3, 3 / 8], [4, 1 / 2]])
  np.testing.assert_allclose(axes.lines[0].get_xydata(), [[1, 1 / 8], [4, 1 / 2]])
