"""SimCSE: its loss against torch's cross entropy, views by dropout, hard negatives, planted structure, bad input."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from embeddings_jax import array_source, train
from embeddings_jax.models.contrastive.simcse import simcse
from embeddings_jax.models.language.bert import bert, encoder
from embeddings_jax.models.language.gpt import encoder as gpt_encoder
from embeddings_jax.runs import build, presets
from embeddings_jax.types import InputError

V, T = 60, 10
TRUNK = dict(vocab_size=V, dim=16, num_layers=2, num_heads=2, mlp_dim=32, max_length=T)
STILL = TRUNK | dict(dropout=0.0, attention_dropout=0.0)


def sentences(num, views=(), seed=0):
  rng = np.random.default_rng(seed)
  tokens = rng.integers(5, V, (num, *views, T)).astype(np.int32)
  tokens[..., 0] = 1
  return np.where(np.arange(T) < rng.integers(4, T + 1, (num, *views, 1)), tokens, -1)


def started(model, tokens):
  return jax.jit(model.init)(jax.random.key(0), {"tokens": jnp.asarray(tokens)})


def cosines(x, y):
  unit = lambda z: np.asarray(z, np.float64) / np.linalg.norm(np.asarray(z, np.float64), axis=-1, keepdims=True)
  return unit(x) @ unit(y).T


@pytest.mark.parametrize("views, hard_weight", [(2, 1.0), (3, 1.0), (3, 2.5)])
def test_supervised_loss_is_a_cross_entropy_of_cosines(views, hard_weight):
  """Equation 5, with the weight of a premise's own contradiction."""
  model = simcse(encoder=encoder(**STILL), projection="always", hard_weight=hard_weight, temperature=0.1)
  tokens = sentences(6, (views,))
  state = started(model, tokens)
  z = [jax.jit(model.embed)(state, {"tokens": jnp.asarray(tokens[:, view])}) for view in range(views)]
  terms = np.exp(np.concatenate([cosines(z[0], other) for other in z[1:]], 1) / 0.1)
  if views == 3:
    terms[:, 6:][np.eye(6, dtype=bool)] *= hard_weight
  expected = np.mean(np.log(terms.sum(1)) - np.log(np.diag(terms[:, :6])))
  loss = jax.jit(model.outputs["training_loss"])(state, {"tokens": jnp.asarray(tokens)}, jax.random.key(1))
  np.testing.assert_allclose(loss, expected, rtol=2e-5)


def test_parts_of_a_batch_have_the_whole_batch_s_negatives():
  tokens = {"tokens": jnp.asarray(sentences(8, (2,)))}
  gradients = []
  for accumulate in (1, 4):
    # Wide kernels and a high rate: no cosine close to 1 and no update close to the parameters' rounding.
    model = simcse(encoder=encoder(**STILL, init_std=0.5), init_std=0.5, optimizer=optax.sgd(1e2),
                   accumulate=accumulate)
    state = started(model, tokens["tokens"])
    new, metrics = jax.jit(model.update)(state, tokens, jax.random.key(1))
    gradients.append((metrics["loss"], jax.tree.map(jnp.subtract, new.params, state.params)))
  (loss, whole), (other, parts) = gradients
  np.testing.assert_allclose(other, loss, rtol=1e-5)
  norm = lambda tree: np.linalg.norm([np.linalg.norm(x) for x in jax.tree.leaves(tree)])
  assert norm(jax.tree.map(jnp.subtract, whole, parts)) < 1e-4 * norm(whole)


def test_padded_rows_are_neither_queries_nor_negatives():
  model = simcse(encoder=encoder(**STILL), projection="always")
  tokens = sentences(6, (3,))
  state = started(model, tokens)
  loss = lambda batch: jax.jit(model.outputs["training_loss"])(state, batch, jax.random.key(1))
  padded = loss({"tokens": jnp.asarray(tokens), "mask": jnp.array([1.0, 1, 1, 1, 0, 0])})
  np.testing.assert_allclose(padded, loss({"tokens": jnp.asarray(tokens[:4])}), rtol=1e-6)


def test_a_sentence_s_views_differ_by_dropout_alone():
  tokens = {"tokens": jnp.asarray(sentences(8))}
  model = simcse(encoder=encoder(**TRUNK))
  _, metrics = jax.jit(model.update)(started(model, tokens["tokens"]), tokens, jax.random.key(1))
  assert metrics["alignment"] > 1e-4
  # Without any dropout they would be the same: alignment 0, and a loss that teaches nothing about meaning.
  still = simcse(encoder=encoder(**STILL))
  with pytest.raises(InputError, match="two views would be the same"):
    started(still, tokens["tokens"])
  twice = jnp.stack([tokens["tokens"]] * 2, 1)
  state = started(still, twice)
  _, actual = jax.jit(still.update)(state, {"tokens": twice}, jax.random.key(1))
  np.testing.assert_allclose(actual["alignment"], 0, atol=1e-6)


