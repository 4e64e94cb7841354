"""The largest eigenpairs of operators that are known by their products, against dense eigenvalues."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax.ops import lanczos


def operator(values, seed=0):
  basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values),) * 2))[0]
  return (basis * values) @ basis.T, basis.T


@pytest.fixture(scope="module")
def search():
  """`(matrix, capacity, kept, searches) -> vectors, values, residual` of the last search."""

  @jax.jit(static_argnums=(1, 2, 3))
  def run(matrix, capacity, kept, searches):
    n = matrix.shape[0]
    block = lanczos.orthonormal(jax.random.normal(jax.random.key(0), (n, 4)), jnp.zeros((n, 1)))
    process = lanczos.fresh(block, capacity)
    for _ in range(searches):
      process = jax.lax.while_loop(lambda p: ~lanczos.full(p), lambda p: lanczos.extend(p, matrix @ p.block), process)
      vectors, values, residual, block = lanczos.restart(process, kept)
      process = lanczos.start(vectors, values, block, capacity)
    return vectors, values, residual

  return lambda matrix, *args: run(jnp.asarray(matrix, jnp.float32), *args)


def test_restarts_sharpen_what_was_found(search):
  values = np.sort(np.random.default_rng(1).gamma(1, size=80))[::-1]
  matrix, vectors = operator(values)
  _, rough, before = search(matrix, 26, 10, 1)  # The capacity is no multiple of the block.
  actual, exact, after = search(matrix, 26, 10, 6)
  np.testing.assert_allclose(exact[:5], values[:5], rtol=1e-5)
  assert np.abs(rough[:5] / values[:5] - 1).max() > 1e-3 and after[:5].max() < 1e-2 * before[:5].max()
  np.testing.assert_allclose(np.abs(np.sum(actual[:5] * vectors[:5], 1)), 1, atol=1e-5)
  assert np.all(np.take_along_axis(actual, np.abs(actual).argmax(1)[:, None], 1) > 0)


def test_residuals_are_those_of_the_eigenpairs(search):
  matrix, _ = operator(np.linspace(10, 1, 80))
  vectors, values, residual = (np.asarray(x) for x in search(matrix, 26, 10, 1))
  expected = np.linalg.norm(vectors @ matrix - values[:, None] * vectors, axis=1)
  np.testing.assert_allclose(residual, expected, rtol=1e-2)


def test_a_rank_below_the_capacity_does_no_harm(search):
  values = np.zeros(80)
  values[:3] = [5, 2, 1]
  matrix, _ = operator(values)
  vectors, actual, residual = search(matrix, 26, 10, 3)
  np.testing.assert_allclose(actual, values[:10], atol=1e-5)
  np.testing.assert_allclose(vectors[:3] @ vectors[:3].T, np.eye(3), atol=1e-5)
  assert float(residual.max()) < 1e-4


def test_many_restarts_keep_the_basis_orthonormal(search):
  """Long after it has converged: errors that grow from block to block would have reached 1 by then."""
  values = np.r_[30, 20, 15, 10, np.linspace(1.2, 0.1, 76)]
  matrix, _ = operator(values)
  vectors, actual, _ = search(matrix, 40, 10, 15)
  np.testing.assert_allclose(vectors @ vectors.T, np.eye(10), atol=1e-4)
  np.testing.assert_allclose(actual[:6], values[:6], rtol=1e-5)


def test_orthonormal_where_much_is_canceled():
  rng = np.random.default_rng(0)
  basis = np.linalg.qr(rng.normal(size=(60, 5)))[0]
  new = rng.normal(size=(60, 2))
  x = basis @ rng.normal(size=(5, 2)) * 1e3 + new  # A thousandth is new.
  actual = np.asarray(lanczos.orthonormal(jnp.asarray(x, jnp.float32), jnp.asarray(basis, jnp.float32)))
  np.testing.assert_allclose(actual.T @ actual, np.eye(2), atol=1e-6)
  np.testing.assert_allclose(basis.T @ actual, 0, atol=1e-6)


def test_values_count_by_their_magnitude():
  """As singular values do; of an operator with values of both signs."""
  values = np.array([9.0, -8, 7, -6, 5, *np.linspace(-3, 3, 45)])
  matrix, vectors = operator(values)
  actual, largest, residual = jax.jit(lambda rng: lanczos.largest(
      lambda x: jnp.asarray(matrix, jnp.float32) @ x, 50, 5, rng, block=4, blocks=3, num_oversamples=3, tol=1e-4,
      max_cycles=20, magnitude=True))(jax.random.key(0))
  np.testing.assert_allclose(largest, values[:5], rtol=1e-4)
  np.testing.assert_allclose(np.abs((vectors[:5] * actual.T).sum(1)), 1, atol=1e-4)
  assert residual <= 1e-4
