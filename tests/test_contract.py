"""The contract of `types.Model`, over the `tiny` preset of every config."""
import inspect
from collections.abc import Mapping

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from embeddings_jax.data import packing
from embeddings_jax.eval import metric
from embeddings_jax.runs import build, inference, presets, reports, workdir
from embeddings_jax.train.checkpoints import Checkpoints
from embeddings_jax.train.loop import train
from embeddings_jax.train.mesh import make_mesh, path_name
from embeddings_jax.types import OUTPUTS, InputError, Output

STEPS = 20


# Of the models that `gradient_model` makes, whose states and updates are laid out alike, those that are always tested
# on eight devices; `--slow` tests all.
REPRESENTATIVE = ("bert", "cpc", "deepcluster", "mae", "simclr", "vae", "vq_vae")


def configs(on_eight=False):
  """Names of configs; those that train the factory of another config are left to `--slow`, but for BatchNorm's."""
  names = presets.model_names()
  factory_of = {name: presets.load_config(name, "tiny").get("factory") or name for name in names}

  def long(name):
    if factory_of[name] != name and factory_of[name] in names and name != "resnet_supervised":
      return True
    module = inspect.getmodule(build.find_factory({"name": factory_of[name]}))
    return on_eight and name not in REPRESENTATIVE and "gradient_model(" in inspect.getsource(module)

  return [pytest.param(name, marks=pytest.mark.long) if long(name) else name for name in names]


@pytest.fixture(scope="module", params=configs())
def tiny(request):
  """`(config, model, data, trained)` of a tiny preset, on data that eight shards can split.

  `trained` has the models to train on one and on eight devices, whose updates may be traced once.
  """
  config = presets.load_config(request.param, "tiny")
  data = build.prepare(config, data_dir=None, cache_dir=None)
  steps = config.steps or config.epochs * data.facts["steps_per_epoch"]
  model = build.make_model(config, data.facts, steps)
  chex.clear_trace_counter()  # It knows functions by their source.

  @chex.assert_max_traces(n=1)
  def on_one(*args):
    return model.update(*args)

  @chex.assert_max_traces(n=1)
  def on_eight(*args):
    return model.update(*args)

  return config, model, data, {1: model._replace(update=on_one), 8: model._replace(update=on_eight)}


def run(tiny, mesh, **options):
  """The state after a training, and what it wrote of every step; all trainings of one mesh share a program."""
  config, _, data, trained = tiny
  records = []
  options = {"steps": STEPS, **options}
  state = train(trained[mesh.size], data.splits["train"], mesh=mesh, seed=config.seed, steps_per_dispatch=5,
                log_every=1, write=lambda step, record: records.append(record), **options)
  return state, records


def losses(records):
  return np.array([record["loss"] for record in records])


@pytest.fixture(scope="module")
def uninterrupted(tiny):
  """`(state, records)` of a training on one device, in which the update is traced once."""
  return run(tiny, make_mesh("data:1", jax.devices()[:1]))


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


def test_stand_in_is_like_the_data(tiny):
  """A batch has the same arrays, and the factory gets the same facts."""
  config, _, data, _ = tiny
  facts, batch = build.stand_in(config)
  describe = lambda tree: jax.tree_util.tree_map_with_path(
      lambda path, x: (path_name(path), np.dtype(x.dtype), len(x.shape)), tree)
  assert describe(batch) == describe(data.splits["train"].batch_at(0))
  factory = build.find_factory(config)
  assert build.facts_for(factory, facts).keys() == build.facts_for(factory, data.facts).keys()


@pytest.mark.parametrize("preset", [
    "paper", pytest.param("demo", marks=pytest.mark.long), pytest.param("small", marks=pytest.mark.long)])
@pytest.mark.parametrize("name", presets.model_names())
def test_every_preset_is_closed_on_stand_in_facts(name, preset):
  config = presets.load_config(name, preset)
  facts, batch = build.stand_in(config, "audio" if "librispeech" in config.data.name else "unknown")
  model = build.make_model(config, facts, config.steps or 1000)
  state = jax.eval_shape(model.init, jax.random.key(0), batch)
  new, metrics = jax.eval_shape(model.update, state, batch, jax.random.key(0))
  chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
  assert metrics["loss"].shape == ()


# Outputs that read what `update` reads.
OF_TRAINING = ("training_loss", "measures", "predict", "calibrated", "bound")


