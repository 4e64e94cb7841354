"""Softmax losses: closed forms, double loops, gradients; the same in chunks, and on any number of devices."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from differences import numeric_gradient
from hlo import collectives
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

from embeddings_jax.ops.contrastive import (
    info_nce,
    nce,
    nt_xent,
    sequence_info_nce,
    soft_nearest_neighbor,
    supervised_contrastive,
)
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


def _log_sum(values):
  return np.log(np.sum(np.exp(values)))


def _info_nce_loop(queries, keys, mask=None, temperature=1.0, ids=None, hard_weight=1.0, concentration=0.0,
                   positive_prior=0.0):
  """`info_nce` term by term."""
  num = len(queries)
  mask = np.ones(num) if mask is None else mask
  ids = np.arange(num) if ids is None else ids
  losses, correct, logs = [], [], []
  for i in range(num):
    if not mask[i]:
      continue
    positive, scores, weights = queries[i] @ keys[i] / temperature, [], []
    for j in range(len(keys)):
      if j != i and mask[j % num] and (j >= num or ids[j] != ids[i]):
        scores.append(queries[i] @ keys[j] / temperature)
        weights.append(hard_weight if j >= num and j % num == i else 1.0)
    scores, weights = np.array(scores), np.array(weights)
    number, total = weights.sum(), (weights * np.exp(scores)).sum()
    if concentration:
      drawn = weights * np.exp(concentration * scores)
      total = number * (drawn * np.exp(scores)).sum() / drawn.sum()
    if positive_prior:
      total = max((total - number * positive_prior * np.exp(positive)) / (1 - positive_prior),
                  number * np.exp(-1 / temperature))
    losses.append(np.log(np.exp(positive) + total) - positive)
    correct.append(all(score < positive for score in scores))
    logs.append(np.log(1 + len(scores)))
  loss, log_num = np.mean(losses), np.mean(logs)
  return loss, log_num - loss, np.mean(correct), log_num


OPTIONS = {
    "plain": (0, {}),
    "masked": (6, {"mask": np.array([1, 1, 0, 1, 1, 1.0]), "ids": np.array([4, 1, 4, 4, 1, 2])}),
    "hard weight": (12, {"mask": np.array([1, 1, 1, 1, 0, 1.0]), "hard_weight": 3.0, "temperature": 0.5}),
    "concentration": (0, {"concentration": 0.5, "ids": np.array([0, 1, 1, 2, 3, 4])}),
    "prior": (2, {"positive_prior": 0.1, "temperature": 0.8}),
    "prior's limit": (0, {"positive_prior": 0.7, "temperature": 0.5}),
    "together": (6, {"hard_weight": 0.5, "concentration": 2.0, "positive_prior": 0.2}),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_equal_a_double_loop_with_its_gradient(name):
  more, options = OPTIONS[name]
  queries, keys = 0.7 * _random(6, 3), 0.7 * _random(6 + more, 3, seed=1)
  loop = functools.partial(_info_nce_loop, **options)
  expected = loop(*(np.asarray(x, np.float64) for x in (queries, keys)))
  slopes = numeric_gradient(lambda q, k: loop(q, k)[0], queries, keys)
  arrays = {key: jnp.asarray(x, jnp.int32 if key == "ids" else jnp.float32) if isinstance(x, np.ndarray) else x
            for key, x in options.items()}

  def of(chunk_size):
    def loss(queries, keys):
      contrast = info_nce(queries, keys, chunk_size=chunk_size, **arrays)
      return contrast.loss, contrast
    return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(queries, keys)

  for chunk_size in (0, 4):
    (_, contrast), actual = of(chunk_size)
    np.testing.assert_allclose(contrast, expected, rtol=1e-6, atol=1e-6)  # The bound is a small difference.
    np.testing.assert_allclose(contrast.loss, expected[0], rtol=1e-6)
    for one, other in zip(actual, slopes):
      np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


@functools.partial(jax.jit, static_argnames=("chunk_size", "name"))
def _value_and_gradient(name, x, y, ids, mask, temperature, chunk_size):
  def loss(x, y, temperature):
    options = dict(mask=mask, temperature=temperature, chunk_size=chunk_size)
    both = jnp.concatenate([x, y])
    if name in ("info_nce", "nt_xent"):
      return {"info_nce": info_nce, "nt_xent": nt_xent}[name](x, y, ids=ids, **options).loss
    options["mask"] = jnp.concatenate([mask, mask])
    fn = {"supervised": supervised_contrastive, "neighbor": soft_nearest_neighbor}[name]
    return fn(both, jnp.concatenate([ids, ids + 2]), **options)
  return jax.value_and_grad(loss, (0, 1, 2))(x, y, temperature)


@pytest.mark.parametrize("name", ["nt_xent", "supervised", "neighbor"])
def test_chunks_change_nothing(name):
  """Chunks need not divide the number of rows; the temperature may be learned."""
  inputs = (_random(11, 4), _random(11, 4, seed=1), jnp.arange(11) // 2, (jnp.arange(11) != 4).astype(jnp.float32),
            jnp.float32(0.9))
  dense, chunked = (_value_and_gradient(name, *inputs, chunk_size=size) for size in (0, 4))
  for one, other in zip(jax.tree.leaves(chunked), jax.tree.leaves(dense)):
    np.testing.assert_allclose(one, other, rtol=2e-6, atol=1e-6 * float(jnp.abs(other).max()))


def _nt_xent_loop(first, second, temperature, items):
  views, count = np.concatenate([first, second]), len(first)
  items, losses = np.tile(items, 2), []
  for i in range(2 * count):
    other = (i + count) % (2 * count)
    own = views[i] @ views[other] / temperature
    rest = [views[i] @ views[k] / temperature for k in range(2 * count) if items[k] != items[i]]
    losses.append(_log_sum([own, *rest]) - own)
  return np.mean(losses)


def test_nt_xent_equals_a_double_loop():
  first, second = _random(5, 3), _random(5, 3, seed=1)
  ours = jax.jit(jax.value_and_grad(lambda a, b, items: nt_xent(a, b, ids=items, temperature=0.6).loss, (0, 1)))
  for items in (np.arange(5), np.array([0, 1, 1, 2, 3])):
    loop = lambda a, b, items=items: _nt_xent_loop(a, b, 0.6, items)
    value, slopes = ours(first, second, items)
    np.testing.assert_allclose(value, loop(np.asarray(first, np.float64), np.asarray(second, np.float64)), rtol=1e-6)
    for one, other in zip(slopes, numeric_gradient(loop, first, second)):
      np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
  contrast = jax.jit(nt_xent)(jnp.ones((7, 4)), jnp.ones((7, 4)))
  np.testing.assert_allclose([contrast.loss, contrast.log_num_candidates, contrast.accuracy],
                             [np.log(13), np.log(13), 0], rtol=1e-6)
  # A view's other view is the one positive of its label.
  alone = jax.jit(supervised_contrastive)(jnp.concatenate([first, second]), jnp.tile(jnp.arange(5), 2),
                                          temperature=jnp.float32(0.6))
  np.testing.assert_allclose(alone, ours(first, second, np.arange(5))[0], rtol=1e-6)


def _supervised_loop(z, labels, temperature):
  losses = []
  for i in range(len(z)):
    others = [j for j in range(len(z)) if j != i]
    same = [j for j in others if labels[j] == labels[i]]
    if same:
      total = _log_sum([z[i] @ z[a] / temperature for a in others])
      losses.append(-np.mean([z[i] @ z[p] / temperature - total for p in same]))
  return np.mean(losses)


def _neighbor_loop(x, labels, temperature):
  losses = []
  for i in range(len(x)):
    scores = {j: -((x[i] - x[j]) ** 2).sum() / temperature for j in range(len(x)) if j != i}
    same = [score for j, score in scores.items() if labels[j] == labels[i]]
    if same:
      losses.append(_log_sum(list(scores.values())) - _log_sum(same))
  return np.mean(losses)


@pytest.mark.parametrize("fn, loop", [(supervised_contrastive, _supervised_loop),
                                      (soft_nearest_neighbor, _neighbor_loop)])
def test_labels_make_positives(fn, loop):
  vectors, labels = _random(8, 3), np.array([0, 1, 0, 2, 1, 1, 0, 3])  # Two are alone.
  given = jax.jit(jax.value_and_grad(lambda x, mask: fn(x, jnp.asarray(labels), mask=mask, temperature=0.8)))
  value, slope = given(vectors, jnp.ones(8))
  np.testing.assert_allclose(value, loop(np.asarray(vectors, np.float64), labels, 0.8), rtol=1e-6)
  expected, = numeric_gradient(lambda x: loop(x, labels, 0.8), vectors)
  np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-7)
  masked, _ = given(vectors, (jnp.arange(8) < 6).astype(jnp.float32))
  np.testing.assert_allclose(masked, loop(np.asarray(vectors[:6], np.float64), labels[:6], 0.8), rtol=1e-6)
  # Of n identical vectors, p(one of the others) = 1 / (n - 1), and 3 of them are positives.
  same = jax.jit(fn)(jnp.ones((8, 3)), jnp.arange(8) // 4)
  np.testing.assert_allclose(same, np.log(7 / 3) if fn is soft_nearest_neighbor else np.log(7), rtol=1e-6)


@pytest.mark.parametrize("loss", [
    lambda x: supervised_contrastive(x, jnp.arange(4)),
    lambda x: soft_nearest_neighbor(x, jnp.arange(4)),
    lambda x: info_nce(x[:1], x[1:2], concentration=1.0, positive_prior=0.1).loss,
    lambda x: nt_xent(x[:1], x[1:2]).loss,
    lambda x: info_nce(x, x, mask=jnp.zeros(4)).loss,
], ids=["supervised", "neighbor", "one query", "one item", "nothing valid"])
def test_without_a_positive_or_a_negative_nothing_is_said(loss):
  value, slope = jax.jit(jax.value_and_grad(loss))(_random(4, 3))
  assert value == 0
  np.testing.assert_array_equal(slope, 0)


def test_nce_equals_a_double_loop():
  rng = np.random.default_rng(0)
  scores, noise, log_noise, noise_log_noise = (rng.normal(size=shape) for shape in ((5,), (5, 3), (5,), (5, 3)))
  mask = np.array([1, 0, 1, 1, 1.0])

  def loop(scores, noise):
    losses = []
    for i in range(5):
      if mask[i]:
        odds = scores[i] - log_noise[i] - np.log(3)
        losses.append(-np.log(1 / (1 + np.exp(-odds))))
        for s in range(3):
          losses[-1] -= np.log(1 - 1 / (1 + np.exp(-(noise[i, s] - noise_log_noise[i, s] - np.log(3)))))
    return np.mean(losses)

  floats = [jnp.asarray(x, jnp.float32) for x in (scores, noise, log_noise, noise_log_noise, mask)]
  loss = lambda a, b: nce(a, b, *floats[2:4], mask=floats[4])
  value, slopes = jax.jit(jax.value_and_grad(loss, (0, 1)))(*floats[:2])
  np.testing.assert_allclose(value, loop(scores, noise), rtol=1e-6)
  for one, other in zip(slopes, numeric_gradient(loop, scores, noise)):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
  equal = jax.jit(nce)(floats[0], floats[1], floats[0], floats[1])  # Model and noise agree.
  np.testing.assert_allclose(equal, np.log(4) + 3 * np.log(4 / 3), rtol=1e-6)


@pytest.mark.parametrize("name, chunk_size", [("info_nce", 0), ("info_nce", 24), ("supervised", 24)])
def test_devices_share_their_keys_and_nothing_larger(name, chunk_size, mesh_of):
  num, dim = 512, 8
  inputs = (_random(num, dim), _random(num, dim, seed=1), jnp.arange(num) // 2,
            (jnp.arange(num) % 7 > 0).astype(jnp.float32), jnp.float32(1))
  expected = _value_and_gradient(name, *inputs, chunk_size=chunk_size)
  mesh = mesh_of("data:2,fsdp:4")
  with jax.set_mesh(mesh):
    rows = NamedSharding(mesh, P(("data", "fsdp")))
    placed = [jax.device_put(x, rows) for x in inputs[:4]] + [jax.device_put(inputs[4], NamedSharding(mesh, P()))]
    compiled = _value_and_gradient.lower(name, *placed, chunk_size=chunk_size).compile()
    actual = compiled(*placed)
  for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected)):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6 * float(jnp.abs(other).max()))
  sizes = [size for _, result in collectives(compiled) for size in result]
  keys = 4 * dim * num * (1 if name == "info_nce" else 2)  # A device's scores are 4 to 8 times as large.
  assert max(sizes) == keys


def test_no_matrix_of_all_scores_is_held():
  shape = jax.ShapeDtypeStruct((32_768, 256), jnp.float32)
  loss = lambda chunk_size: lambda q, k: info_nce(q, k, temperature=0.1, chunk_size=chunk_size).loss
  compiled = jax.jit(jax.value_and_grad(loss(256), (0, 1))).lower(shape, shape).compile()
  assert compiled.memory_analysis().temp_size_in_bytes < 256e6
  dense = jax.jit(loss(0)).lower(shape, shape).compile()
  assert dense.memory_analysis().temp_size_in_bytes > 4 * 32_768**2  # What is measured would show it.


@pytest.mark.parametrize("message, call", [
    ("temperature=0", lambda x: info_nce(x, x, temperature=0)),
    ("temperature=-0.1", lambda x: supervised_contrastive(x, jnp.arange(4), temperature=-0.1)),
    ("3 keys for 4 queries", lambda x: info_nce(x, x[:3])),
    ("6 keys for 4 queries; mask", lambda x: info_nce(x, jnp.ones((6, 2)), mask=jnp.ones(4))),
    ("hard_weight=0 ", lambda x: info_nce(x, x, hard_weight=0)),
    ("positive_prior=1 ", lambda x: info_nce(x, x, positive_prior=1)),
    ("chunk_size=-1", lambda x: info_nce(x, x, chunk_size=-1)),
])
def test_bad_options_are_refused(message, call):
  with pytest.raises(InputError, match=message):
    call(jnp.ones((4, 2)))
