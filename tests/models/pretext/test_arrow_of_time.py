"""The arrow of time: segments, the loss by hand, and what has an arrow and what has none."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from embeddings_jax.models.pretext.arrow_of_time import arrow_of_time, cleaned, segments
from embeddings_jax.nets import convnet
from embeddings_jax.types import InputError


def trunk():
  return convnet.encoder(channels=(6, 8), strides=(2, 1))


def test_segments_are_those_of_numpy():
  clips = np.random.default_rng(0).random((2, 7, 5, 4, 3)).astype(np.float32)
  for inputs, values in (("frames", clips), ("differences", (np.diff(clips, axis=1) + 1) / 2)):
    actual = segments(jnp.asarray(clips), inputs, 3, 2)
    starts = range(0, values.shape[1] - 2, 2)
    assert actual.shape == (2, len(starts), 5, 4, 9)
    for t, start in enumerate(starts):
      expected = np.moveaxis(values[:, start:start + 3], 1, 3).reshape(2, 5, 4, 9)
      np.testing.assert_allclose(actual[:, t], expected, atol=1e-6)
  np.testing.assert_array_equal(cleaned(jnp.asarray(clips), 1, False), clips[:, :, 1:-1, 1:-1])
  with pytest.raises(InputError, match="border=2: leaves nothing of frames of 5 x 4"):
    cleaned(jnp.asarray(clips), 2, False)


def test_a_score_is_the_mean_of_class_activations_in_both_directions():
  model = arrow_of_time(encoder=trunk(), segment=2)
  clips = jnp.asarray(np.random.default_rng(1).integers(0, 256, (4, 6, 6, 6, 1)), jnp.uint8)
  batch = {"clip": clips, "mask": jnp.array([1.0, 0, 1, 1])}
  state = model.init(jax.random.key(0), batch)
  predict = jax.jit(model.outputs["predict"])
  forwards = np.asarray(predict(state, {"clip": clips}), np.float64)
  backwards = np.asarray(predict(state, {"clip": clips[:, ::-1]}), np.float64)
  assert forwards.shape == (4, 2, 3, 3)
  scores = np.stack([forwards.mean((1, 2, 3)), -backwards.mean((1, 2, 3))], 1)[[0, 2, 3]]
  actual = jax.jit(model.outputs["measures"])(state, batch)
  np.testing.assert_allclose(actual["pretext_loss"], [np.log1p(np.exp(-scores)).sum(), 6], rtol=1e-4)
  np.testing.assert_allclose(actual["pretext_accuracy"], [(scores > 0).sum(), 6])


def slowing(seed, number=32, friction=0.75):
  """A bar that moves from the middle outwards; without friction, through the middle."""
  rng = np.random.default_rng(seed)
  speed = rng.choice([-1, 1], (number, 1)) * rng.uniform(1.5, 2.5, (number, 1))
  time = np.arange(6) - 2.5
  way = np.cumsum(friction ** np.arange(6)) - 1 if friction < 1 else time
  place = 8 + rng.uniform(-1, 1, (number, 1)) + speed * way
  image = np.exp(-((np.arange(16) - place[..., None]) ** 2))
  return {"clip": jnp.asarray(np.broadcast_to(image[:, :, None, :, None], (number, 6, 8, 16, 1)), jnp.float32)}


def accuracy(**options):
  model = arrow_of_time(encoder=trunk(), segment=3, segment_stride=1, optimizer=optax.adam(1e-2))
  state = jax.jit(model.init)(jax.random.key(0), slowing(0))
  update = jax.jit(model.update)
  for step in range(50):
    state, _ = update(state, slowing(step, **options), jax.random.key(step))
  hits, number = jax.jit(model.outputs["measures"])(state, slowing(999, 256, **options))["pretext_accuracy"]
  return float(hits / number)


def test_friction_has_an_arrow_and_uniform_motion_has_none():
  """Uniform motion through the middle, equally often to either side, looks the same backwards."""
  assert accuracy() > 0.9
  assert abs(accuracy(friction=1) - 0.5) < 3 * (0.25 / 256) ** 0.5


def test_bad_options_are_named():
  batch = slowing(0, 2)
  with pytest.raises(InputError, match="inputs='flow': must be one of frames, differences"):
    arrow_of_time(encoder=trunk(), inputs="flow")
  with pytest.raises(InputError, match="arrow_of_time: windows of 6 frames are shorter than the 7 that it needs"):
    arrow_of_time(encoder=trunk(), segment=6).init(jax.random.key(0), batch)
  with pytest.raises(InputError, match="batch_size=1: BatchNorm needs other clips"):
    arrow_of_time(encoder=trunk()).init(jax.random.key(0), slowing(0, 1))
