import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from embeddings_jax.ops.kernels.softmax import (
  check_affordable,
  cross_entropy,
  sampled_cross_entropy,
  weighted_log_partition,
)
from embeddings_jax.ops.sharding import DATA_AXES
from embeddings_jax.types import InputError


def _inputs(num_blocks=4, size=11, rows=64, dim=5):
  keys = jax.random.split(jax.random.key(0), 3)
  return (3 * jax.random.normal(keys[0], (num_blocks, size, dim)), jax.random.normal(keys[1], (rows, dim)),
          jnp.floor(5 * jax.random.uniform(keys[2], (num_blocks, size))))


def _plain(queries, table, weight, vocab_size):
  return (weight * jax.nn.logsumexp(queries @ table[:vocab_size].T, -1)).sum()


@pytest.mark.parametrize("chunk", [1, 12, 1000])
def test_value_and_gradient_are_those_of_log_softmax(chunk):
  queries, table, weight = _inputs()
  ours = jax.jit(jax.value_and_grad(lambda q, t: 2 * weighted_log_partition(q, t, weight, 50, chunk), (0, 1)))
  plain = jax.value_and_grad(lambda q, t: 2 * _plain(q, t, weight, 50), (0, 1))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-4),
               ours(queries, table), plain(queries, table))
  assert (ours(queries, table)[1][1][50:] == 0).all()


def test_large_scores_stay_finite():
  queries, table, weight = _inputs()
  value, gradient = jax.value_and_grad(weighted_log_partition)(1e3 * queries, table, weight, 50, 16)
  np.testing.assert_allclose(value, _plain(1e3 * queries, table, weight, 50), rtol=1e-5)
  assert np.isfinite(gradient).all()


def test_sharded_over_blocks_and_rows_moves_neither_scores_nor_table(mesh_of):
  mesh = mesh_of("data:4,model:2")
  queries, table, weight = _inputs(size=32, rows=4096, dim=8)
  expected = jax.grad(_plain, (0, 1))(queries, table, weight, 4000)
  layout = [NamedSharding(mesh, spec) for spec in (P(DATA_AXES), P("model", None), P(DATA_AXES))]
  with jax.set_mesh(mesh):
    compiled = jax.jit(jax.grad(weighted_log_partition, (0, 1)), static_argnums=(3, 4), in_shardings=layout,
                       out_shardings=tuple(layout[:2])).lower(queries, table, weight, 4000, 32).compile()
    actual = compiled(*(jax.device_put(x, s) for x, s in zip((queries, table, weight), layout)))
  chex.assert_trees_all_close(actual, expected, rtol=1e-4, atol=1e-4)
  # Gradients of the table are summed over the data's shards; nothing is gathered.
  assert "all-gather" not in compiled.as_text()


def test_what_a_vocabulary_would_need():
  check_affordable("x", 10_000, 100, 2, 512, 4.0)
  with pytest.raises(InputError, match=r"x: .*over 1000000 words of 100 dimensions needs about 7.3 GB \(3.2 .* 4.1"):
    check_affordable("x", 1_000_000, 100, 2, 512, 4.0)


def test_cross_entropy_is_the_plain_one_in_any_chunks():
  random = np.random.default_rng(0)
  queries, table = (jnp.asarray(random.normal(size=shape), jnp.float32) for shape in ((3, 7, 5), (11, 5)))
  targets, weight = jnp.asarray(random.integers(0, 11, (3, 7))), jnp.asarray(random.random((3, 7)), jnp.float32)

  def plain(queries, table):
    log_p = jax.nn.log_softmax(queries @ table.T)
    chosen = jnp.take_along_axis(log_p, targets[..., None], -1)[..., 0]
    return -2 * (weight * chosen).sum(), (chosen, log_p.argmax(-1) == targets)

  def ours(queries, table, chunk):
    loss, chosen, right = cross_entropy(queries, table, targets, weight, chunk)
    return 2 * loss, (chosen, right)

  expected = jax.value_and_grad(plain, (0, 1), has_aux=True)(queries, table)
  for chunk in (100, 6, 1):
    actual = jax.jit(jax.value_and_grad(ours, (0, 1), has_aux=True), static_argnums=2)(queries, table, chunk)
    chex.assert_trees_all_close(actual, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours(queries, table, chunk)[0], expected[0][0], rtol=1e-6)


def test_sampled_words_stand_for_the_vocabulary():
  queries, table, weight = _inputs()
  queries = queries / 3
  targets = jax.random.randint(jax.random.key(1), weight.shape, 0, len(table))
  exact = lambda q, t: cross_entropy(q, t, targets, weight, 64)[0]
  sampled = lambda key, number: jax.jit(jax.value_and_grad(
      lambda q, t: sampled_cross_entropy(key, q, t, targets, weight, number), (0, 1)))(queries, table)
  value, gradient = jax.value_and_grad(exact, (0, 1))(queries, table)
  near, near_gradient = sampled(jax.random.key(0), 20_000)
  np.testing.assert_allclose(near, value, rtol=0.02)
  for one, other in zip(near_gradient, gradient):
    assert np.linalg.norm(one - other) < 0.1 * np.linalg.norm(other)
  # One sample that is the target itself says nothing.
  alone = sampled_cross_entropy(jax.random.key(0), queries, table[:1], jnp.zeros_like(targets), weight, 1)
  np.testing.assert_allclose(alone, 0, atol=1e-6)
