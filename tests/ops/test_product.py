"""Products: values, gradients, and what bfloat16 rounds."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax.ops.product import product


@pytest.mark.parametrize("shape", [(3, 5, 4, 6), (2, 7, 6, 4)])
def test_value_and_gradient(shape):
  batch, time, n, m = shape
  rng = np.random.default_rng(0)
  x, kernel, weight = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((batch, time, n), (n, m),
                                                                             (batch, time, m)))
  np.testing.assert_allclose(product(x, kernel), np.asarray(x) @ np.asarray(kernel), rtol=1e-5, atol=1e-6)
  found = jax.jit(jax.grad(lambda x, k: (product(x, k) * weight).sum(), (0, 1)))(x, kernel)
  np.testing.assert_allclose(found[0], np.asarray(weight) @ np.asarray(kernel).T, rtol=1e-5, atol=1e-5)
  expected = np.einsum("btn,btm->nm", x, weight)
  np.testing.assert_allclose(found[1], expected, rtol=1e-5, atol=1e-5)

  rounded = lambda y: np.asarray(y.astype(jnp.bfloat16).astype(jnp.float32))
  low = product(x, kernel, jnp.bfloat16)
  assert low.dtype == jnp.float32
  np.testing.assert_allclose(low, rounded(x) @ rounded(kernel), rtol=1e-5, atol=1e-6)
  low = jax.grad(lambda k: (product(x, k, jnp.bfloat16) * weight).sum())(kernel)
  np.testing.assert_allclose(low, np.einsum("btn,btm->nm", rounded(x), rounded(weight)), rtol=1e-5, atol=1e-5)
