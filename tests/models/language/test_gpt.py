import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import check_gradients

from embeddings_jax import array_source, train
from embeddings_jax.interop import huggingface
from embeddings_jax.models.language.gpt import Gpt, encoder, gpt
from embeddings_jax.types import InputError

SIZE = dict(vocab_size=29, dim=24, num_layers=2, num_heads=3, max_length=16)


def padded(*rows):
  table = np.full((len(rows), max(map(len, rows))), -1, np.int32)
  for target, row in zip(table, rows):
    target[:len(row)] = row
  return jnp.asarray(table)


@pytest.fixture(scope="module")
def setup():
  """A model without dropout, its state with larger weights than at the start, a batch with padding."""
  random = np.random.default_rng(0)
  batch = {"tokens": padded(random.integers(0, 29, 8), random.integers(0, 29, 5))}
  model = gpt(**SIZE, dropout=0.0, attention_dropout=0.0, chunk=5, sample_length=6, temperature=0.0)
  state = jax.jit(model.init)(jax.random.key(0), batch)
  params = jax.tree.map(lambda x: x + 0.2 * random.normal(size=x.shape).astype(np.float32), state.params)
  return model, state._replace(params=params), batch


@jax.jit
def logits_of(params, tokens):
  """By the trunk alone."""
  trunk = encoder(**SIZE)
  return trunk.apply({"params": params["encoder"]}, trunk.apply({"params": params["encoder"]}, tokens),
                     method="decode")


def test_the_loss_is_a_loop_over_the_tokens(setup):
  model, state, batch = setup
  logits, tokens = np.asarray(logits_of(state.params, batch["tokens"]), np.float64), np.asarray(batch["tokens"])
  log_p, right = np.zeros((2, 7)), 0
  for b, t in np.argwhere(tokens[:, 1:] >= 0):
    row = logits[b, t]
    log_p[b, t] = row[tokens[b, t + 1]] - np.log(np.exp(row).sum())
    right += row.argmax() == tokens[b, t + 1]
  actual = {name: jax.jit(model.outputs[name])(state, batch)
            for name in ("loss", "log_likelihood", "measures")}
  assert actual["loss"] == pytest.approx(-log_p.sum() / 11, rel=1e-5)
  np.testing.assert_allclose(actual["log_likelihood"], log_p, atol=1e-4)
  np.testing.assert_allclose(actual["measures"]["loss"], [-log_p.sum(), 11], rtol=1e-5)
  np.testing.assert_allclose(actual["measures"]["accuracy"], [right, 11])
  halved = jax.jit(model.outputs["measures"])(state, batch | {"mask": jnp.array([0.0, 1.0])})
  np.testing.assert_allclose(halved["loss"], [-log_p[1].sum(), 4], rtol=1e-5)
  _, metrics = jax.jit(model.update)(state, batch, jax.random.key(1))
  assert metrics["perplexity"] == pytest.approx(np.exp(float(metrics["loss"])), rel=1e-5)
  assert metrics["accuracy"] == pytest.approx(right / 11)


def test_without_knowledge_the_loss_is_the_logarithm_of_the_vocabulary(setup):
  model, state, batch = setup
  nothing = state._replace(params=jax.tree.map(jnp.zeros_like, state.params))
  assert jax.jit(model.outputs["loss"])(nothing, batch) == pytest.approx(np.log(29), rel=1e-6)


def test_a_prediction_knows_nothing_of_what_comes_after(setup):
  _, state, batch = setup
  direction = jax.random.normal(jax.random.key(0), (29,))

  def prediction(table, position):  # Row t of the table is a part of embedding t alone.
    params = {"encoder": state.params["encoder"] | {"position_embedding": table}}
    return logits_of(params, batch["tokens"])[0, position] @ direction

  gradient = jax.jit(jax.grad(prediction))
  for position in (0, 3):
    actual = np.asarray(gradient(state.params["encoder"]["position_embedding"], position))
    assert np.abs(actual[:position + 1]).max(1).min() > 0
    np.testing.assert_array_equal(actual[position + 1:], 0)


def test_greedy_sampling_is_a_loop_of_argmax_and_stops_at_the_end(setup):
  model, state, batch = setup
  actual = np.asarray(jax.jit(model.outputs["sample"], static_argnums=2)(state, jax.random.key(0), 2, batch))
  full = np.full((2, 14), 0, np.int32)  # One shape for the loop; what comes after a place does not matter.
  for b in range(2):
    row = [int(token) for token in batch["tokens"][b] if token >= 0]
    start = len(row)
    for _ in range(6):
      full[b, :len(row)] = row
      row.append(int(logits_of(state.params, jnp.asarray(full))[b, len(row) - 1].argmax()))
    assert row[start:] == actual[b].tolist()
  end = int(actual[0, 2])
  stopping = gpt(**SIZE, sample_length=6, temperature=0.0, end_id=end)
  first = actual[0].tolist().index(end)
  sample = jax.jit(stopping.outputs["sample"], static_argnums=2)
  ended = np.asarray(sample(state, jax.random.key(0), 2, batch))
  np.testing.assert_array_equal(ended[0], np.where(np.arange(6) <= first, actual[0], -1))
  with pytest.raises(InputError, match="prompt of 8 tokens and sample_length=10: the model knows positions up to 16"):
    gpt(**SIZE, sample_length=10).outputs["sample"](state, jax.random.key(0), 2, batch)
  with pytest.raises(InputError, match="num=3: the batch has 2 prompts; give one, or one for each sample"):
    model.outputs["sample"](state, jax.random.key(0), 3, batch)
  with pytest.raises(InputError, match="batch: a prompt is needed"):
    model.outputs["sample"](state, jax.random.key(0), 1)
  # Without a prompt a document is begun, as after the token between documents.
  begun = sample(state, jax.random.key(0), 1, {"tokens": jnp.array([[end]])})
  np.testing.assert_array_equal(sample(state, jax.random.key(0), 1, None), begun)