def test_projection_is_of_training_alone_unless_always():
  tokens = {"tokens": jnp.asarray(sentences(3))}
  models = {name: simcse(encoder=encoder(**TRUNK), projection=name) for name in ("training", "always", "never")}
  states = {name: started(model, tokens["tokens"]) for name, model in models.items()}
  vectors = {name: np.asarray(jax.jit(model.embed)(states[name], tokens)) for name, model in models.items()}
  np.testing.assert_array_equal(vectors["training"], vectors["never"])
  head = states["always"].params["projection"]
  np.testing.assert_allclose(vectors["always"], np.tanh(vectors["never"] @ head["kernel"] + head["bias"]), atol=1e-6)
  assert "projection" not in states["never"].params


@pytest.mark.parametrize("pooling", ["cls", "mean", "first_last_mean"])
def test_packed_sentences_have_the_vectors_that_they_have_alone(pooling):
  model = simcse(encoder=encoder(**TRUNK), pooling=pooling, projection="always")
  tokens = np.array([[1, 7, 8, 9, 2, -1, -1, -1, -1, -1], [1, 20, 21, 2, -1, -1, -1, -1, -1, -1]], np.int32)
  state = started(model, tokens)
  alone = jax.jit(model.embed)(state, {"tokens": jnp.asarray(tokens)})
  packed = {"tokens": jnp.array([[1, 7, 8, 9, 2, 1, 20, 21, 2, -1]]), "slots": jnp.zeros((1, 2), jnp.int32),
            "parts": jnp.array([[0, 0, 0, 0, 0, 1, 1, 1, 1, -1]])}
  np.testing.assert_allclose(model.outputs["embed_packed"](state, packed)[0], alone, atol=2e-6)


def test_loss_of_the_pretraining_is_added():
  pretraining = bert(**STILL, mask_id=4, special_ids=(0, 1, 2, 3, 4))
  model = simcse(encoder=encoder(**STILL), auxiliary=pretraining, auxiliary_weight=0.1, optimizer=optax.sgd(0.0))
  tokens = {"tokens": jnp.asarray(sentences(6, (2,)))}
  state = started(model, tokens["tokens"])
  _, metrics = jax.jit(model.update)(state, tokens, jax.random.key(2))
  rows = {"tokens": tokens["tokens"].reshape(-1, T)}
  other = pretraining.outputs["training_loss"](state, rows, jax.random.split(jax.random.key(2))[1])
  np.testing.assert_allclose(metrics["auxiliary_loss"], other, rtol=1e-5)
  np.testing.assert_allclose(metrics["loss"], metrics["contrastive_loss"] + 0.1 * other, rtol=1e-5)


def test_learns_which_sentences_say_the_same():
  """Pairs share their three words out of ten topics, in any order, among words that say nothing."""
  rng = np.random.default_rng(0)

  def pairs(num):
    topics = rng.integers(0, 10, num)
    words = rng.integers(40, V, (num, 2, 5))
    words[:, :, 1:4] = 5 + 3 * topics[:, None, None] + rng.permuted(np.tile(np.arange(3), (num, 2, 1)), axis=2)
    return topics, np.concatenate([np.ones((num, 2, 1), int), words], 2).astype(np.int32)

  model = simcse(encoder=encoder(**STILL), pooling="mean", projection="never", temperature=0.2,
                 optimizer=optax.adam(3e-3))
  state = train(model, array_source({"tokens": pairs(512)[1]}, 32), steps=150, steps_per_dispatch=50)
  topics, tokens = pairs(100)
  vectors = np.asarray(jax.jit(model.embed)(state, {"tokens": jnp.asarray(tokens[:, 0])}))
  near = cosines(vectors, vectors) - 2 * np.eye(100)
  assert np.mean(topics[near.argmax(1)] == topics) > 0.95


def load(name, path, **data):
  config = presets.load_config(name, "tiny")
  config.data.update({"name": str(path), "vocab_size": 80, **data})
  return build.prepare(config, data_dir=None, cache_dir=None)


def test_pairs_and_triples_of_a_file(tmp_path):
  path = tmp_path / "triples.tsv"
  path.write_text("".join(f"a {x} cat\tone {x} animal\tno {x} here\n" for x in "bcdefghijk"))
  source = load("simcse", path).splits["train"]
  assert source.batch_at(0)["tokens"].shape == (8, 3, 16) and source.facts["num_rows"] == 10
  scored = tmp_path / "scored.tsv"
  scored.write_text("".join(f"a {x} cat\tone {x} animal\t{i}.5\n" for i, x in enumerate("bcd")))
  with pytest.raises(InputError, match="its pairs have a score"):
    load("simcse", scored)
  with pytest.raises(InputError, match="holds triples, and model=bert"):
    load("bert", path)


def test_what_does_not_fit_is_refused():
  for options, message in (
      (dict(projection="sometimes"), "projection='sometimes'"), (dict(temperature=0.0), "temperature=0"),
      (dict(auxiliary_weight=0.1), "auxiliary_weight=0.1"), (dict(pooling="average"), "pooling='average'")):
    with pytest.raises(InputError, match=message):
      simcse(encoder=encoder(**TRUNK), **options)
  with pytest.raises(InputError, match="first token of a causal network"):
    simcse(encoder=gpt_encoder(**TRUNK))
  with pytest.raises(InputError, match="batch_size=1"):
    started(simcse(encoder=encoder(**TRUNK)), sentences(1))
