import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from embeddings_jax.ops import word_blocks
from embeddings_jax.plan import hlo


def test_halo_is_the_neighbors_ends():
  x = jnp.arange(12).reshape(1, 12)
  actual = word_blocks.with_halo(word_blocks.tiled(x, 4), 2, -1)
  np.testing.assert_array_equal(actual[0], [[-1, -1, 0, 1, 2, 3, 4, 5], [2, 3, 4, 5, 6, 7, 8, 9],
                                            [6, 7, 8, 9, 10, 11, -1, -1]])


def test_shifts_are_transposes():
  x, y = jnp.arange(1.0, 7).reshape(1, 6), jnp.array([[3.0, 1, 4, 1, 5, 9]])
  for offset in (0, 1, 4):
    assert (word_blocks.shifted(x, offset, 0) * y).sum() == (x * word_blocks.shifted(y, -offset, 0)).sum()
  np.testing.assert_array_equal(word_blocks.shifted(x, 2, -1), [[3, 4, 5, 6, -1, -1]])
  np.testing.assert_array_equal(word_blocks.shifted(x, -2, -1), [[-1, -1, 1, 2, 3, 4]])


def test_steps_are_shortened_by_the_mass_of_the_whole_batch():
  ids, weight = jnp.array([[0, 1, 1], [2, 1, 3]]), jnp.array([[2.0, 3, 3], [1, 4, 0]])
  sizes = word_blocks.step_sizes(64, ids, weight, jnp.float32(0.5), 5.0)
  np.testing.assert_allclose(sizes, [[0.5, 0.25, 0.25], [0.5, 0.25, 0.5]])


def test_masses_of_a_large_vocabulary_are_summed_without_a_table_of_it(mesh_of):
  """Steps of 8 blocks among 100,000 rows are those of dense sums; nothing as large as the rows is sent or held."""
  num_rows, mesh = 100_032, mesh_of("data:8")
  random = np.random.default_rng(0)
  ids = jnp.asarray(np.minimum(random.zipf(1.3, (8, 64)), num_rows - 1).astype(np.int32))
  weight = jnp.asarray(random.integers(0, 4, (8, 64)).astype(np.float32))
  steps = lambda ids, weight: word_blocks.step_sizes(num_rows, ids, weight, jnp.float32(0.5), 5.0)
  dense = steps(ids, weight)
  rows = NamedSharding(mesh, P("data"))
  with jax.set_mesh(mesh):
    program = jax.jit(steps)
    placed = [jax.device_put(x, rows) for x in (ids, weight)]
    np.testing.assert_allclose(program(*placed), dense, rtol=1e-6)
    compiled = program.lower(*placed).compile()
  sent = [one.bytes for one in hlo.read(compiled.as_text()).collectives]
  assert sent and max(sent) <= 8 * 64 * 4
  assert compiled.memory_analysis().temp_size_in_bytes < num_rows
  assert (np.asarray(dense) < 0.5).any()
