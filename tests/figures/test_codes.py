"""Figures of codes: the decoded grid lies as its axes say, walks have their ends, noise is told from images."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax import figures
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders.images import ImageEncoder
from embeddings_jax.figures import canvas, codes, pictures
from embeddings_jax.runs.evaluation import Evaluator
from embeddings_jax.types import Model


@pytest.fixture
def plt():
  plt = canvas.pyplot()
  yield plt
  plt.close("all")


def drawing():
  """Images of one gray value each; the code is (value, 0.5), and a code is decoded to its units side by side."""
  values = np.linspace(0, 255, 100).astype(np.uint8)
  images = np.broadcast_to(values[:, None, None, None], (100, 3, 2, 1)).copy()
  embed = lambda state, batch: jnp.stack([jnp.asarray(batch["image"], jnp.float32).mean((1, 2, 3)) / 255,
                                          jnp.linspace(0, 1, len(batch["image"]))], 1)
  outputs = {
      "decode": lambda state, codes: jnp.broadcast_to(codes[:, None, :, None], (len(codes), 3, 2, 1)),
      "likelihood_bound": lambda state, batch, rng, num: -jnp.square(
          jnp.asarray(batch["image"], jnp.float32) - batch["image"].mean((1, 2, 3), keepdims=True)).mean((1, 2, 3))}
  model = Model(None, None, embed, outputs)
  dataset = Dataset("d", "images", images, labels={"class": np.arange(100) % 3})
  read = lambda items: np.asarray(embed(None, {"image": np.asarray(items)}))
  return figures.Drawing(Evaluator(model, jnp.zeros(()), ImageEncoder(3, 2, 1), dataset=dataset, embed=read))


def test_the_plane_shows_codes_and_what_they_are_decoded_to(plt):
  left, right = codes._draw_plane(plt, drawing()).axes
  assert [len(points.get_offsets()) for points in left.collections] == [34, 33, 33]
  tiled, (low, high, bottom, top) = np.asarray(right.images[0].get_array()), right.images[0].get_extent()
  assert tiled.shape == (3 * codes.GRID, 2 * codes.GRID) and low < high and bottom < top
  # The first pixel of a tile is its first unit, which grows to the right; the second grows upwards.
  first, second = tiled[::3, ::2], tiled[::3, 1::2]
  np.testing.assert_allclose(first[0], np.clip(np.linspace(low, high, codes.GRID), 0, 1), atol=1e-6)
  np.testing.assert_allclose(second[:, 0], np.clip(np.linspace(top, bottom, codes.GRID), 0, 1), atol=1e-6)


def test_walks_begin_and_end_with_their_images(plt):
  subject = drawing()
  figure = codes._draw_walks(plt, subject)
  strips = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
  assert len(strips) == codes.WALKS + 1 and strips[0].shape == (3, 2 * codes.STEPS)
  items = subject.dataset.items[np.linspace(0, 99, 2 * codes.WALKS).astype(int)] / 255
  for walk, strip in enumerate(strips[:codes.WALKS]):
    assert strip[0, 0] == pytest.approx(items[2 * walk].mean(), abs=1e-6)
    assert strip[0, -2] == pytest.approx(items[2 * walk + 1].mean(), abs=1e-6)
  assert strips[-1][0, 0] == pytest.approx(items[0].mean()) and strips[-1][0, -1] == pytest.approx(items[1].mean())


def test_noise_is_told_from_images(plt):
  figure = codes._draw_likelihoods(plt, drawing())
  images, noise = figure.axes[0].get_legend().get_texts()
  mean = lambda text: float(text.get_text().split("mean ")[1].rstrip(")"))
  assert mean(images) == 0 and mean(noise) == pytest.approx(-np.var(np.arange(256)) * 5 / 6, rel=0.1)


def test_all_apply_to_a_model_that_decodes_images(tmp_path):
  subject = drawing()
  names = {figure.name for figure in figures.declared() if figures.applies(figure, subject)}
  assert {"codes", "walks", "samples_and_noise", "likelihood_of_noise"} <= names
  rows = codes._draw_samples_and_noise(canvas.pyplot(), subject).axes
  pixels = np.asarray(rows[-1].images[0].get_array())
  assert [axes.get_ylabel() for axes in rows] == ["uniform codes", "Gaussian codes", "uniform pixels"]
  assert pixels.min() >= 0 and 0.2 < pixels.std() < 0.4
  assert jax.tree.leaves(subject.state)


def test_restorations_have_their_decibels(plt):
  clean = np.full((3, 4, 4, 1), 0.5, np.float32)
  figure = pictures.reconstructions(plt, {"original": clean, "corrupted": clean + 0.1, "reconstructed": clean - 0.01})
  labels = [figure.axes[row].get_ylabel() for row in (0, 3, 6)]
  assert labels == ["original", "corrupted\n20.0 dB", "reconstructed\n40.0 dB"]
