"""Gradient models: the optimizer's steps, accumulation, averages, auxiliary variables."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from embeddings_jax.data.sources import array_source
from embeddings_jax.gradient import CoupledLoss, gradient_model
from embeddings_jax.ops.contrastive import info_nce
from embeddings_jax.ops.sharding import DATA_AXES
from embeddings_jax.train.loop import train
from embeddings_jax.types import InputError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 3)).astype(np.float32)
Y = (X @ np.array([1.0, -2.0, 0.5]) + 3).astype(np.float32)


def init_params(rng, batch):
  return {"w": jax.random.normal(rng, (3,)), "b": jnp.zeros(())}, {"seen": jnp.zeros(())}


def loss_fn(params, extra, batch, rng):
  error = (batch["x"] @ params["w"] + params["b"] - batch["y"]) ** 2
  mask = batch["mask"]
  return (error * mask).sum() / mask.sum(), ({"largest": (error * mask).max()}, {"seen": extra["seen"] + mask.sum()})


def regression(**options):
  return gradient_model(init_params, loss_fn, lambda params, extra, batch: batch["x"] * params["w"],
                        options.pop("optimizer", optax.sgd(0.1)), **options)


def batch_of(rows=64, valid=64):
  mask = (jnp.arange(rows) < valid).astype(jnp.float32)
  return {"x": jnp.asarray(X[:rows]), "y": jnp.asarray(Y[:rows]), "mask": mask}


def test_one_step_of_gradient_descent_by_hand():
  model = regression()
  state = model.init(jax.random.key(0), batch_of())
  new, metrics = model.update(state, batch_of(), jax.random.key(1))
  w = np.asarray(state.params["w"], np.float64)
  error = X @ w - Y
  gradient = np.append(2 * (error[:, None] * X).mean(0), 2 * error.mean())
  np.testing.assert_allclose(new.params["w"], w - 0.1 * gradient[:3], rtol=1e-4)
  np.testing.assert_allclose(new.params["b"], -0.1 * gradient[3], rtol=1e-4)
  assert float(metrics["loss"]) == pytest.approx((error**2).mean(), rel=1e-4)
  assert float(metrics["gradient_norm"]) == pytest.approx(np.linalg.norm(gradient), rel=1e-4)
  assert float(new.extra["seen"]) == 64 and int(new.step) == 1


@pytest.mark.parametrize("valid", [64, 37])
def test_accumulation_is_the_same_step(valid):
  """Parts with other numbers of valid rows are weighted by them."""
  states = []
  for parts in (1, 4):
    model = regression(accumulate=parts)
    state = model.init(jax.random.key(0), batch_of())
    states.append(model.update(state, batch_of(valid=valid), jax.random.key(1)))
  (one, first), (four, second) = states
  np.testing.assert_allclose(four.params["w"], one.params["w"], rtol=1e-5)
  assert float(second["loss"]) == pytest.approx(float(first["loss"]), rel=1e-5)
  assert float(four.extra["seen"]) == float(one.extra["seen"]) == valid


def test_parts_that_do_not_divide_the_batch_are_named():
  model = regression(accumulate=3)
  batch = {"x": jnp.ones((8, 3)), "y": jnp.ones(8), "mask": jnp.ones(8)}
  state = model.init(jax.random.key(0), batch)
  with pytest.raises(InputError, match="accumulate=3: does not divide the 8 rows of a batch"):
    model.update(state, batch, jax.random.key(0))


def test_a_coupled_loss_is_not_accumulated():
  with pytest.raises(InputError, match="couples the examples"):
    regression(coupled=True, accumulate=2)


@pytest.mark.parametrize("coupled", [True, False])
def test_parts_need_the_activations_of_one_part(coupled):
  represent = lambda params, extra, batch, rng: jnp.tanh(jnp.tanh(batch["x"] @ params["up"]) @ params["down"])
  loss = CoupledLoss(represent, lambda params, extra, rows, batch: (info_nce(rows, rows).loss, ({}, extra)))
  if not coupled:
    loss = lambda params, extra, batch, rng: (jnp.square(represent(params, extra, batch, rng)).mean(), ({}, extra))
  init = lambda rng, batch: ({"up": jnp.zeros((4, 4096)), "down": jnp.zeros((4096, 4))}, {})

  def temporaries(accumulate):
    model = gradient_model(init, loss, None, optax.sgd(1.0), accumulate=accumulate)
    batch = {"x": jax.ShapeDtypeStruct((512, 4), jnp.float32)}
    state, key = jax.eval_shape(model.init, jax.random.key(0), batch), jax.eval_shape(jax.random.key, 0)
    return jax.jit(model.update).lower(state, batch, key).compile().memory_analysis().temp_size_in_bytes

  assert temporaries(8) < temporaries(1) / 3


def test_a_coupled_loss_on_eight_devices(mesh_of):
  start, one, expected = _step(0.5, 4, 64)
  mesh = mesh_of("data:2,fsdp:4")
  with jax.set_mesh(mesh):
    model = _coupled(0.5, accumulate=4)
    rows = jax.device_put(batch_of(), NamedSharding(mesh, P(DATA_AXES)))
    eight, metrics = jax.jit(model.update)(jax.device_put(start, NamedSharding(mesh, P())), rows, jax.random.key(1))
  np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=1e-6)
  np.testing.assert_allclose(eight.params["w"], one.params["w"], rtol=1e-5, atol=1e-6)


def _views(params, extra, batch, rng, dropout):
  """Two views of a row: what is dropped differs."""
  hidden = jnp.tanh(batch["x"] @ params["w"])[:, None] * jnp.ones((2, 1))
  return hidden * jax.random.bernoulli(rng, 1 - dropout, hidden.shape)


def _pairs(params, extra, views, batch):
  contrast = info_nce(views[:, 0], views[:, 1], mask=batch["mask"], temperature=jnp.exp(params["log_temperature"]))
  return contrast.loss, ({"accuracy": contrast.accuracy}, {"seen": extra["seen"] + batch["mask"].sum()})


def _coupled(dropout=0.0, **options):
  init = lambda rng, batch: ({"w": jax.random.normal(rng, (3, 5)), "log_temperature": jnp.zeros(())},
                             {"seen": jnp.zeros(())})
  loss = CoupledLoss(functools.partial(_views, dropout=dropout), _pairs)
  return gradient_model(init, loss, lambda params, extra, batch: batch["x"] @ params["w"], optax.sgd(1.0), **options)


@jax.jit(static_argnames=("dropout", "accumulate"))
def _step(dropout, accumulate, valid):
  model = _coupled(dropout, accumulate=accumulate)
  start = model.init(jax.random.key(0), batch_of())
  return start, *model.update(start, batch_of(valid=valid), jax.random.key(1))


def test_a_coupled_loss_is_accumulated_exactly_through_its_representations():
  for valid in (64, 37):
    (start, one, first), (_, four, second) = (_step(0.0, parts, valid) for parts in (1, 4))
    for name in ("loss", "accuracy", "gradient_norm"):
      np.testing.assert_allclose(second[name], first[name], rtol=1e-6)
    for name in ("w", "log_temperature"):
      size = np.abs(one.params[name] - start.params[name]).max()
      assert size > 1e-3
      np.testing.assert_allclose(four.params[name], one.params[name], rtol=1e-6, atol=1e-6 * size)
    assert four.extra["seen"] == one.extra["seen"] == valid


def test_what_a_part_drops_it_drops_again():
  """With dropout: the loss and gradient of the parts' representations, each by its key, made at once."""
  start, actual, metrics = _step(0.5, 4, 64)

  @jax.jit
  @jax.value_and_grad
  def expected(params):
    rows = jnp.zeros((64, 2, 5))
    for part in range(4):
      batch = jax.tree.map(lambda x, part=part: x[part::4], batch_of())
      rows = rows.at[part::4].set(_views(params, {}, batch, jax.random.fold_in(jax.random.key(1), part), 0.5))
    return _pairs(params, {"seen": 0}, rows, batch_of())[0]

  loss, grads = expected(start.params)
  np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-6)
  for name in ("w", "log_temperature"):
    np.testing.assert_allclose(start.params[name] - actual.params[name], grads[name], rtol=1e-5, atol=2e-7)


