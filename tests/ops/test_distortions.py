"""Distortions against scipy and Python's colorsys."""
import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage

from embeddings_jax.ops import distortions


def image(size=9, channels=3, seed=0):
  return jnp.asarray(np.random.default_rng(seed).random((size, size, channels)), jnp.float32)


def test_warps_are_scipys():
  picture, angle, scale, move = image(11), 0.4, 1.3, np.array([1.5, -2.0])
  actual = distortions.warped(picture, 7, translation=tuple(move), scale=scale, angle=angle)
  matrix = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
  offset = 5 + move - matrix @ [3, 3]
  for c in range(3):
    expected = scipy.ndimage.affine_transform(np.asarray(picture[..., c], np.float64), matrix, offset,
                                              output_shape=(7, 7), order=1, mode="mirror")
    np.testing.assert_allclose(actual[..., c], expected, atol=1e-5)
  np.testing.assert_allclose(distortions.warped(picture, 11), picture, atol=1e-6)


def test_principal_axes_are_those_of_valid_pixels():
  images = jnp.stack([image(4, seed=1), image(4, seed=2), image(4, seed=3)])
  mean, axes = distortions.color_axes(images, jnp.array([1.0, 0, 1]))
  pixels = np.asarray(images[jnp.array([0, 2])], np.float64).reshape(-1, 3)
  np.testing.assert_allclose(mean, pixels.mean(0), rtol=1e-5)
  expected = np.linalg.eigh(np.cov(pixels.T, bias=True))[1]
  np.testing.assert_allclose(np.abs(axes.T @ expected), np.eye(3), atol=1e-3)
  # Doubled along one axis alone.
  actual = distortions.scaled_along(images[0] / 4 + 0.375, jnp.full(3, 0.5), axes, jnp.array([1.0, 1, 2]))
  before, after = ((np.asarray(x).reshape(-1, 3) - 0.5) @ axes for x in (images[0] / 4 + 0.375, actual))
  np.testing.assert_allclose(after, before * np.array([1, 1, 2]), atol=1e-5)  # None of these colors is clipped.


def test_saturation_and_value_are_those_of_hsv():
  picture = image(5)
  power, factor, offset = np.array([2.0, 0.5]), np.array([0.7, 1.2]), np.array([0.1, -0.05])
  actual = np.asarray(distortions.changed_saturation_and_value(picture, *map(jnp.asarray, (power, factor, offset))))
  for pixel, after in zip(np.asarray(picture, np.float64).reshape(-1, 3), actual.reshape(-1, 3)):
    hue, *others = colorsys.rgb_to_hsv(*pixel)
    expected = colorsys.hsv_to_rgb(hue, *np.clip(factor * np.array(others) ** power + offset, 0, 1))
    np.testing.assert_allclose(after, expected, atol=1e-5)
  gray = jnp.full((2, 2, 3), 0.25)
  actual = distortions.changed_saturation_and_value(gray, *map(jnp.asarray, (power, factor, offset)))
  np.testing.assert_allclose(actual, 1.2 * 0.5 - 0.05, atol=1e-6)


def test_the_smallest_ranges_leave_an_image_of_its_own_size():
  """But for the contrasts, whose mean over draws stays near the image."""
  picture, mean, axes = image(8), jnp.full(3, 0.5), jnp.eye(3)
  draw = lambda key: distortions.distorted(key, picture, 8, mean, axes, translation=0.0, scale=(1.0, 1.0), angle=0.0,
                                           hue=0.0)
  actual = np.asarray(jax.vmap(draw)(jax.random.split(jax.random.key(0), 200)))
  assert actual.min() >= 0 and actual.max() <= 1
  # Where a pixel is the brightest of all, it stays so: contrasts are monotonic in the value.
  assert np.corrcoef(actual.mean(0).ravel(), np.asarray(picture).ravel())[0, 1] > 0.9
