"""Probes by layer: planted layers, the layer that validation chooses, and the maps of every kind of trunk."""
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from embeddings_jax.eval.layer_probes import layer_probes
from embeddings_jax.nets import convnet
from embeddings_jax.nets.images import ConvEncoder, conv_maps
from embeddings_jax.types import InputError

LABELS = np.arange(300) % 3
IMAGES = np.random.default_rng(0).integers(0, 256, (300, 4, 4, 1)).astype(np.uint8)
IMAGES[:, 0, 0, 0] = 100 * LABELS  # The class stands in the first pixel.


def dataset(items=IMAGES, labels=LABELS):
  return SimpleNamespace(name="planted", items=items, labels={"class": labels},
                         split={"train": np.arange(200), "test": np.arange(200, 300)})


def maps(images):
  """A layer that knows the class, one of noise, and one whose cells must be kept apart."""
  first = images[:, :1, :1].astype(np.float32)
  known = np.concatenate([np.cos(first / 50), np.sin(first / 50)], -1)
  noise = np.random.default_rng(len(images)).normal(size=(len(images), 2, 2, 3))
  corner = np.zeros((len(images), 4, 4, 1))
  number = images[:, 0, 0, 0] // 100
  corner[np.arange(len(images)), number // 2 * 3, number % 2 * 3, 0] = 1.0
  return {"block_0": known, "block_1": corner, "block_2": noise}


def test_planted_layers():
  actual = layer_probes(None, dataset(), maps=maps)
  assert actual["class/test/block_0/knn_accuracy"] == 1
  assert actual["class/test/block_1/knn_accuracy"] == 1
  assert actual["class/test/block_2/knn_accuracy"] == pytest.approx(1 / 3, abs=0.15)
  assert actual["class/headline/accuracy"] == actual["class/test/block_0/accuracy"] == 1
  assert "class/test/block_1/accuracy" not in actual  # The first of two equally good, and the last.
  assert actual["class/test/block_2/accuracy"] == pytest.approx(1 / 3, abs=0.15)
  # Averaged over whole maps, the corners look alike.
  whole = layer_probes(None, dataset(), maps=maps, cells=1)
  assert whole["class/test/block_1/knn_accuracy"] < 0.5


def test_validation_chooses_the_layer_without_the_test_split():
  """A layer that knows the test rows alone is not the headline."""
  def leaking(images):
    known, noise = maps(images)["block_1"], np.random.default_rng(len(images)).normal(size=(len(images), 4, 4, 1))
    is_test = len(images) == 100
    return {"train_only": noise if is_test else known, "test_only": known if is_test else noise}

  actual = layer_probes(None, dataset(), maps=leaking)
  assert actual["class/headline/knn_accuracy"] == actual["class/test/train_only/knn_accuracy"]
  assert actual["class/validation/train_only/knn_accuracy"] == 1


def test_no_images_are_refused():
  with pytest.raises(InputError, match="layer_probes: planted holds no images"):
    layer_probes(None, dataset(items=["a"] * 300), maps=maps)


def test_maps_of_an_autoencoders_convolutions():
  encoder = ConvEncoder(2, (3, 4), (1, 2))
  x = jax.random.normal(jax.random.key(0), (2, 4, 4, 1))
  params = encoder.init(jax.random.key(1), x)["params"]
  actual = conv_maps(encoder, params, x)
  assert [value.shape for value in actual.values()] == [(2, 4, 4, 3), (2, 2, 2, 4)]
  code = nn.Dense(2).apply({"params": params["code"]}, actual["block_1"].reshape(2, -1))
  np.testing.assert_allclose(code, encoder.apply({"params": params}, x), rtol=1e-5, atol=1e-6)


def test_maps_of_a_siamese_trunk():
  """The output `layers` of contrastive models gives the maps whose means are embedded."""
  from embeddings_jax.models.contrastive.simclr import simclr

  model = simclr(encoder=convnet.encoder(channels=(2, 3), strides=(1, 2)), projector_dims=(4,))
  batch = {"image": jnp.asarray(IMAGES[:8])}
  state = model.init(jax.random.key(0), batch)
  actual = model.outputs["layers"](state, batch)
  assert list(actual) == ["block_0", "block_1"]
  np.testing.assert_allclose(actual["block_1"].mean((1, 2)), model.embed(state, batch), rtol=1e-5, atol=1e-6)
