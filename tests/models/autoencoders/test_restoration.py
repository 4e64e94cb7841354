"""Restoration by a network: it begins with the guess, keeps visible pixels, is fitted to clean images, and learns."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from embeddings_jax.models.autoencoders.restoration import restoration
from embeddings_jax.ops.degradations import Degradation
from embeddings_jax.ops.image_quality import mse
from embeddings_jax.types import InputError

TINY = dict(height=8, width=12, channels=1, widths=(8, 8))
TASKS = {"denoise": dict(noise=0.2), "superres": dict(noise=0.0), "inpaint": dict(noise=0.0)}


def waves(number, seed=0):
  """Smooth images: one wave each."""
  rng = np.random.default_rng(seed)
  slope, phase = rng.normal(size=(2, number, 1, 1)), rng.random((number, 1, 1)) * 6
  grid = np.linspace(0, 3, 12)
  values = 0.5 + 0.4 * np.sin(slope[0] * grid[:8, None] + slope[1] * grid + phase)
  return jnp.asarray(values[..., None], jnp.float32)


@pytest.mark.parametrize("task", TASKS)
def test_it_begins_with_the_guess_and_its_loss_is_of_clean_images(task):
  model, x = restoration(**TINY, task=task, **TASKS[task]), waves(5)
  state = model.init(jax.random.key(0), {"image": x})
  shown = model.outputs["reconstruct"](state, {"image": x})
  degradation = Degradation(task, **TASKS[task])
  guess = degradation.guess(*degradation.observe(jax.random.key(0), x))
  np.testing.assert_allclose(shown["reconstructed"], jnp.clip(guess, 0, 1), atol=1e-6)
  observed, mask = degradation.observe(jax.random.key(4), x)
  expected = float(mse(x, degradation.guess(observed, mask)).mean())
  actual = float(model.outputs["training_loss"](state, {"image": x}, jax.random.key(4)))
  assert actual == pytest.approx(expected, rel=1e-5)
  assert expected > 1e-4


def trained(model, steps, rows=16):
  x = waves(400)

  def step(state, i):
    first, second = jax.random.split(jax.random.fold_in(jax.random.key(1), i))
    return model.update(state, {"image": x[jax.random.choice(first, 400, (rows,))]}, second)[0], None

  state = model.init(jax.random.key(0), {"image": x[:2]})
  return jax.jit(lambda state: jax.lax.scan(step, state, jnp.arange(steps))[0])(state)


@pytest.mark.parametrize("task,gain", [("denoise", 5), ("inpaint", 2.5)])
def test_it_learns_to_restore_waves(task, gain):
  model = restoration(**TINY, task=task, **TASKS[task], optimizer=optax.adam(optax.cosine_decay_schedule(1e-2, 300)))
  state, batch = trained(model, 300), {"image": waves(100, seed=1)}
  actual = {name: float(total / count) for name, (total, count) in model.outputs["measures"](state, batch).items()}
  assert actual["reconstruction_loss"] < 10 ** (-gain / 10) * actual["observation_loss"]
  if task == "inpaint":
    degradation = Degradation(task)
    observed, mask = degradation.observe(jax.random.key(0), batch["image"])
    assert actual["reconstruction_loss"] < 0.01 * float(mse(batch["image"], observed).mean())
    restored = model.outputs["predict"](state, batch | {"observed": observed, "visible": mask})
    np.testing.assert_array_equal(restored[mask == 1], observed[mask == 1])
    shown = model.outputs["reconstruct"](state, batch)["reconstructed"]
    np.testing.assert_allclose(restored, shown, atol=1e-5)


@pytest.mark.parametrize("options,message", [
    (dict(task="superres", scale=3), "divide images of 8 x 12"), (dict(task="blur"), "task='blur'"),
    (dict(task="inpaint", visible=1.0), "between 0 and 1"), (dict(widths=(9,)), "multiples of 8"),
    (dict(widths=(8, 8, 8, 8)), "must be multiples of 8"),
])
def test_bad_options_are_one_line(options, message):
  with pytest.raises(InputError, match=message):
    restoration(**TINY | options)
