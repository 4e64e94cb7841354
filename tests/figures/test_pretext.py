"""Figures of pretext tasks: what they show is what the network gets."""
import numpy as np
import pytest
from etils import epath

from embeddings_jax import figures
from embeddings_jax.figures import pretext
from embeddings_jax.ops.color import ab_bins
from embeddings_jax.runs import build, presets
from embeddings_jax.runs.evaluation import Evaluator


def test_tiles_and_patches_stand_in_their_places():
  tiles = np.arange(4, dtype=np.float32)[:, None, None, None] / 4 * np.ones((4, 2, 2, 1), np.float32)
  actual = pretext.mosaic(tiles, 2)[..., 0]
  np.testing.assert_array_equal(actual[[0, 0, 3, 3], [0, 3, 0, 3]], [0, 0.25, 0.5, 0.75])
  assert actual.shape == (5, 5) and (actual[2] == 1).all() and (actual[:, 2] == 1).all()
  # The first patch in the middle, label 1 above it, label 4 to its right.
  actual = pretext.relative_patches(tiles[:3], np.array([1, 4]))[..., 0]
  np.testing.assert_array_equal(actual[[3, 0, 3, 0], [3, 3, 6, 0]], [0, 0.25, 0.5, 1])


def test_all_bins_are_drawn_in_their_colors():
  import matplotlib

  matplotlib.use("Agg")
  from matplotlib import pyplot

  bins = ab_bins(10)
  figure = pretext.bins_of_ab(pyplot, bins, np.arange(261.0))
  colors = figure.axes[0].collections[0]
  np.testing.assert_allclose(colors.get_offsets(), bins[:, ::-1])
  rgb = colors.get_facecolors()[:, :3]
  assert rgb[bins[:, 0].argmin()].argmax() == 1 and rgb[bins[:, 1].argmin()].argmax() == 2  # Green, blue.
  assert "261 bins" in figure.axes[0].get_title() and "260 were seen" in figure.axes[1].get_title()
  pyplot.close("all")


@pytest.mark.parametrize("name, made", [
    ("jigsaw", {"examples"}), ("colorization", {"bins", "reconstructions"}),
    *(pytest.param(name, {"examples"}, marks=pytest.mark.long)
      for name in ("relative_patch", "context_encoder", "exemplar"))])
def test_runs_have_the_figures_of_their_task(name, made, tmp_path, mesh_of):
  config = presets.load_config(name, "tiny")
  data = build.prepare(config, data_dir=None, cache_dir=None)
  model = build.make_model(config, data.facts, 5)
  state = build.first_state(model, data.splits["train"].batch_at(0), mesh_of(), 0)
  drawing = figures.Drawing(Evaluator(model, state, data.encoder, dataset=data.dataset))
  actual = figures.draw(epath.Path(tmp_path), drawing)
  assert made <= {path.removeprefix("figures/").removesuffix(".png") for path in actual}
