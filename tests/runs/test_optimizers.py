"""Schedules by their values, optimizers by name, mistakes by one line."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from embeddings_jax.runs import optimizers, presets
from embeddings_jax.types import InputError


@pytest.mark.parametrize("config,values", [
    ({"schedule": "constant"}, {0: 1.0, 50: 1.0, 100: 1.0}),
    ({"schedule": "linear"}, {0: 1.0, 50: 0.5, 100: 0.0}),
    ({"schedule": "linear", "end_fraction": 0.2}, {0: 1.0, 50: 0.6, 100: 0.2}),
    ({"schedule": "cosine"}, {0: 1.0, 50: 0.5, 100: 0.0}),
    ({"schedule": "cosine", "warmup_steps": 20}, {0: 0.0, 10: 0.5, 20: 1.0, 60: 0.5, 100: 0.0}),
    ({"schedule": "rsqrt", "warmup_steps": 10}, {0: 0.0, 10: 1.0, 40: 0.5}),
])
def test_schedules(config, values):
  schedule = optimizers.schedule({"learning_rate": 1.0, **config}, 100)
  for step, value in values.items():
    assert float(schedule(jnp.int32(step))) == pytest.approx(value, abs=1e-6)


def test_clipping_comes_before_the_optimizer():
  tx = optimizers.optimizer({"name": "sgd", "learning_rate": 1.0, "clip_norm": 1.0}, 10)
  params = {"w": jnp.zeros(2)}
  updates, _ = tx.update({"w": jnp.array([3.0, 4.0])}, tx.init(params), params)
  np.testing.assert_allclose(updates["w"], [-0.6, -0.8], rtol=1e-6)


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_every_optimizer_goes_downhill(name):
  tx = optimizers.optimizer({"name": name, "learning_rate": 0.1}, 10)
  params = {"w": jnp.array([1.0, -2.0])}
  updates, _ = tx.update(params, tx.init(params), params)
  assert (np.sign(updates["w"]) == [-1, 1]).all()


def test_biases_and_scales_do_not_decay():
  params = {"norm": {"scale": jnp.ones(2), "bias": jnp.ones(2)}, "kernel": jnp.ones((2, 2))}
  for name in ("adamw", "lamb", "lars", "sgd"):
    tx = optimizers.optimizer({"name": name, "learning_rate": 0.1, "weight_decay": 0.5}, 10)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    assert (np.asarray(updates["kernel"]) < 0).all()
    assert not updates["norm"]["scale"].any() and not updates["norm"]["bias"].any()


def test_lamb_scales_each_of_the_stacked_layers_by_itself():
  rng = np.random.default_rng(0)
  layers = [rng.normal(size=(3, 4)) * scale for scale in (1, 10)]
  grads = [rng.normal(size=(3, 4)) for _ in layers]
  ours, theirs = optimizers.optimizer({"name": "lamb", "learning_rate": 0.1}, 10), optax.lamb(0.1)
  params = {"layers": {"kernel": jnp.stack(layers)}}
  actual, _ = ours.update({"layers": {"kernel": jnp.stack(grads)}}, ours.init(params), params)
  for layer, grad, update in zip(layers, grads, actual["layers"]["kernel"]):
    expected, _ = theirs.update({"w": jnp.asarray(grad)}, theirs.init({"w": jnp.asarray(layer)}),
                                {"w": jnp.asarray(layer)})
    np.testing.assert_allclose(update, expected["w"], rtol=1e-5)


@pytest.mark.parametrize("config,expected", [
    ({"name": "adma"}, "did you mean adam?"),
    ({"schedule": "cosin"}, "did you mean cosine?"),
    ({"rate": 1}, "unknown rate"),
    ({"name": "adagrad", "weight_decay": 0.1}, "weight_decay=0.1: adagrad does not take it; adamw, sgd, lamb, lars"),
    ({"name": "adamw", "adam_fraction": 0.2}, "adam_fraction=0.2: adamw does not take it; muon do"),
    ({"name": "adam", "momentum": 0.9}, "momentum=0.9: adam does not take it; sgd, lars do"),
    ({"warmup_fraction": 1.5}, "warmup_fraction=1.5: must be from 0 to 1"),
    ({"learning_rate": -1.0}, "learning_rate=-1.0: must be from 0"),
    ({"b2": 1.1}, "b2=1.1: must be from 0 to 1"),
])
def test_mistakes(config, expected):
  with pytest.raises(InputError, match=expected.replace("?", r"\?")):
    optimizers.optimizer({"learning_rate": 1.0, **config}, 10)


@pytest.mark.parametrize("config,expected", [
    ({"name": "sgd", "b1": 0.9}, "optimizer.b1=0.9: sgd does not take it; adam, adamw, lamb, muon do"),
    ({"name": "lars", "eps": 1e-8}, "lars does not take it"),
    ({"name": "rmsprop", "momentum": 0.9}, "rmsprop does not take it"),
    ({"name": "muon", "eps": 1e-6}, "muon does not take it"),
])
def test_options_of_another_optimizer_are_named(config, expected):
  with pytest.raises(InputError, match=expected):
    optimizers.check_options(config, config)
  optimizers.check_options(config, ())  # Left over from a preset.


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_presets_have_the_options_of_their_optimizers(preset):
  for name in presets.model_names():
    config = presets.load_config(name, preset).optimizer
    optimizers.check_options(config, config)


def test_some_parameters_keep_their_rate():
  params = {"encoder": {"kernel": jnp.zeros(2)}, "predictor": {"layer": {"kernel": jnp.zeros(2)}}}
  grads = jax.tree.map(jnp.ones_like, params)
  config = {"name": "sgd", "learning_rate": 1.0, "schedule": "linear", "warmup_steps": 2}
  tx, plain = (optimizers.optimizer({**config, **more}, 6) for more in ({"constant": ("predictor",)}, {}))
  state, other, actual = tx.init(params), plain.init(params), []
  for _ in range(6):
    updates, state = tx.update(grads, state, params)
    falling, other = plain.update(grads, other, params)
    actual.append(float(updates["predictor"]["layer"]["kernel"][0]))
    np.testing.assert_array_equal(updates["encoder"]["kernel"], falling["encoder"]["kernel"])
  assert actual == [0, -0.5, -1, -1, -1, -1]
  with pytest.raises(InputError, match="did you mean predictor"):
    optimizers.optimizer({**config, "constant": ("predicter",)}, 6).init(params)


def test_muon_leaves_what_is_no_matrix_to_adamw_at_a_fraction_of_the_rate():
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  params = {"token_embedding": draw(5, 4), "layers": {"up": {"kernel": draw(2, 4, 8), "bias": draw(2, 8)}}}
  grads = jax.tree.map(lambda x: x**2, params)
  config = {"name": "muon", "learning_rate": 0.1, "schedule": "linear", "weight_decay": 0.01}
  step = lambda tx: tx.update(grads, tx.init(params), params)[0]
  whole, fifth = (step(optimizers.optimizer({**config, **more}, 10)) for more in ({}, {"adam_fraction": 0.2}))
  np.testing.assert_array_equal(fifth["layers"]["up"]["kernel"], whole["layers"]["up"]["kernel"])
  expected = step(optax.nadamw(0.02, weight_decay=0.01))
  for path in (("token_embedding",), ("layers", "up", "bias")):
    actual, alone, full = (functools.reduce(dict.get, path, tree) for tree in (fifth, expected, whole))
    np.testing.assert_allclose(actual, alone, rtol=1e-5, err_msg=path[-1])
    np.testing.assert_allclose(actual, 0.2 * full, rtol=1e-5, err_msg=path[-1])


def test_lars_steps_are_in_proportion_to_each_array_and_sgd_s_decay_is_added_to_the_gradient():
  params = {"a": {"kernel": jnp.array([3.0, 4.0])}, "b": {"kernel": jnp.array([0.6, 0.8]), "bias": jnp.ones(2)}}
  grads = jax.tree.map(lambda x: jnp.array([0.0, 2.0]), params)
  step = lambda **config: (lambda tx: tx.update(grads, tx.init(params), params)[0])(
      optimizers.optimizer({"learning_rate": 0.1, **config}, 10))
  lars = step(name="lars", momentum=0.0)
  np.testing.assert_allclose(lars["a"]["kernel"], [0, -0.1 * 1e-3 * 5], rtol=1e-5)
  np.testing.assert_allclose(lars["b"]["kernel"], [0, -0.1 * 1e-3 * 1], rtol=1e-5)
  np.testing.assert_allclose(lars["b"]["bias"], [0, -0.2], rtol=1e-5)  # No trust ratio.
  sgd = step(name="sgd", weight_decay=0.5)
  np.testing.assert_allclose(sgd["a"]["kernel"], [-0.15, -0.4], rtol=1e-5)
  np.testing.assert_allclose(sgd["b"]["bias"], [0, -0.2], rtol=1e-5)


def test_each_player_has_an_optimizer_of_its_own():
  config = {"generator": {"name": "sgd", "learning_rate": 1.0},
            "discriminator": {"name": "sgd", "learning_rate": 4.0, "schedule": "linear"}}
  actual = optimizers.optimizer(config, 2)
  assert list(actual) == ["generator", "discriminator"]
  gradient = jnp.array([1.0, -2.0])
  for name, rates in {"generator": (1.0, 1.0), "discriminator": (4.0, 2.0)}.items():
    state = actual[name].init(gradient)
    for rate in rates:
      updates, state = actual[name].update(gradient, state, gradient)
      np.testing.assert_allclose(updates, -rate * gradient, rtol=1e-6)
  assert optimizers.depends_on_num_steps(config) and not optimizers.depends_on_num_steps({"a": config["generator"]})


@pytest.mark.parametrize("config, message", [
    ({"generator": {"learning_rate": 1.0}, "clip_norm": 1.0},
     "optimizer.clip_norm=1.0: stands beside the optimizers of generator; give it to each of them"),
    ({"generator": {"learning_rate": 1.0, "nam": "sgd"}}, "optimizer.generator: unknown nam; did you mean name?"),
    ({"generator": {"learning_rate": 1.0, "name": "sgd", "b1": 0.5}},
     "optimizer.generator.b1=0.5: sgd does not take it"),
    ({"generator": {"learning_rate": -1.0}}, "optimizer.generator.learning_rate=-1.0: must be from 0"),
    ({"generator": {"learning_rate": 1.0, "schedule": "linaer"}}, "optimizer.generator.schedule=linaer: unknown"),
])
def test_mistakes_name_the_player(config, message):
  with pytest.raises(InputError, match=message):
    optimizers.check_options(config, config)
    optimizers.optimizer(config, 10)
