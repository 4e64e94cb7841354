"""Colorization: the loss and its gradient by hand, planted colors, gray images."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import images

from embeddings_jax.models.pretext.colorization import colorization, weighted_losses
from embeddings_jax.nets import convnet
from embeddings_jax.ops import color
from embeddings_jax.types import InputError


def trunk():
  return convnet.encoder(channels=(4, 8), strides=(1, 2))


def test_rarity_enters_the_gradient():
  """Doubling the weight of the nearest bin doubles the gradient of a place, and of no other."""
  rng = np.random.default_rng(0)
  bins = jnp.asarray(color.ab_bins(20))
  ab = jnp.array([[0.0, 1], [61, 22]])
  nearest = color.soft_targets(ab, bins)[0][:, 0]
  logits = jnp.asarray(rng.normal(size=(2, len(bins))), jnp.float32)
  slope = lambda weights: jax.grad(lambda x: weighted_losses(x, *color.soft_targets(ab, bins), weights).sum())(logits)
  plain, rare = slope(jnp.ones(len(bins))), slope(jnp.ones(len(bins)).at[nearest[1]].set(2))
  np.testing.assert_allclose(rare[0], plain[0])
  np.testing.assert_allclose(rare[1], 2 * plain[1], rtol=1e-6)
  index, target = color.soft_targets(ab, bins)  # And that of a cross-entropy is softmax - target.
  dense = np.zeros(plain.shape)
  np.put_along_axis(dense, np.asarray(index), np.asarray(target), -1)
  np.testing.assert_allclose(plain, jax.nn.softmax(logits) - dense, atol=1e-6)


def colored(seed, n):
  """Bright squares are orange, dark ones blue: colors follow from lightness; three in four pixels are gray."""
  rng = np.random.default_rng(seed)
  kind = rng.integers(0, 3, (n, 2, 2)).repeat(4, 1).repeat(4, 2)
  rgb = np.array([[0.45, 0.45, 0.45], [1.0, 0.7, 0.2], [0.1, 0.1, 0.7]])[kind]
  return {"image": jnp.asarray(255 * np.clip(rgb + rng.normal(0, 0.01, rgb.shape), 0, 1), jnp.uint8)}


def test_rarity_enters_the_update():
  """The first batch determines p; without rarity weights the gradient is another."""
  batch = colored(0, 4)
  norms, shares = [], None
  for mix in (0.5, 1.0):
    model = colorization(encoder=trunk(), bin_size=20, rarity_mix=mix)
    state, metrics = jax.jit(model.update)(model.init(jax.random.key(0), batch), batch, jax.random.key(0))
    norms.append(float(metrics["gradient_norm"]))
    shares = state.extra["counts"]
  assert shares.sum() == 4 * 16 and abs(norms[0] / norms[1] - 1) > 0.02


@pytest.mark.parametrize("loss", ["classification", "regression"])
def test_colors_that_follow_from_lightness_are_learned(loss):
  model = colorization(encoder=trunk(), loss=loss, bin_size=20, optimizer=optax.adam(2e-2))
  state, update = jax.jit(model.init)(jax.random.key(0), colored(0, 16)), jax.jit(model.update)
  for step in range(60):
    state, _ = update(state, colored(step, 16), jax.random.key(step))
  held_out = colored(999, 32)
  measured = {name: float(total / count)
              for name, (total, count) in jax.jit(model.outputs["measures"])(state, held_out).items()}
  assert measured["balanced_accuracy"] > measured["gray_balanced_accuracy"] + 0.15
  assert measured["raw_accuracy"] > measured["gray_raw_accuracy"]
  actual = jax.jit(model.outputs["reconstruct"])(state, held_out)
  before = np.abs(np.asarray(held_out["image"]) / 255 - held_out["image"].mean(-1, keepdims=True) / 255).mean()
  assert np.abs(actual["original"] - actual["reconstructed"]).mean() < before / 2


def test_gray_images_are_left_out_and_counted():
  model = colorization(encoder=trunk(), bin_size=20)
  batch = images(4, 8, 8, 3)
  gray = jnp.repeat(images(2, 8, 8, 1)["image"], 3, -1)
  both = {"image": jnp.concatenate([batch["image"], gray])}
  state, update = model.init(jax.random.key(0), batch), jax.jit(model.update)
  (one, expected), (other, actual) = (update(state, of, jax.random.key(0)) for of in (batch, both))
  np.testing.assert_allclose(actual["loss"], expected["loss"], rtol=1e-5)
  np.testing.assert_allclose([actual["gray_fraction"], expected["gray_fraction"]], [1 / 3, 0], atol=1e-6)
  np.testing.assert_allclose(one.extra["counts"], other.extra["counts"])


def test_lightness_alone_is_embedded_and_gray_data_refused():
  model = colorization(encoder=trunk(), bin_size=20)
  batch = images(3, 8, 8, 3)
  state = model.init(jax.random.key(0), batch)
  lab = color.rgb_to_lab(batch["image"] / 255)
  gray = color.lab_to_rgb(lab * jnp.array([1.0, 0, 0]))
  np.testing.assert_allclose(model.embed(state, {"image": gray}), model.embed(state, batch), rtol=1e-3, atol=1e-4)
  np.testing.assert_allclose(model.embed(state, {"image": gray[..., :1]}), model.embed(state, batch), rtol=1e-3,
                             atol=1e-4)
  with pytest.raises(InputError, match="1 channels have no colors"):
    model.init(jax.random.key(0), images(3, 8, 8, 1))
  with pytest.raises(InputError, match="loss='l1'"):
    colorization(encoder=trunk(), loss="l1")
