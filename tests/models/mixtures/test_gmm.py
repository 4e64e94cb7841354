"""Gaussian mixtures: scikit-learn's iterations, the likelihood, and the three ways to do EM."""
import os

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hlo import collectives
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from embeddings_jax.data import catalog
from embeddings_jax.data.sources import array_source
from embeddings_jax.models.mixtures.gmm import COVARIANCES, gmm
from embeddings_jax.ops.free_energy import free_energy, posterior_divergence
from embeddings_jax.train.loop import NonFiniteLoss, train
from embeddings_jax.types import InputError


def planted(seed=0, n=600):
  """Three well separated Gaussians in the plane, and the labels of their rows."""
  rng = np.random.default_rng(seed)
  means = np.array([[0, 0], [6, 0], [0, 6]])
  label = rng.choice(3, n, p=[0.5, 0.3, 0.2])
  shape = np.array([[1, 0.6], [0, 0.8]])
  return (means[label] + rng.normal(size=(n, 2)) @ shape).astype(np.float32), label


def run_em(model, x, iterations, state=None, **arrays):
  batch = {"x": jnp.asarray(x), **arrays}
  state = jax.jit(model.init)(jax.random.key(0), batch) if state is None else state
  update, log_likelihoods = jax.jit(model.update), []
  for _ in range(iterations):
    state, metrics = update(state, batch, jax.random.key(0))
    log_likelihoods.append(float(metrics["log_likelihood"]))
  return state, np.array(log_likelihoods)


def relative(actual, expected):
  return np.linalg.norm(np.asarray(actual) - expected) / np.linalg.norm(expected)


def in_form(covariance, full, k):
  """A full covariance [d, d] as the start of k components of some form."""
  return {"full": np.tile(full, (k, 1, 1)), "tied": full, "diagonal": np.tile(np.diag(full), (k, 1)),
          "spherical": np.full(k, np.trace(full) / len(full))}[covariance]


def kept(moments, count, covariance):
  """Full covariances [k, d, d] of what a form keeps of the moments around the means, weighted by the counts."""
  k, dim = moments.shape[:2]
  each = moments / count[:, None, None]
  if covariance in ("full", "tied"):
    return each if covariance == "full" else np.tile(moments.sum(0) / count.sum(), (k, 1, 1))
  return (each if covariance == "diagonal" else np.trace(each, axis1=1, axis2=2)[:, None, None] / dim) * np.eye(dim)


def scikit_learn(x, k, floor, covariance, iterations):
  """Its mixture after some iterations of float64 from k rows, and our model with the same start."""
  from sklearn.exceptions import ConvergenceWarning
  from sklearn.mixture import GaussianMixture

  dim = x.shape[1]
  means = x[np.random.default_rng(0).choice(len(x), k, replace=False)].astype(np.float64)
  start = np.cov(x.T.astype(np.float64)).reshape(dim, dim)
  inverse = np.linalg.inv(start + floor * np.eye(dim))
  if covariance in ("diagonal", "spherical"):
    variance = np.diag(start) if covariance == "diagonal" else np.full(dim, np.trace(start) / dim)
    inverse = np.diag(1 / (variance + floor))
  reference = GaussianMixture(
      k, covariance_type=covariance.replace("diagonal", "diag"), reg_covar=floor, tol=0, max_iter=iterations,
      weights_init=np.full(k, 1 / k), means_init=means, precisions_init=in_form(covariance, inverse, k))
  with pytest.warns(ConvergenceWarning):
    reference.fit(x.astype(np.float64))
  model = gmm(num_components=k, covariance=covariance, reg_covar=floor, tol=0, weights=np.full(k, 1 / k),
              means=means, covariances=in_form(covariance, start, k))
  return reference, model


