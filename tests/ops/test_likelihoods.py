"""Likelihoods of images against scipy's distributions, and the KL divergence against Monte Carlo."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from embeddings_jax.ops import likelihoods

LEVELS = np.arange(256) / 255


@pytest.mark.parametrize("mean,log_scale", [(0.5, -2), (0.1, -5), (0.0, -7), (-0.3, -3), (1.2, 0), (0.7, 3)])
def test_the_discretized_logistic_is_a_distribution_and_scipy_s(mean, log_scale):
  x = jnp.asarray(LEVELS, jnp.float32).reshape(256, 1, 1, 1)
  actual = np.asarray(likelihoods.discretized_logistic(x, jnp.full_like(x, mean), jnp.float32(log_scale)), np.float64)
  assert np.exp(actual).sum() == pytest.approx(1, abs=1e-5)
  edges = np.concatenate([[-np.inf], (LEVELS[1:] + LEVELS[:-1]) / 2, [np.inf]])
  there = stats.logistic(mean, np.exp(log_scale))
  # On the side of the mean where differences of tails keep their digits.
  mass = np.where(edges[1:] < mean, np.diff(there.cdf(edges)), -np.diff(there.sf(edges)))
  likely = mass > 1e-30
  np.testing.assert_allclose(actual[likely], np.log(mass[likely]), rtol=2e-4, atol=2e-3)
  assert np.isfinite(actual).all()


def test_densities_are_scipy_s():
  rng = np.random.default_rng(0)
  x, mean = rng.random((2, 5, 4, 3, 2))
  actual = likelihoods.gaussian(*(jnp.asarray(a, jnp.float32) for a in (x, mean)), jnp.float32(-1.3))
  np.testing.assert_allclose(actual, stats.norm(mean, np.exp(-1.3)).logpdf(x).sum((1, 2, 3)), rtol=1e-4)
  bits = (x > 0.5).astype(np.float32)
  logits = np.log(mean / (1 - mean))
  actual = likelihoods.bernoulli(*(jnp.asarray(a, jnp.float32) for a in (bits, logits)))
  np.testing.assert_allclose(actual, stats.bernoulli(mean).logpmf(bits).sum((1, 2, 3)), rtol=1e-5)


def test_the_divergence_is_that_of_monte_carlo():
  rng = np.random.default_rng(1)
  mean, log_variance = (jnp.asarray(rng.normal(size=3), jnp.float32) for _ in range(2))
  z = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(jax.random.key(0), (200_000, 3))
  each = np.asarray(likelihoods.log_normal(z, mean, log_variance)
                    - likelihoods.log_normal(z, jnp.zeros(3), jnp.zeros(3)), np.float64)
  expected = stats.multivariate_normal(mean, np.diag(np.exp(log_variance))).logpdf(z[:5])
  np.testing.assert_allclose(likelihoods.log_normal(z[:5], mean, log_variance), expected, rtol=1e-4)
  actual = float(likelihoods.gaussian_kl(mean, log_variance).sum())
  assert abs(actual - each.mean()) < 4 * each.std() / np.sqrt(len(each)) and actual > 0.5


def test_a_uniform_model_of_bytes_has_8_bits():
  assert likelihoods.bits_per_dim(-784 * np.log(256), 784) == 8
