"""Embeddings and predictions on several devices: each computes its share of the rows."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from embeddings_jax.data.encoders.rows import RowEncoder
from embeddings_jax.runs import inference
from embeddings_jax.types import Model


def embed(state, batch):
  return jnp.tanh(batch["x"] @ state["kernel"])


def state_on(mesh):
  kernel = np.random.default_rng(0).normal(size=(32, 48)).astype(np.float32)
  return jax.device_put({"kernel": kernel}, NamedSharding(mesh, P()))


def test_a_device_does_its_share_of_the_operations(mesh_of):
  batch = {"x": np.ones((64, 32), np.float32)}
  operations = []
  for spec in ("data:1", "data:4,fsdp:2"):
    over = inference.OverRows(embed, state_on(mesh_of(spec)))
    with jax.set_mesh(over.mesh):
      compiled = over.compiled.lower(state_on(over.mesh), over.placed(batch)).compile()
    operations.append(compiled.cost_analysis()["flops"])
  assert operations[0] >= 2 * 64 * 32 * 48
  assert operations[1] == pytest.approx(operations[0] / 8, rel=0.05)


@pytest.mark.parametrize("number", [1, 7, 64, 1500])
def test_any_number_of_items_gives_what_one_device_gives(number, mesh_of):
  items = np.random.default_rng(1).normal(size=(number, 32)).astype(np.float32)
  vectors = [inference.embedder(Model(None, None, embed), state_on(mesh_of(spec)), RowEncoder(32))(items)
             for spec in ("data:1", "data:4,fsdp:2")]
  assert vectors[0].shape == (number, 48)
  np.testing.assert_allclose(vectors[1], vectors[0], rtol=1e-5, atol=1e-6)


def test_texts_in_shared_rows_give_what_one_device_gives(mesh_of):
  from embeddings_jax.runs import build, presets

  config = presets.load_config("bert", "tiny")
  data = build.prepare(config, data_dir=None, cache_dir=None)
  model = build.make_model(config, data.facts, 10)
  texts = [f"return the {word} of the array" for word in ("mean", "sum", "largest value", "x " * 9, "")]
  state = jax.jit(model.init)(jax.random.key(0), jax.tree.map(jnp.asarray, data.splits["train"].batch_at(0)))
  vectors = []
  for spec in ("data:1", "data:4,fsdp:2"):
    placed = jax.device_put(jax.tree.map(np.asarray, state), NamedSharding(mesh_of(spec), P()))
    vectors.append(inference.embedder(model, placed, data.encoder)(texts))
  np.testing.assert_allclose(vectors[1], vectors[0], rtol=1e-4, atol=1e-5)
