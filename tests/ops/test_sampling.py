import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax.ops.sampling import draw, keep_top_k, keep_top_p

SCORES = np.random.default_rng(0).normal(size=(20, 31)).astype(np.float32) * 2


def kept_by_loop(scores, k, p):
  """Indices that may be drawn, by adding up the likeliest tokens one by one."""
  order = sorted(range(len(scores)), key=lambda i: -scores[i])[:k]
  weights = np.exp(scores[order] - scores.max())
  weights /= weights.sum()
  total, kept = 0.0, set()
  for i, weight in zip(order, weights):
    if total >= p:
      break
    kept.add(i)
    total += weight
  return kept


@pytest.mark.parametrize("k,p", [(5, 1.0), (31, 0.5), (7, 0.8), (31, 1e-6), (1, 0.9)])
def test_filters_keep_what_a_loop_keeps(k, p):
  actual = np.asarray(keep_top_p(keep_top_k(jnp.asarray(SCORES), k), p))
  for row, scores in zip(actual, SCORES):
    assert set(np.flatnonzero(np.isfinite(row))) == kept_by_loop(scores, k, p)
    np.testing.assert_array_equal(row[np.isfinite(row)], scores[np.isfinite(row)])


@pytest.mark.parity
@pytest.mark.parametrize("k,p", [(5, 0.7), (12, 0.95)])
def test_filters_are_those_of_transformers(k, p):
  import torch
  from transformers.generation.logits_process import TopKLogitsWarper, TopPLogitsWarper
  expected = TopPLogitsWarper(p)(None, TopKLogitsWarper(k)(None, torch.tensor(SCORES))).numpy()
  np.testing.assert_array_equal(keep_top_p(keep_top_k(jnp.asarray(SCORES), k), p), expected)


def test_temperature_0_takes_the_highest_and_others_sharpen():
  scores = jnp.asarray(SCORES)
  np.testing.assert_array_equal(draw(jax.random.key(0), scores, temperature=0.0), SCORES.argmax(1))
  two = jnp.tile(jnp.log(jnp.array([0.8, 0.2])), (20_000, 1))
  share = np.asarray(draw(jax.random.key(0), two, temperature=0.5)).mean()
  assert share == pytest.approx(0.04 / 0.68, abs=0.008)
