"""Order verification: the triples, the loss by hand, and an order that is learned."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from embeddings_jax.models.pretext import order_verification as module
from embeddings_jax.models.pretext.order_verification import order_verification
from embeddings_jax.nets import convnet
from embeddings_jax.ops.patch_layouts import row_keys
from embeddings_jax.types import InputError


def trunk():
  return convnet.encoder(channels=(8, 8), strides=(2, 1))


def moving(seed, number=16, frames=8):
  """A bright bar that moves to the right or to the left, at a speed of its own."""
  rng = np.random.default_rng(seed)
  start, speed = rng.uniform(3, 5, (number, 1)), rng.uniform(0.8, 1.1, (number, 1))
  place = start + speed * np.arange(frames)
  place = np.where(rng.random((number, 1)) < 0.5, place, 15 - place)
  image = np.exp(-((np.arange(16) - place[..., None]) ** 2))
  return {"clip": jnp.asarray(np.broadcast_to(image[:, :, None, :, None], (number, frames, 8, 16, 1)), jnp.float32)}


@pytest.mark.parametrize("span", [0, 6])
def test_triples_are_those_of_numpy(span):
  """For the draws of the same keys: the part by motion, five sorted frames of it, and three of these."""
  batch = {"clip": jnp.asarray(np.random.default_rng(0).integers(0, 256, (5, 9, 4, 4, 1)), jnp.uint8)}
  batch["clip"] = batch["clip"].at[0, :5].set(0)  # Nothing moves at first.
  model = order_verification(encoder=trunk(), span=span, triples=6, grid=2)
  state = jax.eval_shape(model.init, jax.random.key(0), batch)
  actual = jax.jit(model.outputs["draws"])(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state), batch,
                                           jax.random.key(3))
  keys, clips = row_keys(jax.random.key(3), 5), np.asarray(batch["clip"], np.float32) / 255
  for key, clip, frames, kinds in zip(keys, clips, actual["frames"], actual["kinds"]):
    of_frames, of_kinds = jax.random.split(key)
    of_start, of_five = jax.random.split(of_frames)
    first = 0
    if span:
      moved = np.abs(np.diff(clip, axis=0)).mean((1, 2, 3))
      total = np.array([moved[s:s + span - 1].sum() for s in range(len(clip) - span + 1)])
      np.testing.assert_allclose(module.window_motion(jnp.asarray(clip), span), total, rtol=1e-4, atol=1e-6)
      gumbel = np.asarray(jax.random.gumbel(of_start, (len(total),)))
      first = int((np.log(total + 1e-6) + gumbel).argmax())
    chosen = first + np.sort(np.asarray(jax.random.permutation(of_five, span or len(clip)))[:5])
    np.testing.assert_allclose(frames, clip[chosen], atol=1e-6)
    of_valid, of_which = jax.random.split(of_kinds)
    invalid = np.asarray(jax.random.uniform(of_valid, (6,))) < 0.75
    np.testing.assert_array_equal(kinds, 2 * invalid + np.asarray(jax.random.randint(of_which, (6,), 0, 2)))
  a, b, c, d, e = range(5)
  assert module.TRIPLES == ((b, c, d), (d, c, b), (b, a, d), (b, e, d))
  kinds = module.triple_kinds(jax.random.key(0), 4000, 0.75)
  assert abs(float(module.is_valid(kinds).mean()) - 0.25) < 3 * (0.25 * 0.75 / 4000) ** 0.5


def test_measures_are_balanced_and_means_over_valid_windows():
  """The scores of `predict` on five frames that are the whole window, at the places of the triples."""
  model = order_verification(encoder=trunk(), projector_dims=(6,), predictor_dims=(6,), grid=2)
  batch = {"clip": moving(0, 4, 5)["clip"], "mask": jnp.array([1.0, 1, 0, 1])}
  state = model.init(jax.random.key(0), batch)
  actual = jax.jit(model.outputs["measures"])(state, batch)
  scores = np.asarray(jax.jit(model.outputs["predict"])(state, batch), np.float64)
  right, losses = [], []
  for row in (0, 1, 3):
    for triple, sign in zip(module.TRIPLES, (1, 1, -1, -1)):
      score = sign * scores[(row, *triple)]
      right.append(score > 0)
      losses.append(np.log1p(np.exp(-score)))
  np.testing.assert_allclose(actual["balanced_accuracy"], [np.sum(right), 12])
  np.testing.assert_allclose(actual["pretext_loss"], [np.sum(losses), 12], rtol=1e-4)


def test_the_order_of_a_moving_bar_is_learned():
  model = order_verification(encoder=trunk(), projector_dims=(16,), predictor_dims=(32,), grid=4,
                             optimizer=optax.adam(5e-3))
  state = jax.jit(model.init)(jax.random.key(0), moving(0))
  update = jax.jit(model.update)
  for step in range(120):
    state, _ = update(state, moving(step), jax.random.key(step))
  hits, number = jax.jit(model.outputs["measures"])(state, moving(999, 64))["balanced_accuracy"]
  assert number == 256 and hits / number > 0.85


def test_short_windows_and_bad_options_are_named():
  with pytest.raises(InputError, match="order_verification: windows of 4 frames are shorter than the 5"):
    order_verification(encoder=trunk()).init(jax.random.key(0), moving(0, 2, 4))
  with pytest.raises(InputError, match="span=4: must be at least 1, lie in"):
    order_verification(encoder=trunk(), span=4)
  with pytest.raises(InputError, match=r"expected 'clip': uint8 .* \[n, frames, height, width, channels\]"):
    order_verification(encoder=trunk()).init(jax.random.key(0), {"clip": moving(0, 2)["clip"][0]})
