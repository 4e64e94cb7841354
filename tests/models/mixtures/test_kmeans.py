"""k-means: scikit-learn's centers, and the limit of a mixture whose variance goes to 0."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax.data import catalog
from embeddings_jax.data.sources import array_source
from embeddings_jax.models.mixtures.gmm import gmm
from embeddings_jax.models.mixtures.kmeans import kmeans
from embeddings_jax.ops.centers import starting_centers
from embeddings_jax.train.loop import train
from embeddings_jax.types import InputError


@pytest.fixture(scope="module")
def digits():
  return np.asarray(catalog.load("digits").items, np.float32)


def run(model, x, iterations, state=None, **arrays):
  batch = {"x": jnp.asarray(x), **arrays}
  state = jax.jit(model.init)(jax.random.key(0), batch) if state is None else state
  update, losses = jax.jit(model.update), []
  for _ in range(iterations):
    state, metrics = update(state, batch, None)
    losses.append(float(metrics["loss"]))
  return state, np.array(losses)


def test_equals_scikit_learn(digits):
  from sklearn.cluster import KMeans
  start = digits[np.random.default_rng(0).choice(len(digits), 10, replace=False)]
  model = kmeans(num_components=10, means=start, tol=0)
  state, losses = run(model, digits, 100)
  reference = KMeans(10, init=start.astype(np.float64), n_init=1, tol=0, max_iter=300).fit(digits.astype(np.float64))
  assert int(state.converged) == 1
  batch = {"x": jnp.asarray(digits)}
  actual = model.outputs["components"](state)
  np.testing.assert_allclose(actual["means"], reference.cluster_centers_, atol=1e-5)
  assert losses[-1] * len(digits) == pytest.approx(reference.inertia_, rel=1e-5)
  assert float(model.outputs["loss"](state, batch)) == pytest.approx(losses[-1], rel=1e-5)
  np.testing.assert_array_equal(jax.jit(model.embed)(state, batch).argmax(1), reference.labels_)
  assert np.all(np.diff(losses) < 1e-6)


def test_is_the_hard_limit_of_a_mixture(digits):
  """A spherical mixture of equal weights and a variance of 1e-5 assigns rows as k-means does, and moves alike."""
  start = digits[::180][:9]
  hard = kmeans(num_components=9, means=start)
  soft = gmm(num_components=9, covariance="spherical", means=start, weights=np.full(9, 1 / 9),
             covariances=np.full(9, 1e-5), reg_covar=0.0)
  batch = {"x": jnp.asarray(digits)}
  states = [jax.jit(model.init)(jax.random.key(0), batch) for model in (hard, soft)]
  resp, assigned = jax.jit(soft.embed)(states[1], batch), jax.jit(hard.embed)(states[0], batch)
  nearest = np.sort(jax.jit(hard.outputs["distances"])(states[0], batch), 1)
  clear = nearest[:, 1] - nearest[:, 0] > 1e-4
  assert clear.sum() > 1790
  np.testing.assert_array_equal(resp.argmax(1)[clear], assigned.argmax(1)[clear])
  assert (jnp.abs(resp - assigned).max(1) < 1e-6).mean() > 0.99
  batch["weight"] = jnp.asarray(clear, jnp.float32)  # A row between two centers goes to both, or to the first.
  states = [jax.jit(model.update)(state, batch, None)[0] for model, state in zip((hard, soft), states)]
  np.testing.assert_allclose(states[1].offsets, states[0].offsets, atol=1e-3)


@pytest.mark.parametrize("offset", [0, 1e5])
def test_accumulated_whole_and_chunked_are_the_same(offset):
  """611 rows: the last batch of the epoch is padded. Far from 0 the rows are what float32 has there."""
  rng = np.random.default_rng(0)
  x = (rng.normal(size=(611, 3)) + 4 * rng.normal(size=(5, 3))[rng.integers(5, size=611)] + offset).astype(np.float32)
  start = x[:5]
  whole, losses = run(kmeans(num_components=5, means=start, tol=0), x, 5)
  chunked, _ = run(kmeans(num_components=5, means=start, tol=0, chunk_size=100), x, 5)
  source = array_source({"x": x}, 104, remainder="pad", seed=1)
  parts = train(kmeans(num_components=5, means=start, tol=0, steps_per_epoch=6), source, steps=30)
  for other in (chunked, parts):
    np.testing.assert_allclose(other.offsets + (other.center - whole.center), whole.offsets, atol=1e-4)
  assert float(parts.inertia) == pytest.approx(losses[-1], rel=1e-5)
  label = ((x[:, None].astype(np.float64) - start) ** 2).sum(-1).argmin(1)
  once = run(kmeans(num_components=5, means=start), x, 1)[0]
  for k in range(5):
    np.testing.assert_allclose(once.offsets[k], (x[label == k].astype(np.float64) - np.asarray(once.center)).mean(0),
                               atol=1e-4)


def test_stepwise_comes_near_the_exact_optimum(digits):
  exact, losses = run(kmeans(num_components=3, means=digits[:3]), digits, 50)
  source = array_source({"x": digits}, 256)
  model = kmeans(num_components=3, means=digits[:3], stepwise=True)
  state = train(model, source, steps=200, steps_per_dispatch=50)
  assert float(model.outputs["loss"](state, {"x": jnp.asarray(digits)})) < 1.02 * losses[-1]


def test_a_weight_is_a_number_of_copies(digits):
  weight = np.random.default_rng(0).integers(0, 3, 300).astype(np.float32)
  model = kmeans(num_components=4, means=digits[:4])
  state, losses = run(model, digits[:300], 5, weight=jnp.asarray(weight))
  copies, expected = run(model, np.repeat(digits[:300], weight.astype(int), axis=0), 5)
  np.testing.assert_allclose(losses, expected, rtol=1e-5)
  np.testing.assert_allclose(state.offsets + state.center, copies.offsets + copies.center, atol=1e-5)


def test_of_several_starts_the_best_is_kept(digits):
  alone = kmeans(num_components=10, init="random", tol=0)
  init = jax.jit(alone.init)
  ends = [run(alone, digits, 15, init(key, {"x": jnp.asarray(digits)}))[1][-1]
          for key in jax.random.split(jax.random.key(0), 3)]
  _, losses = run(kmeans(num_components=10, init="random", tol=0, num_init=3), digits, 15)
  assert max(ends) > min(ends) + 1e-3
  assert losses[-1] == pytest.approx(min(ends), rel=1e-4)


def test_plus_plus_draws_in_proportion_to_squared_distances():
  """Rows at 0, 1 and 3 with weights 1, 1 and 0.5: the second center given the first."""
  x, weight = jnp.array([[0.0], [1], [3], [7]]), jnp.array([1, 1, 0.5, 0])
  draw = jax.jit(jax.vmap(lambda key: starting_centers(key, "kmeans++", x, weight, 2)[:, 0]))
  pairs = np.asarray(draw(jax.random.split(jax.random.key(0), 20_000)))
  assert not (pairs == 7).any() and (pairs[:, 0] != pairs[:, 1]).all()
  assert (pairs[:, 0] == 3).mean() == pytest.approx(0.2, abs=0.01)
  assert (pairs[pairs[:, 0] == 0, 1] == 3).mean() == pytest.approx(4.5 / 5.5, abs=0.015)
  draw = jax.vmap(lambda key: starting_centers(key, "random", x, weight, 3)[:, 0])
  rows = draw(jax.random.split(jax.random.key(0), 99))
  np.testing.assert_array_equal(np.sort(rows, 1), np.tile([0, 1, 3], (99, 1)))


def test_empty_centers_stay_and_duplicates_are_finite():
  x = np.ones((20, 2), np.float32)
  state, losses = run(kmeans(num_components=2, means=[[1, 2], [5, 5]]), x, 4)
  np.testing.assert_allclose(state.offsets + state.center, [[1, 1], [5, 5]])
  metrics = kmeans(num_components=2).update(state, {"x": jnp.asarray(x)}, None)[1]
  assert float(metrics["empty"]) == 1 and losses[-1] == 0
  state, losses = run(kmeans(num_components=3), x, 3)
  assert np.isfinite(losses).all() and np.isfinite(state.offsets).all()


def test_eight_devices_equal_one(mesh_of, digits):
  states = [train(kmeans(num_components=4, means=digits[:4], tol=0, chunk_size=64), array_source({"x": digits}),
                  steps=10, mesh=mesh_of(spec)) for spec in ("data:1", "data:4,fsdp:2")]
  np.testing.assert_allclose(states[0].offsets, states[1].offsets, atol=1e-5)


@pytest.mark.parametrize("options,message", [
    ({"num_components": 0}, "num_components=0"), ({"num_components": 2, "stepwise": True, "power": 2}, "power=2"),
    ({"num_components": 9}, "exceeds the 8 rows"), ({"num_components": 2, "init": "first"}, "init='first'"),
    ({"num_components": 2, "means": [[1.0]]}, r"means to start from: of shape \[1, 1\]")])
def test_impossible_options_are_refused(options, message):
  with pytest.raises(InputError, match=message):
    kmeans(**options).init(jax.random.key(0), {"x": jnp.ones((8, 2))})
