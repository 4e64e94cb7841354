"""Vision transformers: patches by hand, positions and vectors of `transformers`, methods that agree, mistakes."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import images, vit_params

from embeddings_jax.nets.patches import fold, unfold
from embeddings_jax.nets.vit import sincos2d, vit
from embeddings_jax.types import InputError

TINY = dict(patch_size=4, dim=24, num_layers=3, num_heads=3, mlp_dim=40)


def test_patches_by_hand():
  picture = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
  actual = np.asarray(unfold(jnp.asarray(picture), 2))
  assert actual.shape == (2, 6, 12)
  for row in range(2):
    for column in range(3):
      expected = picture[1, 2 * row:2 * row + 2, 2 * column:2 * column + 2].ravel()
      np.testing.assert_array_equal(actual[1, 3 * row + column], expected)
  np.testing.assert_array_equal(fold(jnp.asarray(actual), 2, (4, 6, 3)), picture)


def test_positions_by_hand():
  actual = sincos2d(2, 3, 8)
  assert actual.shape == (6, 8)
  # Row 1, column 2; frequencies 1 and 1 / 100.
  expected = [np.sin(2), np.sin(0.02), np.cos(2), np.cos(0.02), np.sin(1), np.sin(0.01), np.cos(1), np.cos(0.01)]
  np.testing.assert_allclose(actual[5], expected, rtol=1e-6)


@pytest.mark.parity
@pytest.mark.parametrize("rows,columns,dim", [(5, 3, 24), (14, 14, 768), (1, 7, 4)])
def test_positions_are_transformers(rows, columns, dim):
  from transformers.models.vit_mae.modeling_vit_mae import build_2d_sinusoidal_position_embedding

  table = build_2d_sinusoidal_position_embedding(rows, columns, dim).numpy()
  # As theirs are stored: the column goes first.
  np.testing.assert_allclose(sincos2d(rows, columns, dim), np.roll(table, dim // 2, -1), atol=1e-7)


def test_the_embedding_is_a_convolution():
  network = vit(**TINY)
  batch = images(2, 8, 12, 3)
  params = jax.tree.map(jnp.asarray, vit_params(TINY, 6, 3))
  kernel = params["patch_embedding"]["kernel"].reshape(4, 4, 3, 24)
  pixels = jnp.asarray(batch["image"], jnp.float32) / 127.5 - 1
  with jax.default_matmul_precision("highest"):
    convolved = jax.lax.conv_general_dilated(pixels, kernel, (4, 4), "VALID",
                                             dimension_numbers=("NHWC", "HWIO", "NHWC"))
    actual = network.apply({"params": params}, batch, method="layers")[:, 0]
  expected = convolved.reshape(2, 6, 24) + params["patch_embedding"]["bias"] + sincos2d(2, 3, 24)
  np.testing.assert_allclose(actual[:, 1:], expected, atol=2e-5)
  np.testing.assert_array_equal(actual[:, 0], np.tile(params["cls"], (2, 1)))


@pytest.mark.parametrize("positions", ["sincos2d", "learned"])
def test_methods_agree(positions):
  hyper = TINY | dict(positions=positions)
  network, batch = vit(**hyper, unroll=2), images(2, 8, 12, 1)
  params = {"params": jax.tree.map(jnp.asarray, vit_params(hyper, 6, 1))}
  read = lambda method: np.asarray(jax.jit(lambda batch: network.apply(params, batch, method=method))(batch))
  features = read("features")
  assert features.shape == (2, 7, 24)
  layers = read("layers")
  assert layers.shape == (2, 4, 7, 24)
  np.testing.assert_allclose(layers[:, -1], features, atol=1e-5)
  np.testing.assert_allclose(read("first"), features[:, :1], atol=1e-5)
  np.testing.assert_array_equal(read("patches"), features[:, 1:])
  np.testing.assert_array_equal(read("valid"), np.ones((2, 7), bool))
  # All patches in another order are the same patches.
  order = jnp.asarray([[3, 1, 0, 5, 4, 2], [0, 5, 1, 4, 2, 3]])
  pixels = jnp.take_along_axis(network.apply(params, batch["image"], method="cut"), order[..., None], 1)
  actual = np.asarray(network.apply(params, pixels, (2, 3), order))
  np.testing.assert_allclose(actual[:, 1:], np.take_along_axis(features[:, 1:], np.asarray(order)[..., None], 1),
                             atol=1e-5)


def test_bfloat16_is_near():
  batch, params = images(2, 8, 12, 1), {"params": jax.tree.map(jnp.asarray, vit_params(TINY, 6, 1))}
  exact, actual = (np.asarray(vit(**TINY, dtype=dtype).apply(params, batch, method="features"), np.float32)
                   for dtype in ("float32", "bfloat16"))
  assert 0 < np.abs(actual - exact).max() < 0.1 * np.abs(exact).max()


def test_mistakes_are_named():
  with pytest.raises(InputError, match="patch_size=5: does not divide images of 8 x 12 pixels"):
    vit(**TINY | dict(patch_size=5)).init(jax.random.key(0), images(1, 8, 12, 1), method="features")
  for change, message in ((dict(dim=22), "dim=22: must be a multiple of num_heads=3"),
                          (dict(dim=18), "dim=18: must be a multiple of 4"),
                          (dict(positions="none"), "positions='none': must be one of sincos2d, learned"),
                          (dict(patch_size=0), "patch_size=0: must be at least 1"),
                          (dict(pixel_std=[0.2, 0.0, 0.1]), "pixel_std=.*: must be above 0"),
                          (dict(activation="swish"), "activation='swish'"), (dict(remat="some"), "remat='some'")):
    with pytest.raises(InputError, match=message):
      vit(**TINY | change)
