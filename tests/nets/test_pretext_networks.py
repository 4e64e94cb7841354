"""Layers and pooling of trunks of three kinds, and late fusion."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import images

from embeddings_jax.models.autoencoders import mae
from embeddings_jax.nets import convnet, resnet
from embeddings_jax.nets.pretext import PretextNetwork, embedder, layer_maps, variables_of
from embeddings_jax.nets.siamese import Mlp
from embeddings_jax.ops.feature_maps import pooled
from embeddings_jax.types import InputError

TRUNKS = {
    "convnet": (lambda: convnet.encoder(channels=(2, 3), strides=(1, 2)), [(8, 8, 2), (4, 4, 3)]),
    "resnet": (lambda: resnet.encoder(depth=8, width=4), [(8, 8, 4), (4, 4, 8), (2, 2, 16)]),
    "vit": (lambda: mae.encoder(patch_size=4, dim=8, num_layers=2, num_heads=2, mlp_dim=8), [(2, 2, 8)] * 2),
}


@pytest.mark.parametrize("name", TRUNKS)
def test_the_last_layer_is_what_the_trunk_gives(name):
  make, shapes = TRUNKS[name]
  trunk, batch = make(), images(3, 8, 8, 3)

  @jax.jit
  def both():
    variables = trunk.init(jax.random.key(0), batch, method="features")
    return layer_maps(trunk, variables, batch), trunk.apply(
        variables, batch, method="patches" if hasattr(trunk, "patches") else "features")

  maps, last = both()
  assert [maps[f"block_{i}"].shape[1:] for i in range(len(maps))] == shapes
  final = maps[f"block_{len(maps) - 1}"]
  np.testing.assert_allclose(final.reshape(last.shape), last, rtol=1e-5, atol=1e-5)


def test_pooling_is_that_of_adaptive_cells():
  maps = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 4, 3)), jnp.float32)
  actual = np.asarray(pooled(maps, 2)).reshape(2, 2, 2, 3)
  rows, columns = [slice(0, 3), slice(2, 5)], [slice(0, 2), slice(2, 4)]
  for i in range(2):
    for j in range(2):
      np.testing.assert_allclose(actual[:, i, j], maps[:, rows[i], columns[j]].mean((1, 2)), rtol=1e-5, atol=1e-6)
  with pytest.raises(InputError, match="grid=5"):
    pooled(maps, 5)


def test_an_unknown_layer_is_refused():
  trunk, batch = TRUNKS["convnet"][0](), images(2, 8, 8, 3)
  variables = trunk.init(jax.random.key(0), batch, method="features")
  embed, _ = embedder(trunk, "block_7", 1)
  with pytest.raises(InputError, match="embed_layer='block_7': must be one of block_0, block_1"):
    embed({"encoder": variables["params"]}, {"batch_stats": {"encoder": variables["batch_stats"]}}, batch)


def test_late_fusion_reads_tiles_in_the_given_order():
  trunk = TRUNKS["convnet"][0]()
  network = PretextNetwork(trunk, Mlp((4,)), Mlp((3,)))
  batch = images(6, 8, 8, 1)  # Two images of three tiles.
  order = jnp.array([[[0, 1, 2], [2, 0, 1]], [[1, 1, 0], [0, 1, 2]]])
  variables = network.init(jax.random.key(0), batch, order, jnp.ones(2), method="joined")
  actual = network.apply(variables, batch, order, jnp.ones(2), method="joined")
  z = np.asarray(network.apply(variables, batch)).reshape(2, 3, 4).clip(0)
  dense = variables["params"]["predictor"]["dense_0"]
  for i in range(2):
    for k in range(2):
      row = np.concatenate([z[i, tile] for tile in order[i, k]])
      np.testing.assert_allclose(actual[i, k], row @ dense["kernel"] + dense["bias"], rtol=1e-5, atol=1e-5)
  assert set(variables_of(variables["params"], {}, "projector")) == {"params"}
