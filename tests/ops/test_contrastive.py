"""InfoNCE: closed form, double loops, gradients, and the same value on any number of devices."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from embeddings_jax.ops.contrastive import info_nce, sequence_info_nce
from embeddings_jax.types import InputError

NEGATIVES = ("same", "other", "all", "group_other", "group")
GROUP = np.array([0, 1, 0, 1, 1], np.int32)


def _random(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _double_loop(queries, keys, offset, mask, negatives, temperature):
  losses, bounds, correct, logs = [], [], [], []
  for b in range(queries.shape[0]):
    for t in range(queries.shape[1]):
      if not (mask[b, t] and mask[b, t + offset]):
        continue
      scores = []
      for c in range(keys.shape[0]):
        for s in range(keys.shape[1]):
          same, other = c == b, s == t + offset
          alike = other and GROUP[b] == GROUP[c]
          chosen = {"same": same, "other": other, "all": same or other, "group_other": alike, "group": same or alike}
          if mask[c, s] and chosen[negatives]:
            scores.append(((c, s) == (b, t + offset), np.dot(queries[b, t], keys[c, s]) / temperature))
      values = np.array([score for _, score in scores], np.float64)
      positive = next(score for is_positive, score in scores if is_positive)
      losses.append(np.log(np.exp(values).sum()) - positive)
      bounds.append(np.log(len(values)) - losses[-1])
      correct.append(all(is_positive or score < positive for is_positive, score in scores))
      logs.append(np.log(len(values)))
  return np.mean(losses), np.mean(bounds), np.mean(correct), np.mean(logs)


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("masked", [False, True])
def test_equals_a_double_loop(negatives, masked):
  queries, keys = _random(5, 6, 3), _random(5, 8, 3, seed=1)
  mask = np.ones((5, 8), np.float32)
  if masked:
    mask[1, 5:], mask[3], mask[4, 3:] = 0, 0, 0
  actual = sequence_info_nce(queries, keys, offset=2, mask=jnp.asarray(mask), group=jnp.asarray(GROUP),
                             negatives=negatives, temperature=0.7)
  np.testing.assert_allclose(actual, _double_loop(queries, keys, 2, mask, negatives, 0.7), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("negatives, num", [
    ("same", 9), ("other", 7), ("all", 15), ("group_other", 7), ("group", 15)])
def test_identical_vectors_give_log_n(negatives, num):
  ones = jnp.ones((7, 9, 4))
  contrast = sequence_info_nce(ones[:, :6], ones, offset=3, negatives=negatives, group=jnp.zeros(7, jnp.int32))
  np.testing.assert_allclose(contrast.loss, np.log(num), rtol=1e-6)
  np.testing.assert_allclose(contrast.log_num_candidates, np.log(num), rtol=1e-6)
  np.testing.assert_allclose(contrast.bound, 0, atol=1e-6)
  assert contrast.accuracy == 0  # A tie is not a hit.


def test_pairs_identical_perfect_and_masked():
  np.testing.assert_allclose(info_nce(jnp.ones((11, 4)), jnp.ones((11, 4))).loss, np.log(11), rtol=1e-6)
  perfect = info_nce(100 * jnp.eye(6), jnp.eye(6))
  np.testing.assert_allclose([perfect.loss, perfect.bound, perfect.accuracy], [0, np.log(6), 1], atol=1e-6)
  queries, keys = _random(6, 4), _random(6, 4, seed=1)
  masked = info_nce(queries, keys, mask=jnp.array([1.0, 1, 1, 1, 0, 0]), temperature=0.5)
  np.testing.assert_allclose(masked, info_nce(queries[:4], keys[:4], temperature=0.5), rtol=1e-6)


@pytest.mark.parametrize("negatives", NEGATIVES)
def test_gradient(negatives):
  mask = jnp.ones((3, 5)).at[1, 3:].set(0).at[2].set(0)
  loss = lambda q, k: sequence_info_nce(jnp.asarray(q), jnp.asarray(k), offset=1, mask=mask, negatives=negatives,
                                        group=jnp.array([4, 4, 5])).loss
  queries, keys = _random(3, 4, 2), _random(3, 5, 2, seed=1)
  check_grads(loss, (queries, keys), order=1, modes=["rev"], atol=1e-3, rtol=1e-2, eps=1e-2)
  gradients = jax.grad(loss, (0, 1))(queries, keys)
  assert all(np.isfinite(g).all() for g in gradients)
  np.testing.assert_array_equal(gradients[1][2], 0)  # A padded row is no negative.
  np.testing.assert_array_equal(gradients[1][1, 3:], 0)


def test_one_sequence_alone_has_no_other():
  contrast = sequence_info_nce(_random(1, 4, 2), _random(1, 5, 2, seed=1), offset=1, negatives="other")
  np.testing.assert_allclose([contrast.loss, contrast.bound], 0, atol=1e-6)
  contrast = sequence_info_nce(_random(2, 4, 2), _random(2, 5, 2, seed=1), offset=1, negatives="group_other",
                               group=jnp.array([3, 7]))
  np.testing.assert_allclose([contrast.loss, contrast.bound], 0, atol=1e-6)


def test_too_short_or_unknown_is_refused():
  with pytest.raises(InputError, match="too short to predict 4 frames ahead"):
    sequence_info_nce(jnp.ones((2, 2, 3)), jnp.ones((2, 5, 3)), offset=4)
  with pytest.raises(InputError, match="negatives='both'"):
    sequence_info_nce(jnp.ones((2, 2, 3)), jnp.ones((2, 5, 3)), offset=1, negatives="both")
  with pytest.raises(InputError, match="negatives='group': the batch says of no sequence which `group`"):
    sequence_info_nce(jnp.ones((2, 2, 3)), jnp.ones((2, 5, 3)), offset=1, negatives="group")
