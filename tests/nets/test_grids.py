"""Where the places of trunks lie in images, and gradients with respect to a layer's values."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax.models.autoencoders import mae
from embeddings_jax.nets import convnet, resnet, vgg
from embeddings_jax.nets.grids import grids_of, layer_tokens, with_gradient
from embeddings_jax.types import InputError

TRUNKS = {
    "convnet": lambda: convnet.encoder(channels=(2, 3), strides=(2, 2)),
    "resnet": lambda: resnet.encoder(depth=8, width=2),
    "imagenet": lambda: resnet.encoder(depth=8, width=2, stem="imagenet"),
    "vgg": lambda: vgg.encoder(width=2),
    "vit": lambda: mae.encoder(patch_size=8, dim=8, num_layers=2, num_heads=2, mlp_dim=8, positions="sincos2d"),
}


@functools.cache
def made(name, size=32):
  trunk = TRUNKS[name]()
  images = jnp.asarray(np.random.default_rng(0).random((2, size, size, 3)), jnp.float32)
  return trunk, jax.jit(functools.partial(trunk.init, method="tokens"))(jax.random.key(0), images), images


@pytest.mark.parametrize(("name", "layer", "place"), [
    ("convnet", "block_1", (3, 4)), ("resnet", "block_1", (8, 7)), ("imagenet", "block_0", (3, 4)),
    ("vgg", "block3_conv1", (3, 4)), ("vit", "block_1", (2, 1))])
def test_a_place_depends_on_the_pixels_of_its_receptive_field_alone(name, layer, place):
  trunk, variables, images = made(name)
  grid = grids_of(trunk, images)[layer]
  pixels = lambda image: grid.maps(layer_tokens(trunk, variables, image[None])[layer])[(0, *place)]
  slopes = np.abs(jax.jit(jax.jacobian(lambda image: jnp.sin(pixels(image)).sum()))(images[0])).sum(2)
  top, left, bottom, right = np.clip(grid.box(*place), 0, 32)
  assert slopes[top:bottom, left:right].any()
  slopes[top:bottom, left:right] = 0
  assert not slopes.any()
  if name != "vit":  # Its middle is where the grid says.
    center = [first + stride * i for first, stride, i in zip(grid.first, grid.stride, place)]
    np.testing.assert_allclose(center, [(top + bottom - 1) / 2, (left + right - 1) / 2], atol=0.5)


def test_a_field_is_as_large_as_it_can_be():
  """By hand: convolutions of 3 x 3 with strides 2 and 2 see 7 pixels, 4 apart, around (0, 0), (4, 0), ..."""
  grid = TRUNKS["convnet"]().grids(32, 24)["block_1"]
  assert (grid.rows, grid.columns, grid.stride, grid.first, grid.field) == (8, 6, (4, 4), (0, 0), (7, 7))
  assert grid.box(1, 2) == (1, 5, 8, 12)
  # VGG16's last convolution sees 196 pixels, every 16 (known from its receptive field arithmetic).
  grid = vgg.encoder().grids(224, 224)["block5_conv3"]
  assert (grid.rows, grid.field, grid.stride) == (14, (196, 196), (16, 16))
  # Resized images: everything is scaled.
  grid = convnet.encoder(channels=(2,), strides=(2,), image_size=16).grids(32, 64)["block_0"]
  assert (grid.rows, grid.stride, grid.field, grid.first) == (8, (4, 8), (6, 12), (0.5, 1.5))


def test_gradients_at_a_layer_are_finite_differences():
  """At the first block of a transformer, so that the perturbation passes through attention."""
  trunk, variables, images = made("vit")
  grid = grids_of(trunk, images)["block_0"]
  score = lambda tokens: jnp.sin(tokens["block_1"][:, 1:]).sum((1, 2))
  maps, slopes = with_gradient(trunk, variables, images, "block_0", score)
  np.testing.assert_allclose(maps, grid.maps(layer_tokens(trunk, variables, images)["block_0"]), atol=1e-6)
  direction = jnp.asarray(np.random.default_rng(1).normal(size=maps.shape), jnp.float32)
  shift = jnp.pad(direction.reshape(2, -1, 8), ((0, 0), (1, 0), (0, 0)))

  def moved(step):
    perturbed = {**variables, "perturbations": {"block_0_tokens": step * shift}}
    return score(layer_tokens(trunk, perturbed, images))

  numeric = (moved(1e-2) - moved(-1e-2)) / 2e-2
  np.testing.assert_allclose((slopes * direction).sum((1, 2, 3)), numeric, rtol=1e-2)


def test_gradients_of_a_mean_at_the_last_map():
  """d |mean|^2 = 2 mean / places."""
  trunk, variables, images = made("convnet")
  score = lambda tokens: jnp.square(tokens["block_1"].mean(1)).sum(-1)
  maps, slopes = with_gradient(trunk, variables, images, "block_1", score)
  expected = 2 * maps.mean((1, 2), keepdims=True) / (maps.shape[1] * maps.shape[2])
  np.testing.assert_allclose(slopes, np.broadcast_to(expected, maps.shape), rtol=1e-5, atol=1e-8)


def test_the_last_block_of_a_transformer_is_perturbed_behind_its_norm():
  trunk, variables, images = made("vit")
  score = lambda tokens: tokens["block_1"][:, 1:].sum((1, 2))
  np.testing.assert_allclose(with_gradient(trunk, variables, images, "block_1", score)[1], 1, rtol=1e-6)


def test_init_makes_no_perturbations():
  assert set(made("vit")[1]) == {"params"} and set(made("convnet")[1]) == {"params", "batch_stats"}


def test_mistakes_are_named():
  with pytest.raises(InputError, match="images of 8 x 8 pixels are too small: layer block5_conv1 has no place"):
    vgg.encoder().grids(8, 8)
  with pytest.raises(InputError, match="object has no maps of images"):
    grids_of(object(), jnp.zeros((1, 8, 8, 3)))