def test_outputs_have_the_declared_arguments_and_shapes(tiny):
  """On the training batch, or on a batch of the encoder where an output reads that."""
  _, model, data, _ = tiny
  assert model.outputs.keys() <= OUTPUTS.keys()
  batch = jax.tree.map(jnp.asarray, data.splits["train"].batch_at(0))
  state = jax.eval_shape(model.init, jax.random.key(0), batch)
  names = data.encoder.names
  items = data.encoder.encode(data.dataset.items[:3] if names is None else names[:3])
  codes = jax.eval_shape(model.embed, state, items)
  for name, fn in model.outputs.items():
    if name == "training_step":  # Traced as `training_loss`, and closed as `update` is.
      continue
    actual, rows = None, 0
    batches = [batch, items]
    if name == "embed_packed":
      batches = packing.packed(items, packing.row_widths(data.encoder.max_length))[:1]
    elif name == "sample":
      batches = [None, items]  # Without a condition, or with one for each sample.
    elif name in OF_TRAINING:
      batches = [batch]
    for given in batches:
      known = {"state": state, "batch": given, "rng": jax.random.key(0), "num": 3, "codes": codes}
      static = [i for i, argument in enumerate(OUTPUTS[name].arguments) if argument == "num"]
      try:
        actual = jax.eval_shape(jax.jit(fn, static_argnums=static), *(known[key] for key in OUTPUTS[name].arguments))
        rows = 0 if given is None else len(jax.tree.leaves(given)[0])
        rows = len(codes) if name == "decode" else rows
        break
      except (InputError, TypeError, ValueError):  # It does not read batches of this kind.
        if given is batches[-1]:
          raise
    assert actual is not None, name
    check_output(name, OUTPUTS[name], actual, {"n": rows, "num": 3})
    if name == "calibrated":
      chex.assert_trees_all_equal_shapes_and_dtypes(actual, state.extra)


def check_output(name, output: Output, actual, sizes):
  """The result's axes are the declared ones; `sizes` has those of the axes that are known."""
  if output.shape is None:
    assert jax.tree.leaves(actual), name
  elif isinstance(output.shape, Mapping):
    assert actual and {"original", "reconstructed"} & output.shape.keys() <= actual.keys(), name
    for key, value in actual.items():
      check_axes(f"{name}/{key}", output.shape.get(key) or output.shape["*"], value.shape, sizes)
  else:
    check_axes(name, output.shape, actual.shape, sizes)


def check_axes(name, axes, shape, sizes):
  open_ended = axes[-1:] == (...,)
  axes = axes[:-1] if open_ended else axes
  assert len(shape) >= len(axes) if open_ended else len(shape) == len(axes), (name, shape)
  for axis, size in zip(axes, shape):
    assert size == (axis if isinstance(axis, int) else sizes.setdefault(axis, size)), (name, axis, shape)


def test_metrics_are_finite_and_update_is_traced_once(uninterrupted):
  _, records = uninterrupted
  assert len(records) == STEPS
  chex.assert_tree_all_finite(records)


def test_embedding_has_a_row_for_each_item(tiny, uninterrupted):
  _, model, data, _ = tiny
  state, _ = uninterrupted
  items = data.encoder.names[:7] if data.encoder.names is not None else data.dataset.items[:7]
  vectors = inference.embedder(model, state, data.encoder)(items)
  assert vectors.shape[0] == 7 and vectors.ndim == 2 and np.isfinite(vectors).all()
  alone = inference.embedder(model, state, data.encoder)(items[:1])
  np.testing.assert_allclose(alone[0], vectors[0], rtol=1e-4, atol=1e-5)  # Padding and neighbors change nothing.


def test_interrupted_equals_uninterrupted_bit_for_bit(tiny, uninterrupted, mesh_of, tmp_path):
  expected, records = uninterrupted
  actual = []
  for steps in (7, 8, STEPS):
    checkpoints = Checkpoints(str(tmp_path / "c"))
    state, part = run(tiny, mesh_of(), steps=steps, checkpoints=checkpoints)
    actual.extend(part)
    checkpoints.close()
  chex.assert_trees_all_equal(expected, state)
  np.testing.assert_array_equal(losses(actual), losses(records))


@pytest.mark.parametrize("tiny", configs(on_eight=True), indirect=True)
def test_eight_devices_equal_one(tiny, uninterrupted, mesh_of):
  expected, records = uninterrupted
  state, actual = run(tiny, mesh_of("data:4,fsdp:2"))
  np.testing.assert_allclose(losses(actual), losses(records), rtol=1e-5, atol=1e-5)
  for one, eight in zip(jax.tree.leaves(expected), jax.tree.leaves(state)):
    one, eight = np.asarray(one, np.float64), np.asarray(eight, np.float64)
    # The mean of what BatchNorm has centered is 0, but for the rounding of sums of numbers around 1.
    assert np.linalg.norm(one - eight) <= 1e-3 * max(np.linalg.norm(one), 1e-4)


def test_a_run_ends_with_results_and_declared_metrics(tiny, uninterrupted, tmp_path):
  config, model, data, _ = tiny
  state, _ = uninterrupted
  lines, path = [], epath.Path(tmp_path)
  ending = reports.Report(config, data, model, make_mesh("data:1", jax.devices()[:1]), None, None, lines.append)
  ending.finish(state, STEPS, path, seconds=1.0, record={"preset": "tiny", "command": ""}, write=True, draw=False)
  written = workdir.read_results(path)
  assert "pending" not in written and (tmp_path / "embeddings.npy").exists()
  assert not [key for key in written["metrics"] if metric(key) is None]
  left_out = [name for name in config.evals if any(line.startswith(f"{name} is left out: ") for line in lines)]
  assert bool(written["metrics"]) == (len(left_out) < len(config.evals)), lines