def compare_with_scikit_learn(x, k, floor, covariance, iterations):
  """Iterations from the same start: the bounds are 1e-4 per iteration and 1e-3 for parameters."""
  x = np.asarray(x, np.float32)
  reference, model = scikit_learn(x, k, floor, covariance, iterations)
  state, log_likelihoods = run_em(model, x, iterations)
  expected = np.array(reference.lower_bounds_)
  assert np.max(np.abs(log_likelihoods - expected) / np.maximum(1, np.abs(expected))) < 1e-4
  actual = model.outputs["components"](state)
  assert relative(actual["weights"], reference.weights_) < 1e-3
  assert relative(actual["means"], reference.means_) < 1e-3
  floored = state.covariances + (floor * np.eye(x.shape[1]) if covariance in ("full", "tied") else floor)
  assert relative(floored, reference.covariances_) < 1e-3
  # A floor that matters is no part of the maximum, so that scikit-learn's may fall as well.
  assert np.all(np.diff(log_likelihoods) > np.minimum(0, np.diff(expected)) - 2e-6 * np.abs(expected).max())
  if floor <= 1e-6:
    assert np.diff(expected).min() > -1e-9
  batch = {"x": jnp.asarray(x)}
  # On the average: a variance of 1e-6 makes a thousandth of the rounding of single rows visible.
  log_joint = np.asarray(jax.jit(model.outputs["log_joint"])(state, batch))
  resp = np.exp(log_joint - np.logaddexp.reduce(log_joint, 1)[:, None])
  assert np.abs(resp - reference.predict_proba(x.astype(np.float64))).mean() < 1e-4
  scores = reference.score_samples(x.astype(np.float64))
  assert np.abs(np.logaddexp.reduce(log_joint, 1) - scores).mean() < 1e-4 * np.abs(scores).mean()
  for criterion in ("aic", "bic"):
    ours = float(model.outputs[criterion](state, batch))
    assert ours == pytest.approx(getattr(reference, criterion)(x.astype(np.float64)), rel=1e-4)


@pytest.mark.parametrize("k,floor,covariance", [
    (10, 1e-3, "full"), (10, 1e-3, "tied"), (10, 1e-3, "diagonal"), (10, 1e-3, "spherical"),
    pytest.param(10, 1e-6, "full", marks=pytest.mark.long),
    pytest.param(10, 1e-6, "diagonal", marks=pytest.mark.long)])
def test_digits_equal_scikit_learn(k, floor, covariance):
  compare_with_scikit_learn(catalog.load("digits").items, k, floor, covariance, 12)


@pytest.mark.data
@pytest.mark.parametrize("name,k,covariance", [
    ("galaxies", 3, "full"), *[("faithful", 2, form) for form in COVARIANCES],
    *[("penguins", 3, form) for form in COVARIANCES]])
def test_small_sets_equal_scikit_learn(name, k, covariance):
  data = catalog.load(name, data_dir=os.environ["EMBEDDINGS_DATA"])
  compare_with_scikit_learn(data.items, k, 1e-6, covariance, 30)


def test_one_component_is_the_mean_and_covariance():
  x, _ = planted()
  model = gmm(num_components=1, reg_covar=0.0)
  state, log_likelihoods = run_em(model, x, 2)
  np.testing.assert_allclose(model.outputs["components"](state)["means"][0], x.mean(0), rtol=1e-5)
  np.testing.assert_allclose(state.covariances[0], np.cov(x.T, bias=True), rtol=1e-4)
  entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * np.cov(x.T, bias=True))[1]
  assert log_likelihoods[-1] == pytest.approx(-entropy, rel=1e-5)


def test_finds_planted_components():
  x, label = planted()
  model = gmm(num_components=3)
  state, _ = run_em(model, x, 60)
  actual = np.asarray(model.embed(state, {"x": jnp.asarray(x)})).argmax(1)
  agreement = np.array([[np.mean((actual == i) & (label == j)) for j in range(3)] for i in range(3)])
  assert agreement.max(0).sum() > 0.98
  np.testing.assert_allclose(np.sort(state.weights), np.sort(np.bincount(label) / len(label)), atol=0.02)


@pytest.mark.parametrize("offset", [1e4, 1e5])
def test_data_far_from_zero_loses_nothing(offset):
  """The rows are those that float32 has there, about 0 again: the same iterations, to rounding of the means."""
  x = planted()[0] + np.float32(offset)
  model = gmm(num_components=4)
  state, actual = run_em(model, x, 40)
  centered, expected = run_em(model, x - np.float32(offset), 40)
  assert np.all(np.diff(actual) > -1e-6 * np.abs(actual).max())
  np.testing.assert_allclose(actual, expected, atol=1e-4)
  np.testing.assert_allclose(state.covariances, centered.covariances, rtol=1e-2, atol=1e-3)


