"""Centers to start from, on one device and on eight. Their distributions: `test_gmm.py` and `test_kmeans.py`."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hlo import collectives
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from embeddings_jax.ops.centers import INITS, starting_centers
from embeddings_jax.ops.sharding import DATA_AXES


@pytest.mark.parametrize("init", INITS)
def test_eight_devices_choose_what_one_chooses_and_move_no_rows(init, mesh_of):
  """Moved are sums, and the rows that are chosen: as many bytes of 640 rows as of 6400."""
  mesh = mesh_of("data:8")
  split = NamedSharding(mesh, P(DATA_AXES))
  start = jax.jit(functools.partial(starting_centers, init=init, num=3))
  moved = []
  for size in (640, 6400):
    x = np.random.default_rng(0).normal(size=(size, 2)).astype(np.float32)
    weight = (np.arange(size) % 3 > 0).astype(np.float32)
    expected = start(jax.random.key(1), x=x, weight=weight)
    assert all(any((row == x[i]).all() for i in np.flatnonzero(weight)) for row in np.asarray(expected))
    with jax.set_mesh(mesh):
      rows = {"x": jax.device_put(x, split), "weight": jax.device_put(weight, split)}
      program = start.lower(jax.random.key(1), **rows).compile()
      np.testing.assert_array_equal(start(jax.random.key(1), **rows), expected)
    moved.append(sum(size for _, sizes in collectives(program) for size in sizes))
  assert 0 < moved[0] == moved[1] < 8 * 3 * 3 * 4 * 2


def test_more_centers_than_a_device_has_rows(mesh_of):
  x = jnp.asarray(np.random.default_rng(0).normal(size=(16, 2)), jnp.float32)
  start = jax.jit(functools.partial(starting_centers, init="random", num=5))
  expected = start(jax.random.key(0), x=x, weight=jnp.ones(16))
  with jax.set_mesh(mesh_of("data:8")):
    np.testing.assert_array_equal(start(jax.random.key(0), x=x, weight=jnp.ones(16)), expected)
