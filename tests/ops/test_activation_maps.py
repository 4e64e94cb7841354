"""Maps of where a network looks, against plain NumPy on a small network."""
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from embeddings_jax.nets import convnet
from embeddings_jax.nets.grids import layer_tokens, with_gradient
from embeddings_jax.ops.activation_maps import class_activation, enlarged, grad_cam, rollout, scaled


def random(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_class_activation_is_the_logit_place_by_place():
  maps, kernel = random(3, 4, 5, 6), random(6, 2)
  actual = class_activation(maps, kernel[:, 1])
  np.testing.assert_allclose(actual[2, 1, 3], sum(maps[2, 1, 3, d] * kernel[d, 1] for d in range(6)), rtol=1e-5)
  np.testing.assert_allclose(actual.mean((1, 2)), (maps.mean((1, 2)) @ kernel)[:, 1], rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(class_activation(maps, kernel.T[np.array([0, 1, 0])])[1], actual[1], rtol=1e-5)


def test_grad_cam_is_that_of_numpy():
  """relu of two dense layers on the mean of the last map; the gradient is written out."""
  trunk = convnet.encoder(channels=(3, 4), strides=(1, 2))
  images = jnp.asarray(np.random.default_rng(0).random((2, 8, 8, 3)), jnp.float32)
  variables = trunk.init(jax.random.key(1), images)
  first, second = random(4, 5), random(5, seed=1)
  score = lambda tokens: nn.relu(tokens["block_1"].mean(1) @ first) @ second
  maps, slopes = with_gradient(trunk, variables, images, "block_1", score)
  actual = grad_cam(maps, slopes)
  values = np.asarray(layer_tokens(trunk, variables, images)["block_1"], np.float64)  # [2, 16, 4]
  assert values.any()
  for i in range(2):
    hidden = values[i].mean(0) @ first
    slope = first @ ((hidden > 0) * second) / 16  # Of each place.
    expected = np.maximum(values[i] @ slope, 0).reshape(4, 4)
    np.testing.assert_allclose(actual[i], expected, rtol=1e-4, atol=1e-7)


def test_rollout_is_a_product_of_matrices():
  attention = np.random.default_rng(0).dirichlet(np.ones(5), (2, 3, 2, 5)).astype(np.float32)
  actual = rollout(jnp.asarray(attention))
  total = np.eye(5)
  for layer in range(3):
    total = (0.5 * attention[1, layer].mean(0) + 0.5 * np.eye(5)) @ total
  np.testing.assert_allclose(actual[1], total[0, 1:], rtol=1e-5)
  # By hand: one layer whose CLS attends to patch 2 alone; half of it is the residual.
  one = np.zeros((1, 1, 1, 3, 3), np.float32)
  one[..., 2] = 1
  np.testing.assert_allclose(rollout(jnp.asarray(one)), [[0, 0.5]])
  np.testing.assert_allclose(rollout(jnp.asarray(one), leading=0), [[1 / 6, 1 / 6, 2 / 3]], rtol=1e-6)


def test_maps_are_scaled_and_enlarged():
  maps = jnp.stack([jnp.arange(6.0).reshape(2, 3), jnp.full((2, 3), 7.0)])
  np.testing.assert_allclose(scaled(maps)[0], maps[0] / 5, rtol=1e-6)
  assert not scaled(maps)[1].any()
  big = enlarged(scaled(maps), 8, 9)
  assert big.shape == (2, 8, 9) and np.unravel_index(int(big[0].argmax()), (8, 9)) >= (6, 7)
