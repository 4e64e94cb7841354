"""Alignment, uniformity and collapse: double loops, closed forms, masked rows."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax.ops.uniformity import alignment, deviation, uniformity


def rows(n, dim, seed=0):
  x = np.random.default_rng(seed).normal(size=(n, dim))
  return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def test_are_double_loops():
  x, y = rows(7, 4), rows(7, 4, 1)
  assert float(alignment(jnp.asarray(x), jnp.asarray(y))) == pytest.approx(((x - y) ** 2).sum(1).mean(), rel=1e-5)
  kernel = [np.exp(-3 * ((x[i] - x[j]) ** 2).sum()) for i in range(7) for j in range(7) if i != j]
  assert float(uniformity(jnp.asarray(x), t=3)) == pytest.approx(np.log(np.mean(kernel)), rel=1e-5)


def test_closed_forms():
  one = jnp.ones((5, 3)) / 3 ** 0.5
  assert float(uniformity(one)) == pytest.approx(0, abs=1e-5) and float(alignment(one, one)) == 0
  assert float(uniformity(jnp.array([[1.0], [-1.0]]))) == pytest.approx(-8, abs=1e-5)
  # Corners of a simplex: every squared distance is 2.
  assert float(uniformity(jnp.eye(6))) == pytest.approx(-4, abs=1e-5)
  many = jnp.asarray(rows(600, 200))
  assert float(uniformity(many)) == pytest.approx(-4, abs=0.1)
  assert float(alignment(many, many[::-1])) == pytest.approx(2, abs=0.05)


def test_masked_rows_count_for_nothing():
  x, y = jnp.asarray(rows(8, 4)), jnp.asarray(rows(8, 4, 1))
  mask = jnp.array([1, 1, 0, 1, 0, 1, 1, 0.0])
  kept = np.flatnonzero(np.asarray(mask))
  assert float(alignment(x, y, mask)) == pytest.approx(float(alignment(x[kept], y[kept])), rel=1e-6)
  assert float(uniformity(x, mask)) == pytest.approx(float(uniformity(x[kept])), rel=1e-5)
  gradient = jax.grad(lambda x: uniformity(x, mask) + alignment(x, y, mask))(x)
  assert np.isfinite(gradient).all() and not gradient[jnp.array([2, 4, 7])].any()
  assert np.isnan(uniformity(x, jnp.eye(8)[0])) and float(alignment(x, y, jnp.zeros(8))) == 0


def test_deviation_is_0_of_one_direction_and_1_of_directions_at_random():
  x = rows(4000, 16)
  lengths = np.random.default_rng(2).uniform(0.1, 5, (4000, 1)).astype(np.float32)
  assert float(deviation(jnp.asarray(lengths * x[:1]))) == pytest.approx(0, abs=1e-6)
  assert float(deviation(jnp.asarray(lengths * x))) == pytest.approx(1, abs=0.01)
  # Half of the rows one way, half the other: 1 along that axis and 0 along the 15 others, times 4 over 16.
  pair = jnp.zeros((10, 16)).at[:, 3].set(jnp.where(jnp.arange(10) % 2, 1.0, -1.0))
  assert float(deviation(pair)) == pytest.approx(0.25, rel=1e-5)
  mask = jnp.ones(10).at[::2].set(0)
  assert float(deviation(pair, mask)) == pytest.approx(0, abs=1e-6)
