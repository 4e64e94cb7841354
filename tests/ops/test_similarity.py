"""Lengths and distances: their values, and gradients where vectors vanish or coincide."""
import jax
import jax.numpy as jnp
import numpy as np

from embeddings_jax.ops.similarity import l2_normalize, root, squared_distances


def test_unit_vectors_and_the_zero_vector():
  x = jnp.array([[3.0, 4], [0, 0], [1e-8, 0]])
  value, pull = jax.vjp(jax.jit(l2_normalize), x)
  np.testing.assert_allclose(value, [[0.6, 0.8], [0, 0], [0, 0]], rtol=1e-6)
  # (I - u u^T) / |x| of the first; the others have no direction.
  np.testing.assert_allclose(pull(jnp.ones((3, 2)))[0], [[(1 - 1.4 * 0.6) / 5, (1 - 1.4 * 0.8) / 5], [0, 0], [0, 0]],
                             rtol=1e-5)


def test_distances_are_those_of_differences_and_finite_where_they_vanish():
  x, y = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
  y[0] = x[0]
  expected = ((x[:, None].astype(np.float64) - y) ** 2).sum(-1)
  np.testing.assert_allclose(jax.jit(squared_distances)(x, y), expected, rtol=1e-6, atol=1e-6)
  slope = jax.jit(jax.grad(lambda x: root(squared_distances(x, x)).sum()))(x[[0, 0]])
  assert np.isfinite(slope).all()
  assert jax.grad(lambda s: root(s))(0.0) == 0
