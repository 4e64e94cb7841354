"""Residual networks against those of `transformers`, in training and out of it; BatchNorm over masks and meshes."""
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax.nets import resnet
from embeddings_jax.types import InputError


def images(num=6, size=32, channels=3, seed=0):
  return jnp.asarray(np.random.default_rng(seed).integers(0, 256, (num, size, size, channels)), jnp.uint8)


def started(net, x):
  variables = jax.jit(lambda x: net.init(jax.random.key(0), {"image": x}, method="features"))(x)
  rng = np.random.default_rng(0)  # So that no scale is 1 and no shift 0.
  draw = lambda path, leaf: jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape) if path[-1].key in ("scale", "var") else
                                        rng.normal(size=leaf.shape) * (0.2 if leaf.ndim < 4 else
                                                                       np.prod(leaf.shape[:3]) ** -0.5), jnp.float32)
  return jax.tree_util.tree_map_with_path(draw, variables)


def in_torch(net, variables, depth, width):
  """`transformers`' network with our weights. Its stem is ImageNet's; its pooler takes the mean over places."""
  import torch
  import transformers

  bottleneck = depth in resnet.BOTTLENECKS
  sizes = [(4 if bottleneck else 1) * width << i for i in range(4)]
  config = transformers.ResNetConfig(
      embedding_size=width, hidden_sizes=sizes, depths=resnet.STAGES[depth],
      layer_type="bottleneck" if bottleneck else "basic", downsample_in_bottleneck=False)
  model = transformers.ResNetModel(config)
  state, used = model.state_dict(), set()

  def put(theirs, ours):
    conv, norm = ours
    params, statistics = variables["params"], variables["batch_stats"]
    for name in conv[:-1]:
      params = params[name]
    kernel = params[conv[-1]]["kernel"]
    norm_params, running = variables["params"], statistics
    for name in norm:
      norm_params, running = norm_params[name], running[name]
    values = {"convolution.weight": np.transpose(kernel, (3, 2, 0, 1)), "normalization.weight": norm_params["scale"],
              "normalization.bias": norm_params["bias"], "normalization.running_mean": running["mean"],
              "normalization.running_var": running["var"]}
    for name, value in values.items():
      assert state[f"{theirs}.{name}"].shape == value.shape
      state[f"{theirs}.{name}"] = torch.tensor(np.asarray(value))
      used.add(f"{theirs}.{name}")

  put("embedder.embedder", (("stem",), ("norm",)))
  number = 0
  for stage, length in enumerate(resnet.STAGES[depth]):
    for layer in range(length):
      block, theirs = f"block_{number}", f"encoder.stages.{stage}.layers.{layer}"
      for i in range(3 if bottleneck else 2):
        put(f"{theirs}.layer.{i}", ((block, f"conv_{i}"), (block, f"norm_{i}")))
      if "shortcut" in variables["params"][block]:
        put(f"{theirs}.shortcut", ((block, "shortcut"), (block, "shortcut_norm")))
      number += 1
  assert used == {name for name in state if not name.endswith("num_batches_tracked")}
  model.load_state_dict(state)
  return model


@pytest.mark.parity
@pytest.mark.parametrize("depth, width, size", [(18, 8, 45), pytest.param(50, 4, 64, marks=pytest.mark.long)])
def test_network_is_that_of_transformers(depth, width, size):
  """Values, running statistics and gradients, with the batch's statistics and with the running ones."""
  import torch

  net = resnet.encoder(depth=depth, width=width, stem="imagenet")
  x = images(size=size)
  variables = started(net, x)
  theirs = in_torch(net, variables, depth, width)
  pixels = torch.tensor(np.transpose(np.asarray(x, np.float32) / 127.5 - 1, (0, 3, 1, 2)))
  for train in (False, True):
    theirs.train(train)
    with jax.default_matmul_precision("highest"):
      actual, moved = net.apply(variables, {"image": x}, deterministic=not train, method="features",
                                mutable=["batch_stats"])
    expected = theirs(pixels).last_hidden_state.flatten(2).transpose(1, 2)
    # Relative to the largest: statistics of few values let rounding grow from layer to layer.
    assert np.abs(actual - expected.detach().numpy()).max() <= 1e-4 * expected.abs().max()
  # PyTorch's running variance is the unbiased one, ours (as Flax's) is that of the batch.
  running = moved["batch_stats"]["norm"]
  np.testing.assert_allclose(running["mean"], theirs.embedder.embedder.normalization.running_mean, rtol=1e-4,
                             atol=1e-5)

  weight = np.random.default_rng(1).normal(size=actual.shape).astype(np.float32)
  # Through 16 blocks with statistics of 24 values, rounding decides which side of 0 some are on: there running ones.
  theirs.load_state_dict(in_torch(net, variables, depth, width).state_dict())
  theirs.train(depth == 18)
  with jax.default_matmul_precision("highest"):
    of_params = jax.jit(jax.grad(lambda params: (net.apply(
        {**variables, "params": params}, {"image": x}, deterministic=depth != 18, method="features",
        mutable=["batch_stats"])[0] * weight).sum()))(variables["params"])
  (theirs(pixels).last_hidden_state.flatten(2).transpose(1, 2) * torch.tensor(weight)).sum().backward()
  stages, last = theirs.encoder.stages, f"block_{sum(resnet.STAGES[depth]) - 1}"
  for one, other in ((of_params["stem"], theirs.embedder.embedder), (of_params["block_0"]["conv_1"],
                     stages[0].layers[0].layer[1]), (of_params[last]["conv_0"], stages[3].layers[-1].layer[0])):
    one, other = one["kernel"], np.transpose(other.convolution.weight.grad.numpy(), (2, 3, 1, 0))
    assert np.abs(one - other).max() <= 1e-3 * np.abs(other).max()


