"""Relative patches: examples, planted structure, and each shortcut open and closed."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from networks import images

from embeddings_jax.models.pretext.relative_patch import pair_examples, relative_patch
from embeddings_jax.nets import convnet
from embeddings_jax.types import InputError

SMALL = dict(patch=4, gap=0, jitter=0, pairs=8, color="keep", downsample=0.0, standardize=False, projector_dims=(16,),
             predictor_dims=(32,), grid=2)
PLAIN = {key: SMALL[key] for key in ("patch", "gap", "jitter", "color", "downsample", "standardize")}


def test_pairs_are_slices_and_labels_equally_frequent():
  rows = jnp.arange(12.0)[:, None, None] * 100 + jnp.arange(12.0)[None, :, None]  # Only one place for the first.
  make = functools.partial(pair_examples, pairs=2, **PLAIN)
  actual, labels = jax.vmap(make, (0, None))(jax.random.split(jax.random.key(0), 1000), rows)
  actual, labels = np.asarray(actual), np.asarray(labels)
  assert (labels[:, 0] != labels[:, 1]).all()
  assert scipy.stats.chisquare(np.bincount(labels.ravel())).pvalue > 1e-3
  np.testing.assert_array_equal(actual[:, 0, 0, 0, 0], 404)
  place = np.array([(i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)]) * 4
  np.testing.assert_array_equal(actual[:, 1:, 0, 0, 0], place[labels] @ [100, 1])


def test_a_third_of_the_patches_is_downsampled():
  make = functools.partial(pair_examples, pairs=1, **PLAIN | dict(patch=16, downsample=1 / 3))
  picture = images(1, 48, 48, 1)["image"][0] / 255
  actual, _ = jax.vmap(make, (0, None))(jax.random.split(jax.random.key(0), 600), picture)
  changed = (np.asarray(actual[:, 0]) != np.asarray(picture[16:32, 16:32])).any((1, 2, 3))
  # One in seven of those has a side of 16, as before.
  assert scipy.stats.binomtest(int(changed.sum()), 600, 1 / 3 * 6 / 7).pvalue > 1e-3


def noise(key, n, size, channels=1):
  return jax.random.uniform(key, (n, size, size, channels))


def accuracy(draw, steps=80, **options):
  """Share of held-out pairs that are told, with a batch of `draw(key, n)` for each step."""
  model = relative_patch(encoder=convnet.encoder(channels=(8, 16), strides=(1, 1)), **SMALL | options,
                         optimizer=optax.adam(1e-2))
  make = jax.jit(lambda key, n: {"image": jnp.clip(draw(key, n), 0, 1)}, static_argnums=1)
  state, update = jax.jit(model.init)(jax.random.key(0), make(jax.random.key(0), 32)), jax.jit(model.update)
  for key in jax.random.split(jax.random.key(1), steps):
    state, _ = update(state, make(key, 32), key)
  hits, number = jax.jit(model.outputs["measures"])(state, make(jax.random.key(2), 256))["pretext_accuracy"]
  return float(hits / number)


def is_chance(share):
  """Within three binomial errors of 1/8; the 8 pairs of an image count as one draw, as they share patches."""
  return abs(share - 1 / 8) < 3 * (1 / 8 * 7 / 8 / 256) ** 0.5


def aberration(key, n):
  """Red is a pixel farther from the middle than green, blue a pixel nearer; each channel alone is noise."""
  places, gray = jnp.arange(22), noise(key, n, 22)
  outward = jnp.where(places < 11, -1, 1)
  moved = lambda by: gray[:, (places + by * outward) % 22][:, :, (places + by * outward) % 22]
  return jnp.concatenate([moved(-1), gray, moved(1)], -1)


def ramp(key, n):
  """Brightness grows with the row and the column."""
  places = jnp.arange(12) / 24
  return (places[:, None, None] + places[None, :, None]) / 2 + noise(key, n, 12) / 4


def smooth(key, n, size=12):
  """Noise whose pixels are correlated with their neighbors alone."""
  x = noise(key, n, size + 2)
  x = sum(jnp.roll(x, shift, 1) for shift in (-1, 0, 1)) / 3
  x = sum(jnp.roll(x, shift, 2) for shift in (-1, 0, 1)) / 3
  return (x[:, 1:-1, 1:-1] - 0.5) * 2 + 0.5


@pytest.mark.long
def test_brightness_ramps_are_closed_by_standardizing():
  assert accuracy(ramp) > 0.3
  # Within a patch the ramp is the same for all, but for the noise it says nothing of the place.
  assert is_chance(accuracy(ramp, standardize=True))


@pytest.mark.long
def test_chromatic_aberration_is_closed_by_dropping_channels():
  """Gray does not close it: sums of shifted channels are smooth along the direction of the shift."""
  options = dict(patch=6, gap=2)  # Without a gap, shifted channels of neighbors would overlap.
  assert accuracy(aberration, **options) > 0.3
  assert accuracy(aberration, color="gray", **options) > 0.2
  assert is_chance(accuracy(aberration, color="drop", **options))


@pytest.mark.long
def test_touching_patches_are_closed_by_a_gap():
  """Correlated over 3 pixels: with gap - jitter = 3 neighbors are independent."""
  assert accuracy(smooth, steps=200) > 0.2
  wide = functools.partial(smooth, size=22)
  assert is_chance(accuracy(wide, gap=4, jitter=1, steps=200))


def test_bad_options_are_refused():
  trunk = convnet.encoder(channels=(4,), strides=(1,))
  with pytest.raises(InputError, match="color='red'"):
    relative_patch(encoder=trunk, color="red")
  with pytest.raises(InputError, match="need images of at least 398 pixels, these have 32 x 32"):
    relative_patch(encoder=trunk).init(jax.random.key(0), images(2, 32, 32, 3))