def test_128_features_are_safe_in_float32():
  """3 clusters in 128 correlated dimensions (condition 1e5), 1e4 from 0; scikit-learn has them in float64."""
  rng = np.random.default_rng(0)
  label = rng.integers(3, size=3000)
  mixing = rng.normal(size=(128, 128))
  x = 30 * rng.normal(size=(3, 128))[label] + rng.normal(size=(3000, 128)) @ mixing + 1e4
  x = x.astype(np.float32)
  reference, model = scikit_learn(x, 3, 1e-3, "full", 8)
  state, log_likelihoods = run_em(model, x, 8)
  np.testing.assert_allclose(log_likelihoods, reference.lower_bounds_, rtol=1e-5)
  assert relative(state.covariances + 1e-3 * np.eye(128), reference.covariances_) < 1e-3
  assert np.all(np.diff(log_likelihoods) > -1e-6 * np.abs(log_likelihoods).max())


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_compiled_densities_are_those_of_scipy(covariance):
  """In one piece: fused kernels differ with the shapes."""
  from scipy.stats import multivariate_normal

  x = np.random.default_rng(0).normal(size=(1797, 32)).astype(np.float32)
  model = gmm(num_components=4, covariance=covariance)
  state = jax.jit(model.init)(jax.random.key(0), {"x": jnp.asarray(x)})
  parts = model.outputs["components"](state)
  expected = [np.log(weight) + multivariate_normal.logpdf(x.astype(np.float64), mean, sigma)
              for weight, mean, sigma in zip(*(np.asarray(parts[name], np.float64) for name in
                                               ("weights", "means", "covariances")))]
  actual = jax.jit(model.outputs["log_joint"])(state, {"x": jnp.asarray(x)})
  np.testing.assert_allclose(actual, np.stack(expected, 1), rtol=1e-5)


