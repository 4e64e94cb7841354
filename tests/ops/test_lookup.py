"""Rows of a split table: values, gradients, and what is sent for them."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from embeddings_jax.ops.lookup import TABLE, lookup
from embeddings_jax.plan import hlo

ROWS, DIM, BATCH, TIME = 4096, 16, 16, 4


def arrays(mesh):
  random = np.random.default_rng(0)
  table = jax.device_put(random.normal(size=(ROWS, DIM)).astype(np.float32), NamedSharding(mesh, TABLE))
  ids = random.integers(0, ROWS, (BATCH, TIME)).astype(np.int32)
  ids[:, 0] = 7  # Whose gradients are added up, from all devices.
  slopes = random.normal(size=(BATCH, TIME, DIM)).astype(np.float32)
  return table, *(jax.device_put(x, NamedSharding(mesh, P(("data", "fsdp")))) for x in (ids, slopes))


def value_and_gradient(table, ids, slopes, dtype=jnp.float32):
  value, back = jax.vjp(lambda table: lookup(table, ids, dtype), table)
  return value, back(slopes)[0]


@pytest.mark.parametrize("spec", ["data:2,fsdp:4", "data:2,fsdp:2,model:2"])
def test_a_split_table_gives_and_learns_the_same(spec, mesh_of):
  mesh = mesh_of(spec)
  table, ids, slopes = arrays(mesh)
  with jax.set_mesh(mesh):
    program = jax.jit(value_and_gradient, out_shardings=(None, NamedSharding(mesh, TABLE)))
    value, gradient = program(table, ids, slopes)
    compiled = program.lower(table, ids, slopes).compile()
  host = np.asarray(table)
  np.testing.assert_array_equal(value, host[np.asarray(ids)])
  expected = np.zeros_like(host)
  np.add.at(expected, np.asarray(ids), np.asarray(slopes))
  np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5)

  share = ROWS * DIM * 4 // mesh.shape["model"]
  kinds = {(one.kind, one.axes(mesh.shape)): one.bytes for one in hlo.read(compiled.as_text()).collectives
           if one.bytes > 8 * BATCH * TIME * DIM}
  assert kinds == {("all-gather", ("fsdp",)): share, ("reduce-scatter", ("fsdp",)): share,
                   ("all-reduce", ("data",)): share // mesh.shape["fsdp"]}


def test_rows_are_rounded_to_the_type_of_the_computation_and_gradients_are_not(mesh_of):
  mesh = mesh_of("data:2,fsdp:4")
  table, ids, slopes = arrays(mesh)
  with jax.set_mesh(mesh):
    value, gradient = jax.jit(value_and_gradient, static_argnums=3)(table, ids, slopes, jnp.bfloat16)
  rounded = np.asarray(jnp.asarray(table).astype(jnp.bfloat16).astype(jnp.float32))
  np.testing.assert_array_equal(value, rounded[np.asarray(ids)])
  np.testing.assert_allclose(gradient[7], np.asarray(slopes)[:, 0].sum(0), rtol=1e-5, atol=1e-5)


def test_rows_that_the_mesh_does_not_divide(mesh_of):
  mesh = mesh_of("fsdp:2,model:4")
  table, ids = jnp.arange(26.0).reshape(13, 2), jnp.array([[12, 3], [0, 12]])
  with jax.set_mesh(mesh):
    value, gradient = jax.jit(value_and_gradient)(table, ids, jnp.ones((2, 2, 2)))
  np.testing.assert_array_equal(value, table[ids])
  np.testing.assert_array_equal(gradient, jnp.zeros((13, 2)).at[ids].add(1.0))


def test_without_a_mesh_or_with_odd_rows_it_is_indexing(mesh_of):
  table, ids = jnp.arange(12.0).reshape(4, 3), jnp.array([[3], [0], [1]])
  np.testing.assert_array_equal(lookup(table, ids), table[ids])
  with jax.set_mesh(mesh_of("data:2,fsdp:4")):
    np.testing.assert_array_equal(jax.jit(lookup)(table, ids), table[ids])
