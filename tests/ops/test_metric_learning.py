"""Losses with a margin: closed forms, loops over pairs and triplets, gradients."""
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from differences import numeric_gradient

from embeddings_jax.ops.metric_learning import MINING, lifted_structured, n_pair, pair_loss, triplet
from embeddings_jax.types import InputError

LABELS = np.array([0, 1, 0, 2, 1, 1, 0, 3, 2])  # One is alone.
VECTORS = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32) / 2
MASK = np.array([1, 1, 1, 1, 0, 1, 1, 1, 1.0])


def _square(x, i, j):
  return ((x[i] - x[j]) ** 2).sum()


def _pair_loop(x, y, positive, margin):
  losses = []
  for one, other, same in zip(x, y, positive):
    distance = np.sqrt(((one - other) ** 2).sum())
    losses.append(distance**2 if same else max(0, margin - distance) ** 2)
  return np.mean(losses)


def _triplet_loop(x, labels, mask, margin, mining):
  rows, losses = np.flatnonzero(mask), []
  for a in rows:
    positives = [_square(x, a, p) for p in rows if p != a and labels[p] == labels[a]]
    negatives = [_square(x, a, n) for n in rows if labels[n] != labels[a]]
    if mining == "all":
      losses += [max(0, p - n + margin) for p, n in itertools.product(positives, negatives)]
    elif mining == "hard" and positives:
      losses.append(max(0, max(positives) - min(negatives) + margin))
    elif mining == "semi-hard":
      losses += [max(0, p - min(n for n in negatives if n > p) + margin) for p in positives if max(negatives) > p]
  return np.mean(losses)


def _lifted_loop(x, labels, mask, margin):
  rows, total, count = np.flatnonzero(mask), 0, 0
  distance = lambda i, j: np.sqrt(_square(x, i, j))
  for i, j in itertools.permutations(rows, 2):
    if labels[i] == labels[j]:
      rest = sum(np.exp(margin - distance(i, k)) for k in rows if labels[k] != labels[i])
      rest += sum(np.exp(margin - distance(j, k)) for k in rows if labels[k] != labels[j])
      total += max(0, np.log(rest) + distance(i, j)) ** 2
      count += 1
  return total / (2 * count)


def _n_pair_loop(anchors, positives, decay):
  losses = []
  for i, anchor in enumerate(anchors):
    others = [np.exp(anchor @ positives[j] - anchor @ positives[i]) for j in range(len(anchors)) if j != i]
    losses.append(np.log(1 + sum(others)) + decay / 2 * (anchor @ anchor + positives[i] @ positives[i]))
  return np.mean(losses)


def _check(loss, loop, *points):
  """Value and gradient against the loop's; returns the compiled function that gives both."""
  compiled = jax.jit(jax.value_and_grad(loss, tuple(range(len(points)))))
  value, slopes = compiled(*points)
  np.testing.assert_allclose(value, loop(*(np.asarray(x, np.float64) for x in points)), rtol=1e-6)
  for one, other in zip(slopes, numeric_gradient(loop, *points)):
    np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6)
  return compiled


def test_pairs():
  positive = np.array([1, 0, 0, 1.0])
  x, y = VECTORS[:4], VECTORS[4:8]
  _check(lambda x, y: pair_loss(x, y, jnp.asarray(positive, jnp.float32), margin=1.5),
         lambda x, y: _pair_loop(x, y, positive, 1.5), x, y)
  # Coinciding: 0 of a positive pair, ε² of a negative one, and no direction to push in.
  for same, expected in ((1.0, 0), (0.0, 2.25)):
    value, slope = jax.value_and_grad(lambda x, s=same: pair_loss(x, jnp.asarray(y), jnp.full(4, s), margin=1.5))(
        jnp.asarray(y))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_array_equal(slope, 0)


@pytest.mark.parametrize("mining", MINING)
def test_triplets(mining):
  options = dict(mask=jnp.asarray(MASK, jnp.float32), margin=0.3, mining=mining)
  loss = lambda chunk_size: lambda x: triplet(x, jnp.asarray(LABELS), chunk_size=chunk_size, **options)
  dense = _check(loss(0), lambda x: _triplet_loop(x, LABELS, MASK, 0.3, mining), VECTORS)
  chunked = jax.jit(jax.value_and_grad(loss(4), (0,)))(jnp.asarray(VECTORS))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), chunked,
               dense(VECTORS))
  # Of identical vectors every triplet violates by the margin; no negative is farther than a positive.
  same, (slope,) = dense(np.ones((9, 3), np.float32))
  np.testing.assert_allclose(same, 0 if mining == "semi-hard" else 0.3, rtol=1e-6)
  assert np.isfinite(slope).all()


def test_lifted_structure():
  loss = lambda x: lifted_structured(x, jnp.asarray(LABELS), mask=jnp.asarray(MASK, jnp.float32), margin=0.7)
  _check(loss, lambda x: _lifted_loop(x, LABELS, MASK, 0.7), VECTORS)
  # Two classes of 2 identical vectors: J = log(4 e^α).
  value, slope = jax.jit(jax.value_and_grad(lambda x: lifted_structured(x, jnp.arange(4) // 2, margin=0.5)))(
      jnp.ones((4, 3)))
  np.testing.assert_allclose(value, (np.log(4) + 0.5) ** 2 / 2, rtol=1e-6)
  np.testing.assert_array_equal(slope, 0)


def test_n_pair():
  _check(lambda f, g: n_pair(f, g, decay=0.1), lambda f, g: _n_pair_loop(f, g, 0.1), VECTORS[:4], VECTORS[4:8])
  np.testing.assert_allclose(n_pair(jnp.ones((4, 3)), jnp.ones((4, 3)), decay=0.2), np.log(4) + 0.6, rtol=1e-6)


@pytest.mark.parametrize("fn", [triplet, lifted_structured])
def test_without_positives_nothing_is_said(fn):
  value, slope = jax.jit(jax.value_and_grad(lambda x: fn(x, jnp.arange(9))))(jnp.asarray(VECTORS))
  assert value == 0
  np.testing.assert_array_equal(slope, 0)


@pytest.mark.parametrize("message, call", [
    ("mining='hardest'", lambda x: triplet(x, jnp.arange(4), mining="hardest")),
    ("margin=0", lambda x: lifted_structured(x, jnp.arange(4), margin=0)),
    ("chunk_size=-2", lambda x: triplet(x, jnp.arange(4), chunk_size=-2)),
])
def test_bad_options_are_refused(message, call):
  with pytest.raises(InputError, match=message):
    call(jnp.ones((4, 2)))
