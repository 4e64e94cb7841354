"""Recurrent language model: torch's cells, the carried state, documents, the copy task, vanishing gradients."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from embeddings_jax.data.pipelines.token_streams import stream_source
from embeddings_jax.models.language.lstm_lm import lstm_lm
from embeddings_jax.nets.recurrent_stack import CELLS, RecurrentStack, zero_carry
from embeddings_jax.types import InputError

END = 0
SIZE = dict(vocab_size=23, end_id=END, dim=6, cell_dim=8, dropout=0.0)


@pytest.mark.parity
@pytest.mark.parametrize("cell", CELLS)
def test_two_layers_equal_torch_from_a_given_state(cell):
  import torch

  torch.manual_seed(0)
  theirs = getattr(torch.nn, cell.upper())(5, 7, num_layers=2, batch_first=True)
  get = lambda name: getattr(theirs, name).detach().numpy()
  params = {}
  for depth in range(2):
    bias, other = get(f"bias_ih_l{depth}"), get(f"bias_hh_l{depth}")
    if cell == "gru":  # The candidate's second bias is within the product with r.
      params[f"candidate_bias_{depth}"] = other[14:]
      other = np.concatenate([other[:14], np.zeros(7, np.float32)])
    params[f"input_{depth}"] = {"kernel": get(f"weight_ih_l{depth}").T, "bias": bias + other}
    params[f"recurrent_{depth}"] = get(f"weight_hh_l{depth}").T
  x = torch.randn(3, 11, 5)
  start = torch.randn(CELLS[cell].num_states, 2, 3, 7)
  expected, last = theirs(x, tuple(start) if cell == "lstm" else start[0])
  carry = jnp.asarray(start.numpy().transpose(2, 1, 0, 3))
  actual, state = jax.jit(RecurrentStack(cell, 7, 2).apply)({"params": params}, jnp.asarray(x.numpy()), carry)
  np.testing.assert_allclose(actual, expected.detach().numpy(), atol=2e-6)
  last = torch.stack(last if cell == "lstm" else [last]).detach().numpy()
  np.testing.assert_allclose(state, last.transpose(2, 1, 0, 3), atol=2e-6)


def test_rows_continue_rows():
  """The parts of a stream, side by side; a new epoch begins with zero states."""
  stream = np.arange(5, 108, dtype=np.uint16)
  source = stream_source(stream, 6, 4)
  assert source.facts["steps_per_epoch"] == 4 and not source.may_pad
  batches = [source.batch_at(step) for step in range(5)]
  joined = np.concatenate([batch["tokens"][:, :-1] for batch in batches[:4]], 1)
  np.testing.assert_array_equal(joined, stream[:100].reshape(4, 25)[:, :24])
  for before, after in zip(batches[:3], batches[1:4]):
    np.testing.assert_array_equal(before["tokens"][:, -1], after["tokens"][:, 0])
  assert [batch["begins"].tolist() for batch in batches] == [[1] * 4, *[[0] * 4] * 3, [1] * 4]
  np.testing.assert_array_equal(source.assemble(source.resident, source.feed_at(2, slice(1, 3)))["tokens"],
                                batches[2]["tokens"][1:3])
  with pytest.raises(InputError, match="batch_size=9: parts the text of 50 tokens into streams of 5"):
    stream_source(stream[:50], 6, 9)


def started(model, tokens):
  state = jax.jit(model.init)(jax.random.key(0), {"tokens": tokens})
  wide = jax.tree.map(lambda x: x + 0.5 * jax.random.normal(jax.random.key(x.size), x.shape), state.params)
  return state._replace(params=wide)


def test_carried_states_equal_one_long_row():
  """Three updates at a rate of 0 over documents that end within a window and at its borders."""
  model = lstm_lm(**SIZE, optimizer=optax.sgd(0.0))
  rows = np.random.default_rng(0).integers(1, 23, (2, 13))
  rows[0, 6], rows[1, [4, 8]] = END, END
  tokens = jnp.asarray(rows)
  state = started(model, tokens)
  whole = np.asarray(jax.jit(model.outputs["log_likelihood"])(state, {"tokens": tokens}))
  update, losses = jax.jit(model.update), []
  state = state._replace(extra={"carry": state.extra["carry"] + 9})  # Of another epoch: `begins` drops it.
  for step in range(3):
    batch = {"tokens": tokens[:, 4 * step:4 * step + 5], "begins": jnp.full(2, float(step == 0))}
    state, metrics = update(state, batch, jax.random.key(step))
    losses.append(float(metrics["loss"]))
  np.testing.assert_allclose(losses, [-whole[:, 4 * i:4 * i + 4].mean() for i in range(3)], rtol=1e-5)
  # Behind the end of a document nothing is known of it.
  other = jnp.asarray(np.where(np.arange(13) < 6, 7, rows))[:1]
  actual = jax.jit(model.outputs["log_likelihood"])(state, {"tokens": other})
  np.testing.assert_allclose(actual[0, 6:], whole[0, 6:], rtol=1e-5)
  assert np.abs(actual[0, :5] - whole[0, :5]).min() > 1e-3


def test_padding_changes_nothing_and_sampling_continues_a_prompt():
  """The likeliest tokens, each by the whole text before it."""
  model = lstm_lm(**SIZE, temperature=0.0, sample_length=4)
  prompt = jnp.array([[3, 4, 5, -1, -1], [6, 7, 8, 9, 10]])
  state = started(model, prompt)
  drawn = np.asarray(jax.jit(model.outputs["sample"], static_argnums=2)(
      state, jax.random.key(0), 2, {"tokens": prompt}))
  score = jax.jit(model.outputs["log_likelihood"])
  for row, size in ((0, 3), (1, 5)):
    text = prompt[row, :size].tolist()
    for token in drawn[row]:
      options = jnp.asarray([[*text, other] for other in range(23)])
      assert score(state, {"tokens": options})[:, -1].argmax() == token
      text.append(int(token))
      if token == END:
        break
  vectors = jax.jit(model.embed)(state, {"tokens": prompt})
  np.testing.assert_allclose(vectors[0], model.embed(state, {"tokens": prompt[:1, :3]})[0], atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_vanish_in_rnn_and_stay_where_gates_are_open(cell):
  """The last output's gradient to inputs k times before: of rnn the product of its Jacobians; gates that keep the
  state (their bias is raised by 3) keep the gradient."""
  stack = RecurrentStack(cell, 16, 1)
  x = 0.5 * jax.random.normal(jax.random.key(1), (2, 60, 16))
  carry = zero_carry(2, cell, 16, 1)
  params = jax.jit(stack.init)(jax.random.key(0), x, carry)["params"]
  if cell != "rnn":  # z of gru, f of lstm.
    params["input_0"]["bias"] = params["input_0"]["bias"].at[16:32].add(3.0)

  @jax.jit
  def run(x):
    outputs, _ = stack.apply({"params": params}, x, carry)
    return outputs[:, -1].sum(), outputs

  slopes, outputs = (np.asarray(actual, np.float64) for actual in jax.grad(run, has_aux=True)(x))
  norms = np.linalg.norm(slopes, axis=(0, 2))[::-1]
  if cell != "rnn":
    assert norms[50] > 0.05 * norms[0]
    return
  assert norms[50] < 1e-4 * norms[0]
  back = np.ones((2, 16))
  for lag in range(60):
    back = back * (1 - outputs[:, 59 - lag] ** 2)
    expected = back @ np.asarray(params["input_0"]["kernel"], np.float64).T
    np.testing.assert_allclose(slopes[:, 59 - lag], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    back = back @ np.asarray(params["recurrent_0"], np.float64).T


def test_what_does_not_fit_is_refused():
  for options, message in (
      (dict(cell="gated"), "cell='gated': must be one of rnn, gru, lstm"),
      (dict(accumulate=2), "accumulate=2: each row"),
      (dict(pooling="cls"), "first token sees no other"), (dict(dropout=1.0), "dropout=1.0"),
      (dict(num_layers=0), "num_layers=0: must be at least 1")):
    with pytest.raises(InputError, match=message):
      lstm_lm(**{**SIZE, **options})
