import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hlo import collectives
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from scipy import sparse

from embeddings_jax.data.cooccurrence import Cooccurrence
from embeddings_jax.data.tiles import tile_source
from embeddings_jax.models.words.glove import glove
from embeddings_jax.ops.sharding import DATA_AXES
from embeddings_jax.train.loop import train
from embeddings_jax.train.mesh import state_shardings
from embeddings_jax.types import InputError


def cells_of(table, name="cells"):
  """The cells of a dense matrix of counts."""
  rows = sparse.csr_array(np.asarray(table, np.float64))
  rows.sort_indices()
  row = np.repeat(np.arange(len(table), dtype=np.int32), np.diff(rows.indptr))
  facts = {"vocab_size": len(table), "num_cells": rows.nnz, "marginals": rows.sum(1), "total": rows.sum()}
  return Cooccurrence(row, rows.indices.astype(np.int32), rows.data.astype(np.float32), rows.indptr, facts,
                      f"{name} {np.asarray(table).tobytes().hex()}")


def counts(seed, size, density=0.4):
  noise = np.random.default_rng(seed)
  table = np.exp(noise.normal(0, 2, (size, size))) * (noise.uniform(size=(size, size)) < density)
  return table


@pytest.fixture
def source_of(tmp_path):
  def make(table, batch_size=1, **options):
    return tile_source(cells_of(table), batch_size, cache_dir=tmp_path, **options)
  return make


def model_of(source, **options):
  facts = {name: source.facts[name] for name in ("vocab_size", "num_groups", "group_size", "marginals")}
  return glove(**facts, **{"dim": 5, "x_max": 10.0, **options})


def larger(state, factor=8.0):
  """Vectors and biases of the size that they have after some training."""
  names = ("word", "context", "word_bias", "context_bias")
  return state._replace(**{name: factor * getattr(state, name) for name in names})


def tables_of(model, state):
  tables = model.outputs["components"](state)
  return {name: np.asarray(table, np.float64) for name, table in tables.items()}


def test_tiles_of_one_cell_make_the_c_programs_steps(source_of):
  """Eight words in eight groups: each tile has at most one cell, so an epoch is the C program's loop over cells."""
  table = counts(0, 8, 0.7) * 10
  source = source_of(table, seed=3)
  model = model_of(source)
  state = larger(model.init(jax.random.key(0), None))
  expected = tables_of(model, state)
  words, contexts = expected["word"], expected["context"]
  squares = {name: np.ones_like(value) for name, value in expected.items()}
  update, losses = jax.jit(model.update), []
  for step in range(3 * 64):
    batch = source.batch_at(step)
    state, metrics = update(state, batch, jax.random.key(0))
    i, j = int(batch["row_group"][0]), int(batch["col_group"][0])
    assert metrics["cells"] == (table[i, j] > 0)
    if table[i, j] == 0:
      continue
    difference = words[i] @ contexts[j] + expected["word_bias"][i] + expected["context_bias"][j] - np.log(table[i, j])
    error = min(1, (table[i, j] / 10) ** 0.75) * difference
    losses.append(float(metrics["loss"]))
    np.testing.assert_allclose(losses[-1], error * difference, rtol=2e-4, atol=1e-6)
    steps = {"word": (i, 0.05 * error * contexts[j]), "context": (j, 0.05 * error * words[i]),
             "word_bias": (i, error), "context_bias": (j, error)}
    for name, (place, step_gradient) in steps.items():
      # The C program divides by the sum before this cell; ours has it added first.
      squares[name][place] += step_gradient**2
      expected[name][place] -= step_gradient / np.sqrt(squares[name][place])
  actual = tables_of(model, state)
  for name in expected:
    np.testing.assert_allclose(actual[name], expected[name], rtol=2e-4, atol=2e-5)
  assert np.mean(losses[-20:]) < 0.5 * np.mean(losses[:20])


