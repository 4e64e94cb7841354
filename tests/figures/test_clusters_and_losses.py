"""Clusters, losses and comparisons: what they show is what was computed."""
import json

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

import embeddings_jax as ej
from embeddings_jax import figures
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders.rows import RowEncoder
from embeddings_jax.figures import comparison as panels
from embeddings_jax.figures import words
from embeddings_jax.figures.clusters import clusters
from embeddings_jax.figures.components import FIGURES
from embeddings_jax.runs import comparison, evaluation
from embeddings_jax.runs.evaluation import Evaluator
from embeddings_jax.types import InputError, Model

X = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
CENTERS = np.float32([[2, 0, 0, 0], [-2, 0, 0, 0]])
ASSIGNED = ((X[:, None] - CENTERS) ** 2).sum(-1).argmin(1)


@pytest.fixture
def plt():
  yield figures.canvas.pyplot()
  figures.canvas.pyplot().close("all")


def drawing(log, **options):
  outputs = {"components": lambda state: {"means": jnp.asarray(CENTERS)},
             "distances": lambda state, batch: batch["x"]}
  dataset = Dataset("folder/flowers.csv", "rows", X, columns=list("abcd"))
  evaluator = Evaluator(Model(None, None, None, outputs), jnp.zeros(()), RowEncoder(4), dataset=dataset,
                        embed=lambda items: np.eye(2)[ASSIGNED])
  return figures.Drawing(evaluator, log=log, name="kmeans", **options)


def test_clusters_are_told_by_color_with_their_centers(plt):
  figure = clusters(plt, X, ASSIGNED, CENTERS, None, "kmeans on flowers")
  axes = figure.axes[0]
  first, second, centers = axes.collections
  basis = np.linalg.svd(X - X.mean(0), full_matrices=False)[2][:2].T
  np.testing.assert_allclose(first.get_offsets(), (X[ASSIGNED == 0] - X.mean(0)) @ basis, atol=1e-5)
  np.testing.assert_allclose(centers.get_offsets(), (CENTERS - X.mean(0)) @ basis, atol=1e-5)
  labels = [text.get_text() for text in axes.get_legend().get_texts()]
  assert labels == [f"{k + 1} ({(ASSIGNED == k).sum()} rows)" for k in (0, 1)] + ["centers"]
  assert axes.get_title() == "2 clusters: kmeans on flowers"
  assert axes.get_xlabel() == "first principal component"
  named = clusters(plt, X[:, :2], ASSIGNED, CENTERS[:, :2], ["width", "height"]).axes[0]
  assert (named.get_xlabel(), named.get_ylabel()) == ("width", "height")
  assert clusters(plt, X[:, :1], ASSIGNED, CENTERS[:, :1], ["width"]).axes[0].get_xlabel() == "width"


def test_losses_name_model_and_data_and_closed_forms_have_no_curve(plt, tmp_path, monkeypatch):
  made = {}
  monkeypatch.setattr(figures.canvas, "save", lambda plt, figure, path: made.__setitem__(path.name, figure))
  log = [{"step": step, "loss": 1 / step} for step in (1, 2, 3)]
  assert figures.draw(epath.Path(tmp_path), drawing(log)) == ["figures/clusters.png", "figures/loss.png"]
  axes = made["loss.png"].axes[0]
  assert axes.get_title() == "kmeans on folder/flowers.csv" and axes.get_xlabel() == "step (updates)"
  for losses in ((.5,), (.5, .5, .5), (0, .5, .5)):
    log = [{"step": step, "loss": loss} for step, loss in enumerate(losses)]
    assert figures.draw(epath.Path(tmp_path), drawing(log)) == ["figures/clusters.png"]


def test_names_stand_within_the_frame(plt):
  vectors = np.random.default_rng(0).normal(size=(20, 5))
  figure = words.word_map(plt, vectors, [f"a rather long name {i}" for i in range(20)], "PCA")
  axes, renderer = figure.axes[0], figure.canvas.get_renderer()
  frame, boxes = axes.get_window_extent(renderer), [text.get_window_extent(renderer) for text in axes.texts]
  assert len(boxes) == 20 and all(frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0
                                  and box.y1 <= frame.y1 for box in boxes)
  assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
  assert axes.get_xlabel() == "first principal component"


def run(tmp_path, name, config, results, losses):
  (tmp_path / name).mkdir(parents=True)
  record = {"format": 1, "config": config, "trajectory": {}}
  (tmp_path / name / "config.json").write_text(json.dumps(record))
  (tmp_path / name / "results.json").write_text(json.dumps(results))
  (tmp_path / name / "metrics.jsonl").write_text("".join(
      json.dumps({"step": step, "loss": loss, "seconds": 1.0}) + "\n" for step, loss in enumerate(losses, 1)))
  return str(tmp_path / name)


