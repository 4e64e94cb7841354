"""Dropout by hash: shares, independence, gradient, and the same mask on any mesh."""
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from embeddings_jax.ops.kernels.dropout import dropout, hash_bits, keep_mask


def test_share_of_what_is_kept():
  number = 4_000_000
  for rate in (0.1, 0.5):
    kept = float(keep_mask(jax.random.key(3), (number // 1000, 1000), rate).mean())
    assert abs(kept - (1 - rate)) < 3 * (rate * (1 - rate) / number) ** 0.5


def test_bits_are_even_and_independent():
  draws = [np.asarray(hash_bits(jax.random.key(seed), (512, 512))).ravel() for seed in (0, 1)]
  bits = [np.unpackbits(draw.view(np.uint8)).reshape(-1, 32) for draw in draws]
  error = 0.5 / np.sqrt(len(bits[0]))
  assert np.abs(bits[0].mean(0) - 0.5).max() < 4.5 * error
  centered = [bit - 0.5 for bit in bits]
  for other in (centered[1], np.roll(centered[0], 1, 0), np.roll(centered[0], 512, 0), np.roll(centered[0], 7, 0)):
    assert np.abs((centered[0].T @ other) / len(other)).max() < 5.5 * 0.25 / np.sqrt(len(other))


def test_value_and_gradient():
  x = jnp.arange(1.0, 1001).reshape(10, 100)
  rng = jax.random.key(1)
  kept = np.asarray(keep_mask(rng, x.shape, 0.25))
  np.testing.assert_allclose(dropout(x, rng, 0.25), np.where(kept, np.asarray(x) / 0.75, 0), rtol=1e-6)
  gradient = jax.jit(jax.grad(lambda x: (dropout(x, rng, 0.25) * x).sum()))(x)
  np.testing.assert_allclose(gradient, np.where(kept, 2 * np.asarray(x) / 0.75, 0), rtol=1e-6)
  assert dropout(x, rng, 0.0) is x


def test_eight_devices_draw_the_mask_of_one(mesh_of):
  x, rng = jnp.ones((16, 24)), jax.random.key(2)
  sharded = jax.device_put(x, NamedSharding(mesh_of("data:4,fsdp:2"), P(("data", "fsdp"))))
  np.testing.assert_array_equal(jax.jit(dropout, static_argnums=2)(sharded, rng, 0.3), dropout(x, rng, 0.3))
