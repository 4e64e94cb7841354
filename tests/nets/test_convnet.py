"""The plain convolutional network against torch's convolutions and BatchNorm."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import images

from embeddings_jax.nets import convnet
from embeddings_jax.types import InputError


@pytest.mark.parity
def test_network_is_that_of_torch():
  """Maps and running statistics, in training and out of it."""
  import torch

  net = convnet.encoder(channels=(5, 7), strides=(2, 1))
  batch = images(4, 9, 9, 3)
  variables = jax.jit(lambda: net.init(jax.random.key(0), batch, method="features"))()
  layers = []
  for i, stride in enumerate((2, 1)):
    kernel = np.asarray(variables["params"][f"block_{i}"]["conv"]["kernel"])
    conv = torch.nn.Conv2d(kernel.shape[2], kernel.shape[3], 3, stride, 1, bias=False)
    conv.weight.data = torch.tensor(kernel.transpose(3, 2, 0, 1).copy())
    layers += [conv, torch.nn.BatchNorm2d(kernel.shape[3], momentum=0.1), torch.nn.ReLU()]
  theirs = torch.nn.Sequential(*layers)
  pixels = torch.tensor(np.asarray(batch["image"], np.float32).transpose(0, 3, 1, 2) / 127.5 - 1)
  expected = theirs(pixels).detach().numpy().transpose(0, 2, 3, 1)
  apply = jax.jit(lambda v: net.apply(v, batch["image"], deterministic=False, mutable=["batch_stats"]))
  actual, moved = apply(variables)
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(moved["batch_stats"]["block_0"]["norm"]["mean"], layers[1].running_mean, atol=1e-5)
  expected = theirs.eval()(pixels).detach().numpy().transpose(0, 2, 3, 1)
  # Flax's running variance is divided by n, torch's by n - 1.
  moved = jax.tree_util.tree_map_with_path(
      lambda path, x: jnp.asarray(layers[1 if "block_0" in str(path) else 4].running_var.numpy())
      if "var" in str(path) else x, moved)
  features = net.apply({"params": variables["params"], **moved}, batch, method="features")
  np.testing.assert_allclose(features, expected.reshape(4, 25, 7), rtol=1e-4, atol=1e-5)


def test_batch_norm_without_scale_and_shift_has_no_parameters():
  net = convnet.encoder(channels=(2,), strides=(1,), norm_affine=False)
  shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), images(2, 4, 4, 1), method="features"))
  assert set(shapes["params"]["block_0"]) == {"conv"}


def test_unequal_lists_are_refused():
  with pytest.raises(InputError, match="strides"):
    convnet.encoder(channels=(2, 4), strides=(1,))
