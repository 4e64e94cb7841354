"""FID's Inception: blocks and the whole against torch by shared weights, the resize, bad files, metric names."""
import hashlib
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders.images import ImageEncoder
from embeddings_jax.interop import inception as weights
from embeddings_jax.nets import inception
from embeddings_jax.runs import generators
from embeddings_jax.runs.evaluation import Evaluator
from embeddings_jax.runs.inception_features import inception_features
from embeddings_jax.types import InputError


def tensors_of(shapes, seed=0, prefix=""):
  """Random weights by pytorch-fid's keys for layers of these shapes, nested by names."""
  rng, tensors = np.random.default_rng(seed), {}
  for name, value in shapes.items():
    if "kernel" not in value:
      tensors |= tensors_of(value, int(rng.integers(1 << 30)), f"{prefix}{name}.")
      continue
    rows, columns, inputs, outputs = value["kernel"].shape
    uniform = lambda low, high, size=outputs: rng.uniform(low, high, size).astype(np.float32)
    kernel = rng.normal(size=(outputs, inputs, rows, columns)) * (2 / (rows * columns * inputs)) ** 0.5
    tensors |= {f"{prefix}{name}.conv.weight": kernel.astype(np.float32),
                f"{prefix}{name}.bn.weight": uniform(0.8, 1.2), f"{prefix}{name}.bn.bias": uniform(-0.1, 0.1),
                f"{prefix}{name}.bn.running_mean": uniform(-0.1, 0.1),
                f"{prefix}{name}.bn.running_var": uniform(0.8, 1.2)}
  return tensors


class Torch:
  """The network by torch's functions, from tensors by name."""

  def __init__(self, tensors):
    import torch
    self.tensors = {name: torch.from_numpy(value) for name, value in tensors.items()}

  def conv(self, x, name, stride=1, padding=0):
    from torch.nn import functional
    get = lambda part: self.tensors[f"{name}.{part}"]
    x = functional.conv2d(x, get("conv.weight"), None, stride, padding)
    x = functional.batch_norm(x, get("bn.running_mean"), get("bn.running_var"), get("bn.weight"), get("bn.bias"),
                              False, 0.1, 0.001)
    return functional.relu(x)

  def chain(self, x, *layers):
    for layer in layers:
      x = self.conv(x, *layer)
    return x

  def block(self, name, kind, x):
    import torch
    from torch.nn.functional import avg_pool2d, max_pool2d
    at = lambda part, *rest: (f"{name}.{part}", *rest)
    flat, tall = (1, (0, 3)), (1, (3, 0))
    mean = lambda: avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    if kind == "A":
      parts = [self.chain(x, at("branch1x1")), self.chain(x, at("branch5x5_1"), at("branch5x5_2", 1, 2)),
               self.chain(x, at("branch3x3dbl_1"), at("branch3x3dbl_2", 1, 1), at("branch3x3dbl_3", 1, 1)),
               self.chain(mean(), at("branch_pool"))]
    elif kind == "B":
      parts = [self.chain(x, at("branch3x3", 2)),
               self.chain(x, at("branch3x3dbl_1"), at("branch3x3dbl_2", 1, 1), at("branch3x3dbl_3", 2)),
               max_pool2d(x, 3, 2)]
    elif kind == "C":
      parts = [self.chain(x, at("branch1x1")),
               self.chain(x, at("branch7x7_1"), at("branch7x7_2", *flat), at("branch7x7_3", *tall)),
               self.chain(x, at("branch7x7dbl_1"), at("branch7x7dbl_2", *tall), at("branch7x7dbl_3", *flat),
                          at("branch7x7dbl_4", *tall), at("branch7x7dbl_5", *flat)),
               self.chain(mean(), at("branch_pool"))]
    elif kind == "D":
      parts = [self.chain(x, at("branch3x3_1"), at("branch3x3_2", 2)),
               self.chain(x, at("branch7x7x3_1"), at("branch7x7x3_2", *flat), at("branch7x7x3_3", *tall),
                          at("branch7x7x3_4", 2)), max_pool2d(x, 3, 2)]
    else:
      y, z = self.chain(x, at("branch3x3_1")), self.chain(x, at("branch3x3dbl_1"), at("branch3x3dbl_2", 1, 1))
      parts = [self.chain(x, at("branch1x1")), self.conv(y, *at("branch3x3_2a", 1, (0, 1))),
               self.conv(y, *at("branch3x3_2b", 1, (1, 0))), self.conv(z, *at("branch3x3dbl_3a", 1, (0, 1))),
               self.conv(z, *at("branch3x3dbl_3b", 1, (1, 0))),
               self.chain(max_pool2d(x, 3, 1, 1) if name == "Mixed_7c" else mean(), at("branch_pool"))]
    return torch.cat(parts, 1)

  def __call__(self, x):
    from torch.nn.functional import max_pool2d
    x = self.chain(x, ("Conv2d_1a_3x3", 2), ("Conv2d_2a_3x3",), ("Conv2d_2b_3x3", 1, 1))
    x = max_pool2d(self.chain(max_pool2d(x, 3, 2), ("Conv2d_3b_1x1",), ("Conv2d_4a_3x3",)), 3, 2)
    for name, kind in (("5b", "A"), ("5c", "A"), ("5d", "A"), ("6a", "B"), ("6b", "C"), ("6c", "C"), ("6d", "C"),
                       ("6e", "C"), ("7a", "D"), ("7b", "E"), ("7c", "E")):
      x = self.block(f"Mixed_{name}", kind, x)
    return x.mean((2, 3))


