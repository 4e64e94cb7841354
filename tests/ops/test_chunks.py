"""Sums over chunks: the values, and what crosses devices."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from embeddings_jax.ops.chunks import sum_over_chunks

ROWS = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)


def moments(scale, chunk):
  x, mask = chunk["x"] * scale, chunk["mask"]
  return {"sum": (x * mask[:, None]).sum(0), "outer": x.T @ (x * mask[:, None]), "count": mask.sum()}


def batch():
  return {"x": jnp.asarray(ROWS), "mask": jnp.asarray((np.arange(40) % 7 > 0).astype(np.float32))}


def expected():
  x = 2.0 * ROWS[np.arange(40) % 7 > 0]
  return {"sum": x.sum(0), "outer": x.T @ x, "count": len(x)}


@pytest.mark.parametrize("size", [1, 3, 8, 40, 100])
@pytest.mark.parametrize("spec", [None, "data:8", "data:2,fsdp:4"])
def test_sums_do_not_depend_on_chunks_or_devices(size, spec, mesh_of):
  if spec is None:
    actual = sum_over_chunks(moments, 2.0, batch(), size)
  else:
    mesh = mesh_of(spec)
    with jax.set_mesh(mesh):
      placed = jax.device_put(batch(), NamedSharding(mesh, P(("data", "fsdp"))))
      actual = jax.jit(lambda b: sum_over_chunks(moments, 2.0, b, size))(placed)
  for name, value in expected().items():
    np.testing.assert_allclose(actual[name], value, rtol=1e-5)
