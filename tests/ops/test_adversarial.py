"""Losses of GANs against formulas, at the optimum against divergences; penalties and norms against linear algebra."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy.special import expit

from embeddings_jax.ops import adversarial

LOGITS = jnp.linspace(-4, 4, 9)


@pytest.mark.parametrize("loss, slope", [
    ("minimax", lambda f: -expit(f)), ("non_saturating", lambda f: expit(f) - 1), ("hinge", lambda f: -1 + 0 * f),
    ("wasserstein", lambda f: -1 + 0 * f)])
def test_gradients_of_the_generators_losses_are_the_formulas(loss, slope):
  actual = jax.grad(lambda f: adversarial.generator_losses(loss, f).sum())(LOGITS)
  np.testing.assert_allclose(actual, slope(np.asarray(LOGITS)), atol=1e-6)


def test_losses_are_those_of_the_probabilities():
  probability = expit(np.asarray(LOGITS, np.float64))
  real, fake = adversarial.discriminator_losses("minimax", LOGITS, LOGITS)
  np.testing.assert_allclose(real, -np.log(probability), rtol=1e-5)
  np.testing.assert_allclose(fake, -np.log(1 - probability), rtol=1e-5)
  np.testing.assert_allclose(adversarial.generator_losses("minimax", LOGITS), np.log(1 - probability), rtol=1e-5)
  np.testing.assert_allclose(adversarial.generator_losses("non_saturating", LOGITS), -np.log(probability), rtol=1e-5)
  real, fake = adversarial.discriminator_losses("hinge", LOGITS, LOGITS)
  np.testing.assert_allclose(real, np.maximum(0, 1 - np.asarray(LOGITS)))
  np.testing.assert_allclose(fake, np.maximum(0, 1 + np.asarray(LOGITS)))
  assert np.isfinite(adversarial.generator_losses("non_saturating", jnp.array([-1e4, 1e4]))).all()


def test_the_best_discriminator_is_the_ratio_of_densities_and_its_loss_the_divergence():
  """On a grid of 40 cells, logits by Newton's method on the expected loss."""
  x = np.linspace(-4, 4, 40)
  p, q = np.exp(-0.5 * (x - 0.7) ** 2), np.exp(-0.5 * (x / 1.5) ** 2)
  p, q = p / p.sum(), q / q.sum()

  def value(logits):
    real, fake = adversarial.discriminator_losses("non_saturating", logits, logits)
    return (p * real + q * fake).sum()

  @jax.jit
  def newton(logits):
    curve = (p + q) * jax.nn.sigmoid(logits) * jax.nn.sigmoid(-logits)
    return logits - jnp.clip(jax.grad(value)(logits) / curve, -1, 1)

  logits = jnp.zeros(40)
  for _ in range(30):
    logits = newton(logits)
  np.testing.assert_allclose(jax.nn.sigmoid(logits), p / (p + q), atol=1e-5)
  middle = (p + q) / 2
  divergence = (p * np.log(p / middle) + q * np.log(q / middle)).sum() / 2
  assert value(logits) == pytest.approx(2 * np.log(2) - 2 * divergence, abs=1e-5)


def test_penalties_of_a_linear_and_of_a_curved_discriminator():
  weight = jnp.array([3.0, 4.0])
  real, fake = (jnp.asarray(np.random.default_rng(seed).normal(size=(6, 2)), jnp.float32) for seed in (0, 1))
  linear = lambda x: x @ weight
  np.testing.assert_allclose(adversarial.r1_penalties(linear, real), 25 / 2, rtol=1e-6)
  share = jnp.linspace(0, 1, 6)
  np.testing.assert_allclose(adversarial.gradient_penalties(linear, real, fake, share), 16, rtol=1e-5)
  square = lambda x: jnp.square(x).sum(-1) / 2  # Its slope at x is x.
  np.testing.assert_allclose(adversarial.r1_penalties(square, real), np.square(real).sum(1) / 2, rtol=1e-5)
  between = np.asarray(share)[:, None] * real + (1 - np.asarray(share))[:, None] * fake
  expected = (np.linalg.norm(between, axis=1) - 1) ** 2
  np.testing.assert_allclose(adversarial.gradient_penalties(square, real, fake, share), expected, atol=1e-5)


@pytest.mark.parity
def test_power_iterations_reach_the_singular_value_and_divide_as_torch_does():
  kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 5)).astype(np.float32)
  u = jnp.full(5, 5**-0.5)
  iterate = jax.jit(adversarial.spectral_norm)
  for _ in range(60):
    norm, u = iterate(jnp.asarray(kernel), u)
  matrix = kernel.reshape(-1, 5)
  assert norm == pytest.approx(np.linalg.svd(matrix)[1][0], rel=1e-5)
  layer = torch.nn.Linear(36, 5, bias=False)
  layer.weight.data = torch.tensor(matrix.T.copy())
  layer = torch.nn.utils.parametrizations.spectral_norm(layer, n_power_iterations=60)
  np.testing.assert_allclose(matrix.T / norm, layer.weight.detach().numpy(), atol=1e-5)
  # The gradient of the norm is u v', that of the singular value.
  left, _, right = np.linalg.svd(matrix)
  actual = jax.grad(lambda kernel: adversarial.spectral_norm(kernel, u)[0])(jnp.asarray(matrix))
  np.testing.assert_allclose(actual, np.outer(left[:, 0], right[0]), atol=1e-4)


def test_spread_is_the_root_of_the_total_variance_of_valid_rows():
  x = np.random.default_rng(0).normal(size=(10, 2, 3)).astype(np.float32)
  mask = np.array([1.0] * 7 + [0.0] * 3, np.float32)
  expected = np.sqrt(x[:7].reshape(7, -1).var(0).sum())
  assert adversarial.spread(jnp.asarray(x), jnp.asarray(mask)) == pytest.approx(expected, rel=1e-5)
  assert adversarial.spread(jnp.ones((4, 2)), jnp.ones(4)) == 0
