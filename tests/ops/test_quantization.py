"""Discrete codes: nearest rows, running averages against a loop, revival, finite scalars."""
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax.ops import quantization as q

RNG = np.random.default_rng(0)
Z, BOOK = RNG.normal(size=(40, 3)).astype(np.float32), RNG.normal(size=(7, 3)).astype(np.float32)


def test_codes_are_those_of_the_least_distance():
  expected = np.square(Z[:, None] - BOOK).sum(2).argmin(1)
  np.testing.assert_array_equal(q.nearest_codes(jnp.asarray(Z), jnp.asarray(BOOK)), expected)


def test_the_gradient_passes_straight_through():
  slope = jax.grad(lambda z: (q.straight_through(z, jnp.round(z)) * jnp.arange(4.0)).sum())(jnp.linspace(0, 1.3, 4))
  np.testing.assert_array_equal(slope, np.arange(4.0))


def test_averages_are_those_of_a_loop_and_leave_padding_out():
  counts, sums, book = np.zeros(7), np.zeros((7, 3)), BOOK.copy()
  state = tuple(map(jnp.asarray, (counts.astype(np.float32), sums.astype(np.float32), book)))
  weight = (np.arange(40) < 33).astype(np.float32)
  for _ in range(3):
    codes = np.square(Z[:, None] - book).sum(2).argmin(1)
    counts, sums = 0.9 * counts, 0.9 * sums
    for row in range(33):
      counts[codes[row]] += 0.1
      sums[codes[row]] += 0.1 * Z[row]
    for k in range(7):
      if counts[k] > 0:
        book[k] = sums[k] / counts[k]
    state = q.moved_codebook(*state, jnp.asarray(Z), jnp.asarray(codes, jnp.int32), jnp.asarray(weight), 0.9)
  for actual, expected in zip(state, (counts, sums, book)):
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_averages_and_revival_on_eight_devices_are_those_of_one(mesh_of):
  z = jnp.asarray(Z)
  codes = q.nearest_codes(z, jnp.asarray(BOOK))

  @jax.jit
  def moved(z, codes):
    state = q.moved_codebook(jnp.zeros(7), jnp.zeros((7, 3)), jnp.asarray(BOOK), z, codes, jnp.ones(40), 0.9)
    return q.revived(jax.random.key(0), *state, z, jnp.ones(40), 0.5)

  mesh = mesh_of("data:4,fsdp:2")
  rows = jax.NamedSharding(mesh, jax.P(("data", "fsdp")))
  for one, eight in zip(moved(z, codes), moved(*jax.device_put((z, codes), rows))):
    np.testing.assert_allclose(one, eight, atol=1e-6)
  assert moved(z, codes)[3] > 0


def test_dead_codes_become_vectors_of_the_batch():
  counts = jnp.array([5.0, 0.0, 0.4, 5.0, 0.6, 5.0, 5.0])  # A mean of 3.
  sums = counts[:, None] * BOOK
  weight = jnp.asarray((np.arange(40) < 39).astype(np.float32))
  actual = q.revived(jax.random.key(0), counts, sums, jnp.asarray(BOOK), jnp.asarray(Z), weight, 0.15)
  dead = [1, 2]  # Below .45.
  assert actual[3] == 2
  alive = [i for i in range(7) if i not in dead]
  np.testing.assert_array_equal(np.asarray(actual[2])[alive], BOOK[alive])
  for k in dead:
    assert (np.asarray(actual[2])[k] == Z[:39]).all(1).any()
  np.testing.assert_allclose(np.asarray(actual[0])[dead], 0.15 * counts.mean(), rtol=1e-6)
  np.testing.assert_allclose(actual[1] / actual[0][:, None], actual[2], rtol=1e-5)
  none = q.revived(jax.random.key(0), counts, sums, jnp.asarray(BOOK), jnp.asarray(Z), weight, 0.0)
  np.testing.assert_array_equal(none[2], BOOK)


@pytest.mark.parametrize("share, expected", [(np.ones(8), 8), (np.eye(8)[0], 1), (np.arange(8) < 2, 2)])
def test_perplexity_is_the_number_of_equally_frequent_codes(share, expected):
  assert q.perplexity(jnp.asarray(share, jnp.float32)) == pytest.approx(expected, rel=1e-5)


def test_finite_scalars_take_every_code_and_no_other():
  """Extreme units reach the ends, and codes, numbers and values are one to one."""
  levels = (4, 3, 5)
  ends = np.array(list(itertools.product([-50.0, 0.0, 50.0], repeat=3)), np.float32)
  numbers = np.round(np.asarray(q.bounded(jnp.asarray(ends), levels)))
  assert numbers.min(0).tolist() == [-2, -1, -2] and numbers.max(0).tolist() == [1, 1, 2]
  assert not numbers[(ends == 0).all(1)].any()  # 0 stays 0.
  codes = jnp.arange(60, dtype=jnp.int32)
  numbers = q.codes_to_numbers(codes, levels)
  assert len(np.unique(numbers, axis=0)) == 60
  np.testing.assert_array_equal(q.numbers_to_codes(numbers, levels), codes)
  values = q.scalar_values(numbers, levels)
  np.testing.assert_array_equal(q.nearest_numbers(values + 0.1, levels), numbers)
  assert np.abs(values).max() == 1
