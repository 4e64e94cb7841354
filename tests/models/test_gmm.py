"""Gaussian mixtures: scikit-learn's iterations, the likelihood, and the three ways to do EM."""
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from embeddings_jax.data import catalog
from embeddings_jax.data.sources import array_source
from embeddings_jax.models.gmm import gmm
from embeddings_jax.train.loop import train
from embeddings_jax.types import InputError


def planted(seed=0, n=600):
  """Three well separated Gaussians in the plane, and the labels of their rows."""
  rng = np.random.default_rng(seed)
  means = np.array([[0, 0], [6, 0], [0, 6]])
  label = rng.choice(3, n, p=[0.5, 0.3, 0.2])
  shape = np.array([[1, 0.6], [0, 0.8]])
  return (means[label] + rng.normal(size=(n, 2)) @ shape).astype(np.float32), label


def run_em(model, x, iterations, state=None):
  batch = {"x": jnp.asarray(x)}
  state = model.init(jax.random.key(0), batch) if state is None else state
  update, log_likelihoods = jax.jit(model.update), []
  for _ in range(iterations):
    state, metrics = update(state, batch, jax.random.key(0))
    log_likelihoods.append(float(metrics["log_likelihood"]))
  return state, np.array(log_likelihoods)


def relative(found, expected):
  return np.linalg.norm(np.asarray(found) - expected) / np.linalg.norm(expected)


def compare_with_scikit_learn(x, k, floor):
  """30 iterations from the same start: issue bounds 1e-4 per iteration and 1e-3 for parameters."""
  from sklearn.exceptions import ConvergenceWarning
  from sklearn.mixture import GaussianMixture

  x = np.asarray(x, np.float32)
  dim = x.shape[1]
  means = x[np.random.default_rng(0).choice(len(x), k, replace=False)].astype(np.float64)
  covariance = np.cov(x.T.astype(np.float64)).reshape(dim, dim)
  reference = GaussianMixture(
      k, reg_covar=floor, tol=0, max_iter=30, weights_init=np.full(k, 1 / k), means_init=means,
      precisions_init=np.tile(np.linalg.inv(covariance + floor * np.eye(dim)), (k, 1, 1)))
  with pytest.warns(ConvergenceWarning):
    reference.fit(x.astype(np.float64))

  model = gmm(num_components=k, floor=floor, tolerance=0)
  start = model.init(jax.random.key(0), {"x": jnp.asarray(x)})
  start = start._replace(weights=jnp.full(k, 1 / k), means=jnp.asarray(means, jnp.float32),
                         covariances=jnp.tile(jnp.asarray(covariance, jnp.float32), (k, 1, 1)))
  state, log_likelihoods = run_em(model, x, 30, start)
  expected = np.array(reference.lower_bounds_)
  assert np.max(np.abs(log_likelihoods - expected) / np.maximum(1, np.abs(expected))) < 1e-4
  found = model.outputs["components"](state)
  assert relative(found["weights"], reference.weights_) < 1e-3
  assert relative(found["means"], reference.means_) < 1e-3
  assert relative(found["covariances"], reference.covariances_) < 1e-3
  assert np.all(np.diff(log_likelihoods) > -1e-5 * np.abs(expected).max())
  batch = {"x": jnp.asarray(x)}
  # On the average: a variance of 1e-6 makes a thousandth of the rounding of single rows visible.
  assert np.abs(model.embed(state, batch) - reference.predict_proba(x.astype(np.float64))).mean() < 1e-4
  scores = reference.score_samples(x.astype(np.float64))
  assert np.abs(model.outputs["log_likelihood"](state, batch) - scores).mean() < 1e-4 * np.abs(scores).mean()


@pytest.mark.parametrize("k,floor", [(10, 1e-3), (10, 1e-6), (5, 1e-2)])
def test_digits_equal_scikit_learn(k, floor):
  compare_with_scikit_learn(catalog.load("digits").items, k, floor)


@pytest.mark.data
@pytest.mark.parametrize("name,k", [("faithful", 2), ("galaxies", 3), ("penguins", 3)])
def test_small_sets_equal_scikit_learn(name, k):
  compare_with_scikit_learn(catalog.load(name, data_dir=os.environ["EMBEDDINGS_DATA"]).items, k, 1e-6)


