"""Skip-gram on given pairs: an update against a plain loop, the noise distribution, planted classes."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax.models.words.sgns_pairs import sgns_pairs
from embeddings_jax.ops.word_blocks import count_words, noise_words
from embeddings_jax.types import InputError

SMALL = dict(vocab_size=6, num_contexts=5, context_counts=np.arange(5, 0, -1), dim=3, shared_negatives=2, group=2,
             learning_rate=0.5)


def tables(state, seed=0):
  noise = np.random.default_rng(seed)
  return state._replace(input=jnp.asarray(noise.normal(size=state.input.shape), jnp.float32),
                        output=jnp.asarray(noise.normal(size=state.output.shape), jnp.float32))


@pytest.mark.parametrize("max_mass", [1e9, 1.5])
def test_an_update_is_that_of_a_plain_loop(max_mass):
  """Gradients are summed over the batch; a row that many terms would move takes a shorter step."""
  model = sgns_pairs(**SMALL, num_negatives=3, max_mass=max_mass)
  batch = {"word": jnp.array([0, 1, 0, 5]), "context": jnp.array([2, 2, 4, 1]), "mask": jnp.array([1.0, 1, 1, 0])}
  state = tables(model.init(jax.random.key(0), batch))
  rng = jax.random.key(7)
  noise = np.asarray(noise_words(state.noise, rng, 0, (2, 2)))
  v, u = np.float64(state.input), np.float64(state.output)
  sigma = lambda x: 1 / (1 + np.exp(-x))
  change, mass, total = [np.zeros_like(v), np.zeros_like(u)], [np.zeros(len(v)), np.zeros(len(u))], 0
  for i, (w, c) in enumerate(((0, 2), (1, 2), (0, 4))):
    for target, label, weight in [(c, 1, 1.0), *((m, 0, 1.5) for m in noise[i // 2])]:
      score = v[w] @ u[target]
      total -= weight * np.log(sigma(score if label else -score))
      slope = weight * (sigma(score) - label)
      change[0][w] -= slope * u[target]
      change[1][target] -= slope * v[w]
      mass[0][w] += weight
      mass[1][target] += weight
  new, metrics = model.update(state, batch, rng)
  for table, old, step, weights in ((new.input, v, change[0], mass[0]), (new.output, u, change[1], mass[1])):
    size = 0.5 * np.minimum(1, max_mass / np.maximum(weights, 1e-9))
    np.testing.assert_allclose(table, old + size[:, None] * step, atol=1e-5)
  assert float(metrics["loss"]) == pytest.approx(total / 3, rel=1e-5) and float(metrics["pairs"]) == 3


def test_noise_contexts_have_their_shares():
  counts = np.array([16.0, 1, 81])
  table = jnp.asarray(count_words("m", 3, counts, 0, 0.75).noise)
  drawn = np.asarray(noise_words(table, jax.random.key(0), 0, (5000, 4)))
  shares = np.bincount(drawn.ravel(), minlength=3)[:3] / 20_000
  np.testing.assert_allclose(shares, np.array([8, 1, 27]) / 36, atol=0.01)


def test_words_with_equal_contexts_come_near():
  """Even and odd words have contexts of their own."""
  noise = np.random.default_rng(0)
  word = noise.integers(0, 6, 256)
  context = 2 * noise.integers(0, 2, 256) + word % 2
  model = sgns_pairs(**{**SMALL, "num_contexts": 4, "context_counts": np.ones(4), "dim": 8, "learning_rate": 0.1,
                        "max_mass": 8.0})
  batch = {"word": jnp.asarray(word), "context": jnp.asarray(context)}
  state = model.init(jax.random.key(0), batch)
  step = lambda state, i: (model.update(state, batch, jax.random.fold_in(jax.random.key(1), i))[0], None)
  state = jax.jit(lambda state: jax.lax.scan(step, state, jnp.arange(100))[0])(state)
  vectors = np.asarray(model.embed(state, {"tokens": jnp.arange(6)[:, None]}))
  cosine = vectors @ vectors.T / np.outer(*[np.linalg.norm(vectors, axis=1)] * 2)
  same = np.add.outer(range(6), range(6)) % 2 == 0
  assert cosine[same].min() > 0.9 and cosine[~same].max() < 0.4


def test_what_does_not_fit_is_named():
  with pytest.raises(InputError, match="sgns_pairs: group=0: must be at least 1"):
    sgns_pairs(**{**SMALL, "group": 0})
  model = sgns_pairs(**SMALL)
  batch = {"word": jnp.zeros(3, int), "context": jnp.zeros(3, int)}
  with pytest.raises(InputError, match="group=2: does not divide the batch of 3 pairs"):
    model.update(model.init(jax.random.key(0), batch), batch, jax.random.key(0))