@pytest.mark.parametrize("depth, stem, size, places, dim, blocks", [
    (18, "cifar", 32, 16, 8 * 4, 8), (18, "imagenet", 64, 4, 8 * 4, 8), (20, "cifar", 32, 64, 4 * 4, 9),
    (50, "cifar", 16, 4, 32 * 4, 16), (8, "cifar", 16, 16, 4 * 4, 3)])
def test_shapes(depth, stem, size, places, dim, blocks):
  net = resnet.encoder(depth=depth, width=4, stem=stem)
  x = images(2, size)
  variables = jax.eval_shape(lambda: net.init(jax.random.key(0), {"image": x}, method="features"))
  actual = jax.eval_shape(lambda v: net.apply(v, {"image": x}, method="features"), variables)
  assert actual.shape == (2, places, dim)
  assert sum(name.startswith("block_") for name in variables["params"]) == blocks


def test_cifar_s_18_layers_have_the_11_million_parameters_of_the_usual_network():
  """11,168,832 = torchvision's 11,689,512 less its head (513,000) and the wide stem's 7,680 more weights."""
  net = resnet.encoder()
  shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), {"image": images(1)}, method="features"))
  actual = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
  assert actual == 11_689_512 - 513_000 - (7 * 7 - 3 * 3) * 3 * 64


def test_rows_with_mask_0_have_no_part_in_the_statistics():
  net = resnet.encoder(depth=8, width=4)
  x = images(8, 16)
  variables = started(net, x)
  run = lambda x, mask: net.apply(variables, {"image": x, "mask": mask}, deterministic=False, method="features",
                                  mutable=["batch_stats"])
  actual, moved = run(x, jnp.array([1.0] * 5 + [0.0] * 3))
  expected, alone = run(x[:5], jnp.ones(5))
  np.testing.assert_allclose(actual[:5], expected, rtol=1e-4, atol=1e-5)
  chex.assert_trees_all_close(moved, alone, rtol=1e-4, atol=1e-6)


def test_statistics_are_those_of_the_whole_mesh(mesh_of):
  net = resnet.encoder(depth=8, width=4)
  x = images(16, 16)
  variables = started(net, x)
  run = jax.jit(lambda v, x: net.apply(v, {"image": x}, deterministic=False, method="features",
                                       mutable=["batch_stats"]))
  expected = run(variables, x)
  mesh = mesh_of("data:4,fsdp:2")
  with jax.set_mesh(mesh):
    rows = jax.device_put(x, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(("data", "fsdp"))))
    actual = run(variables, rows)
  chex.assert_trees_all_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_pictures_of_another_size_are_resized():
  x = jnp.full((2, 32, 32, 3), 200, jnp.uint8)
  small = jnp.full((2, 16, 16, 3), 200, jnp.uint8)
  net = resnet.encoder(depth=8, width=4, image_size=16)
  variables = started(net, x)
  actual = net.apply(variables, {"image": x}, method="features")
  assert actual.shape[1] == 16
  np.testing.assert_allclose(actual, net.apply(variables, {"image": small}, method="features"), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options, expected", [
    ({"depth": 17}, "depth=17: must be one of"), ({"stem": "small"}, "stem='small'"),
    ({"width": 0}, "width=0"), ({"norm_decay": 1.0}, "norm_decay=1.0")])
def test_mistakes(options, expected):
  with pytest.raises(InputError, match=expected):
    resnet.encoder(**options)
