"""Embeddings of clips, motion, and the background held still."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax.nets import clips, convnet
from embeddings_jax.ops.stabilize import shifts, stabilized
from embeddings_jax.types import InputError


def test_a_clip_is_the_mean_of_its_frames():
  trunk = convnet.encoder(channels=(4, 6), strides=(1, 2))
  frames = jax.random.uniform(jax.random.key(0), (2, 3, 6, 8, 1))
  variables = trunk.init(jax.random.key(1), frames[0])
  params, extra = {"encoder": variables["params"]}, {"batch_stats": {"encoder": variables["batch_stats"]}}
  embed, layers = clips.clip_embedder(trunk, "", 1)
  maps = layers(params, extra, {"clip": frames})
  assert maps["block_0"].shape == (2, 3, 6, 8, 4) and maps["block_1"].shape == (2, 3, 3, 4, 6) and len(maps) == 2
  expected = np.stack([trunk.apply(variables, clip).mean((0, 1, 2)) for clip in frames])
  np.testing.assert_allclose(embed(params, extra, {"clip": frames}), expected, rtol=1e-5)
  with pytest.raises(InputError, match="embed_layer='block_7': must be one of block_0, block_1"):
    clips.clip_embedder(trunk, "block_7", 1)[0](params, extra, {"clip": frames})


def test_differences_and_motion():
  clip = jnp.asarray(np.random.default_rng(0).random((4, 3, 3, 2)), jnp.float32)
  np.testing.assert_allclose(clips.motion(clip), np.abs(np.diff(np.asarray(clip), axis=0)).mean((1, 2, 3)), rtol=1e-6)
  actual = clips.differences(clip[None])
  np.testing.assert_allclose(2 * actual[0] - 1, np.diff(np.asarray(clip), axis=0), atol=1e-6)
  with pytest.raises(InputError, match="m: windows of 2 frames are shorter than the 3 that it needs; raise data.win"):
    clips.check_length(2, 3, "m")


def panned(steps):
  """A window that moves over a picture, and a bright object that moves against it."""
  picture = np.random.default_rng(1).random((40, 44, 3))
  places = np.concatenate([[[10, 10]], [10, 10] + np.cumsum(steps, 0)])
  frames = np.stack([picture[row:row + 20, column:column + 24] for row, column in places])
  for t, frame in enumerate(frames):
    frame[3 + t:7 + t, 2 * t:2 * t + 4] = 1
  return jnp.asarray(frames, jnp.float32)


def test_camera_motion_is_found_and_undone():
  steps = np.array([[1, 2], [0, -1], [2, 1], [-1, 0]])
  clip = panned(steps)
  np.testing.assert_array_equal(shifts(clip), -steps)  # The picture moves against the camera.
  still = np.asarray(stabilized(clip))
  moved = [np.abs(a - b)[6:14, 12:20].max(-1) for a, b in zip(still[:-1], still[1:])]
  before = [np.abs(a - b)[6:14, 12:20].max(-1) for a, b in zip(np.asarray(clip)[:-1], np.asarray(clip)[1:])]
  assert np.median(moved) == 0 and np.median(before) > 0.2
  np.testing.assert_array_equal(np.asarray(stabilized(clip[::-1])), still[::-1])
  at_rest = panned(np.zeros((4, 2), int))
  np.testing.assert_array_equal(stabilized(at_rest), at_rest)