@pytest.mark.parametrize("weighting,accumulators", [("power", "coordinate"), ("none", "row")])
def test_update_is_the_written_step(source_of, weighting, accumulators):
  table = counts(1, 40)
  source = source_of(table, batch_size=2, seed=1)
  model = model_of(source, weighting=weighting, accumulators=accumulators, learning_rate=0.3)
  state = larger(model.init(jax.random.key(1), None), 40.0)
  before, batch = tables_of(model, state), source.batch_at(5)
  new, metrics = jax.jit(model.update)(state, batch, jax.random.key(0))
  inside = np.zeros_like(table, bool)
  for g, h in zip(batch["row_group"], batch["col_group"]):
    inside[g::8, h::8] = table[g::8, h::8] > 0
  assert inside.sum() == metrics["cells"] > 10
  scores = before["word"] @ before["context"].T + before["word_bias"][:, None] + before["context_bias"]
  log_counts = np.log(np.where(inside, table, 1))
  weight = inside * (np.minimum(1, np.exp(log_counts) / 10) ** 0.75 if weighting == "power" else 1)
  error = weight * (scores - log_counts)
  np.testing.assert_allclose(metrics["loss"], (error * (scores - log_counts)).sum() / inside.sum(), rtol=1e-5)
  bounded = 0
  for name, other, e, f in (("word", "context", error, weight), ("context", "word", error.T, weight.T)):
    vectors = before[other]
    gradient, squares = e @ vectors, e**2 @ vectors**2
    if accumulators == "row":
      squares = squares.mean(1, keepdims=True)
    bound = 2 / np.maximum(f @ ((vectors**2).sum(1) + 1), 1e-30)[:, None]
    adagrad = 0.3 / np.sqrt(1 + 0.3**2 * squares)
    bounded += (adagrad > bound).sum()
    actual = tables_of(model, new)
    np.testing.assert_allclose(actual[name], before[name] - np.minimum(adagrad, bound) * gradient, atol=2e-5)
    bias = np.minimum(1 / np.sqrt(1 + (e**2).sum(1)), 2 / np.maximum(f.sum(1), 1e-30)) * e.sum(1)
    np.testing.assert_allclose(actual[f"{name}_bias"], before[f"{name}_bias"] - bias, atol=2e-5)
  assert bounded > 0
  # A tile that is only padding changes nothing.
  half = {**batch, "mask": np.array([1, 0], np.float32)}
  partly, _ = jax.jit(model.update)(state, half, jax.random.key(0))
  actual, kept = tables_of(model, partly), np.arange(40) % 8 != batch["row_group"][0]
  np.testing.assert_array_equal(actual["word"][kept], tables_of(model, state)["word"][kept])
  assert (actual["word"][~kept] != before["word"][~kept]).any()


# "I like deep learning . I like NLP . I enjoy flying ." at distance 1, sentences apart.
WORDS = "I like enjoy deep learning NLP flying .".split()
PAIRS = {"I like": 2, "I enjoy": 1, "like deep": 1, "like NLP": 1, "deep learning": 1, "learning .": 1, "NLP .": 1,
         "enjoy flying": 1, "flying .": 1}


def worked_table():
  table = np.zeros((8, 8))
  for pair, count in PAIRS.items():
    i, j = (WORDS.index(word) for word in pair.split())
    table[i, j] = table[j, i] = count
  return table


def test_worked_case_is_fitted_exactly_at_full_rank(source_of, mesh_of):
  table = worked_table()
  np.testing.assert_array_equal(table.sum(1), [3, 4, 2, 2, 2, 2, 2, 3])
  assert table[0, 1] / table[0].sum() == 2 / 3  # P(like | I)
  source = source_of(table)
  model = model_of(source, dim=8, weighting="none", learning_rate=0.5)
  state = train(model, source, steps=300 * 64, steps_per_dispatch=64 * 20, log_every=0, mesh=mesh_of())
  actual = tables_of(model, state)
  fitted = actual["word"] @ actual["context"].T + actual["word_bias"][:, None] + actual["context_bias"]
  there = table > 0
  np.testing.assert_allclose(fitted[there], np.log(table[there]), atol=1e-4)

  model = model_of(source, dim=8, weighting="none", learning_rate=0.5, biases="marginals")
  state = train(model, source, steps=300 * 64, steps_per_dispatch=64 * 20, log_every=0, mesh=mesh_of())
  actual = tables_of(model, state)
  np.testing.assert_allclose(actual["word_bias"], np.log(table.sum(1)) / 2, rtol=1e-6)
  np.testing.assert_allclose(actual["word"][0] @ actual["context"][1], -np.log(3) / 2, atol=1e-4)


@pytest.mark.parametrize("dim,unexplained", [(3, 0.5), (600, 0.01)])  # Of noise; three dimensions fit some of it.
def test_never_nan_on_tiny_or_enormous_counts(source_of, mesh_of, dim, unexplained):
  """The C program's users meet NaN on tiny corpora, large dimensions and large corpora."""
  noise = np.random.default_rng(0)
  table = np.exp(noise.uniform(-5, 25, (24, 24))) * (noise.uniform(size=(24, 24)) < 0.8)
  source = source_of(table)
  losses = []
  train(model_of(source, dim=dim, learning_rate=0.5, weighting="none"), source, steps=40 * 64, steps_per_dispatch=64,
        mesh=mesh_of(), log_every=64, write=lambda step, record: losses.append(record["loss"]))
  assert np.isfinite(losses).all() and losses[-1] < unexplained * losses[0]


def test_embedding_is_word_and_context_and_unknown_words_are_nothing(source_of):
  source = source_of(counts(2, 21))
  model = model_of(source)
  state = model.init(jax.random.key(0), None)
  tables = tables_of(model, state)
  batch = {"tokens": jnp.array([[20, -1], [9, 3], [-1, -1], [21, 10**6]])}
  sums = tables["word"] + tables["context"]
  np.testing.assert_allclose(jax.jit(model.embed)(state, batch), [sums[20], (sums[9] + sums[3]) / 2, 0 * sums[0],
                                                                  0 * sums[0]], atol=1e-7)
  assert (np.abs(state.word).sum(-1) > 0).sum() == 21


