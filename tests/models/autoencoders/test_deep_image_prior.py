"""Deep image prior: running statistics, held-out pixels, stopping, independence of images, and a denoised image."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from embeddings_jax.models.autoencoders.deep_image_prior import Best, better, deep_image_prior
from embeddings_jax.ops.degradations import Degradation
from embeddings_jax.ops.image_quality import psnr
from embeddings_jax.types import InputError

TINY = dict(widths=(8, 8), code_channels=4)


def smooth(number=1, size=16):
  rng, grid = np.random.default_rng(0), np.linspace(0, 3, size)
  shift = rng.random((number, 2, 1, 1)) * 3
  waves = 0.5 + 0.2 * np.sin(grid[:, None] + shift[:, 0]) + 0.2 * np.cos(1.5 * grid + shift[:, 1])
  return jnp.asarray(waves[..., None], jnp.float32)


def test_statistics_run_and_the_update_is_closed():
  """An output is known from two running means, and the variance from it."""
  model = deep_image_prior(**TINY, decay=0.8)
  batch = {"image": smooth(2)}
  state, update = model.init(jax.random.key(0), batch), jax.jit(model.update)
  expected = jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), jax.eval_shape(lambda: state))
  for step in range(4):
    new, metrics = update(state, batch, jax.random.key(step))
    if step:
      output = (new.mean - 0.8 * state.mean) / 0.2
      moved = 0.8 * (state.variance + 0.2 * jnp.square(output - state.mean).mean((1, 2, 3)))
      np.testing.assert_allclose(new.variance, moved, rtol=2e-3)
      assert (new.variance > 0).all()
    state = new
  assert jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), state) == expected


def test_held_out_pixels_and_other_images_move_nothing():
  model = deep_image_prior(**TINY, held_out=0.3)
  x = smooth(2)
  state, update = model.init(jax.random.key(0), {"image": x}), jax.jit(model.update)
  assert float(1 - state.kept.mean()) == pytest.approx(0.3, abs=0.06)
  outside = {"image": jnp.where(state.kept > 0, x, 1 - x)}
  other = {"image": x.at[1].set(1 - x[1])}
  actual, hidden, beside = (update(state, batch, jax.random.key(1)) for batch in ({"image": x}, outside, other))
  jax.tree.map(np.testing.assert_array_equal, actual[0].params, hidden[0].params)
  assert hidden[1]["held_out_error"] != actual[1]["held_out_error"]
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[0], b[0]), actual[0].params, beside[0].params)
  assert any((a[1] != b[1]).any() for a, b in zip(*map(jax.tree.leaves, (actual[0].params, beside[0].params))))


def test_the_best_step_is_kept_image_by_image():
  best = Best(jnp.array([1.0, 3.0]), jnp.array([4, 5]), jnp.zeros((2, 1, 1, 1)))
  actual = better(best, jnp.array([2.0, 2.0]), jnp.ones((2, 1, 1, 1)), jnp.int32(9), jnp.bool_(True))
  np.testing.assert_array_equal(actual.value, [1, 2])
  np.testing.assert_array_equal(actual.step, [4, 9])
  np.testing.assert_array_equal(actual.output.reshape(-1), [0, 1])
  early = better(best, jnp.array([0.0, 0.0]), jnp.ones((2, 1, 1, 1)), jnp.int32(9), jnp.bool_(False))
  np.testing.assert_array_equal(early.step, best.step)


@pytest.mark.parametrize("stopping", ["variance", "held_out", "none"])
def test_it_converges_after_the_patience(stopping):
  """An output that never changes is best at its first step after the burn-in."""
  model = deep_image_prior(**TINY, stopping=stopping, burn_in=2, patience=3, code_noise=0.0, optimizer=optax.sgd(0.0))
  batch = {"image": smooth()}
  state, update, converged = model.init(jax.random.key(0), batch), jax.jit(model.update), []
  for step in range(7):
    state, metrics = update(state, batch, jax.random.key(step))
    converged.append(int(metrics["converged"]))
  assert converged == ([0] * 7 if stopping == "none" else [0] * 5 + [1] * 2)
  assert state.by_variance.step == 3 and state.by_held_out.step == 3


@pytest.mark.parametrize("task,least", [
    ("denoise", 19.4), pytest.param("superres", 30, marks=pytest.mark.long),
    pytest.param("inpaint", 30, marks=pytest.mark.long)])
def test_a_smooth_image_is_restored(task, least):
  """PSNR from noise of .2 (14.4), half of the resolution, or half of the pixels (10.0). Noise is fitted in the end,
  which held-out pixels tell."""
  clean, degradation = smooth(), Degradation(task, 0.2 if task == "denoise" else 0.0, kernel="box")
  observed, mask = degradation.observe(jax.random.key(1), clean)
  batch = {"image": jnp.clip(observed, 0, 1), **({} if mask is None else {"visible": mask})}
  model = deep_image_prior(widths=(16, 16, 16), code_channels=4, task=task, kernel="box", held_out=0.1, burn_in=10,
                           decay=0.9)
  step = lambda state, i: (model.update(state, batch, jax.random.fold_in(jax.random.key(2), i))[0], None)
  state = model.init(jax.random.key(0), batch)
  state = jax.jit(lambda state: jax.lax.scan(step, state, jnp.arange(200))[0])(state)
  actual = model.outputs["reconstruct"](state, batch)["reconstructed"]
  assert float(psnr(clean, actual)[0]) > least
  if task == "denoise":
    np.testing.assert_array_equal(actual, model.outputs["components"](state)["by_held_out"])
    assert float(psnr(clean, state.mean)[0]) < least - 4 and state.by_held_out.step < 100


BAD = [
    (dict(stopping="oracle"), {}, "must be one of variance"),
    (dict(stopping="held_out", held_out=0.0), {}, "needs held_out above 0"),
    (dict(decay=1.0), {}, "decay=1.0"),
    (dict(task="inpaint"), {"image": smooth()}, "has no 'visible'"),
    (dict(), {"image": smooth(size=15)}, "must be multiples of 2"),
    (dict(task="blur"), {"image": smooth()}, "task='blur'"),
]


@pytest.mark.parametrize("options,batch,message", BAD)
def test_bad_options_are_one_line(options, batch, message):
  with pytest.raises(InputError, match=message):
    deep_image_prior(**TINY | options).init(jax.random.key(0), batch)
