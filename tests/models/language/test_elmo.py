"""ELMo: its LSTM, its characters, what each direction sees, its loss, and that it learns."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from scipy.special import log_softmax

from embeddings_jax.models.language.elmo import elmo, encoder
from embeddings_jax.models.supervised.finetune import finetune
from embeddings_jax.nets.characters import CharacterNetwork
from embeddings_jax.nets.recurrent import LSTM
from embeddings_jax.types import InputError

HYPER = dict(dim=6, cell_dim=10, num_layers=2, character_dim=5, filters=((1, 4), (3, 7)), num_highway=2, dropout=0.0)
V, T, PLACES = 11, 7, 6


def random_batch(seed=0, rows=4):
  rng = np.random.default_rng(seed)
  lengths = np.array([T, T - 2, 3, T])[:rows]
  tokens = np.where(np.arange(T) < lengths[:, None], rng.integers(2, V, (rows, T)), -1)
  tokens[0, 2:4] = [1, 0]  # The end of a sentence and the beginning of the next.
  characters = np.where(tokens[..., None] >= 0, rng.integers(1, 262, (rows, T, PLACES)), 0)
  return {"tokens": jnp.asarray(tokens, jnp.int32), "characters": jnp.asarray(characters, jnp.uint16),
          "mask": jnp.array([1.0, 1.0, 1.0, 0.0])[:rows]}


@pytest.fixture(scope="module")
def trained():
  """A model and its state, of random parameters that are not small."""
  model = elmo(vocab_size=V, **HYPER)
  state = jax.jit(model.init)(jax.random.key(0), random_batch())
  leaves, tree = jax.tree.flatten(state.params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  noisy = [x + 0.5 * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys)]
  state = state._replace(params=jax.tree.unflatten(tree, noisy))

  @jax.jit
  def outputs(state, batch):
    return {"embed": model.embed(state, batch)} | {name: model.outputs[name](state, batch)
                                                   for name in ("loss", "measures", "hidden")}

  return model, state, outputs(state, random_batch())


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("projection, reverse", [(3, True), (0, False)])
def test_lstm_equals_a_loop(projection, reverse):
  lstm = LSTM(8, projection, cell_clip=0.4, projection_clip=0.15, reverse=reverse)
  x = np.asarray(jax.random.normal(jax.random.key(0), (2, 5, 4)))
  valid = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], bool)
  params = jax.jit(lstm.init)(jax.random.key(1), jnp.asarray(x))["params"]
  actual = np.asarray(jax.jit(lstm.apply)({"params": params}, jnp.asarray(x), jnp.asarray(valid)))
  p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
  clipped = 0
  for row in range(2):
    c, h = np.zeros(8), np.zeros(projection or 8)
    for t in (range(4, -1, -1) if reverse else range(5)):
      if not valid[row, t]:
        assert not actual[row, t].any()
        continue
      i, f, g, o = np.split(x[row, t] @ p["input"]["kernel"] + p["input"]["bias"] + h @ p["recurrent"], 4)
      c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
      clipped += (np.abs(c) > 0.4).sum()
      c = c.clip(-0.4, 0.4)
      h = sigmoid(o) * np.tanh(c)
      h = (h @ p["projection"]).clip(-0.15, 0.15) if projection else h
      np.testing.assert_allclose(actual[row, t], h, atol=1e-6)
  assert clipped and p["input"]["bias"].tolist() == [0] * 8 + [1] * 8 + [0] * 16


@pytest.mark.parity
def test_lstm_equals_torch():
  import torch

  theirs = torch.nn.LSTM(4, 8, proj_size=3, batch_first=True)
  weight = {name: value.detach().numpy() for name, value in theirs.named_parameters()}
  params = {"input": {"kernel": weight["weight_ih_l0"].T, "bias": weight["bias_ih_l0"] + weight["bias_hh_l0"]},
            "recurrent": weight["weight_hh_l0"].T, "projection": weight["weight_hr_l0"].T}
  x = np.random.default_rng(0).standard_normal((2, 6, 4)).astype(np.float32)
  given = torch.tensor(x, requires_grad=True)
  expected = theirs(given)[0]
  (expected ** 2).sum().backward()
  ours = lambda params, x: LSTM(8, 3).apply({"params": params}, x)
  np.testing.assert_allclose(ours(params, jnp.asarray(x)), expected.detach().numpy(), atol=1e-6)
  grads, grad_x = jax.grad(lambda params, x: (ours(params, x) ** 2).sum(), (0, 1))(params, jnp.asarray(x))
  np.testing.assert_allclose(grad_x, given.grad.numpy(), atol=1e-5)
  np.testing.assert_allclose(grads["projection"], theirs.weight_hr_l0.grad.numpy().T, atol=1e-5)
  np.testing.assert_allclose(grads["recurrent"], theirs.weight_hh_l0.grad.numpy().T, atol=1e-5)


def test_character_network_equals_a_loop():
  network = CharacterNetwork(262, 5, ((1, 4), (3, 7)), 2, 6)
  characters = np.asarray(random_batch()["characters"])[0, :2]
  params = jax.jit(network.init)(jax.random.key(0), jnp.asarray(characters))["params"]
  actual = jax.jit(network.apply)({"params": params}, jnp.asarray(characters))
  p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
  table = p["embedding"]["embedding"]
  assert table.min() < -0.9 and table.max() > 0.9 and p["gate_0"]["bias"].tolist() == [-2] * 11
  for word, vector in zip(characters, actual):
    maxima = []
    for width in (1, 3):
      kernel, bias = p[f"width_{width}"]["kernel"], p[f"width_{width}"]["bias"]
      places = [table[word[i:i + width]].ravel() @ kernel + bias for i in range(PLACES - width + 1)]
      maxima.append(np.max(np.maximum(places, 0), 0))
    y = np.concatenate(maxima)
    for i in range(2):
      gate = sigmoid(y @ p[f"gate_{i}"]["kernel"] + p[f"gate_{i}"]["bias"])
      y = gate * np.maximum(y @ p[f"highway_{i}"]["kernel"] + p[f"highway_{i}"]["bias"], 0) + (1 - gate) * y
    np.testing.assert_allclose(vector, y @ p["projection"]["kernel"] + p["projection"]["bias"], atol=1e-5)


def test_no_direction_sees_what_it_predicts(trained):
  _, state, _ = trained
  trunk, batch = encoder(**HYPER), random_batch()
  place = 3

  def states(delta):
    def add(call, args, kwargs, context):
      actual = call(*args, **kwargs)
      return actual + delta if isinstance(context.module, CharacterNetwork) else actual

    with nn.intercept_methods(add):
      hidden = trunk.apply({"params": state.params["encoder"]}, batch, method="layers")
    return hidden[0, -1, place]  # [2 dim]

  by_time = np.asarray(jax.jit(jax.jacobian(states))(jnp.zeros((4, T, 6))))[:, 0]  # [2 dim, time, dim]
  forward, backward = np.abs(by_time[:6]).sum((0, 2)), np.abs(by_time[6:]).sum((0, 2))
  assert (forward[place + 1:] == 0).all() and (forward[:place + 1] > 0).all()
  assert (backward[:place] == 0).all() and (backward[place:] > 0).all()


def test_layers(trained):
  model, state, outputs = trained
  batch, hidden = random_batch(), outputs["hidden"]
  assert hidden.shape == (4, 3, T, 12) and hidden.dtype == jnp.float32
  np.testing.assert_array_equal(hidden[:, 0, :, :6], hidden[:, 0, :, 6:])
  # Row 1's words are those of a shorter window.
  short = {key: value[1:2, :T - 2] if value.ndim > 1 else value[1:2] for key, value in batch.items()}
  scale = np.abs(hidden).max()  # Sums are rounded relative to their largest term, otherwise in another program.
  np.testing.assert_allclose(jax.jit(model.outputs["hidden"])(state, short)[0], hidden[1, :, :T - 2],
                             rtol=0, atol=1e-6 * scale)
  words = np.asarray(batch["tokens"]) >= 2
  expected = [hidden[row].mean(0)[words[row]].mean(0) for row in range(4)]
  np.testing.assert_allclose(outputs["embed"], expected, atol=1e-6)


def test_loss_equals_a_loop(trained):
  _, state, outputs = trained
  batch = random_batch()
  last = np.asarray(outputs["hidden"], np.float64)[:, -1]
  softmax = jax.tree.map(lambda x: np.asarray(x, np.float64), state.params["softmax"])
  tokens, actual = np.asarray(batch["tokens"]), {"forward": [], "backward": []}
  for row in range(3):  # The last one is padding.
    for t in range(T):
      for name, other, half, mark in (("forward", t + 1, slice(0, 6), 0), ("backward", t - 1, slice(6, 12), 1)):
        if 0 <= other < T and tokens[row, t] >= 0 and tokens[row, other] >= 0 and tokens[row, other] != mark:
          scores = softmax["kernel"] @ last[row, t, half] + softmax["bias"]
          actual[name].append(-log_softmax(scores)[tokens[row, other]])
  assert len(actual["forward"]) == len(actual["backward"]) == 6 + 4 + 2 - 1
  forward, backward = np.mean(actual["forward"]), np.mean(actual["backward"])
  np.testing.assert_allclose(outputs["loss"], (forward + backward) / 2, rtol=1e-5)
  measures = outputs["measures"]
  np.testing.assert_allclose(measures["forward_loss"], [11 * forward, 11], rtol=1e-5)
  np.testing.assert_allclose(measures["backward_loss"], [11 * backward, 11], rtol=1e-5)
  np.testing.assert_allclose(measures["loss"], [11 * (forward + backward), 22], rtol=1e-5)


def test_learns_planted_bigrams():
  """Word w is followed by w + 1: both directions come to know it, from the spelling."""
  words = 12
  hyper = HYPER | {"num_layers": 1, "num_highway": 1, "filters": ((2, 8),)}
  model = elmo(vocab_size=words + 2, optimizer=optax.adam(0.03), **hyper)
  rng = np.random.default_rng(0)

  def batch():
    tokens = 2 + (rng.integers(0, words, 16)[:, None] + np.arange(T)) % words
    return {"tokens": tokens.astype(np.int32), "mask": np.ones(16, np.float32),
            "characters": (tokens[..., None] * np.arange(1, PLACES + 1)).astype(np.uint16)}

  state, update = jax.jit(model.init)(jax.random.key(0), batch()), jax.jit(model.update)
  for step in range(150):
    state, _ = update(state, batch(), jax.random.key(step))
  last = batch()
  actual = jax.jit(model.outputs["measures"])(state, last)
  metrics = update(state, last, jax.random.key(0))[1]
  for name in ("forward_loss", "backward_loss", "loss"):
    mean = actual[name][0] / actual[name][1]
    assert mean < 0.15 < np.log(words) / 10
    np.testing.assert_allclose(metrics[name], mean, rtol=1e-4)
  np.testing.assert_allclose(metrics["perplexity"], np.exp(mean), rtol=1e-4)


def test_a_task_weighs_the_layers():
  """A tag that is the next word's: the backward LSTM can have it, which spellings alone do not."""
  trunk = encoder(**HYPER | {"num_layers": 1, "num_highway": 1, "filters": ((2, 8),)})
  model = finetune(encoder=trunk, task="tagging", num_classes=3, layers="mix", dropout=0.0,
                   optimizer=optax.adam(0.02))
  rng = np.random.default_rng(0)

  def batch():
    tokens = rng.integers(2, 5, (16, T)).astype(np.int32)
    tags = np.pad(tokens[:, 1:] - 2, ((0, 0), (0, 1)), constant_values=-1)
    characters = (tokens[..., None] * np.arange(1, PLACES + 1)).astype(np.uint16)
    return {"inputs": {"tokens": tokens, "characters": characters}, "targets": {"tags": tags},
            "mask": np.ones(16, np.float32)}

  state, update = jax.jit(model.init)(jax.random.key(0), batch()), jax.jit(model.update)
  for step in range(150):
    state, metrics = update(state, batch(), jax.random.key(step))
  weights = jax.nn.softmax(state.params["head"]["mix"]["weights"])
  assert metrics["accuracy"] > 0.9 and weights[1] > 0.55


@pytest.mark.parametrize("options, message", [
    (dict(num_samples=V), "num_samples=11: must be at least 0 and less than vocab_size=11"),
    (dict(filters=((0, 4),)), "filters=.*must be pairs"),
    (dict(dropout=1.0), "dropout=1.0: must be from 0"),
    (dict(cell_dim=0), "cell_dim=0: must be at least 1"),
    (dict(filters=((PLACES + 1, 4),)), "one is wider than a word's 6 characters"),
])
def test_bad_input(options, message):
  with pytest.raises(InputError, match=message):
    elmo(vocab_size=V, **{**HYPER, **options}).init(jax.random.key(0), random_batch())
