import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from embeddings_jax.models.words.skipgram import skipgram
from embeddings_jax.ops.word_blocks import Draws
from embeddings_jax.types import InputError

VOCAB = 50


def _model(**changes):
  given = dict(vocab_size=VOCAB, counts=np.arange(VOCAB, 0, -1) ** 2, optimizer=optax.sgd(0.1), dim=7, window=2,
               slack=1.0, chunk=10, subsample=0.02)
  return skipgram(**{**given, **changes})


def _batch():
  noise = np.random.default_rng(0)
  tokens = noise.integers(0, VOCAB, (2, 21)).astype(np.int32)
  tokens[noise.uniform(size=tokens.shape) < 0.1] = -1
  return {"tokens": jnp.asarray(tokens), "mask": jnp.ones(2)}


def _pairs(draws):
  """All (block, position, context) of the draws, by plain loops over their definition."""
  document, radius = np.asarray(draws.document), np.asarray(draws.radius)
  return np.array([(b, i, j) for b, row in enumerate(document) for i in range(len(row)) for j in range(len(row))
                   if i != j and abs(i - j) <= min(radius[b, i], 2) and row[i] == row[j] >= 0]).T


@pytest.mark.parametrize("tied", [False, True])
def test_update_is_the_gradient_of_the_written_objective(tied):
  model, batch, rng = _model(tied=tied), _batch(), jax.random.key(3)
  state = model.init(jax.random.key(0), None)
  inside = jnp.arange(64)[:, None] < VOCAB
  params = {name: 0.5 * inside * jax.random.normal(jax.random.key(i), (64, 7)) for i, name in enumerate(state.params)}
  state = state._replace(params=params)
  draws = Draws(**jax.jit(model.outputs["draws"])(state, batch, rng))
  block, center, context = _pairs(draws)
  words, contexts = np.asarray(draws.tokens)[block, center], np.asarray(draws.tokens)[block, context]

  def objective(params):
    scores = params["input"][words] @ params.get("output", params["input"])[:VOCAB].T
    return -jax.nn.log_softmax(scores)[np.arange(len(words)), contexts].mean()

  loss, gradient = jax.jit(jax.value_and_grad(objective))(params)
  new, metrics = jax.jit(model.update)(state, batch, rng)
  assert metrics["pairs"] == len(words) > 40
  np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
  for name in gradient:
    np.testing.assert_allclose((params[name] - new.params[name]) / 0.1, gradient[name], atol=2e-6)
    assert (new.params[name][VOCAB:] == 0).all()


def test_equal_scores_and_masked_blocks():
  model, batch = _model(), _batch()
  state = model.init(jax.random.key(0), None)
  held_out = jax.jit(model.outputs["loss"])(state, batch)
  np.testing.assert_allclose(held_out, np.log(VOCAB), rtol=1e-6)
  new, metrics = jax.jit(model.update)(state, {**batch, "mask": jnp.zeros(2)}, jax.random.key(0))
  assert (metrics["loss"], metrics["pairs"]) == (0, 0)
  chex.assert_trees_all_equal(new.params, state.params)


def test_the_loss_reaches_the_entropy_of_the_text():
  # Documents repeat one of 8 words: what is around a word is certain.
  tokens = np.repeat(np.random.default_rng(0).integers(0, 8, (60, 32)), 8, 1).astype(np.int32)
  tokens[:, ::8] = -1
  model = _model(vocab_size=8, counts=np.ones(8), subsample=0, optimizer=optax.adam(0.1), window=4, chunk=64)

  @jax.jit
  def run(state):
    step = lambda s, x: model.update(s, {"tokens": x[None], "mask": jnp.ones(1)}, jax.random.key(0))
    return jax.lax.scan(step, state, jnp.asarray(tokens))

  state, metrics = run(model.init(jax.random.key(0), None))
  assert abs(metrics["loss"][0] - np.log(8)) < 0.01 and metrics["loss"][-1] < 0.01
  scores = state.params["input"][:8] @ state.params["output"][:8].T
  np.testing.assert_array_equal(scores.argmax(1), np.arange(8))


def test_bad_arguments_are_named():
  with pytest.raises(InputError, match=r"skipgram: .*over 5000000 words of 100 dimensions needs about 36.5 GB"):
    skipgram(vocab_size=5_000_000, counts=np.ones(5_000_000), optimizer=optax.sgd(1.0))
  with pytest.raises(InputError, match="skipgram: window=0: must be at least 1"):
    _model(window=0)
