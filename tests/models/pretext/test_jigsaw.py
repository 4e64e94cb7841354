"""Jigsaw puzzles: shuffled tiles can be put back, the update by hand, and the shortcut of a tile's mean."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from networks import images

from embeddings_jax.models.pretext.jigsaw import jigsaw, middle_tiles, puzzle
from embeddings_jax.nets import convnet
from embeddings_jax.types import InputError

SMALL = dict(cells=2, tile=3, num_permutations=6, projector_dims=(8,), predictor_dims=(16,), grid=1)


def trunk():
  return convnet.encoder(channels=(4, 8), strides=(1, 2))


def test_the_inverse_permutation_reassembles_the_image():
  """Tiles as large as their cells: put back, they are the image."""
  batch = images(3, 8, 8, 1)
  model = jigsaw(encoder=trunk(), **SMALL | dict(tile=4, standardize=False))
  state = model.init(jax.random.key(0), batch)
  drawn = model.outputs["draws"](state, batch, jax.random.key(1))
  table = np.asarray(state.extra["permutations"])
  for i, shuffled in enumerate(np.asarray(drawn["shuffled"])):
    actual = [shuffled[np.argsort(order)].reshape(2, 2, 4, 4) for order in table]
    whole = [tiles.transpose(0, 2, 1, 3).reshape(8, 8) for tiles in actual]
    assert any(np.allclose(image, np.asarray(batch["image"][i, ..., 0]) / 255, atol=1e-6) for image in whole)


def test_permutations_and_gray_are_drawn_as_often_as_they_should():
  make = functools.partial(puzzle, cells=2, tile=3, crop=7, gray=0.3, standardize=False, num_permutations=6,
                           puzzles=2)
  picture = images(1, 8, 8, 3)["image"][0] / 255
  tiles, labels = jax.vmap(make, (0, None))(jax.random.split(jax.random.key(0), 1500), picture)
  assert scipy.stats.chisquare(np.bincount(np.ravel(labels))).pvalue > 1e-3
  gray = np.ptp(np.asarray(tiles), -1).max((1, 2, 3)) < 1e-6
  assert scipy.stats.binomtest(int(gray.sum()), 1500, 0.3).pvalue > 1e-3


def test_loss_is_that_of_the_permutation_that_was_drawn():
  """A head that knows the tiles by their means reads the label exactly, whatever the number of puzzles."""
  batch = images(4, 8, 8, 1)
  model = jigsaw(encoder=trunk(), **SMALL | dict(puzzles=3))
  state = model.init(jax.random.key(0), batch)
  actual = model.outputs["measures"](state, {**batch, "mask": jnp.array([1, 1, 1, 0])})
  tiles, labels = jax.vmap(lambda key, image: puzzle(
      key, image / 255, cells=2, tile=3, crop=0, gray=0.7, standardize=True, num_permutations=6, puzzles=3))(
          jax.vmap(lambda i: jax.random.fold_in(jax.random.key(0), i))(jnp.arange(4)), batch["image"])
  network = trunk()
  variables = {"params": state.params["encoder"], "batch_stats": state.extra["batch_stats"]["encoder"]}
  dense = state.params["projector"]["dense_0"]
  predictor, norm = state.params["predictor"], state.extra["batch_stats"]["predictor"]["norm_0"]
  expected = 0.0
  for i in range(3):
    h = network.apply(variables, {"image": tiles[i]}, method="features").mean(1)
    z = np.asarray(h @ dense["kernel"] + dense["bias"]).clip(0)
    for label in np.asarray(labels[i]):
      row = z[np.asarray(state.extra["permutations"])[label]].ravel() @ predictor["dense_0"]["kernel"]
      row = ((row - norm["mean"]) / np.sqrt(norm["var"] + 1e-5)).clip(0)
      logits = np.asarray(row @ predictor["dense_1"]["kernel"] + predictor["dense_1"]["bias"], np.float64)
      expected += np.log(np.exp(logits).sum()) - logits[label]
  np.testing.assert_allclose(actual["pretext_loss"], [expected, 9], rtol=1e-4)


def test_embedding_by_patches_is_the_mean_over_tiles():
  batch = images(3, 8, 8, 1)
  model = jigsaw(encoder=trunk(), **SMALL | dict(embed_by="patches", standardize=False))
  state = model.init(jax.random.key(0), batch)
  whole = jigsaw(encoder=trunk(), **SMALL | dict(standardize=False))
  tiles = middle_tiles(batch["image"] / 255, 2, 3)
  expected = [np.mean(whole.embed(state, {"image": of_image}), 0) for of_image in tiles]
  np.testing.assert_allclose(model.embed(state, batch), expected, rtol=1e-4, atol=1e-6)


def accuracy(standardize, steps=60):
  """Share of held-out puzzles solved where tiles differ in their brightness alone."""

  def draw(seed, n):
    shade = jnp.array([[0.0, 0.1], [0.2, 0.3]]).repeat(4, 0).repeat(4, 1)[..., None]
    return {"image": shade + 0.3 * jax.random.uniform(jax.random.key(seed), (n, 8, 8, 1))}

  model = jigsaw(encoder=trunk(), **SMALL | dict(standardize=standardize), optimizer=optax.adam(1e-2))
  state, update = jax.jit(model.init)(jax.random.key(0), draw(0, 32)), jax.jit(model.update)
  for step in range(steps):
    state, _ = update(state, draw(step, 32), jax.random.key(step))
  hits, number = jax.jit(model.outputs["measures"])(state, draw(999, 512))["pretext_accuracy"]
  return float(hits / number)


@pytest.mark.long
def test_the_shortcut_of_brightness_is_closed_by_standardizing_tiles():
  assert accuracy(False) > 0.8
  assert abs(accuracy(True) - 1 / 6) < 3 * (1 / 6 * 5 / 6 / 512) ** 0.5


@pytest.mark.parametrize("options, message", [
    (dict(gray=2), "gray=2"), (dict(embed_by="tiles"), "embed_by='tiles'"), (dict(crop=9), "crop=9: exceeds")])
def test_bad_options_are_refused(options, message):
  with pytest.raises(InputError, match=message):
    model = jigsaw(encoder=trunk(), **SMALL | options)
    state = model.init(jax.random.key(0), images(2, 8, 8, 1))
    model.update(state, images(2, 8, 8, 1), jax.random.key(0))