def test_embeddings_come_from_the_moving_average():
  model = regression(ema_decay=0.9)
  state = model.init(jax.random.key(0), batch_of())
  average = np.asarray(state.params["w"])
  for _ in range(3):
    state, _ = model.update(state, batch_of(), jax.random.key(1))
    average = 0.9 * average + 0.1 * np.asarray(state.params["w"])
  np.testing.assert_allclose(state.average["w"], average, rtol=1e-5)
  np.testing.assert_allclose(model.embed(state, batch_of()), X * average, rtol=1e-5)
  assert float(model.outputs["training_loss"](state, batch_of(), jax.random.key(0))) == pytest.approx(
      float(loss_fn(state.average, state.extra, batch_of(), None)[0]), rel=1e-6)


def test_after_update_has_the_last_word():
  model = regression(after_update=lambda state: state._replace(extra={"seen": jnp.float32(-1)}))
  state = model.init(jax.random.key(0), batch_of())
  assert float(model.update(state, batch_of(), jax.random.key(1))[0].extra["seen"]) == -1


@pytest.mark.parametrize("spec", ["data:8", "data:2,fsdp:4"])
def test_accumulation_on_eight_devices(mesh_of, spec):
  source = array_source({"x": X, "y": Y}, 32, seed=1)
  one = train(regression(), source, steps=30, mesh=mesh_of("data:1"))
  eight = train(regression(accumulate=4), source, steps=30, mesh=mesh_of(spec))
  np.testing.assert_allclose(eight.params["w"], one.params["w"], rtol=1e-4)
  np.testing.assert_allclose(eight.params["w"], [1, -2, 0.5], atol=0.05)
