"""Figures of generative models: both players' curves, points and walks of samples, frequencies of codes."""
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax import figures
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders.images import ImageEncoder
from embeddings_jax.figures import canvas, codes, generation
from embeddings_jax.runs.evaluation import Evaluator
from embeddings_jax.types import Model


@pytest.fixture
def plt():
  plt = canvas.pyplot()
  yield plt
  plt.close("all")


def drawing(outputs, **extra):
  """100 images of one gray value each."""
  values = np.linspace(0, 255, 100).astype(np.uint8)
  images = np.broadcast_to(values[:, None, None, None], (100, 4, 2, 1)).copy()
  state = SimpleNamespace(extra=extra) if extra else jnp.zeros(())
  return figures.Drawing(Evaluator(Model(None, None, None, outputs), state, ImageEncoder(4, 2, 1),
                                   dataset=Dataset("d", "images", images), embed=lambda items: np.zeros((100, 2))))


def test_curves_of_both_players(plt):
  records = [{"step": step, "loss": 1.0, "generator_loss": 2.0 * step, "discriminator_loss": 3.0 * step,
              "real_score": 0.6, "fake_score": 0.4, "spread": 0.9} for step in (1, 2, 3)]
  losses, scores, spread = generation.players(plt, records).axes
  assert {line.get_label(): line.get_ydata()[-1] for line in losses.lines} == {"discriminator": 9, "generator": 6}
  assert {line.get_label(): line.get_ydata()[0] for line in scores.lines} == {"real rows": 0.6, "samples": 0.4}
  assert spread.lines[0].get_ydata()[1] == 0.9
  gan = next(figure for figure in generation.FIGURES if figure.name == "players")
  subject = drawing({})
  subject.log = records
  assert figures.applies(gan, subject) and not figures.applies(gan, drawing({}))


def test_walks_are_beside_noise_and_points_beside_data(plt):
  ramp = lambda state, rng, num: jnp.broadcast_to(jnp.linspace(0, 1, num)[:, None, None, None], (num, 4, 2, 1))
  subject = drawing({"sample": lambda state, rng, num, batch=None: ramp(state, rng, num), "interpolate": ramp})
  names = {figure.name for figure in generation.FIGURES if figures.applies(figure, subject)}
  assert names == {"interpolations"}
  rows = [np.asarray(axes.images[0].get_array()) for axes in generation._draw_walks(plt, subject).axes]
  assert len(rows) == codes.WALKS + 1
  np.testing.assert_allclose(rows[0][0, ::2], np.linspace(0, 1, codes.STEPS), atol=1e-6)
  assert 0.2 < rows[-1].std() < 0.4
  figure = generation.points(plt, np.zeros((5, 2)), np.ones((7, 2)))
  assert [len(axes.collections[0].get_offsets()) for axes in figure.axes] == [5, 7]


def test_frequencies_of_codes_and_images_of_uniform_ones(plt):
  """Dark images have code 0, bright ones code 3, of 8."""
  def of(state, batch):
    return jnp.where(jnp.asarray(batch["image"]).mean((1, 2, 3)) > 127, 3, 0).astype(jnp.int32)[:, None]

  decode = lambda state, found: jnp.broadcast_to(found[:, :, None, None] / 7, (len(found), 4, 2, 1))
  state = {"state": None}
  subject = drawing({"codes": of, "decode": decode})
  subject.evaluator.state = jax.tree_util.Partial(lambda: state)
  subject.evaluator.state.extra = {"counts": np.zeros(8)}
  axes, = generation._draw_frequencies(plt, subject).axes
  assert axes.get_title() == "2 of 8 codes are used, perplexity 2"
  heights = [bar.get_height() for bar in axes.patches]
  assert heights[:2] == [pytest.approx(0.5, abs=0.01)] * 2 and heights[2:] == [0] * 6
  rows = codes._draw_samples_and_noise(plt, subject).axes
  assert [line.get_ylabel() for line in rows] == ["uniform codes", "uniform pixels"]
  shown = np.asarray(rows[0].images[0].get_array())[0, ::2]
  assert len(np.unique(shown)) > 3 and np.allclose(shown * 7, np.round(shown * 7), atol=1e-5)
