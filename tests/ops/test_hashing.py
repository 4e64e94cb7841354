import jax
import jax.numpy as jnp
import numpy as np

from embeddings_jax.ops import hashing


def test_hashed_bits_look_random():
  size = 1 << 14
  words = np.stack([hashing.hashed_bits(jax.random.key(seed), stream, (size,))
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
  whole = hashing.hashed_bits(key, 1, (4, 6))
  np.testing.assert_array_equal(whole.ravel(), hashing.hashed_bits(key, 1, (24,)))
  assert whole.dtype == jnp.uint32 and (whole != hashing.hashed_bits(key, 2, (4, 6))).all()


def test_mixing_is_one_to_one_and_each_bit_moves_half_of_the_others():
  """Some 2**14 numbers keep apart; a flip of an input bit flips each output bit with probability 1/2."""
  x = np.arange(1 << 14, dtype=np.uint32) * np.uint32(2654435761)
  mixed = np.asarray(hashing.mixed(jnp.asarray(x)))
  assert len(np.unique(mixed)) == len(x)
  for bit in range(32):
    changed = mixed ^ np.asarray(hashing.mixed(jnp.asarray(x ^ np.uint32(1 << bit))))
    share = ((changed[:, None] >> np.arange(32, dtype=np.uint32)) & 1).mean(0)
    assert np.abs(share - 0.5).max() < 0.025