def test_runs_are_compared_by_config_and_metrics(tmp_path, monkeypatch, plt):
  monkeypatch.setattr(comparison.workdir, "read_record", lambda folder: json.loads(
      (folder / "config.json").read_text()))
  one = run(tmp_path, "one/w", {"seed": 0, "model": {"dim": 2, "k": 3}},
            {"steps": 1000, "metrics": {"class/all/nmi": 0.5, "perplexity": 2.0}, "training": {"loss": 1.0}}, [3, 2])
  two = run(tmp_path, "two/w", {"seed": 0, "model": {"dim": 4, "k": 3, "extra": "x"}},
            {"steps": 1000, "metrics": {"class/all/nmi": 0.75}}, [4, 1])
  runs = comparison.read([one, two])
  lines = [line.split() for line in comparison.tables(runs)]
  assert lines == [
      ["config", "one/w", "two/w"], ["model.dim", "2", "4"], ["model.extra", "-", "x"], [],
      ["metric", "one/w", "two/w"], ["steps", "1,000", "1,000"], ["wall_seconds", "-", "-"],
      ["training", "loss", "1.0000", "-"], ["class/all/nmi", "0.5000", "0.7500*"], ["perplexity", "2.0000", "-"],
      ["*", "is", "the", "best", "of", "the", "runs"]]
  logs, metrics = comparison.curves(runs)
  assert metrics == ["loss"]
  first, second = panels.curves(plt, logs, metrics).axes[0].lines
  assert first.get_xydata().tolist() == [[1, 3], [2, 2]] and second.get_label() == "two/w"
  for paths, message in (([one], "give two or more work directories"), ([one, one], "is given twice")):
    with pytest.raises(InputError, match=message):
      comparison.read(paths)


def test_a_linear_code_of_images_is_seen(plt):
  """The decoder's rows and the reconstructions that the model gives, as pixels."""
  images = np.random.default_rng(1).random((20, 4)).astype(np.float32)
  parts = {"encoder": np.eye(4)[:, :2], "decoder": np.eye(4)[:2], "mean": np.full(4, 0.5)}
  outputs = {"components": lambda state: parts,
             "reconstruct": lambda state, batch: {"original": batch["x"], "reconstructed": 0.5 * batch["x"]}}
  dataset = Dataset("digits", "rows", images, image_shape=(2, 2))
  evaluator = Evaluator(Model(None, None, None, outputs), jnp.zeros(()), RowEncoder(4), dataset=dataset,
                        embed=lambda items: items)
  figure = next(figure for figure in FIGURES if figure.name == "linear_code")
  subject = figures.Drawing(evaluator, name="linear_autoencoder")
  assert figure.applies(subject)
  made = figure.draw(plt, subject)
  shown = [np.asarray(axis.images[0].get_array()) for axis in made["reconstructions"].axes]
  np.testing.assert_allclose(shown[0], images[0].reshape(2, 2))
  np.testing.assert_allclose(shown[12], 0.5 * shown[0])
  mean, first = (np.asarray(axis.images[0].get_array()) for axis in made["components"].axes[:2])
  assert (mean == 0.5).all() and first.tolist() == [[1, 0.5], [0.5, 0.5]]  # 0 is in the middle of the colors.


@pytest.mark.long
def test_the_planes_of_two_runs(tmp_path):
  """Codes are those that the runs give, the grid spans them, and its images are decoded from it."""
  paths = [str(tmp_path / name) for name in ("autoencoder", "vae")]
  for path in paths:
    ej.fit(path.rpartition("/")[2], "digits", preset="tiny", dim=2, workdir=path)
  by_name = comparison.planes(comparison.read(paths), paths)
  assert list(by_name) == ["autoencoder", "vae"]
  for path, plane in zip(paths, by_name.values()):
    run = ej.load(path)  # The best checkpoint.
    np.testing.assert_allclose(plane.codes, run.embed(evaluation.of_run(run, ()).dataset.items), atol=1e-4)
    np.testing.assert_allclose(plane.images[2, 3], run.decode(np.float32([[plane.x[3], plane.y[2]]]))[0], atol=1e-4)
  wide = str(tmp_path / "wide")
  ej.fit("vae", "digits", preset="tiny", workdir=wide)
  with pytest.raises(InputError, match="wide: has no codes of two numbers"):
    comparison.planes(comparison.read([paths[0], wide]), [paths[0], wide])
