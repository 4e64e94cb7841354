"""Patches against slices, and convolutions by shifted slices against XLA's own."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax.nets.patches import PatchEncoder, _shifted, image_patches
from embeddings_jax.types import InputError


def _random(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_patches_equal_slices():
  images = _random(2, 11, 9, 3)
  patches = image_patches(images, 4, 2)
  assert patches.shape == (2, 4, 3, 4, 4, 3)
  for i in range(4):
    for j in range(3):
      np.testing.assert_array_equal(patches[:, i, j], images[:, 2 * i:2 * i + 4, 2 * j:2 * j + 4])
  assert image_patches(jnp.zeros((1, 256, 256, 3), jnp.uint8), 64, 32).shape[1:3] == (7, 7)  # The paper's grid.
  with pytest.raises(InputError, match="patch_size=10, a patch every 5 pixels: does not fit images of 9 pixels"):
    image_patches(images, 10, 5)


@pytest.mark.parametrize("length, kernel_size, stride", [(8, 3, 2), (5, 3, 2), (4, 4, 1), (6, 1, 2), (7, 2, 3)])
def test_shifted_slices_equal_a_convolution(length, kernel_size, stride):
  x, kernel = _random(2, length, length + 1, 3), _random(kernel_size, kernel_size, 3, 4, seed=1)
  expected = jax.lax.conv_general_dilated(x, kernel, (stride, stride), "SAME",
                                          dimension_numbers=("NHWC", "HWIO", "NHWC"))
  np.testing.assert_allclose(_shifted(x, kernel_size, stride) @ kernel.reshape(-1, 4), expected, atol=1e-5)


def test_a_patch_is_read_by_itself():
  network = PatchEncoder((4, 6), (3, 3), (1, 2))
  x = _random(5, 6, 6, 2)
  params = jax.jit(network.init)(jax.random.key(0), x)
  codes = jax.jit(network.apply)(params, x)
  assert codes.shape == (5, 6)
  np.testing.assert_allclose(jax.jit(network.apply)(params, x[3:4]), codes[3:4], atol=1e-6)