def test_samples_have_the_models_distribution(setup):
  _, state, batch = setup
  model = gpt(**SIZE, sample_length=1, temperature=0.7, top_k=5)
  sample = jax.jit(model.outputs["sample"], static_argnums=2)
  actual = np.asarray(sample(state, jax.random.key(3), 4000, {"tokens": batch["tokens"][:1]}))[:, 0]
  scores = np.asarray(logits_of(state.params, batch["tokens"]), np.float64)[0, -1] / 0.7
  expected = np.where(scores >= np.sort(scores)[-5], np.exp(scores - scores.max()), 0)
  expected /= expected.sum()
  share = np.bincount(actual, minlength=29) / 4000
  np.testing.assert_array_equal(share[expected == 0], 0)
  assert (np.abs(share - expected) <= 4 * np.sqrt(expected * (1 - expected) / 4000)).all()


def test_learns_planted_bigrams():
  """Every token has two followers, .9 and .1: the loss goes down to their entropy."""
  random = np.random.default_rng(0)
  followers = np.stack([random.permutation(12), random.permutation(12)])
  tokens = np.zeros((256, 12), np.int32)
  tokens[:, 0] = random.integers(0, 12, 256)
  for t in range(1, 12):
    tokens[:, t] = followers[(random.random(256) < 0.1).astype(int), tokens[:, t - 1]]
  import optax
  model = gpt(vocab_size=12, dim=16, num_layers=1, num_heads=2, max_length=12, dropout=0.0, attention_dropout=0.0,
              norm="pre", optimizer=optax.adam(1e-2))
  losses = []
  train(model, array_source({"tokens": tokens}, 64), steps=150, steps_per_dispatch=50, log_every=50,
        write=lambda step, record: losses.append(record))
  assert losses[-1]["loss"] < 0.325 + 0.1 and losses[-1]["accuracy"] > 0.85  # Entropy of .9 and .1.


def test_mistakes_are_named():
  for change, message in (({"num_heads": 5}, "multiple of num_heads=5"), ({"temperature": -1.0}, "temperature=-1.0"),
                          ({"top_p": 0.0}, "top_p=0.0"), ({"top_k": -1}, "top_k=-1"), ({"pooling": "sum"}, "pooling"),
                          ({"norm": "none"}, "norm='none'")):
    with pytest.raises(InputError, match=message):
      gpt(**SIZE | change)


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["openai-gpt", "gpt2"])
def test_logits_loss_and_gradients_are_transformers(kind, tmp_path):
  import torch
  import transformers
  torch.manual_seed(0)
  sizes = dict(vocab_size=1003, n_embd=36, n_layer=3, n_head=3, n_positions=21, initializer_range=0.2,
               bos_token_id=None, eos_token_id=None)
  theirs = (transformers.OpenAIGPTLMHeadModel(transformers.OpenAIGPTConfig(**sizes)) if kind == "openai-gpt" else
            transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, n_inner=50)))
  with torch.no_grad():
    for value in theirs.parameters():
      if value.ndim == 1:  # Biases and norms start as 0 and 1, which would hide mistakes.
        value.add_(0.1 * torch.randn(value.shape))
  theirs.eval().save_pretrained(tmp_path / "model")
  name, hyper, params = huggingface.read(tmp_path / "model")
  assert name == "gpt"

  random = np.random.default_rng(0)
  tokens = np.asarray(padded(random.integers(0, 1003, 19), random.integers(0, 1003, 11), random.integers(0, 1003, 2)))
  valid = tokens >= 0
  ids = torch.tensor(np.maximum(tokens, 0), dtype=torch.long)
  answer = theirs(ids, attention_mask=torch.tensor(valid).long(),
                  labels=torch.tensor(np.where(valid, tokens, -100), dtype=torch.long))
  answer.loss.backward()
  with torch.no_grad():
    for parameter in theirs.parameters():
      parameter.copy_(parameter.grad)
  theirs.save_pretrained(tmp_path / "gradient")
  expected = huggingface.read(tmp_path / "gradient")[2]

  known = {key: value for key, value in hyper.items() if key not in ("num_segments", "position_offset",
                                                                     "embedding_norm", "causal")}
  model = gpt(**known | dict(dropout=0.0, attention_dropout=0.0), chunk=20)
  batch = {"tokens": jnp.asarray(tokens)}
  state = jax.eval_shape(model.init, jax.random.key(0), batch)
  assert jax.tree.map(lambda x: x.shape, state.params) == jax.tree.map(np.shape, params)
  with jax.default_matmul_precision("highest"):
    logits = jax.jit(lambda params: Gpt(hyper).apply({"params": params}, batch["tokens"], method="logits"))(params)
    loss, gradient = jax.jit(jax.value_and_grad(
        lambda params: model.outputs["loss"](state._replace(params=params), batch)))(params)
  scale = float(np.abs(answer.logits.detach().numpy()).max())
  assert np.abs(np.asarray(logits) - answer.logits.detach().numpy())[valid].max() < 1e-5 * max(1.0, scale)
  assert float(loss) == pytest.approx(answer.loss.item(), rel=1e-6)
  check_gradients(gradient, expected)