def test_one_component_is_the_mean_and_covariance():
  x, _ = planted()
  model = gmm(num_components=1, floor=0.0)
  state, log_likelihoods = run_em(model, x, 2)
  np.testing.assert_allclose(state.means[0], x.mean(0), rtol=1e-5)
  np.testing.assert_allclose(state.covariances[0], np.cov(x.T, bias=True), rtol=1e-4)
  entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * np.cov(x.T, bias=True))[1]
  assert log_likelihoods[-1] == pytest.approx(-entropy, rel=1e-5)


def test_finds_planted_components():
  x, label = planted()
  model = gmm(num_components=3)
  state, _ = run_em(model, x, 60)
  found = np.asarray(model.embed(state, {"x": jnp.asarray(x)})).argmax(1)
  agreement = np.array([[np.mean((found == i) & (label == j)) for j in range(3)] for i in range(3)])
  assert agreement.max(0).sum() > 0.98
  np.testing.assert_allclose(np.sort(state.weights), np.sort(np.bincount(label) / len(label)), atol=0.02)


def test_log_likelihood_never_falls_on_uncentred_data():
  x = planted()[0] + np.float32(1000)
  _, log_likelihoods = run_em(gmm(num_components=4), x, 40)
  centred = run_em(gmm(num_components=4), x - np.float32(1000), 40)[1]
  assert np.all(np.diff(log_likelihoods) > -1e-5)
  assert log_likelihoods[-1] == pytest.approx(centred[-1], abs=2e-3)


