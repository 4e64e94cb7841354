"""Rotations: the examples, the loss by hand, and what can and cannot be learned from them."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import images

from embeddings_jax.models.pretext.rotation import rotation, rotations
from embeddings_jax.nets import convnet
from embeddings_jax.types import InputError


def trunk():
  return convnet.encoder(channels=(4, 8), strides=(1, 2))


def test_examples_are_those_of_numpy():
  batch = images(3, 6, 6, 2)["image"]
  actual = np.asarray(rotations(batch))
  for i in range(3):
    for quarters in range(4):
      np.testing.assert_array_equal(actual[i, quarters], np.rot90(np.asarray(batch[i]), quarters))
  with pytest.raises(InputError, match="6 x 5 pixels are not square"):
    rotations(batch[:, :, :5])


def test_loss_and_measures_are_means_over_rotations_of_valid_images():
  model = rotation(encoder=trunk())
  batch = images(4, 8, 8, 1)
  state = model.init(jax.random.key(0), batch)
  actual = jax.jit(model.outputs["measures"])(state, {**batch, "mask": jnp.array([1, 1, 0, 1])})
  head = state.params["projector"]["dense_0"]
  embed = jax.jit(model.embed)
  losses, hits = [], []
  for row in (0, 1, 3):
    for quarters in range(4):
      turned = jnp.asarray(np.rot90(np.asarray(batch["image"][row]), quarters))[None]
      logits = np.asarray(embed(state, {"image": turned})[0] @ head["kernel"] + head["bias"], np.float64)
      losses.append(np.log(np.exp(logits).sum()) - logits[quarters])
      hits.append(logits.argmax() == quarters)
  np.testing.assert_allclose(actual["pretext_loss"], [np.sum(losses), 12], rtol=1e-4)
  np.testing.assert_allclose(actual["pretext_accuracy"], [np.sum(hits), 12])


def accuracy(train, test, steps=60):
  """Share of held-out rotations that are recognized."""
  model = rotation(encoder=trunk(), optimizer=optax.adam(1e-2))
  state = jax.jit(model.init)(jax.random.key(0), {"image": train(0)})
  update = jax.jit(model.update)
  for step in range(steps):
    state, _ = update(state, {"image": train(step)}, jax.random.key(step))
  hits, number = jax.jit(model.outputs["measures"])(state, {"image": test})["pretext_accuracy"]
  return float(hits / number)


def test_an_upright_gradient_is_learned_and_isotropic_noise_is_not():
  """Noise looks the same in all directions: no shortcut of padding or of the construction tells them apart."""
  noise = lambda seed, n=32: jax.random.uniform(jax.random.key(seed), (n, 8, 8, 1))
  ramp = jnp.linspace(0, 0.5, 8)[:, None, None]
  assert accuracy(lambda step: ramp + noise(step) / 2, ramp + noise(999, 256) / 2) > 0.9
  deviation = (0.25 * 0.75 / 1024) ** 0.5
  assert abs(accuracy(noise, noise(999, 256)) - 0.25) < 3 * deviation
