"""Measures of image quality, by other implementations and by hand."""
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from embeddings_jax.ops.image_quality import mse, psnr, ssim


def pairs():
  rng = np.random.default_rng(0)
  x = ndimage.gaussian_filter(rng.random((3, 24, 17, 2)), (0, 2, 2, 0))
  x = (x - x.min()) / np.ptp(x)
  return x, np.clip(x + 0.1 * rng.normal(size=x.shape), 0, 1)


def scipy_ssim(x, y):
  """Wang et al. 2004 of one channel, with scipy's Gaussian filter cut to 11 pixels and to whole windows."""
  blur = lambda z: ndimage.gaussian_filter(z, 1.5, truncate=5 / 1.5)[5:-5, 5:-5]
  mean_x, mean_y = blur(x), blur(y)
  var_x, var_y, cov = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2, blur(x * y) - mean_x * mean_y
  return (((2 * mean_x * mean_y + 1e-4) * (2 * cov + 9e-4))
          / ((mean_x**2 + mean_y**2 + 1e-4) * (var_x + var_y + 9e-4))).mean()


def test_ssim_is_that_of_scipy_s_filters():
  x, y = pairs()
  expected = [np.mean([scipy_ssim(a[..., c], b[..., c]) for c in range(2)]) for a, b in zip(x, y)]
  actual = ssim(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32))
  np.testing.assert_allclose(actual, expected, atol=1e-4)
  assert np.ptp(expected) > 1e-3 and 0.1 < np.mean(expected) < 0.95


@pytest.mark.parity
def test_ssim_is_that_of_scikit_image():
  from skimage import metrics

  x, y = pairs()
  expected = [metrics.structural_similarity(a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
                                            data_range=1, channel_axis=-1) for a, b in zip(x, y)]
  actual = ssim(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32))
  np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_equal_images_and_known_errors():
  x = jnp.asarray(pairs()[0], jnp.float32)
  np.testing.assert_allclose(ssim(x, x), 1, atol=1e-6)
  np.testing.assert_allclose(mse(x, x + 0.1), 0.01, rtol=1e-4)
  np.testing.assert_allclose(psnr(x, x + 0.1), 20, atol=1e-3)
  assert float(ssim(x[:, :6, :5], x[:, :6, :5])[0]) == pytest.approx(1, abs=1e-6)  # Below the window's size.