def test_accumulating_over_a_pass_is_exact_em():
  """611 rows: the last batch of the pass is padded, and its padding counts for nothing."""
  x = planted(n=611)[0]
  whole = gmm(num_components=3, tolerance=0)
  start = whole.init(jax.random.key(3), {"x": jnp.asarray(x)})
  expected, log_likelihoods = run_em(whole, x, 5, start)

  source = array_source({"x": x}, 100, remainder="pad", seed=1)
  parts = gmm(num_components=3, tolerance=0, steps_per_epoch=source.facts["steps_per_epoch"])
  state, update = start, jax.jit(parts.update)
  for step in range(5 * 7):
    state, _ = update(state, jax.tree.map(jnp.asarray, source.batch_at(step)), None)
  assert float(state.log_likelihood) == pytest.approx(log_likelihoods[-1], rel=1e-5)
  np.testing.assert_allclose(state.means, expected.means, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(state.covariances, expected.covariances, rtol=1e-4, atol=1e-5)


def test_stepwise_em_reaches_the_exact_optimum():
  x = planted(n=4000)[0]
  start = gmm(num_components=3).init(jax.random.key(0), {"x": jnp.asarray(x)})
  exact, log_likelihoods = run_em(gmm(num_components=3, tolerance=0), x, 50, start)
  source = array_source({"x": x}, 200)
  model = gmm(num_components=3, stepwise=True, power=0.7)
  state, update = start, jax.jit(model.update)
  for step in range(400):
    state, _ = update(state, jax.tree.map(jnp.asarray, source.batch_at(step)), None)
  held = -float(model.outputs["loss"](state, {"x": jnp.asarray(x)}))
  assert held == pytest.approx(log_likelihoods[-1], abs=0.01)
  np.testing.assert_allclose(np.sort(state.weights), np.sort(exact.weights), atol=0.02)


def test_stepwise_first_update_is_the_written_average():
  """With eta_0 = 2^-power, the means are the weighted means of old and new statistics."""
  x = planted(n=50)[0]
  model = gmm(num_components=2, stepwise=True, power=1.0, floor=1e-6)
  start = model.init(jax.random.key(0), {"x": jnp.asarray(x)})
  resp = np.asarray(model.embed(start, {"x": jnp.asarray(x)}), np.float64)
  state, _ = model.update(start, {"x": jnp.asarray(x)}, None)
  count = 0.5 * np.asarray(start.weights) + 0.5 * resp.mean(0)
  first = 0.5 * np.asarray(start.weights)[:, None] * np.asarray(start.means) + 0.5 * resp.T @ x / 50
  np.testing.assert_allclose(state.weights, count, rtol=1e-4)
  np.testing.assert_allclose(state.means, first / count[:, None], rtol=1e-4, atol=1e-4)


def test_chunks_do_not_change_the_sums():
  x = planted(n=611)[0]
  whole, _ = run_em(gmm(num_components=3), x, 3)
  parts, _ = run_em(gmm(num_components=3, chunk_size=100), x, 3)
  np.testing.assert_allclose(parts.means, whole.means, rtol=1e-4, atol=1e-5)


def test_eight_devices_equal_one(mesh_of):
  x = planted(n=611)[0]
  states = [train(gmm(num_components=3, tolerance=0, chunk_size=16), array_source({"x": x}), steps=20,
                  mesh=mesh_of(spec)) for spec in ("data:1", "data:4,fsdp:2")]
  np.testing.assert_allclose(states[0].log_likelihood, states[1].log_likelihood, rtol=1e-5)
  for one, eight in zip(jax.tree.leaves(states[0]), jax.tree.leaves(states[1])):
    one, eight = np.asarray(one), np.asarray(eight)
    assert np.linalg.norm(one - eight) <= 1e-3 * max(np.linalg.norm(one), 1e-6)


def test_no_collective_grows_with_the_rows(mesh_of):
  """The sums of the M step are what crosses devices: their bytes do not depend on n, in loops or not."""
  import re
  mesh = mesh_of("data:8")
  model = gmm(num_components=3, chunk_size=64)

  def collective_bytes(n):
    with jax.set_mesh(mesh):
      batch = {"x": jax.ShapeDtypeStruct((n, 2), jnp.float32, sharding=NamedSharding(mesh, P("data"))),
               "mask": jax.ShapeDtypeStruct((n,), jnp.float32, sharding=NamedSharding(mesh, P("data")))}
      state = jax.eval_shape(model.init, jax.random.key(0), batch)
      text = jax.jit(model.update).lower(state, batch, None).compile().as_text()
    total = 0
    for line in text.splitlines():
      operation = re.search(r"= (.*?) (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)", line)
      if operation:
        for dims in re.findall(r"[fsu]\d+\[([\d,]*)\]", operation[1]):
          total += 4 * int(np.prod([int(d) for d in dims.split(",") if d] or [1]))
    return total

  sums = 4 * (3 + 3 * 2 + 3 * 4 + 2)
  assert collective_bytes(8 * 640) == collective_bytes(8 * 6400) == sums


def test_samples_have_the_mixture_s_moments():
  model = gmm(num_components=2, floor=0.0)
  state = model.init(jax.random.key(0), {"x": jnp.asarray(planted()[0])})
  state = state._replace(weights=jnp.array([0.25, 0.75]), means=jnp.array([[0.0, 0], [4, 8]]),
                         covariances=jnp.array([[[1.0, 0], [0, 1]], [[2, 1], [1, 2]]]))
  drawn = np.asarray(model.outputs["sample"](state, {"x": jnp.zeros((100_000, 2))}, jax.random.key(1)))
  np.testing.assert_allclose(drawn.mean(0), [3, 6], atol=0.05)
  between = 0.25 * 0.75 * np.outer([4, 8], [4, 8])
  within = 0.25 * np.eye(2) + 0.75 * np.array([[2, 1], [1, 2]])
  np.testing.assert_allclose(np.cov(drawn.T), between + within, rtol=0.03)


def test_converged_state_stays():
  x = planted()[0]
  model = gmm(num_components=3, tolerance=1e-3)
  state, _ = run_em(model, x, 60)
  assert int(state.converged) == 1
  again, metrics = model.update(state, {"x": jnp.asarray(x)}, None)
  assert float(metrics["converged"]) == 1
  jax.tree.map(np.testing.assert_array_equal, state, again)


def test_duplicate_rows_stay_finite():
  state, log_likelihoods = run_em(gmm(num_components=3, floor=1e-3), np.ones((20, 2), np.float32), 10)
  assert np.isfinite(log_likelihoods).all() and np.isfinite(state.means).all()


@pytest.mark.parametrize("options", [{"num_components": 0}, {"num_components": 2, "floor": -1.0},
                                     {"num_components": 2, "stepwise": True, "power": 0.5}])
def test_impossible_options_are_refused(options):
  with pytest.raises(InputError):
    gmm(**options)
