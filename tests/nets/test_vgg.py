"""VGG16 against one written with torch's layers, and its weight files."""
import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from embeddings_jax.interop import vgg as files
from embeddings_jax.nets import vgg
from embeddings_jax.types import InputError

torch = pytest.importorskip("torch")  # The extra `parity` brings it.
nn = torch.nn
pytestmark = pytest.mark.parity
WIDTH, HIDDEN, CLASSES = 8, 16, 5


def reference():
  """VGG16 of a smaller width, in torch."""
  torch.manual_seed(0)
  layers, channels = [], 3
  for number, times in ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8)):
    for _ in range(number):
      layers += [nn.Conv2d(channels, times * WIDTH, 3, padding=1), nn.ReLU()]
      channels = times * WIDTH
    layers.append(nn.MaxPool2d(2, 2))
  # Kaiming's scale, or the signal fades over 13 layers and any two nets agree.
  for layer in layers:
    if isinstance(layer, nn.Conv2d):
      nn.init.kaiming_normal_(layer.weight)
      nn.init.normal_(layer.bias, std=0.1)
  head = nn.Sequential(nn.Linear(channels * 49, HIDDEN), nn.ReLU(), nn.Dropout(), nn.Linear(HIDDEN, HIDDEN),
                       nn.ReLU(), nn.Dropout(), nn.Linear(HIDDEN, CLASSES)).eval()
  return nn.Sequential(*layers), head


def tensors(features, head):
  named = {f"features.{name}": value for name, value in features.state_dict().items()}
  return {name: value.numpy() for name, value in
          (named | {f"classifier.{name}": value for name, value in head.state_dict().items()}).items()}


@pytest.fixture(scope="module")
def networks():
  return reference()


@pytest.mark.parametrize("layout", ["torchvision", "timm"])
def test_activations_are_torchs(networks, layout, tmp_path):
  features, head = networks
  stored = tensors(features, head)
  if layout == "timm":
    names = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2", "classifier.6": "head.fc"}
    size = {"classifier.0": 7, "classifier.3": 1}
    stored = {name if name.startswith("features") else f"{names[name[:12]]}.{name[13:]}": value.reshape(
        *value.shape[:1], -1, size[name[:12]], size[name[:12]]) if value.ndim == 2 and name[:12] in size else value
              for name, value in stored.items()}
  save_file({name: np.ascontiguousarray(value) for name, value in stored.items()}, tmp_path / "w.safetensors")
  hyper, params = files.read(tmp_path / "w.safetensors")
  assert hyper == {"width": WIDTH, "hidden": HIDDEN, "num_classes": CLASSES}
  trunk = vgg.encoder(**hyper)
  images = np.random.default_rng(0).random((2, 48, 32, 3)).astype(np.float32)
  mean, std = (torch.tensor(value)[:, None, None] for value in vgg.IMAGENET)
  x, expected = (torch.tensor(images).permute(0, 3, 1, 2) - mean) / std, {}
  with torch.no_grad():
    for layer, name in zip(features, named_layers()):
      x = layer(x)
      if name:
        expected[name] = x.permute(0, 2, 3, 1).numpy()
    logits = head(nn.functional.adaptive_avg_pool2d(x, 7).flatten(1)).numpy()
  maps, ours, last = jax.jit(lambda images: (
      trunk.apply({"params": params}, images, collect=True), trunk.apply({"params": params}, images, classify=True),
      trunk.apply({"params": params}, images)))(images)
  assert list(maps) == list(expected) and len(maps) == 13
  for name, value in maps.items():
    np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-4, err_msg=name)
    grid = trunk.grids(48, 32)[name]
    assert value.shape[1:3] == (grid.rows, grid.columns)
  assert np.std(maps["block5_conv3"]) > 0.1
  np.testing.assert_allclose(last, x.permute(0, 2, 3, 1).numpy(), rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(ours, logits, rtol=1e-4, atol=1e-4)


def named_layers():
  """Names of torch's layers: those of the ReLUs, None for the others."""
  for block, number in enumerate((2, 2, 3, 3, 3), 1):
    for i in range(1, number + 1):
      yield from (None, f"block{block}_conv{i}")
    yield None


def test_other_files_are_refused(networks, tmp_path):
  path = tmp_path / "w.safetensors"
  good = tensors(*networks)

  def refused(change, match):
    stored = dict(good)
    change(stored)
    save_file({name: np.ascontiguousarray(value) for name, value in stored.items()}, path)
    with pytest.raises(InputError, match=match) as caught:
      files.read(path)
    assert "\n" not in str(caught.value)

  refused(lambda stored: stored.update({"features.1.weight": np.ones(8, np.float32)}),
          "has features.1.weight; these are not the weights of a VGG16")  # With BatchNorm.
  refused(lambda stored: stored.pop("features.28.bias"), "lacks features.28.bias")  # VGG13.
  refused(lambda stored: stored.update({"conv1.weight": np.ones(3, np.float32)}) or stored.pop("classifier.0.bias"),
          "is no part of a VGG16")
  refused(lambda stored: stored.update({"features.5.weight": np.ones((16, 9, 3, 3), np.float32)}),
          r"features.5.weight has shape \(16, 9, 3, 3\), of VGG16 it is \(16, 8, 3, 3\)")
  refused(lambda stored: stored.update({"features.0.bias": np.full(8, np.nan, np.float32)}), "not finite")
  refused(lambda stored: stored.update({"features.0.bias": np.ones(8, np.int32)}), "is of type")
  # Only the features: no classifier.
  save_file({name: value for name, value in good.items() if name.startswith("features")}, path)
  assert files.read(path)[0] == {"width": WIDTH}
  path.write_bytes(path.read_bytes()[:100])
  with pytest.raises(InputError, match="not a sound safetensors file"):
    files.read(path)
  with pytest.raises(InputError, match="there is no such file"):
    files.read(tmp_path / "none.safetensors")