def test_words_of_a_topic_become_neighbors(source_of, mesh_of):
  topic = np.arange(64) // 8
  noise = np.random.default_rng(0)
  table = np.where(topic[:, None] == topic, 20, 1) * noise.uniform(0.5, 1.5, (64, 64))
  source = source_of(table, batch_size=8)
  model = model_of(source, dim=8)
  state = train(model, source, steps=60 * 8, steps_per_dispatch=8, log_every=0, mesh=mesh_of())
  vectors = np.array(model.embed(state, {"tokens": jnp.arange(64)[:, None]}))
  vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
  nearest = np.argsort(-vectors @ vectors.T + 2 * np.eye(64), axis=1)[:, :7]
  assert (topic[nearest] == topic[:, None]).mean() > 0.95


def test_rows_split_over_devices_learn_the_same(source_of, mesh_of):
  source = source_of(counts(3, 200), batch_size=2)
  model = model_of(source, dim=6)
  one, eight = (train(model, source, steps=64, steps_per_dispatch=32, log_every=0, mesh=mesh_of(spec))
                for spec in ("data:1", "data:2,model:4"))
  groups, rows, _ = one.word.shape
  assert eight.word.addressable_shards[0].data.shape == (groups, rows // 8, 6)
  for name, table in tables_of(model, one).items():
    np.testing.assert_allclose(tables_of(model, eight)[name], table, atol=1e-5 * np.abs(table).max())


def abstract_update(model, mesh, tiles):
  """The compiled scan of five updates, on abstract tiles: name -> (shape, dtype)."""
  with jax.set_mesh(mesh):
    rows = NamedSharding(mesh, P(DATA_AXES))
    tiles = {name: jax.ShapeDtypeStruct(*x, sharding=rows) for name, x in tiles.items()}
    abstract = jax.eval_shape(lambda: model.init(jax.random.key(0), None))
    layout = state_shardings(abstract, mesh, model.rules)
    state = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, layout)

    def many(state, tiles):
      return jax.lax.scan(lambda s, _: model.update(s, tiles, None), state, None, length=5)

    return jax.jit(many, donate_argnums=0, out_shardings=(layout, None)).lower(state, tiles).compile()


def tiles_of(number, width, size):
  ints = {name: ((number, width), np.uint16) for name in ("row", "col", "turned")}
  starts = {name: ((number, size + 1), np.int32) for name in ("row_start", "col_start")}
  groups = {name: ((number,), np.int32) for name in ("row_group", "col_group")}
  return {**ints, **starts, **groups, "count": ((number, width), np.float32), "mask": ((number,), np.float32)}


@pytest.mark.parametrize("spec", ["data:1", "data:4,fsdp:2", "data:4,model:2"])
def test_a_device_moves_the_rows_of_its_own_tiles(mesh_of, spec):
  """The bytes of every collective, in loops too: not those of a table, nor of the tiles of all devices.

  Both tables' vectors and biases come from their owners, and sums of gradients, squares and curvature go there."""
  num_groups, dim, width, size = 128, 16, 256, 512
  model = glove(vocab_size=num_groups * size, num_groups=num_groups, group_size=size, dim=dim)
  compiled = abstract_update(model, mesh_of(spec), tiles_of(8, width, size))
  if spec == "data:1":
    assert compiled.memory_analysis().temp_size_in_bytes < num_groups * size * dim * 4
    return
  moved = {"all-to-all": [], "all-gather": [], "all-reduce": []}
  for kind, sizes in collectives(compiled):
    moved[kind] += sizes
  of_model = 2 if "model" in spec else 1
  rows = 8 // (8 // of_model) * size  # Of a device's tiles, on either side.
  assert sum(moved["all-to-all"]) == 2 * (dim + 1 + 2 * dim + 4) * rows // of_model * 4
  assert max(moved["all-reduce"]) <= 4  # The loss, and the number of cells.
  rest = [number for number in moved["all-gather"] if number > 8 * 4]  # But for the names of the groups.
  assert sum(rest) == (2 * (dim + 1) * rows * 4 if of_model > 1 else 0)


@pytest.mark.parametrize("options,message", [
    (dict(weighting="log"), "weighting='log'"), (dict(x_max=0.0), "x_max=0.0"), (dict(dim=0), "dim=0"),
    (dict(accumulators="all"), "accumulators='all'"), (dict(group_size=1), "there is room for 8 words"),
    (dict(biases="marginals", marginals=np.ones(3)), "marginals of shape (3,)")])
def test_wrong_options_are_named(options, message):
  with pytest.raises(InputError, match=re.escape(message)):
    glove(**{"vocab_size": 10, "num_groups": 8, "group_size": 8, **options})
