"""Mutual information: the four expressions, the exact posterior by enumeration, and bounds against known truth."""
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax.ops import mutual_information as mi
from embeddings_jax.ops.contrastive import info_nce
from embeddings_jax.types import InputError

JOINT = np.array([[0.2, 0.05, 0.0, 0.1], [0.05, 0.25, 0.1, 0.0], [0.02, 0.03, 0.1, 0.1]])  # p(x, c), with zeros.


def test_four_expressions_agree():
  # Optimized, as users run it (`conftest.py` asks for quick compilation): vector sums round less.
  expressions = jax.jit(mi.expressions, compiler_options={"xla_backend_optimization_level": 3})
  expected = sum(p * np.log(p / (JOINT.sum(1)[x] * JOINT.sum(0)[c])) for (x, c), p in np.ndenumerate(JOINT) if p)
  np.testing.assert_allclose(expressions(jnp.asarray(JOINT, jnp.float32)), [expected] * 4, rtol=2e-6)
  independent = np.outer([0.3, 0.6, 0.1], [0.2, 0.4, 0.3, 0.1])
  np.testing.assert_allclose(expressions(jnp.asarray(independent, jnp.float32)), [0] * 4, atol=2e-7)
  same = jnp.eye(3, 4) / 3  # x is c.
  np.testing.assert_allclose(expressions(same), [np.log(3)] * 4, rtol=1e-6)


def test_the_best_critic_knows_which_sample_is_the_positive():
  """Against the posterior by Bayes' rule, for all triples of samples and every context."""
  of_x, given_c = JOINT.sum(1), JOINT / JOINT.sum(0)
  triples = np.array(list(itertools.product(range(3), repeat=3)))
  scores = mi.log_ratio(jnp.asarray(JOINT, jnp.float32))
  for c in range(4):
    for triple in triples:
      likelihood = [np.prod([given_c[x, c] if d == place else of_x[x] for place, x in enumerate(triple)])
                    for d in range(3)]
      if sum(likelihood):  # Else the triple cannot occur.
        actual = mi.posterior(scores[triple, c])
        np.testing.assert_allclose(actual, np.array(likelihood) / sum(likelihood), rtol=1e-5)


def test_bounds_equal_their_loops():
  scores = np.random.default_rng(0).normal(size=(6, 6))
  own = np.mean([scores[i, i] for i in range(6)])
  others = np.mean([np.exp(scores[i, j]) for i in range(6) for j in range(6) if i != j])
  given = jnp.asarray(scores, jnp.float32)
  bounds = jax.jit(lambda s: (mi.info_nce_bound(s), mi.nwj_bound(s), mi.donsker_varadhan_bound(s)))
  loop = np.mean([scores[i, i] - np.log(np.mean([np.exp(scores[i, j]) for j in range(6)])) for i in range(6)])
  np.testing.assert_allclose(bounds(given), [loop, own - others / np.e, own - np.log(others)], rtol=2e-6)
  # The first is the loss's own bound, for scores that are inner products.
  np.testing.assert_allclose(bounds(given)[0], jax.jit(info_nce)(given, jnp.eye(6)).bound, rtol=1e-5)
  np.testing.assert_allclose(bounds(100 * jnp.eye(6))[0], np.log(6), rtol=1e-6)  # It can say no more.
  with pytest.raises(InputError, match="two pairs"):
    mi.nwj_bound(jnp.ones((1, 1)))


def test_the_best_critic_of_gaussians_is_the_ratio_of_densities():
  correlation, dim = 0.6, 3
  pairs = jax.jit(lambda rng: mi.gaussian_pairs(rng, 5, dim, correlation))(jax.random.key(0))
  x, c = (np.asarray(z, np.float64) for z in pairs)
  log_normal = lambda z, mean, var: -0.5 * (((z - mean) ** 2).sum() / var + dim * np.log(2 * np.pi * var))
  expected = [[log_normal(x[j], correlation * c[i], 1 - correlation**2) - log_normal(x[j], 0, 1) for j in range(5)]
              for i in range(5)]
  actual = jax.jit(mi.gaussian_log_ratio)(*pairs, correlation)
  np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_bounds_of_gaussians_stay_below_the_truth():
  """Means over 100 batches of 64 with the best critic, two standard errors allowed."""

  @jax.jit
  def bounds(truth):
    correlation = jnp.sqrt(1 - jnp.exp(-truth / 2))
    scores = jax.vmap(lambda rng: mi.gaussian_log_ratio(*mi.gaussian_pairs(rng, 64, 4, correlation), correlation))(
        jax.random.split(jax.random.key(1), 100))
    actual = jax.vmap(mi.info_nce_bound)(scores), jax.vmap(lambda s: mi.nwj_bound(s + 1))(scores)
    return mi.gaussian_information(correlation, 4), actual

  for truth in (1.0, 5.0):
    known, (info_nce_values, nwj_values) = jax.tree.map(np.asarray, bounds(truth))
    np.testing.assert_allclose(known, truth, rtol=1e-5)
    assert info_nce_values.mean() <= truth + 2 * info_nce_values.std(ddof=1) / 10
    assert info_nce_values.max() <= np.log(64) + 1e-6
    if truth == 1:  # Far below log n both are close.
      assert info_nce_values.mean() >= 0.95
      assert abs(nwj_values.mean() - truth) <= 2 * nwj_values.std(ddof=1) / 10
