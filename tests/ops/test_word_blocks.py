import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from embeddings_jax.ops import word_blocks
from embeddings_jax.plan import hlo


def test_hashed_bits_look_random():
  size = 1 << 14
  words = np.stack([word_blocks.hashed_bits(jax.random.key(seed), stream, (size,))
                    for seed in (0, 1) for stream in (0, 1, 2)]).astype(np.uint32)
  assert all(len(np.unique(row)) > size - 200 for row in words)  # Some 32 collisions are expected.
  bits = (words[:, :, None] >> np.arange(32, dtype=np.uint32)) & 1
  error = 0.5 / np.sqrt(size)
  assert np.abs(bits.mean(1) - 0.5).max() < 5 * error
  # No bit follows another of its word, of its neighbors, or of the other keys and streams at its place.
  signs = 2.0 * bits - 1
  columns = [signs.transpose(1, 0, 2).reshape(size, -1)] + [np.roll(signs[0], shift, 0) for shift in (1, 2)]
  columns = np.concatenate(columns, 1)
  correlation = columns.T @ columns / size - np.eye(columns.shape[1])
  assert np.abs(correlation).max() < 6 / np.sqrt(size)


def test_hashed_bits_depend_on_place_and_not_on_shape():
  key = jax.random.key(3)
  whole = word_blocks.hashed_bits(key, 1, (4, 6))
  np.testing.assert_array_equal(whole.ravel(), word_blocks.hashed_bits(key, 1, (24,)))
  assert whole.dtype == jnp.uint32 and (whole != word_blocks.hashed_bits(key, 2, (4, 6))).all()


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
