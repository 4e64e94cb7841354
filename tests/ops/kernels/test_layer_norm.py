"""LayerNorm and its own backward passes."""
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax.ops.kernels.layer_norm import folded, layer_norm, unit_norm


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_value_and_gradient(monkeypatch, backend):
  """On GPUs the variance comes in one pass."""
  monkeypatch.setattr(jax, "default_backend", lambda: backend)
  rng = np.random.default_rng(0)
  x, weight = (jnp.asarray(rng.normal(size=(3, 4, 8)), jnp.float32) for _ in range(2))
  x = 3 * x + 1
  params = {"scale": jnp.arange(8.0), "bias": jnp.full(8, 0.5)}
  y = np.asarray(x, np.float64)
  expected = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5) * np.arange(8) + 0.5
  np.testing.assert_allclose(layer_norm(x, params, 1e-5), expected, rtol=1e-5, atol=1e-5)

  def plain(x, params):
    centered = x - x.mean(-1, keepdims=True)
    variance = jnp.square(centered).mean(-1, keepdims=True)
    return centered / jnp.sqrt(variance + 1e-5) * params["scale"] + params["bias"]

  gradient = lambda norm: jax.grad(lambda x, params: (weight * jnp.tanh(norm(x, params))).sum(), (0, 1))(x, params)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
               gradient(lambda x, params: layer_norm(x, params, 1e-5)), gradient(plain))


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_folded_into_the_product_after_it(monkeypatch, backend):
  monkeypatch.setattr(jax, "default_backend", lambda: backend)
  rng = np.random.default_rng(0)
  normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  x, weight = 3 * normal(3, 4, 8) + 1, normal(3, 4, 5)
  params = {"scale": normal(8), "bias": normal(8)}, normal(8, 5), normal(5)

  def apart(x, norm, kernel, bias):
    return layer_norm(x, norm, 1e-5) @ kernel + bias

  def joined(x, *params):
    kernel, bias = folded(*params)
    return unit_norm(x, 1e-5) @ kernel + bias

  np.testing.assert_allclose(joined(x, *params), apart(x, *params), rtol=1e-5, atol=1e-5)
  gradient = lambda map: jax.grad(lambda *inputs: (weight * jnp.tanh(map(*inputs))).sum(), (0, 1, 2, 3))(x, *params)
  chex.assert_trees_all_close(gradient(joined), gradient(apart), rtol=1e-4, atol=1e-5)


def test_types():
  x = jnp.ones((2, 4), jnp.bfloat16) * jnp.arange(4)
  params = {"scale": jnp.ones(4), "bias": jnp.zeros(4)}
  actual, back = jax.vjp(lambda x: layer_norm(x, params, 1e-5, jnp.bfloat16), x)
  assert actual.dtype == back(actual)[0].dtype == jnp.bfloat16
  assert layer_norm(x, params, 1e-5).dtype == jnp.float32
  actual, back = jax.vjp(lambda x: unit_norm(x, 1e-5, jnp.float32), x)
  assert actual.dtype == jnp.float32 and back(actual)[0].dtype == jnp.bfloat16
