"""The contract of `types.Model`, over the `tiny` preset of every config."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from embeddings_jax.eval import metric
from embeddings_jax.runs import build, inference, presets, reports, workdir
from embeddings_jax.train.checkpoints import Checkpoints
from embeddings_jax.train.loop import train
from embeddings_jax.train.mesh import make_mesh, path_name

STEPS = 20


@pytest.fixture(scope="module", params=presets.model_names())
def tiny(request):
  """`(config, model, data, traces)` of a tiny preset, on data that eight shards can split; `traces` grows with each
  trace of the model's update."""
  config = presets.load_config(request.param, "tiny")
  data = build.prepare(config, data_dir=None, cache_dir=None)
  steps = config.steps or config.epochs * data.facts["steps_per_epoch"]
  model = build.make_model(config, data.facts, steps)
  traces = []

  def update(*args):
    traces.append(1)
    return model.update(*args)

  return config, model._replace(update=update), data, traces


def run(tiny, mesh, **options):
  """The state after a training, and what it wrote of every step; all trainings of one mesh share a program."""
  config, model, data, _ = tiny
  records = []
  options = {"steps": STEPS, **options}
  state = train(model, data.splits["train"], mesh=mesh, seed=config.seed, steps_per_dispatch=5, log_every=1,
                write=lambda step, record: records.append(record), **options)
  return state, records


def losses(records):
  return np.array([record["loss"] for record in records])


@pytest.fixture(scope="module")
def uninterrupted(tiny):
  """`(state, records, number of traces)` of a training on one device."""
  *_, traces = tiny
  before = len(traces)
  return *run(tiny, make_mesh("data:1", jax.devices()[:1])), len(traces) - before


def test_update_is_closed(tiny):
  _, model, data, _ = tiny
  batch = jax.tree.map(jnp.asarray, data.splits["train"].batch_at(0))
  state = jax.eval_shape(model.init, jax.random.key(0), batch)
  new, metrics = jax.eval_shape(model.update, state, batch, jax.random.key(0))
  describe = lambda tree: jax.tree_util.tree_map_with_path(
      lambda path, x: (path_name(path), x.shape, x.dtype, x.weak_type), tree)
  assert describe(new) == describe(state)
  assert jax.tree.structure(new) == jax.tree.structure(state)
  assert all(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(state))
  assert "loss" in metrics and all(value.shape == () for value in metrics.values())


def test_metrics_are_finite_and_update_is_traced_once(uninterrupted):
  _, records, num_traces = uninterrupted
  assert num_traces == 1
  assert len(records) == STEPS and all(np.isfinite(list(record.values())).all() for record in records)


def test_embedding_has_a_row_for_each_item(tiny, uninterrupted):
  _, model, data, _ = tiny
  state, _, _ = uninterrupted
  items = data.encoder.names[:7] if data.encoder.names is not None else data.dataset.items[:7]
  vectors = inference.embedder(model, state, data.encoder)(items)
  assert vectors.shape[0] == 7 and vectors.ndim == 2 and np.isfinite(vectors).all()
  alone = inference.embedder(model, state, data.encoder)(items[:1])
  np.testing.assert_allclose(alone[0], vectors[0], rtol=1e-4, atol=1e-5)  # Padding and neighbours change nothing.


def test_interrupted_equals_uninterrupted_bit_for_bit(tiny, uninterrupted, mesh_of, tmp_path):
  expected, records, _ = uninterrupted
  found = []
  for steps in (7, 8, STEPS):
    checkpoints = Checkpoints(str(tmp_path / "c"))
    state, part = run(tiny, mesh_of(), steps=steps, checkpoints=checkpoints)
    found.extend(part)
    checkpoints.close()
  jax.tree.map(np.testing.assert_array_equal, expected, state)
  np.testing.assert_array_equal(losses(found), losses(records))


def test_eight_devices_equal_one(tiny, uninterrupted, mesh_of):
  expected, records, _ = uninterrupted
  state, found = run(tiny, mesh_of("data:4,fsdp:2"))
  np.testing.assert_allclose(losses(found), losses(records), rtol=1e-5, atol=1e-5)
  for one, eight in zip(jax.tree.leaves(expected), jax.tree.leaves(state)):
    one, eight = np.asarray(one, np.float64), np.asarray(eight, np.float64)
    # The mean of what BatchNorm has centred is 0, but for the rounding of sums of numbers around 1.
    assert np.linalg.norm(one - eight) <= 1e-3 * max(np.linalg.norm(one), 1e-4)


def test_a_run_ends_with_results_and_declared_metrics(tiny, uninterrupted, tmp_path):
  config, model, data, _ = tiny
  state, _, _ = uninterrupted
  lines, path = [], epath.Path(tmp_path)
  ending = reports.Report(config, data, model, make_mesh("data:1", jax.devices()[:1]), None, None, lines.append)
  ending.finish(state, STEPS, path, seconds=1.0, record={"preset": "tiny", "command": ""}, write=True, draw=False)
  written = workdir.read_results(path)
  assert "pending" not in written and (tmp_path / "embeddings.npy").exists()
  assert not [key for key in written["metrics"] if metric(key) is None]
  left_out = [name for name in config.evals if any(line.startswith(f"{name} is left out: ") for line in lines)]
  assert bool(written["metrics"]) == (len(left_out) < len(config.evals)), lines