def folded(tensors, shapes, monkeypatch, path):
  """Parameters of layers of these shapes, as they are read from a file."""
  save_file(tensors, path)
  monkeypatch.setattr(inception, "shapes", lambda: shapes)
  return weights.read(path)


@pytest.mark.parity
@pytest.mark.parametrize("name, kind, channels", [("Mixed_5b", "A", 5), ("Mixed_6b", "C", 3), ("Mixed_7b", "E", 3),
                                                  ("Mixed_7c", "E", 3)])
def test_blocks_are_torchs(name, kind, channels, tmp_path, monkeypatch):
  import torch
  block, options = inception.BLOCKS[name]
  images = np.random.default_rng(1).normal(size=(2, 9, 8, channels)).astype(np.float32)
  shapes = jax.eval_shape(block(*options).init, jax.random.key(0), images)["params"]
  tensors = tensors_of({name: shapes})
  params = folded(tensors, {name: shapes}, monkeypatch, tmp_path / "w.safetensors")
  actual = jax.jit(block(*options).apply)({"params": params[name]}, images)
  expected = Torch(tensors).block(name, kind, torch.from_numpy(images.transpose(0, 3, 1, 2)))
  np.testing.assert_allclose(actual, expected.numpy().transpose(0, 2, 3, 1), atol=2e-5)


@pytest.mark.parity
@pytest.mark.long
def test_the_whole_is_torchs(tmp_path):
  import torch
  tensors = tensors_of(inception.shapes())
  save_file(tensors | {"fc.bias": np.zeros(1008, np.float32)}, tmp_path / "w.safetensors")
  params = weights.read(tmp_path / "w.safetensors")
  images = np.random.default_rng(1).uniform(-1, 1, (2, 91, 83, 3)).astype(np.float32)
  actual = jax.jit(inception.Inception().apply)({"params": params}, images)
  expected = Torch(tensors)(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
  assert actual.shape == (2, 2048) and np.abs(expected).max() > 0.1
  np.testing.assert_allclose(actual, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parity
def test_images_are_resized_as_by_torch():
  import torch
  images = np.random.default_rng(0).random((2, 28, 31, 1)).astype(np.float32)
  expected = torch.nn.functional.interpolate(torch.from_numpy(images.transpose(0, 3, 1, 2)), (299, 299),
                                             mode="bilinear", align_corners=False).numpy()
  actual = np.asarray(jax.jit(inception.resized)(images))
  np.testing.assert_allclose(actual, 2 * np.repeat(expected, 3, 1).transpose(0, 2, 3, 1) - 1, atol=1e-5)


def test_files_without_a_tensor_or_with_others_are_refused_by_name(tmp_path, monkeypatch):
  shape = jax.ShapeDtypeStruct((3, 3, 2, 4), np.float32)
  shapes = {"Mixed_5b": {"branch1x1": {"kernel": shape}}}
  tensors, path = tensors_of(shapes), tmp_path / "w.safetensors"
  params = folded(tensors, shapes, monkeypatch, path)["Mixed_5b"]["branch1x1"]
  assert params["kernel"].shape == shape.shape and params["bias"].dtype == np.float32
  key = "Mixed_5b.branch1x1.bn.running_var"
  for value, message in ((None, f"lacks {key}; these are not the weights of FID's Inception"),
                         (np.ones(3, np.float32), rf"{key} is F32 \[3\], should be of shape \[4\]"),
                         (np.full(4, np.nan, np.float32), f"{key} holds a number that is not finite")):
    changed = {**tensors, key: value} if value is not None else {k: v for k, v in tensors.items() if k != key}
    save_file(changed, path)
    with pytest.raises(InputError, match=f"w.safetensors: {message}"):
      weights.read(path)
  path.write_bytes(b"no")
  with pytest.raises(InputError, match="not a sound safetensors file"):
    weights.read(path)
  with pytest.raises(InputError, match="there is no such file"):
    weights.read(tmp_path / "none")


def test_distances_name_the_file_and_what_was_done_to_the_images(tmp_path, monkeypatch):
  """With a network of a few features in place of the large one."""
  path = tmp_path / "w.safetensors"
  path.write_bytes(b"weights")
  monkeypatch.setattr(weights, "read", lambda path: {})
  monkeypatch.setattr(inception, "Inception", lambda: SimpleNamespace(
      apply=lambda variables, x: x[:, ::149, ::149, 0].reshape(len(x), -1)))
  images = np.random.default_rng(0).integers(0, 256, (60, 5, 4, 1)).astype(np.uint8)
  data = Dataset("made", "images", images, labels={"class": np.arange(60) % 2}, split={})
  monkeypatch.setattr(generators, "generators", lambda subject: {"prior": lambda num, seed: images[:num] / 255})
  evaluator = Evaluator(None, None, ImageEncoder(5, 4, 1), embed=lambda items: items, dataset=data,
                        options={"inception": str(path)})
  metrics = evaluator.evaluate(["generation"])
  name = f"inception_{hashlib.sha256(b'weights').hexdigest()[:8]}_5x4_uint8_bilinear299_n60"
  assert set(metrics) == {f"all/floor/{name}/frechet_floor", f"all/floor/{name}/kernel_floor",
                          *(f"all/prior/{name}/{key}" for key in ("frechet", "kernel", "spread"))}
  assert metrics[f"all/prior/{name}/frechet"] == pytest.approx(0, abs=1e-6)
  with pytest.raises(InputError, match=r"inception: items of shape \[5, 4, 2\]; it reads gray or color images"):
    inception_features(str(path), (5, 4, 2))
