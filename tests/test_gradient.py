"""Gradient models: the optimizer's steps, accumulation, averages, auxiliary variables."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from embeddings_jax.data.sources import array_source
from embeddings_jax.gradient import gradient_model
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


def test_a_coupled_loss_is_not_accumulated():
  with pytest.raises(InputError, match="couples the examples"):
    regression(coupled=True, accumulate=2)


def test_embeddings_come_from_the_moving_average():
  model = regression(ema_decay=0.9)
  state = model.init(jax.random.key(0), batch_of())
  average = np.asarray(state.params["w"])
  for _ in range(3):
    state, _ = model.update(state, batch_of(), jax.random.key(1))
    average = 0.9 * average + 0.1 * np.asarray(state.params["w"])
  np.testing.assert_allclose(state.average["w"], average, rtol=1e-5)
  np.testing.assert_allclose(model.embed(state, batch_of()), X * average, rtol=1e-5)
  assert float(model.outputs["loss"](state, batch_of(), jax.random.key(0))) == pytest.approx(
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
