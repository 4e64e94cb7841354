"""Products: values, gradients, and what bfloat16 rounds."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax.ops.kernels.product import affine, product


@pytest.mark.parametrize("shape", [(3, 5, 4, 6), (2, 7, 6, 4)])
def test_value_and_gradient(shape):
  batch, time, n, m = shape
  rng = np.random.default_rng(0)
  x, kernel, weight = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((batch, time, n), (n, m),
                                                                             (batch, time, m)))
  np.testing.assert_allclose(product(x, kernel), np.asarray(x) @ np.asarray(kernel), rtol=1e-5, atol=1e-6)
  actual = jax.jit(jax.grad(lambda x, k: (product(x, k) * weight).sum(), (0, 1)))(x, kernel)
  np.testing.assert_allclose(actual[0], np.asarray(weight) @ np.asarray(kernel).T, rtol=1e-5, atol=1e-5)
  expected = np.einsum("btn,btm->nm", x, weight)
  np.testing.assert_allclose(actual[1], expected, rtol=1e-5, atol=1e-5)

  rounded = lambda y: np.asarray(y.astype(jnp.bfloat16).astype(jnp.float32))
  low = product(x, kernel, jnp.bfloat16)
  assert low.dtype == jnp.float32
  np.testing.assert_allclose(low, rounded(x) @ rounded(kernel), rtol=1e-5, atol=1e-6)
  expected = np.einsum("btn,btm->nm", rounded(x), rounded(weight))
  low = jax.grad(lambda k: (product(x, k, jnp.bfloat16) * weight).sum())(kernel)
  np.testing.assert_allclose(low, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [3, 32, 1664])
def test_the_gradient_of_a_turned_table(rows):
  """As of tied embeddings; XLA's CPU compiler has to find a product of bfloat16 that it can compute."""
  rng = np.random.default_rng(1)
  x, weight, table = (jnp.asarray(rng.normal(size=s), jnp.bfloat16) for s in ((rows, 256), (rows, 400), (400, 256)))
  exact = lambda y: np.asarray(y.astype(jnp.float32))
  loss = lambda x, table: (product(x, table.T, jnp.bfloat16) * weight).sum()
  actual = jax.jit(jax.grad(loss, (0, 1)))(exact(x), exact(table))
  np.testing.assert_allclose(actual[0], exact(weight) @ exact(table), rtol=1e-4, atol=1e-3)
  np.testing.assert_allclose(actual[1], exact(weight).T @ exact(x), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_the_gradient_of_a_bias_is_summed_in_float32(monkeypatch, backend):
  """In bfloat16 a sum of ones would end at 256."""
  monkeypatch.setattr(jax, "default_backend", lambda: backend)
  x, kernel, bias = jnp.ones((2, 500, 2)), jnp.eye(2), jnp.array([0.5, -2.0])
  value, back = jax.vjp(lambda bias: affine(x, kernel, bias, jnp.bfloat16), bias)
  assert value.dtype == jnp.bfloat16
  np.testing.assert_array_equal(np.asarray(value[0, 0], np.float32), [1.5, -1.0])
  np.testing.assert_array_equal(back(jnp.ones_like(value))[0], [1000, 1000])
  scores = affine(x, kernel, bias, jnp.bfloat16, jnp.float32)
  assert scores.dtype == jnp.float32
