"""Leaves that the mesh does not divide: nobody but the store sees their padding."""
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from embeddings_jax.data.sources import array_source
from embeddings_jax.train import loop
from embeddings_jax.train.checkpoints import CheckpointError, CheckpointReader, Checkpoints
from embeddings_jax.train.mesh import state_shardings
from embeddings_jax.train.padding import Padding
from embeddings_jax.types import Model

NUM, DIM = 129, 4  # Divides by neither 2 nor 4.


class State(NamedTuple):
  table: jax.Array
  bias: jax.Array
  step: jax.Array


def model(num=NUM):
  """Softmax regression of a word on the word before it, by a table that is read and scored with."""

  def init(rng, batch):
    return State(jax.random.normal(rng, (num, DIM)), jnp.zeros(num), jnp.zeros((), jnp.int32))

  def loss(parts, batch):
    table, bias = parts
    scores = table[batch["word"]] @ table.T + bias
    chosen = jnp.take_along_axis(scores, batch["next"][:, None], 1)[:, 0]
    return (jax.nn.logsumexp(scores, -1) - chosen).mean()

  def update(state, batch, rng):
    value, (table, bias) = jax.value_and_grad(loss)((state.table, state.bias), batch)
    return State(state.table - 0.1 * table, state.bias - 0.1 * bias, state.step + 1), {"loss": value}

  return Model(init, update, lambda state, batch: state.table[batch["word"]], {},
               [("table", P("model", None)), ("bias", P("model"))])


@pytest.fixture(scope="module")
def source():
  words = np.random.default_rng(0).integers(0, NUM, 65)
  return array_source({"word": words[:-1], "next": words[1:]}, 16)


def train(source, mesh, steps=6, **options):
  losses = []
  write = lambda step, record: losses.extend([record["loss"]] if "loss" in record else [])
  state = loop.train(model(), source, steps=steps, mesh=mesh, log_every=1, write=write, **options)
  return state, losses


@pytest.fixture(scope="module")
def reference(source):
  from embeddings_jax.train.mesh import make_mesh

  return train(source, make_mesh("data:1", jax.devices()[:1]))


@pytest.mark.parametrize("spec", ["data:2,model:2", "data:2,model:4"])
def test_a_padded_state_learns_the_same(source, reference, mesh_of, spec):
  seen = []
  state, losses = train(source, mesh_of(spec), eval_every=3,
                        evaluate=lambda state, step: seen.append(state.table.shape) or {"x": 0.0})
  np.testing.assert_allclose(losses, reference[1], rtol=1e-5)
  np.testing.assert_allclose(state.table, reference[0].table, atol=1e-5)
  assert set(seen) == {(NUM, DIM)} and state.bias.shape == (NUM,)


def test_stored_leaves_are_split_with_zeros_behind_them(mesh_of):
  mesh = mesh_of("data:2,model:4")
  abstract = jax.eval_shape(model().init, jax.random.key(0), {})
  padding = Padding(abstract, mesh, model().rules)
  assert padding.sizes == {"table": [129, 4], "bias": [129]}
  assert padding.stored.table.shape == (132, 4) and padding.layout.table.spec == P("model", None)
  with jax.set_mesh(mesh):
    state = jax.jit(padding.of(model().init), out_shardings=padding.layout)(jax.random.key(0), {})
    assert {shard.data.shape for shard in state.table.addressable_shards} == {(33, 4)}
    assert not np.asarray(state.table)[NUM:].any()
    whole = padding.cut(state)
    np.testing.assert_array_equal(padding.grown(whole).table, state.table)
  # Two rows over four devices would be doubled: they stay whole on each, and this is said by `replication_note`.
  assert not Padding({"table": jax.ShapeDtypeStruct((2, 8), np.float32)}, mesh, model().rules).sizes


def test_no_collective_is_as_large_as_the_vocabulary(mesh_of):
  """Reading, scoring and updating a padded table send what those of a divisible one send."""
  from embeddings_jax.plan import hlo

  mesh, batch = mesh_of("data:2,model:4"), {key: jnp.zeros(8, jnp.int32) for key in ("word", "next")}

  def sent(num):
    one = model(num)
    abstract = jax.eval_shape(one.init, jax.random.key(0), {})
    padding = Padding(abstract, mesh, one.rules)
    with jax.set_mesh(mesh):
      update = jax.jit(padding.around(one.update), out_shardings=(padding.layout, None), donate_argnums=0)
      stored = jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), padding.stored,
                            padding.layout)
      text = update.lower(stored, batch, jax.random.key(0)).compile().as_text()
    return sorted((one.kind, one.bytes) for one in hlo.read(text).collectives)

  assert sent(1023) == sent(1024)


def test_a_chain_of_meshes_resumes_exactly(source, reference, mesh_of, tmp_path):
  """Checkpoints hold other paddings, or none."""
  losses = []
  for spec, steps in (("data:1,model:2", 2), ("data:1", 3), ("data:2,model:4", 5), ("data:2", 6)):
    checkpoints = Checkpoints(str(tmp_path / "c"))
    state, new = train(source, mesh_of(spec), steps, checkpoints=checkpoints)
    checkpoints.close()
    losses += new
  np.testing.assert_allclose(losses, reference[1], rtol=1e-5)


def test_readers_see_no_padding_and_refuse_other_sizes(source, mesh_of, tmp_path):
  mesh = mesh_of("data:2,model:4")
  checkpoints = Checkpoints(str(tmp_path / "c"))
  state, _ = train(source, mesh, 2, checkpoints=checkpoints)
  checkpoints.close()
  reader = CheckpointReader(str(tmp_path / "c"))
  restore = lambda num: reader.restore(
      jax.eval_shape(model(num).init, jax.random.key(0), {}),
      state_shardings(jax.eval_shape(model(num).init, jax.random.key(0), {}), mesh, model().rules))
  restored, step, _ = restore(NUM)
  np.testing.assert_array_equal(restored.table, state.table)
  assert step == 2
  for num in (128, 132):  # 132 is what is stored.
    with pytest.raises(CheckpointError, match=rf"table is \[129, 4\], and \[{num}, 4\] is needed"):
      restore(num)


def test_pretrained_parameters_go_in_whole(source, mesh_of):
  table = np.random.default_rng(1).normal(size=(NUM, DIM)).astype(np.float32)
  start = lambda state: state._replace(table=table + 0 * np.asarray(state.table))
  spread, losses = train(source, mesh_of("data:2,model:4"), initial=start)
  alone, expected = train(source, mesh_of("data:1"), initial=start)
  np.testing.assert_allclose(losses, expected, rtol=1e-5)
  np.testing.assert_allclose(spread.table, alone.table, atol=1e-5)
