"""Forward and inverse models: sequences of actions, baselines by hand, and a motion that is learned."""
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from embeddings_jax.models.pretext.dynamics import displacements, dynamics, sequence_number
from embeddings_jax.nets import convnet
from embeddings_jax.types import InputError


def trunk():
  return convnet.encoder(channels=(8, 8), strides=(2, 1))


def pushed(seed, number=32, frames=4):
  """A bar that moves by -2, 0 or 2 pixels, as the action says."""
  rng = np.random.default_rng(seed)
  actions = rng.integers(0, 3, (number, frames))
  place = rng.uniform(7, 9, (number, 1)) + 2 * np.cumsum(np.pad(actions[:, :-1] - 1, ((0, 0), (1, 0))), 1)
  image = np.exp(-((np.arange(16) - place[..., None]) ** 2) / 2)
  clip = np.broadcast_to(image[:, :, None, :, None], (number, frames, 4, 16, 1))
  return {"clip": jnp.asarray(clip, jnp.float32), "actions": jnp.asarray(actions, jnp.int32)}


def test_sequences_are_numbered_in_order():
  sequences = np.array(list(itertools.product(range(3), repeat=3)))
  np.testing.assert_array_equal(sequence_number(jnp.asarray(sequences), 3), np.arange(27))


def test_displacements_are_sums_over_shifted_maps():
  one, other = np.random.default_rng(0).normal(size=(2, 3, 5, 6, 2)).astype(np.float32)
  actual = np.asarray(displacements(jnp.asarray(one), jnp.asarray(other), 2)).reshape(3, 5, 5)
  padded = np.pad(other, ((0, 0), (2, 2), (2, 2), (0, 0)))
  for i in range(5):
    for j in range(5):
      expected = (one * padded[:, i:i + 5, j:j + 6]).sum((1, 2, 3))
      np.testing.assert_allclose(actual[:, i, j], expected, rtol=1e-4, atol=1e-4)


def test_baselines_are_those_of_numpy_and_padding_counts_for_nothing():
  model = dynamics(encoder=trunk(), num_actions=3, width=8, predictor_dims=(8,))
  batch = pushed(0, 6) | {"mask": jnp.array([1.0, 1, 1, 1, 0, 0])}
  state = jax.jit(model.init)(jax.random.key(0), batch)
  measures = jax.jit(model.outputs["measures"])
  actual = measures(state, batch)
  clip = np.asarray(batch["clip"], np.float64)[:4]
  still = np.square(clip[:, 1] - clip[:, 2])
  linear = np.square(np.clip(2 * clip[:, 1] - clip[:, 0], 0, 1) - clip[:, 2])
  np.testing.assert_allclose(actual["still_mse"], [still.sum(), still.size], rtol=1e-4)
  np.testing.assert_allclose(actual["linear_mse"], [linear.sum(), linear.size], rtol=1e-4)
  np.testing.assert_allclose(actual["forward_mse"], actual["still_mse"], rtol=1e-4)  # u starts as 0.
  other = batch | {name: batch[name].at[4:].set(0) for name in ("clip", "actions")}
  state = state._replace(params=jax.tree.map(lambda x: x + 0.1, state.params))
  for (name, values), others in zip(measures(state, batch).items(), measures(state, other).values()):
    np.testing.assert_allclose(values, others, rtol=1e-4, err_msg=name)
  assert actual["forward_mse"][0] != measures(state, batch)["forward_mse"][0]


def test_the_consequence_and_the_sequence_of_actions_are_learned():
  """A sum of two steps can come about in several ways: of 9 sequences 5 sums are known, so 5 / 9 can be right."""
  model = dynamics(encoder=trunk(), num_actions=3, width=12, predictor_dims=(16,), optimizer=optax.adam(5e-3))
  state = jax.jit(model.init)(jax.random.key(0), pushed(0))
  update = jax.jit(model.update)
  for step in range(100):
    state, _ = update(state, pushed(step), jax.random.key(step))
  test = pushed(999, 256)
  actual = {name: float(total / count) for name, (total, count) in
            jax.jit(model.outputs["measures"])(state, test).items()}
  assert actual["forward_mse"] < actual["linear_mse"] / 5 and actual["forward_mse"] < actual["still_mse"] / 5
  assert actual["forward_mse"] < actual["shuffled_mse"] / 5
  assert 0.4 < actual["inverse_accuracy"] < 5 / 9 + 0.1
  following = np.asarray(jax.jit(model.outputs["predict"])(state, test))
  rows = np.arange(256), np.asarray(test["actions"][:, 1])
  np.testing.assert_allclose(np.square(following[rows] - np.asarray(test["clip"][:, 2])).mean(),
                             actual["forward_mse"], rtol=1e-3)


def test_missing_actions_and_bad_options_are_named():
  with pytest.raises(InputError, match="dynamics: needs actions, and the data has 0; set data.actions"):
    dynamics(encoder=trunk(), num_actions=0)
  with pytest.raises(InputError, match="num_steps_between=6: 5 actions have 15625 sequences, more than 10000"):
    dynamics(encoder=trunk(), num_actions=5, num_steps_between=6)
  model = dynamics(encoder=trunk(), num_actions=3, num_steps_between=3)
  with pytest.raises(InputError, match="dynamics: windows of 4 frames are shorter than the 5 that it needs"):
    model.init(jax.random.key(0), pushed(0, 2))
