"""Visualization of trunks: exciting images and inputs, activation maps, and the command's figures."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import call
from PIL import Image
from safetensors.numpy import save_file
from sklearn.linear_model import Ridge

import embeddings_jax as ej
from embeddings_jax.data.encoders.images import ImageEncoder
from embeddings_jax.figures import seeing as figures
from embeddings_jax.figures.canvas import pyplot
from embeddings_jax.interop import huggingface_vision
from embeddings_jax.interop.vgg import NUMBERS
from embeddings_jax.models.autoencoders import mae
from embeddings_jax.nets import convnet
from embeddings_jax.nets.vgg import LAYERS
from embeddings_jax.runs import seeing
from embeddings_jax.runs.portraits import Portrait
from embeddings_jax.runs.trunks import Trunk, load_trunk, of_run, untrained


@functools.cache
def trunk():
  network = convnet.encoder(channels=(4, 6), strides=(1, 2))
  images = np.zeros((1, 8, 8, 3), np.uint8)
  return Trunk("convnet", network, jax.jit(network.init)(jax.random.key(0), images), ImageEncoder(8, 8, 3))


def random_images(number=40):
  return np.random.default_rng(0).integers(0, 256, (number, 8, 8, 3)).astype(np.uint8)


def test_exciting_images_are_those_with_the_largest_values():
  images, units = random_images(), np.array([1, 4])
  maps = trunk().maps(images, "block_1")  # [40, 4, 4, 6]
  found = seeing.exciting_images(trunk(), images, "block_1", units, k=3)
  for j, unit in enumerate(units):
    peaks = maps[..., unit].reshape(40, -1).max(1)
    assert found.images[j].tolist() == np.argsort(-peaks)[:3].tolist()
    np.testing.assert_allclose(found.values[j], np.sort(peaks)[::-1][:3], rtol=1e-5)
    row, column = found.places[j, 0]
    assert maps[found.images[j, 0], row, column, unit] == pytest.approx(found.values[j, 0], rel=1e-5)
    top, left = 2 * row - 2, 2 * column - 2  # 5 x 5 pixels around twice the place.
    expected = images[found.images[j, 0], max(top, 0):top + 5, max(left, 0):left + 5]
    np.testing.assert_array_equal(found.crops[j][0], expected)


def test_inputs_of_equal_norm_excite_more_than_the_best_image():
  images, units = random_images(), np.arange(4)
  best = seeing.exciting_images(trunk(), images, "block_1", units, k=1)
  norms = np.linalg.norm((images[best.images[:, 0]] / 255 - 0.5).reshape(4, -1), axis=1)
  inputs, values = seeing.exciting_inputs(trunk(), "block_1", units, norms=norms, steps=40, learning_rate=0.2,
                                          starts=2)
  assert (values > 1.1 * best.values[:, 0]).all() and inputs.min() >= 0 and inputs.max() <= 1
  np.testing.assert_allclose(np.linalg.norm((inputs - 0.5).reshape(4, -1), axis=1), norms, rtol=1e-4)
  again = trunk().network.apply(trunk().variables, jnp.asarray(inputs), method="tokens")["block_1"]
  np.testing.assert_allclose(values, [again[i, :, i].max() for i in range(4)], rtol=1e-4)


def test_class_weights_are_those_of_ridge_regression():
  rng = np.random.default_rng(0)
  vectors, labels = rng.normal(size=(60, 5)), rng.integers(0, 3, 60)
  weights, bias = seeing.class_weights(vectors, labels, ridge=0.1)
  alpha = 0.1 * vectors.var(0).mean() * 60
  reference = Ridge(alpha).fit(vectors, 2.0 * np.eye(3)[labels] - 1)
  np.testing.assert_allclose(weights, reference.coef_.T, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(bias, reference.intercept_, rtol=1e-4, atol=1e-6)


def test_maps_look_where_their_formulas_say():
  images = random_images(3)
  maps = trunk().maps(images, "block_1")
  weights = np.random.default_rng(1).normal(size=6).astype(np.float32)
  cam = seeing.looked_at(trunk(), images, "cam", weights=weights)
  np.testing.assert_allclose(cam, maps @ weights, rtol=1e-4, atol=1e-5)
  # At the last layer the gradient of the mean's score is the weights over the number of places.
  gradcam = seeing.looked_at(trunk(), images, "gradcam", weights=weights)
  np.testing.assert_allclose(gradcam, np.maximum(cam, 0) / 16, rtol=1e-4, atol=1e-6)
  own = seeing.looked_at(trunk(), images, "cam")
  np.testing.assert_allclose(own, np.einsum("nrcd,nd->nrc", maps, maps.mean((1, 2))), rtol=1e-4, atol=1e-6)
  with pytest.raises(ej.InputError, match="rollout: a convnet has no attention"):
    seeing.looked_at(trunk(), images, "rollout")


def test_an_untrained_trunk_has_the_statistics_of_its_images():
  images = random_images()
  fresh = untrained(trunk(), images, seed=1)
  maps = fresh.network.apply(fresh.variables, jnp.asarray(images), deterministic=True, collect=True)["block_0"]
  # ReLU of standardized values: of N(0, 1) a mean of .4.
  assert np.all(abs(np.asarray(maps).mean((0, 1, 2)) - 0.4) < 0.05)


def test_a_run_and_what_is_not_there(tmp_path):
  run = ej.fit("rotation", random_images(), preset="tiny", steps=1, data_options={"validation_fraction": 0.0})
  of = of_run(run)
  assert of.name == "convnet" and list(of.grids) == ["block_0", "block_1"]
  kernel = run.state.params["encoder"]["block_0"]["conv"]["kernel"]
  np.testing.assert_array_equal(of.network.first_filters(of.variables["params"])[2], kernel[..., 2])
  (declared,) = [figure for figure in figures.FIGURES if figure.name == "filters"]
  assert declared.applies(run) and declared.draw(pyplot(), run).axes[0].images[0].get_array().shape == (3, 3, 3)
  with pytest.raises(ej.InputError, match=r"layer=block_2: did you mean block_.\? convnet has block_0, block_1$"):
    Portrait(of, layer="block_2")
  with pytest.raises(ej.InputError, match="units=8: layer block_1 has 8 units, 0 to 7"):
    Portrait(of, units=[0, 8])
  with pytest.raises(ej.InputError, match="image=none.png: there is no such file"):
    Portrait(of, files=["none.png"])
  assert Portrait(of).searched.shape == (40, 8, 8, 3)
  assert Portrait(of).lacks("pairs").endswith("has no labels")
  assert Portrait(trunk()).lacks("crops") == "needs a dataset" and not Portrait(trunk()).lacks("filters")
  pixels = ej.fit("pca", np.random.default_rng(0).normal(size=(20, 4)), preset="tiny", steps=1)
  assert not declared.applies(pixels)
  with pytest.raises(ej.InputError, match="run: is a run of pca, which has no trunk of images"):
    of_run(pixels)


def test_a_vision_transformer_from_hugging_face(tmp_path):
  hyper = dict(patch_size=4, dim=8, num_layers=2, num_heads=2, mlp_dim=8, pixel_mean=0.5, pixel_std=0.5)
  network = mae.encoder(**hyper)
  images = jnp.asarray(random_images(3))
  params = jax.tree.map(np.asarray, network.init(jax.random.key(0), images, method="tokens")["params"])
  full = hyper | {"activation": "gelu", "norm_epsilon": 1e-6, "positions": "sincos2d"}
  huggingface_vision.write(tmp_path, full, {}, {"encoder": params}, (8, 8, 3))
  loaded = load_trunk(tmp_path)
  assert loaded.shape == (8, 8, 3) and list(loaded.grids) == ["block_0", "block_1"]
  tokens = network.apply(jax.device_put({"params": params}), images, method="tokens")["block_1"]
  expected = tokens[:, 1:].reshape(3, 2, 2, 8)
  np.testing.assert_allclose(loaded.maps(np.asarray(images), "block_1"), expected, rtol=1e-4, atol=1e-5)
  assert seeing.looked_at(loaded, np.asarray(images), "rollout").shape == (3, 2, 2)


def test_figures(tmp_path):
  portrait = Portrait(trunk(), layer="block_1", units=[0, 3], data="photographs", num_images=40, ascent={"steps": 3})
  for name in ("filters", "maps", "crops", "ascent", "cam", "inversion", "pairs"):
    assert not portrait.lacks(name)
    figure = np.asarray(Image.open(portrait.draw(name, tmp_path / "out")).convert("L"))
    assert min(figure.shape) > 100 and figure.std() > 10


@pytest.mark.long
def test_figures_of_a_file_of_vgg16(tmp_path):
  """The command, on a network of width 2."""
  rng, tensors, channels = np.random.default_rng(0), {}, 3
  for number, times in zip(NUMBERS, LAYERS.values()):
    tensors[f"features.{number}.weight"] = rng.normal(0, 0.5, (2 * times, channels, 3, 3)).astype(np.float32)
    tensors[f"features.{number}.bias"] = np.zeros(2 * times, np.float32)
    channels = 2 * times
  save_file(tensors, tmp_path / "vgg16.safetensors")
  Image.fromarray(random_images(1)[0]).save(tmp_path / "image.png")
  arguments = f"--init_from={tmp_path / 'vgg16.safetensors'}", f"--output={tmp_path / 'out'}", "--size=16"
  done = call("visualize", *arguments, "--steps=2", f"--image={tmp_path / 'image.png'}", "--layer=block3_conv1",
              "--data=digits")
  assert done.returncode == 0, done.stderr
  for name in ("filters", "maps", "crops", "ascent", "cam", "inversion", "pairs"):
    figure = np.asarray(Image.open(tmp_path / "out" / f"{name}.png").convert("L"))
    assert f"{name}.png" in done.stdout and min(figure.shape) > 100 and figure.std() > 10
  done = call("visualize", *arguments, "--layer=conv5", "--show=filters")
  assert done.returncode == 2 and "vgg has block1_conv1, block1_conv2" in done.stderr and done.stderr.count("\n") == 1