def test_fewer_rows_than_features_stay_finite():
  """Every covariance is singular, and the floor is below what float32 resolves of it."""
  x = 10 * np.random.default_rng(0).normal(size=(100, 64)).astype(np.float32)
  _, log_likelihoods = run_em(gmm(num_components=4, reg_covar=1e-6), x, 10)
  assert np.isfinite(log_likelihoods).all() and log_likelihoods[-1] > log_likelihoods[0]


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_accumulating_over_a_pass_is_exact_em(covariance):
  """611 rows: the last batch of the epoch is padded, and its padding counts for nothing."""
  x = planted(n=611)[0]
  whole = gmm(num_components=3, covariance=covariance, tol=0)
  start = jax.jit(whole.init)(jax.random.key(3), {"x": jnp.asarray(x)})
  expected, log_likelihoods = run_em(whole, x, 5, start)

  source = array_source({"x": x}, 100, remainder="pad", seed=1)
  parts = gmm(num_components=3, covariance=covariance, tol=0, steps_per_epoch=source.facts["steps_per_epoch"])
  state, update = start, jax.jit(parts.update)
  for step in range(5 * 7):
    state, _ = update(state, jax.tree.map(jnp.asarray, source.batch_at(step)), None)
  assert float(state.log_likelihood) == pytest.approx(log_likelihoods[-1], rel=1e-5)
  np.testing.assert_allclose(state.offsets, expected.offsets, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(state.covariances, expected.covariances, rtol=1e-4, atol=1e-5)


def test_stepwise_em_reaches_the_exact_optimum():
  x = planted(n=4000)[0]
  start = jax.jit(gmm(num_components=3).init)(jax.random.key(0), {"x": jnp.asarray(x)})
  exact, log_likelihoods = run_em(gmm(num_components=3, tol=0), x, 50, start)
  source = array_source({"x": x}, 200)
  model = gmm(num_components=3, stepwise=True, power=0.7)
  state, update = start, jax.jit(model.update)
  for step in range(400):
    state, _ = update(state, jax.tree.map(jnp.asarray, source.batch_at(step)), None)
  held = -float(model.outputs["loss"](state, {"x": jnp.asarray(x)}))
  assert held == pytest.approx(log_likelihoods[-1], abs=0.01)
  np.testing.assert_allclose(np.sort(state.weights), np.sort(exact.weights), atol=0.02)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_stepwise_first_update_is_the_written_average(covariance):
  """With eta_0 = 1/2: parameters from the average of the start's moments and the batch's."""
  x = planted(n=50)[0]
  model = gmm(num_components=2, covariance=covariance, stepwise=True, power=1.0, reg_covar=1e-6)
  batch = {"x": jnp.asarray(x)}
  start = jax.jit(model.init)(jax.random.key(0), batch)
  resp = np.asarray(jax.jit(model.embed)(start, batch), np.float64)
  state, _ = jax.jit(model.update)(start, batch, None)
  old, new = (model.outputs["components"](s) for s in (start, state))
  count = 0.5 * np.asarray(old["weights"]) + 0.5 * resp.mean(0)
  first = 0.5 * old["weights"][:, None] * old["means"] + 0.5 * resp.T @ x / 50
  means = first / count[:, None]
  np.testing.assert_allclose(new["weights"], count, rtol=1e-4)
  np.testing.assert_allclose(new["means"], means, rtol=1e-4, atol=1e-4)
  raw = 0.5 * old["weights"][:, None, None] * (old["covariances"] + jax.vmap(jnp.outer)(old["means"], old["means"]))
  raw += 0.5 * np.einsum("nk,nd,ne->kde", resp, x, x) / 50
  moments = raw - count[:, None, None] * np.einsum("kd,ke->kde", means, means)
  np.testing.assert_allclose(new["covariances"], kept(moments, count, covariance), rtol=1e-3, atol=1e-4)


def test_chunks_do_not_change_the_sums():
  x = planted(n=611)[0]
  whole, _ = run_em(gmm(num_components=3), x, 3)
  parts, _ = run_em(gmm(num_components=3, chunk_size=100), x, 3)
  np.testing.assert_allclose(parts.offsets, whole.offsets, rtol=1e-4, atol=1e-5)


def test_eight_devices_equal_one(mesh_of):
  x = planted(n=611)[0]
  states = [train(gmm(num_components=3, tol=0, chunk_size=16), array_source({"x": x}), steps=20,
                  mesh=mesh_of(spec)) for spec in ("data:1", "data:4,fsdp:2")]
  np.testing.assert_allclose(states[0].log_likelihood, states[1].log_likelihood, rtol=1e-5)
  for one, eight in zip(jax.tree.leaves(states[0]), jax.tree.leaves(states[1])):
    one, eight = np.asarray(one), np.asarray(eight)
    assert np.linalg.norm(one - eight) <= 1e-3 * max(np.linalg.norm(one), 1e-6)


@pytest.mark.parametrize("covariance,num_init", [("full", 1), ("diagonal", 2)])
def test_one_reduction_of_the_sums_crosses_devices(covariance, num_init, mesh_of):
  """The sums of the M step in one all-reduce: their bytes do not depend on n, in loops or not."""
  mesh = mesh_of("data:8")
  model = gmm(num_components=3, covariance=covariance, num_init=num_init, chunk_size=64)

  def moved(n):
    with jax.set_mesh(mesh):
      batch = {"x": jax.ShapeDtypeStruct((n, 2), jnp.float32, sharding=NamedSharding(mesh, P("data"))),
               "mask": jax.ShapeDtypeStruct((n,), jnp.float32, sharding=NamedSharding(mesh, P("data")))}
      state = jax.eval_shape(model.init, jax.random.key(0), batch)
      return [sum(sizes) for _, sizes in collectives(jax.jit(model.update).lower(state, batch, None).compile())]

  second = {"full": 3 * 4, "diagonal": 3 * 2}[covariance]
  sums = 4 * (num_init * (3 + 3 * 2 + second + 1) + 1)
  assert moved(8 * 640) == moved(8 * 6400) == [sums]


def test_samples_have_the_mixture_s_moments():
  model = gmm(num_components=2, reg_covar=0.0)
  state = jax.jit(model.init)(jax.random.key(0), {"x": jnp.asarray(planted()[0])})
  state = state._replace(weights=jnp.array([0.25, 0.75]), offsets=jnp.array([[0.0, 0], [4, 8]]) - state.center,
                         covariances=jnp.array([[[1.0, 0], [0, 1]], [[2, 1], [1, 2]]]))
  drawn = np.asarray(model.outputs["sample"](state, jax.random.key(1), 100_000))
  np.testing.assert_allclose(drawn.mean(0), [3, 6], atol=0.05)
  between = 0.25 * 0.75 * np.outer([4, 8], [4, 8])
  within = 0.25 * np.eye(2) + 0.75 * np.array([[2, 1], [1, 2]])
  np.testing.assert_allclose(np.cov(drawn.T), between + within, rtol=0.03)


def test_converged_state_stays():
  x = planted()[0]
  model = gmm(num_components=3, tol=1e-3)
  state, _ = run_em(model, x, 60)
  assert int(state.converged) == 1
  again, metrics = model.update(state, {"x": jnp.asarray(x)}, None)
  assert float(metrics["converged"]) == 1
  chex.assert_trees_all_equal(state, again)


def test_each_half_step_lowers_the_free_energy():
  """log likelihood = -F(q, theta) + KL(q || posterior) for any q; E and M steps are descent of F in q and theta."""
  x = planted(n=300)[0]
  model = gmm(num_components=3, reg_covar=0.0)
  batch = {"x": jnp.asarray(x)}
  state = model.init(jax.random.key(1), batch)
  update, log_joint_of = jax.jit(model.update), jax.jit(model.outputs["log_joint"])
  q = jax.nn.softmax(jax.random.normal(jax.random.key(2), (300, 3)))
  log_joint, energies = log_joint_of(state, batch), []
  for _ in range(5):
    log_likelihood = jax.nn.logsumexp(log_joint, axis=1)
    np.testing.assert_allclose(log_likelihood, -free_energy(log_joint, q) + posterior_divergence(log_joint, q),
                               rtol=1e-4)
    energies.append(float(free_energy(log_joint, q).mean()))
    q = jax.nn.softmax(log_joint, axis=1)  # E step.
    np.testing.assert_allclose(posterior_divergence(log_joint, q), 0, atol=1e-5)
    energies.append(float(free_energy(log_joint, q).mean()))
    assert energies[-1] == pytest.approx(-float(log_likelihood.mean()), rel=1e-5)
    state, _ = update(state, batch, None)  # The same E step, and the M step.
    log_joint = log_joint_of(state, batch)
  assert energies[0] > energies[1] + 0.1 and np.all(np.diff(energies) < 1e-5)


def test_a_weight_is_a_number_of_copies():
  x = planted(n=200)[0]
  weight = np.random.default_rng(0).integers(0, 4, 200).astype(np.float32)
  copies = np.repeat(x, weight.astype(int), axis=0)
  model = gmm(num_components=3, means=x[:3])
  state, log_likelihoods = run_em(model, x, 10, weight=jnp.asarray(weight))
  expected, expected_log_likelihoods = run_em(model, copies, 10)
  np.testing.assert_allclose(log_likelihoods, expected_log_likelihoods, rtol=1e-5)
  np.testing.assert_allclose(state.covariances, expected.covariances, rtol=1e-3, atol=1e-4)
  bics = [float(model.outputs["bic"](state, {"x": jnp.asarray(x), "weight": jnp.asarray(weight)})),
          float(model.outputs["bic"](expected, {"x": jnp.asarray(copies)}))]
  assert bics[0] == pytest.approx(bics[1], rel=1e-5)


def test_one_m_step_with_all_labels_is_the_supervised_fit():
  x, label = planted()
  model = gmm(num_components=3, reg_covar=0.0)
  state, log_likelihoods = run_em(model, x, 2, label=jnp.asarray(label, jnp.int32))
  actual = model.outputs["components"](state)
  np.testing.assert_allclose(actual["weights"], np.bincount(label) / len(label), rtol=1e-5)
  for k in range(3):
    np.testing.assert_allclose(actual["means"][k], x[label == k].mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(actual["covariances"][k], np.cov(x[label == k].T, bias=True), rtol=1e-3, atol=1e-4)
  joint = np.asarray(model.outputs["log_joint"](state, {"x": jnp.asarray(x)}))
  assert log_likelihoods[-1] == pytest.approx(joint[np.arange(len(x)), label].mean(), rel=1e-4)  # Of x and z.


@pytest.mark.parametrize("start", ["kmeans++", "random"])
def test_a_few_labels_say_which_component_is_which(start):
  """One row in 20 is labeled."""
  x, label = planted()
  partial = np.where(np.arange(len(x)) % 20 == 0, label, -1)
  state, _ = run_em(model := gmm(num_components=3, init=start), x, 60, label=jnp.asarray(partial, jnp.int32))
  assert (np.asarray(model.embed(state, {"x": jnp.asarray(x)})).argmax(1) == label).mean() > 0.98


def expectation_of_gaps(x, weights, means, covariances):
  """Log likelihood and one M step of rows with gaps, row by row in float64."""
  from scipy.stats import multivariate_normal

  k, dim = means.shape
  count, first, second, log_likelihood = np.zeros(k), np.zeros((k, dim)), np.zeros((k, dim, dim)), 0.0
  for row in x:
    o, m = ~np.isnan(row), np.isnan(row)
    joint = np.log(weights) + [multivariate_normal.logpdf(row[o], means[j][o], covariances[j][np.ix_(o, o)])
                               if o.any() else 0.0 for j in range(k)]
    total = np.logaddexp.reduce(joint)
    log_likelihood += total
    for j in range(k):
      gain = covariances[j][np.ix_(m, o)] @ np.linalg.inv(covariances[j][np.ix_(o, o)])
      filled, spread = row.copy(), np.zeros((dim, dim))
      filled[m] = means[j][m] + gain @ (row[o] - means[j][o])
      spread[np.ix_(m, m)] = covariances[j][np.ix_(m, m)] - gain @ covariances[j][np.ix_(o, m)]
      resp = np.exp(joint[j] - total)
      count[j] += resp
      first[j] += resp * filled
      second[j] += resp * (np.outer(filled, filled) + spread)
  means = first / count[:, None]
  moments = second - count[:, None, None] * np.einsum("kd,ke->kde", means, means)
  return log_likelihood / len(x), count / len(x), means, moments, count


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_missing_entries_are_integrated_out(covariance):
  rng = np.random.default_rng(0)
  x = (planted(n=120)[0] @ rng.normal(size=(2, 4)) + rng.normal(size=(120, 4))).astype(np.float32)
  x[rng.random(x.shape) < 0.2] = np.nan
  x[0] = np.nan  # Nothing is known of it.
  model = gmm(num_components=2, covariance=covariance, missing=True, reg_covar=0.0, tol=0)
  batch = {"x": jnp.asarray(x)}
  start = jax.jit(model.init)(jax.random.key(0), batch)
  old = {name: np.asarray(value, np.float64) for name, value in model.outputs["components"](start).items()}
  mean, weights, means, moments, count = expectation_of_gaps(x.astype(np.float64), **old)
  update = jax.jit(model.update)
  state, metrics = update(start, batch, None)
  actual = model.outputs["components"](state)
  assert float(metrics["log_likelihood"]) == pytest.approx(mean, rel=1e-5)
  np.testing.assert_allclose(actual["weights"], weights, rtol=1e-4)
  np.testing.assert_allclose(actual["means"], means, rtol=1e-3, atol=1e-4)
  np.testing.assert_allclose(actual["covariances"], kept(moments, count, covariance), rtol=1e-3, atol=1e-3)
  log_likelihoods = []
  for _ in range(15):
    state, metrics = update(state, batch, None)
    log_likelihoods.append(float(metrics["log_likelihood"]))
  assert np.all(np.diff(log_likelihoods) > -1e-5)


def test_without_gaps_marginalizing_changes_nothing():
  x = planted(n=100)[0]
  expected, log_likelihoods = run_em(gmm(num_components=2), x, 3)
  state, actual = run_em(gmm(num_components=2, missing=True), x, 3)
  np.testing.assert_allclose(actual, log_likelihoods, rtol=1e-5)
  np.testing.assert_allclose(state.covariances, expected.covariances, rtol=1e-3, atol=1e-4)


def test_of_several_starts_the_best_is_kept():
  x = planted()[0]
  alone = gmm(num_components=5, init="random", tol=0)
  keys = jax.random.split(jax.random.key(0), 4)
  init = jax.jit(alone.init)
  ends = [run_em(alone, x, 20, init(key, {"x": jnp.asarray(x)}))[1] for key in keys]
  model = gmm(num_components=5, init="random", tol=0, num_init=4)
  state, log_likelihoods = run_em(model, x, 20)
  assert np.std([end[-1] for end in ends]) > 1e-3
  assert log_likelihoods[-1] == pytest.approx(max(end[-1] for end in ends), rel=1e-4)
  batch = {"x": jnp.asarray(x)}
  assert model.embed(state, batch).shape == (600, 5)
  assert -float(model.outputs["loss"](state, batch)) >= log_likelihoods[-1] - 1e-4
  assert model.outputs["components"](state)["means"].shape == (5, 2)


def test_the_least_bic_finds_the_number_of_components():
  x = planted()[0]
  bics = []
  for k in (2, 3, 4):
    state, log_likelihoods = run_em(gmm(num_components=k), x, 60)
    bics.append((6 * k - 1) * np.log(600) - 2 * 600 * log_likelihoods[-1])
  metrics = jax.jit(gmm(num_components=4).update)(state, {"x": jnp.asarray(x)}, None)[1]
  assert float(metrics["bic"]) == pytest.approx(bics[-1], rel=1e-4)
  assert float(metrics["aic"]) == pytest.approx(bics[-1] + 23 * (2 - np.log(600)), rel=1e-4)
  assert np.argmin(bics) == 1


def test_empty_and_collapsing_components_are_counted():
  """One component far from all rows, one on 30 copies of a row."""
  x = np.concatenate([planted(n=100)[0], np.full((30, 2), 20, np.float32)])
  model = gmm(num_components=3, reg_covar=1e-4, means=[[1, 1], [20, 20], [900, 900]],
              covariances=np.tile(np.eye(2), (3, 1, 1)))
  batch = {"x": jnp.asarray(x)}
  state, update = model.init(jax.random.key(0), batch), jax.jit(model.update)
  for _ in range(5):
    state, metrics = update(state, batch, None)
  assert float(metrics["empty"]) == 1 and float(metrics["collapsed"]) == 1
  assert float(metrics["smallest_weight"]) < 1e-6
  actual = model.outputs["components"](state)
  np.testing.assert_allclose(actual["means"][2], [900, 900])
  np.testing.assert_allclose(actual["covariances"][1], 1e-4 * np.eye(2), atol=1e-6)


@pytest.mark.parametrize("x", [np.ones((20, 2), np.float32), np.stack([np.arange(20.0), np.ones(20)], 1)])
def test_duplicate_rows_and_constant_columns_stay_finite(x):
  state, log_likelihoods = run_em(gmm(num_components=3, reg_covar=1e-3), np.asarray(x, np.float32), 10)
  assert np.isfinite(log_likelihoods).all() and np.isfinite(state.offsets).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_that_is_not_finite_stops_the_run(bad):
  x = planted(n=64)[0]
  x[3, 1] = bad
  with pytest.raises(NonFiniteLoss, match="loss is .* look at the batches of steps 0 to 0"):
    train(gmm(num_components=2), array_source({"x": x}), steps=2)


@pytest.mark.parametrize("options,message", [
    ({"num_components": 0}, "num_components=0"), ({"num_components": 2, "reg_covar": -1.0}, "reg_covar=-1.0"),
    ({"num_components": 2, "stepwise": True, "power": 0.5}, "power=0.5"),
    ({"num_components": 2, "covariance": "diag"}, "covariance='diag'"),
    ({"num_components": 2, "num_init": 0}, "num_init=0"),
    ({"num_components": 2, "num_labels": 3}, "has 3 labels"),
    ({"num_components": 2, "init": "kmeans"}, "init='kmeans'"),
    ({"num_components": 21}, "num_components=21: exceeds the 20 rows"),
    ({"num_components": 2, "means": [[1.0, 2.0]]}, r"means to start from: of shape \[1, 2\], should be \[2, 2\]"),
    ({"num_components": 1, "means": [[1.0, np.nan]]}, "not finite")])
def test_impossible_options_are_refused(options, message):
  with pytest.raises(InputError, match=message):
    gmm(**options).init(jax.random.key(0), {"x": jnp.ones((20, 2))})
