"""Pointers: softmax by hand, the identity, and blocks."""
import jax
import jax.numpy as jnp
import numpy as np

from embeddings_jax.ops.pointers import copied


def draws(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_values_are_those_of_the_softmax():
  queries, keys, values = draws(2, 5, 4), draws(2, 7, 4, seed=1), draws(2, 7, 3, seed=2)
  scores = np.einsum("nqd,nkd->nqk", queries, keys, dtype=np.float64) / 0.7
  weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
  np.testing.assert_allclose(copied(queries, keys, values, temperature=0.7),
                             np.einsum("nqk,nkc->nqc", weights, values), rtol=1e-4, atol=1e-6)


def test_a_sharp_pointer_over_distinct_features_is_the_identity():
  features = draws(2, 9, 6)
  features = features / jnp.linalg.norm(features, axis=-1, keepdims=True)
  order = np.random.default_rng(3).permutation(9)
  values = jax.nn.one_hot(jnp.arange(9), 9)[None].repeat(2, 0)
  actual = copied(features[:, order], features, values, temperature=1e-3)
  np.testing.assert_allclose(actual, values[:, order], atol=1e-6)


def test_blocks_are_the_whole_and_so_are_their_gradients():
  arguments = draws(2, 11, 4), draws(2, 6, 4, seed=1), draws(2, 6, 3, seed=2)
  for block in (1, 4, 11, 20):
    whole, parts = (jax.value_and_grad(lambda *x, size=size: jnp.square(copied(*x, block=size)).sum(),
                                       (0, 1, 2))(*arguments) for size in (0, block))
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(parts)):
      np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
