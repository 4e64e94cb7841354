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


def sums(state, batch):
  """Sum over valid rows, and their number: a second axis of two."""
  return {"loss": jnp.stack([(batch["mask"] * (batch["x"] @ state["kernel"]).sum(1)).sum(), batch["mask"].sum()])}


@pytest.mark.parametrize("number", [1, 64])
def test_batches_of_an_evaluation_are_shared(number, mesh_of):
  """Sums over rows, and results of rows, of batches that the devices divide or not, and without a mask."""
  random = np.random.default_rng(1)
  batch = {"x": random.normal(size=(number, 32)).astype(np.float32), "mask": np.ones(number, np.float32)}
  one, eight = (state_on(mesh_of(spec)) for spec in ("data:1", "data:4,fsdp:2"))
  for function, of_rows, data in ((sums, False, batch), (embed, True, batch), (embed, True, {"x": batch["x"]})):
    expected, actual = (inference.over_batches(function, state, of_rows=of_rows)(data) for state in (one, eight))
    assert jax.tree.map(jnp.shape, actual) == jax.tree.map(jnp.shape, expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), actual, expected)


def test_a_device_measures_its_share(mesh_of, monkeypatch):
  """The operations of the program that runs, as the planner counts them."""
  from embeddings_jax.plan import hlo

  compiled, jit = [], jax.jit
  monkeypatch.setattr(jax, "jit", lambda *args, **options: compiled.append(jit(*args, **options)) or compiled[-1])
  over = inference.over_batches(sums, state_on(mesh_of("data:4,fsdp:2")), of_rows=False)
  batch = {"x": np.ones((64, 32), np.float32), "mask": np.ones(64, np.float32)}
  np.testing.assert_allclose(over(batch)["loss"][1], 64)
  mesh = mesh_of("data:4,fsdp:2")
  rows = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(
      mesh, P(("data", "fsdp")))), batch)
  with jax.set_mesh(mesh):
    program = hlo.read(compiled[0].lower(state_on(mesh), rows).compile().as_text())
  assert program.flops == 2 * 8 * 32 * 48
  assert {one.kind for one in program.collectives} == {"all-reduce"}


def test_an_untrained_state_is_laid_out_as_in_training(mesh_of):
  from embeddings_jax.runs import build, presets

  config = presets.load_config("mae", "tiny")
  config.model.dim = 128
  facts, batch = build.stand_in(config)
  model = build.make_model(config, facts, 10)
  zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), batch)
  state = build.first_state(model, zeros, mesh_of("data:2,fsdp:4"), 0)
  split = [leaf for leaf in jax.tree.leaves(state) if not leaf.sharding.is_fully_replicated]
  assert sum(leaf.nbytes for leaf in split) > 0.8 * sum(leaf.nbytes for leaf in jax.tree.leaves(state))
  moments = jax.tree.leaves(state.opt_state)
  assert any(not leaf.sharding.is_fully_replicated for leaf in moments)
