"""Tracking by colorization: colors, the loss by hand, and a correspondence that is learned."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from embeddings_jax.models.pretext.video_colorization import color_centers, gray_frames, video_colorization
from embeddings_jax.nets import convnet
from embeddings_jax.ops.color import rgb_to_lab
from embeddings_jax.types import InputError


def trunk():
  return convnet.encoder(channels=(8, 8), strides=(2, 1))


def striped(seed, number=16):
  """Fields of horizontal and of vertical stripes in two colors, which may change places from frame to frame."""
  rng = np.random.default_rng(seed)
  across, along = np.arange(8)[:, None] % 2 * np.ones((8, 8)), np.arange(8) % 2 * np.ones((8, 8))
  clips = np.zeros((number, 3, 8, 16, 3))
  for clip in clips:
    colors = np.array([[0.9, 0.1, 0.1], [0.1, 0.4, 0.9]])[rng.permutation(2)]
    for frame in clip:
      fields = [(0.3 + 0.7 * field[..., None]) * color for field, color in zip((across, along), colors)]
      frame[:] = np.concatenate([fields[i] for i in rng.permutation(2)], 1)
  return {"clip": jnp.asarray(np.rint(255 * clips), jnp.uint8)}


def test_colors_copied_are_those_of_numpy():
  model = video_colorization(encoder=trunk(), feature_dim=5, num_colors=3, temperature=0.5)
  rng = np.random.default_rng(0)
  batch = {"clip": jnp.asarray(rng.integers(0, 256, (3, 3, 4, 8, 3)), jnp.uint8), "mask": jnp.array([1.0, 0, 1])}
  state = model.init(jax.random.key(0), batch)
  features = np.asarray(jax.jit(model.outputs["layers"])(state, batch)["features"], np.float64)
  np.testing.assert_allclose(np.linalg.norm(features, axis=-1), 1, rtol=1e-4)
  centers = np.asarray(state.extra["centers"], np.float64)
  ab = np.asarray(rgb_to_lab(batch["clip"] / 255.0))[..., 1:].reshape(3, 3, 2, 2, 4, 2, 2).mean((3, 5))
  colors = np.square(ab[..., None, :] - centers).sum(-1).argmin(-1)
  losses, hits, still = [], [], []
  for row in (0, 2):
    f, c = features[row], colors[row]
    scores = f[2].reshape(8, 5) @ f[:2].reshape(16, 5).T / 0.5
    weights = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    y = weights @ np.eye(3)[c[:2].ravel()]
    losses += (-np.log(np.maximum(y[np.arange(8), c[2].ravel()], 1e-6))).tolist()
    hits += (y.argmax(1) == c[2].ravel()).tolist()
    still += (c[1] == c[2]).ravel().tolist()
  actual = jax.jit(model.outputs["measures"])(state, batch)
  np.testing.assert_allclose(actual["pretext_loss"], [sum(losses), 16], rtol=1e-3)
  np.testing.assert_allclose(actual["pretext_accuracy"], [sum(hits), 16])
  np.testing.assert_allclose(actual["still_accuracy"], [sum(still), 16])


def test_centers_are_the_means_of_planted_clusters():
  rng = np.random.default_rng(0)
  means = np.array([[40.0, 0], [0, 40], [-40, -10]])
  rows = (means[:, None] + rng.normal(size=(3, 50, 2))).astype(np.float32)
  actual = np.asarray(color_centers(jax.random.key(0), jnp.asarray(rows.reshape(-1, 2)), 3))
  expected = rows.mean(1)
  np.testing.assert_allclose(actual[np.argsort(actual[:, 0])], expected[np.argsort(expected[:, 0])], rtol=1e-3)
  assert np.isfinite(color_centers(jax.random.key(0), jnp.zeros((9, 2)), 4)).all()
  with pytest.raises(InputError, match="num_colors=5: exceeds the 4 pixels"):
    color_centers(jax.random.key(0), jnp.zeros((4, 2)), 5)


def test_correspondence_is_learned_from_colors():
  """The color at the same place is right as often as not; the one of the same stripes always."""
  model = video_colorization(encoder=trunk(), feature_dim=8, num_colors=2, optimizer=optax.adam(5e-3))
  state = jax.jit(model.init)(jax.random.key(0), striped(0))
  update = jax.jit(model.update)
  for step in range(40):
    state, _ = update(state, striped(step), jax.random.key(step))
  actual = jax.jit(model.outputs["measures"])(state, striped(999, 64))
  share = {name: float(hits / number) for name, (hits, number) in actual.items()}
  assert share["pretext_accuracy"] > 0.95 and 0.3 < share["still_accuracy"] < 0.7


def test_gray_video_and_bad_options_are_named():
  np.testing.assert_allclose(gray_frames(jnp.full((1, 1, 2, 2, 3), 255, jnp.uint8)), 1, rtol=1e-5)
  with pytest.raises(InputError, match="frames of 1 channels have no colors to copy"):
    video_colorization(encoder=trunk()).init(jax.random.key(0), {"clip": jnp.zeros((2, 2, 8, 8, 1))})
  with pytest.raises(InputError, match="video_colorization: windows of 1 frames are shorter than the 2"):
    video_colorization(encoder=trunk()).init(jax.random.key(0), {"clip": jnp.zeros((2, 1, 8, 8, 3))})
  with pytest.raises(InputError, match="temperature=0, block=0: must be"):
    video_colorization(encoder=trunk(), temperature=0)
