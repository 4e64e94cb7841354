"""Principal components: scikit-learn's, by all three ways, whatever the batches and devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hlo import collectives
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from sklearn.decomposition import PCA, IncrementalPCA, TruncatedSVD

from embeddings_jax.data.sources import array_source
from embeddings_jax.models.factorization import pca as pca_module
from embeddings_jax.models.factorization.pca import pca
from embeddings_jax.train.loop import train
from embeddings_jax.train.mesh import make_mesh
from embeddings_jax.types import InputError

N, D, K = 611, 24, 5


def cloud(offset=1000.0):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(N, D)) * 1.3 ** -np.arange(D) @ np.linalg.qr(rng.normal(size=(D, D)))[0]
  return (x + offset).astype(np.float32)


def fit(x, batch_size=None, passes=30, mesh=None, **options):
  """`(model, state, records)`; the last batch of an epoch is padded."""
  source = array_source({"x": x}, batch_size, remainder="pad", order="sequential")
  steps = source.facts["steps_per_epoch"]
  model = pca(num_features=x.shape[1], num_rows=len(x), steps_per_epoch=steps,
              **{"dim": K, "num_epochs": 3, **options})
  records = []
  mesh = mesh or make_mesh("data:1", jax.devices()[:1])
  state = train(model, source, steps=passes * steps, mesh=mesh, log_every=1,
                write=lambda step, record: records.append(record))
  return model, state, records


@pytest.fixture(scope="module")
def reference():
  return PCA(K).fit(cloud().astype(np.float64))


def compare(state, reference, rtol=1e-5):
  np.testing.assert_allclose(state.components, reference.components_, atol=rtol)  # The signs agree as well.
  np.testing.assert_allclose(state.variances, reference.explained_variance_, rtol=rtol)
  np.testing.assert_allclose(state.variances / state.total, reference.explained_variance_ratio_, rtol=rtol)
  np.testing.assert_allclose(state.mean, reference.mean_, atol=1e-3)


@pytest.mark.parametrize("solver,batch_size", [("exact", None), ("exact", 100), ("randomized", None),
                                               ("randomized", 100)])
def test_components_are_scikit_learns(reference, solver, batch_size):
  """On data that is far from 0, which costs float32 no digits."""
  model, state, records = fit(cloud(), batch_size, solver=solver, tol=1e-4)
  compare(state, reference)
  assert records[-1]["converged"] == 1 and len(records) < 30 * (7 if batch_size else 1)
  assert solver == "randomized" or len(records) <= 8  # One pass, and the step until the loop knows of it.
  x = cloud()
  batch = {"x": jnp.asarray(x)}
  np.testing.assert_allclose(model.embed(state, batch), reference.transform(x.astype(np.float64)), atol=2e-3)
  left = np.square(x - reference.inverse_transform(reference.transform(x.astype(np.float64)))).sum(1).mean()
  assert records[-1]["loss"] == pytest.approx(left, rel=1e-3)
  if not batch_size:
    assert float(model.outputs["loss"](state, batch)) == pytest.approx(left, rel=1e-3)
    actual = model.outputs["components"](state)
    np.testing.assert_allclose(actual["singular_values"], reference.singular_values_, rtol=1e-5)


def test_incremental_is_scikit_learns(monkeypatch):
  """And where the scatter matrix is not formed, the same to what its search leaves."""
  x = cloud(offset=10)
  expected = IncrementalPCA(K, batch_size=100).fit(x.astype(np.float64))
  _, state, records = fit(x, 100, solver="incremental")
  np.testing.assert_allclose(state.components, expected.components_, atol=1e-5)
  np.testing.assert_allclose(state.variances, expected.explained_variance_, rtol=1e-5)
  np.testing.assert_allclose(state.total, expected.var_.sum() * N / (N - 1), rtol=1e-5)
  np.testing.assert_allclose(state.mean, expected.mean_, rtol=1e-5)
  assert len(records) <= 8 and [record["converged"] for record in records[:7]] == [0] * 6 + [1]
  monkeypatch.setattr(pca_module, "EXACT_FEATURES", 8)
  _, wide, _ = fit(x, 100, solver="incremental")
  np.testing.assert_allclose(wide.variances, expected.explained_variance_, rtol=1e-4)
  np.testing.assert_allclose(wide.components, expected.components_, atol=2e-3)


def test_without_centering_it_is_the_truncated_svd():
  x = cloud(offset=2)
  expected = TruncatedSVD(K, algorithm="arpack").fit(x.astype(np.float64))
  model, state, _ = fit(x, center=False)
  actual = model.outputs["components"](state)
  np.testing.assert_allclose(actual["singular_values"], expected.singular_values_, rtol=1e-4)
  np.testing.assert_allclose(np.abs(actual["components"] @ expected.components_.T), np.eye(K), atol=1e-3)
  assert not state.mean.any()


def test_whitened_coordinates_have_the_unit_covariance():
  x = np.concatenate([cloud(3), np.full((N, 2), 7.0, np.float32)], 1)  # Constant columns explain nothing.
  x[:, :24] = np.tile(x[:, :8], 3)  # Nor do copies, beyond the rank of 8.
  model, state, _ = fit(x, dim=12, whiten=True)
  z = np.asarray(model.embed(state, {"x": jnp.asarray(x)}))
  np.testing.assert_allclose(np.cov(z[:, :8].T), np.eye(8), atol=2e-3)
  assert np.abs(z[:, 8:]).max() == 0 and np.all(np.isfinite(state.components))
  np.testing.assert_allclose(state.components[:, 24:], 0, atol=1e-5)


def test_any_rotation_of_the_basis_leaves_the_error():
  x = cloud(0)
  model, state, _ = fit(x)
  turn = np.linalg.qr(np.random.default_rng(1).normal(size=(K, K)))[0]
  error = lambda state: float(model.outputs["loss"](state, {"x": jnp.asarray(x)}))
  turned = state._replace(components=jnp.asarray(turn, jnp.float32) @ state.components)
  assert error(turned) == pytest.approx(error(state), rel=1e-5)
  tilted = state._replace(components=jnp.eye(K, D))
  assert error(tilted) > 1.5 * error(state)


def test_products_and_distances_approach_those_of_the_data():
  """With more components products and distances of rows come closer; with all of them they are equal."""
  x = cloud(0)
  model, state, _ = fit(x, dim=D)
  centered = x - x.mean(0)
  codes = np.asarray(model.embed(state, {"x": jnp.asarray(x)}))
  distance = lambda rows: np.linalg.norm(rows[:100, None] - rows[None, :100], axis=2)
  products = [np.abs(codes[:, :k] @ codes[:, :k].T - centered @ centered.T).max() for k in (1, 4, 12, D)]
  distances = [np.abs(distance(codes[:, :k]) - distance(centered)).max() for k in (1, 4, 12, D)]
  for errors in (products, distances):
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-3 < 0.1 * errors[0]


@pytest.mark.parametrize("options, message", [
    (dict(dim=25), "dim=25: must be from 1 to 24, for the data has 611 rows of 24 features"),
    (dict(num_rows=3), "dim=5: must be from 1 to 3"), (dict(dim=0), "dim=0"), (dict(solver="exat"), "one of auto"),
    (dict(num_epochs=1), "num_epochs=1: must be at least 2")])
def test_what_cannot_be_is_said(options, message):
  with pytest.raises(InputError, match=message):
    pca(**{"num_features": D, "num_rows": N, "dim": K, **options})


@pytest.mark.parametrize("solver", [
    "randomized", pytest.param("exact", marks=pytest.mark.long), pytest.param("incremental", marks=pytest.mark.long)])
def test_eight_devices_find_the_same_by_one_sum_that_does_not_grow(solver, mesh_of, monkeypatch):
  monkeypatch.setattr(pca_module, "EXACT_FEATURES", 8)  # No scatter matrix, then, but for the exact way.
  x = cloud()[:608]
  options = dict(solver=solver, tol=0, chunk_size=32)
  one, eight = (fit(x, 304, passes=6, mesh=mesh_of(mesh), **options)[1] for mesh in ("data:1", "data:4,fsdp:2"))
  np.testing.assert_allclose(eight.variances, one.variances, rtol=1e-4)
  np.testing.assert_allclose(eight.components, one.components, atol=1e-3)

  model = pca(num_features=D, num_rows=N, dim=K, **options)
  mesh = mesh_of("data:8")

  def moved(n):
    with jax.set_mesh(mesh):
      shape = lambda *dims: jax.ShapeDtypeStruct(dims, jnp.float32, sharding=NamedSharding(mesh, P("data")))
      batch = {"x": shape(n, D), "mask": shape(n)}
      state = jax.eval_shape(model.init, jax.random.key(0), batch)
      compiled = jax.jit(model.update).lower(state, batch, jax.random.key(0)).compile()
    return sorted(sorted(size // 4 for size in sizes) for _, sizes in collectives(compiled))

  sums = moved(8 * 128)
  assert sums == moved(8 * 1280)
  once = lambda width: [[1, 1, D, D * width]]
  assert sums == {"exact": once(D), "randomized": once(K + 10),
                  "incremental": sorted([*once(20), [1, D, D * 20]])}[solver]  # It multiplies twice.
