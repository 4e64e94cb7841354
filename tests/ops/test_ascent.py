"""Gradient ascent goes up, stays in [0, 1], keeps norms, and finds the optimum that is known."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax.ops.ascent import ascend, color_basis, feature_distance, parameterized, smoothed, with_norm
from embeddings_jax.types import InputError

SHAPE = (2, 8, 8, 3)


@functools.cache
def template():
  """Smooth patterns, so that low frequencies suffice."""
  rows, columns = np.mgrid[:8, :8] / 8
  waves = np.stack([np.sin(2 * np.pi * (rows + k * columns)) for k in range(3)], -1)
  return jnp.asarray(np.stack([waves, np.cos(3 + waves)]), jnp.float32)


@pytest.mark.parametrize("parameterization", ["fourier", "pixels"])
def test_the_direction_is_upwards_and_ends_at_the_optimum(parameterization):
  """Among images at a distance r from gray the scalar product with w is largest for gray + r w / |w|."""
  w, norm = template(), jnp.array([1.0, 2.0])
  objective = lambda x: (w * (x - 0.5)).sum((1, 2, 3))
  options = dict(steps=250, parameterization=parameterization, norm=norm, basis=np.eye(3))
  result = jax.jit(lambda rng: ascend(objective, SHAPE, rng, **options))(jax.random.key(0))
  best = norm * jnp.sqrt(jnp.square(w).sum((1, 2, 3)))
  assert (result.trace[0] < 0.8 * best).all()
  assert (np.diff(result.trace[:8], axis=0) > 0).all()  # A wrong sign would go down.
  assert (result.objective > 0.97 * best).all() and (result.objective <= best * 1.0001).all()
  np.testing.assert_allclose(jnp.linalg.norm((result.images - 0.5).reshape(2, -1), axis=1), norm, rtol=1e-4)


@pytest.mark.parametrize("parameterization", ["fourier", "pixels"])
def test_images_stay_between_0_and_1_however_far_they_go(parameterization):
  result = ascend(lambda x: 100 * x.sum((1, 2, 3)), SHAPE, jax.random.key(0), steps=20, learning_rate=5.0,
                  parameterization=parameterization, jitter=2, blur=0.7)
  assert (result.images >= 0).all() and (result.images <= 1).all() and result.images.mean() > 0.6


def test_the_penalty_keeps_images_near_gray():
  far, near = (ascend(lambda x: x.sum((1, 2, 3)) / 192, SHAPE, jax.random.key(0), steps=40, learning_rate=0.2,
                      parameterization="pixels", penalty=penalty).images for penalty in (0.0, 5.0))
  # Without jitter the optimum of x - 5 (x - .5)^2 is .6.
  assert far.mean() > 0.9 and abs(near.mean() - 0.6) < 0.02


def test_fourier_images_are_what_numpy_transforms():
  basis = np.random.default_rng(0).normal(size=(3, 3))
  start, draw = parameterized("fourier", SHAPE, basis)
  z = start(jax.random.key(1))
  frequency = np.sqrt(np.fft.fftfreq(8)[:, None] ** 2 + np.fft.rfftfreq(8) ** 2)
  scale = 1 / np.maximum(frequency, 1 / 8)
  spectrum = (np.asarray(z)[..., 0] + 1j * np.asarray(z)[..., 1]) * (
      4 * 8 * scale / np.sqrt((scale**2).mean()))[None, :, :, None]
  plain = np.fft.irfft2(spectrum, (8, 8), axes=(1, 2))
  colors = plain @ (basis / np.linalg.norm(basis, axis=1).max()).T
  np.testing.assert_allclose(draw(z), colors, rtol=1e-4, atol=1e-5)


def test_norms_are_met_or_as_near_as_can_be():
  x = jnp.asarray(np.random.default_rng(0).random(SHAPE), jnp.float32)
  for center, norms in ((0.5, [0.5, 5.0]), (0.0, [1.0, 11.0])):
    scaled = with_norm(x, jnp.array(norms), center)
    np.testing.assert_allclose(np.linalg.norm((scaled - center).reshape(2, -1), axis=1), norms, rtol=1e-4)
    assert (scaled >= 0).all() and (scaled <= 1).all()
  assert (with_norm(x, jnp.full(2, 1e6)).round(3) % 1 == 0).mean() > 0.99  # Black and white.


def test_colors_are_decorrelated():
  """Unit noise in the basis has the covariance of the images."""
  mixed = np.random.default_rng(0).normal(size=(50, 4, 4, 3)) @ np.array([[1, 0.5, 0.2], [0, 1, 0.3], [0, 0, 0.1]])
  basis = color_basis(mixed)
  np.testing.assert_allclose(basis @ basis.T, np.cov(mixed.reshape(-1, 3).T), rtol=1e-6, atol=1e-9)
  gray = color_basis(np.random.default_rng(0).random((5, 4, 4, 1)))
  assert gray.shape == (1, 1)


def test_features_are_inverted():
  """A linear map with as many features as pixels has one image; the ascent finds it."""
  weights = jnp.asarray(np.linalg.qr(np.random.default_rng(0).normal(size=(48, 48)))[0], jnp.float32)
  features = lambda x: x.reshape(len(x), -1) @ weights
  images = jnp.asarray(0.3 + 0.4 * np.random.default_rng(1).random((2, 4, 4, 3)), jnp.float32)
  result = ascend(lambda x: -feature_distance(features(x), features(images)), images.shape, jax.random.key(0),
                  steps=200, learning_rate=0.1, parameterization="pixels")
  assert np.abs(result.images - images).max() < 0.02
  np.testing.assert_allclose(smoothed(images, 0.0), images)


def test_bad_options_are_refused():
  with pytest.raises(InputError, match="parameterization='svd': must be one of fourier, pixels"):
    ascend(lambda x: x.sum((1, 2, 3)), SHAPE, jax.random.key(0), parameterization="svd")
  with pytest.raises(InputError, match="steps=0"):
    ascend(lambda x: x.sum((1, 2, 3)), SHAPE, jax.random.key(0), steps=0)
