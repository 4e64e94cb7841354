"""Degradations: adjoints, Pillow's sizes, bad input; total variation: a closed form and its optimality."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from embeddings_jax.ops import total_variation as tv
from embeddings_jax.ops.degradations import Degradation, check_mask
from embeddings_jax.types import InputError


def array(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


CASES = {"denoise": Degradation(), "bicubic": Degradation("superres", scale=2),
         "box": Degradation("superres", scale=3, kernel="box"), "inpaint": Degradation("inpaint")}


@pytest.mark.parametrize("name", CASES)
def test_the_adjoint_is_one(name):
  operator = CASES[name]
  y, mask = array(2, 12, 6, 3), (array(2, 12, 6, 1, seed=1) > 0).astype(jnp.float32)
  forward = operator.forward(y, mask)
  x = array(*forward.shape, seed=2)
  one, other = np.vdot(np.float64(forward), x), np.vdot(np.float64(y), operator.adjoint(x, mask))
  assert abs(one - other) < 1e-6 * np.linalg.norm(forward) * np.linalg.norm(x)
  assert operator.guess(forward, mask).shape == y.shape


def test_bicubic_reduction_and_enlargement_are_pillow_s():
  values = np.random.default_rng(0).random((12, 16)).astype(np.float32)
  operator, image = Degradation("superres", scale=2), Image.fromarray(values)
  actual = operator.forward(jnp.asarray(values[None, ..., None]))
  np.testing.assert_allclose(actual[0, ..., 0], image.resize((8, 6), Image.Resampling.BICUBIC), atol=1e-5)
  actual = operator.guess(jnp.asarray(values[None, ..., None]))
  np.testing.assert_allclose(actual[0, ..., 0], image.resize((32, 24), Image.Resampling.BICUBIC), atol=1e-5)


def test_holes_are_filled_with_weighted_means():
  """By hand: binomial weights of the seen pixels in a window of 5; a hole without any takes the mean of all."""
  x = np.zeros((1, 1, 8, 1), np.float32)
  x[0, 0, :, 0] = [3, 9, 9, 6, 9, 9, 9, 9]
  mask = np.zeros_like(x)
  mask[0, 0, [0, 3], 0] = 1
  actual = Degradation("inpaint").guess(jnp.asarray(x * mask), jnp.asarray(mask))[0, 0, :, 0]
  np.testing.assert_allclose(actual, [3, (4 * 3 + 6) / 5, (3 + 4 * 6) / 5, 6, 6, 6, 4.5, 4.5], rtol=1e-6)


def test_the_box_is_a_mean_and_observations_have_their_noise_and_mask():
  x = jnp.asarray(np.random.default_rng(0).random((30, 12, 12, 1)), jnp.float32)
  box = Degradation("superres", scale=3, kernel="box")
  np.testing.assert_allclose(box.forward(x), x.reshape(30, 4, 3, 4, 3, 1).mean((2, 4)), atol=1e-6)
  observed, mask = Degradation("inpaint", noise=0.1, visible=0.3).observe(jax.random.key(0), x)
  assert (observed[mask == 0] == 0).all() and float(mask.mean()) == pytest.approx(0.3, abs=0.03)
  assert float((observed - x)[mask == 1].std()) == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("operator,message", [
    (Degradation("deblur"), "must be one of denoise"), (Degradation("superres", scale=5), "divide images of 12 x 6"),
    (Degradation("superres", kernel="lanczos"), "must be one of bicubic"), (Degradation(noise=-1.0), "noise=-1.0"),
    (Degradation("inpaint", visible=0.0), "nothing visible"),
])
def test_bad_degradations_are_one_line(operator, message):
  with pytest.raises(InputError, match=message):
    operator.check(12, 6)


def test_masks_fit_their_image_and_show_something():
  image = np.zeros((1, 4, 6, 3))
  assert check_mask(np.eye(4, 6), image).shape == (1, 4, 6, 1)
  with pytest.raises(InputError, match=r"mask: is \[5, 6\], the image is \[4, 6\]"):
    check_mask(np.ones((5, 6)), image)
  with pytest.raises(InputError, match="nothing is visible"):
    check_mask(np.zeros((4, 6)), image)


def test_the_divergence_is_minus_the_gradient_s_adjoint():
  y, dual = array(2, 5, 4, 3), array(2, 2, 5, 4, 3, seed=1)
  one, other = np.vdot(np.float64(tv.gradient(y)), dual), -np.vdot(np.float64(y), tv.divergence(dual))
  assert one == pytest.approx(other, rel=1e-5)


def test_a_step_is_shrunk_by_its_closed_form():
  """Two halves with values a < b, m rows each, move by weight / m towards each other, and meet at the mean."""
  x = jnp.repeat(jnp.array([0.2, 0.8]), 4)[None, :, None, None] * jnp.ones((1, 8, 3, 1))
  for weight, low in ((0.4, 0.3), (2.0, 0.5)):
    actual = tv.restore(Degradation(), x, weight=weight, num_steps=3000)
    np.testing.assert_allclose(actual[0, :4], low, atol=1e-3)
    np.testing.assert_allclose(actual[0, 4:], 1 - low, atol=1e-3)


def test_no_nearby_image_is_better():
  """Super-resolution and inpainting: the objective rises in random directions, and by much from the start."""
  x = jnp.asarray(np.random.default_rng(0).random((1, 12, 12, 1)), jnp.float32) * 0.4 + 0.3
  for operator in (Degradation("superres", scale=2), Degradation("inpaint")):
    observed, mask = operator.observe(jax.random.key(1), x)
    objective = lambda y, operator=operator, observed=observed, mask=mask: float(
        0.5 * jnp.square(operator.forward(y, mask) - observed).sum() + 0.02 * tv.total_variation(y)[0])
    actual = tv.restore(operator, observed, mask, weight=0.02, num_steps=2000)
    best = objective(actual)
    assert best < 0.9 * objective(operator.guess(observed, mask))
    assert all(objective(actual + 0.01 * array(*x.shape, seed=seed)) > best for seed in range(5))
