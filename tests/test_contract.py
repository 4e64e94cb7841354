"""The contract of `types.Model`, over the `tiny` preset of every config."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax.train.checkpoints import Checkpoints
from embeddings_jax.train.loop import train
from embeddings_jax.train.mesh import path_name
from experiments import command, inference, loading, pipeline

STEPS = 20
MODELS = command.model_names()


@functools.cache
def tiny(name):
  """`(config, model, data)` of a tiny preset, on data that eight shards can split."""
  config = command.load_config(name, "tiny")
  data = loading.load_data(config, data_dir=None, cache_dir=None)
  steps = config.steps or config.epochs * data.source.facts["steps_per_epoch"]
  return config, pipeline.make_model(config, data.source.facts, steps), data


def run(name, mesh, **options):
  config, model, data = tiny(name)
  losses = []
  write = lambda step, record: losses.append(record["loss"])
  options = {"steps": STEPS, **options}
  state = train(model, data.source, mesh=mesh, seed=config.seed, log_every=1, write=write, **options)
  return state, np.array(losses)


@pytest.fixture(scope="module")
def uninterrupted():
  from embeddings_jax.train.mesh import make_mesh

  @functools.cache
  def once(name):
    return run(name, make_mesh("data:1", jax.devices()[:1]))
  return once


@pytest.mark.parametrize("name", MODELS)
def test_update_is_closed(name):
  _, model, data = tiny(name)
  batch = jax.tree.map(jnp.asarray, data.source.batch_at(0))
  state = jax.eval_shape(model.init, jax.random.key(0), batch)
  new, metrics = jax.eval_shape(model.update, state, batch, jax.random.key(0))
  describe = lambda tree: jax.tree_util.tree_map_with_path(
      lambda path, x: (path_name(path), x.shape, x.dtype, x.weak_type), tree)
  assert describe(new) == describe(state)
  assert jax.tree.structure(new) == jax.tree.structure(state)
  assert all(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(state))
  assert "loss" in metrics and all(value.shape == () for value in metrics.values())


@pytest.mark.parametrize("name", MODELS)
def test_metrics_are_finite_and_update_is_traced_once(name, mesh_of):
  _, model, data = tiny(name)
  traces, seen = [], []

  def update(state, batch, rng):
    traces.append(1)
    return model.update(state, batch, rng)

  train(model._replace(update=update), data.source, steps=STEPS, steps_per_dispatch=5, mesh=mesh_of(), log_every=5,
        write=lambda step, record: seen.append(record))
  assert len(traces) == 1
  assert len(seen) == STEPS // 5 and all(np.isfinite(list(record.values())).all() for record in seen)


@pytest.mark.parametrize("name", MODELS)
def test_embedding_has_a_row_for_each_item(name, uninterrupted):
  _, model, data = tiny(name)
  state, _ = uninterrupted(name)
  items = data.encoder.names[:7] if data.encoder.names is not None else data.dataset.items[:7]
  vectors = inference.embedder(model, state, data.encoder)(items)
  assert vectors.shape[0] == 7 and vectors.ndim == 2 and np.isfinite(vectors).all()
  alone = inference.embedder(model, state, data.encoder)(items[:1])
  np.testing.assert_allclose(alone[0], vectors[0], rtol=1e-4, atol=1e-5)  # Padding and neighbours change nothing.


@pytest.mark.parametrize("name", MODELS)
def test_interrupted_equals_uninterrupted_bit_for_bit(name, uninterrupted, mesh_of, tmp_path):
  expected, losses = uninterrupted(name)
  found = []
  for steps in (7, 8, STEPS):
    checkpoints = Checkpoints(str(tmp_path / "c"))
    state, part = run(name, mesh_of(), steps=steps, checkpoints=checkpoints)
    found.extend(part)
    checkpoints.close()
  jax.tree.map(np.testing.assert_array_equal, expected, state)
  np.testing.assert_array_equal(found, losses)


@pytest.mark.parametrize("name", MODELS)
def test_eight_devices_equal_one(name, uninterrupted, mesh_of):
  expected, losses = uninterrupted(name)
  state, found = run(name, mesh_of("data:4,fsdp:2"))
  np.testing.assert_allclose(found, losses, rtol=1e-5, atol=1e-5)
  for one, eight in zip(jax.tree.leaves(expected), jax.tree.leaves(state)):
    one, eight = np.asarray(one, np.float64), np.asarray(eight, np.float64)
    # The mean of what BatchNorm has centred is 0, but for the rounding of sums of numbers around 1.
    assert np.linalg.norm(one - eight) <= 1e-3 * max(np.linalg.norm(one), 1e-4)
