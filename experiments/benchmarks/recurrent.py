"""Benchmark of recurrent cells: what they can carry over a gap, and how far gradients reach."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from embeddings_jax import array_source, train
from embeddings_jax.models.language.lstm_lm import lstm_lm
from embeddings_jax.nets.recurrent_stack import CELLS, RecurrentStack, zero_carry
from embeddings_jax.types import InputError
from experiments import command

FLAGS = flags.FLAGS
SYMBOLS, LENGTH, DIM = 8, 5, 64
BLANK, MARK = SYMBOLS, SYMBOLS + 1


def copy_task() -> dict:
  """Accuracy of copying 5 symbols of 8 over gaps of `--numbers` blanks (Hochreiter & Schmidhuber 1997), on new texts,
  by each cell of `lstm_lm` after `--steps` updates; and the norm of the last output's gradient to the inputs at these
  lags, relative to lag 0, of cells before training."""
  gaps = command.listed(FLAGS["numbers"], int)
  if min(gaps) < 1:
    raise InputError("--numbers: gaps are at least 1")
  rows = []
  for cell in CELLS:
    slopes = gradient_norms(cell, max(gaps) + 1)
    for gap in gaps:
      rows.append({"cell": cell, "gap": gap, "accuracy": round(copied(cell, gap), 4),
                   "gradient": float(f"{slopes[gap] / slopes[0]:.3g}")})
  lines = "; ".join(f"{cell} " + ", ".join(f"{row['gap']}: {row['accuracy']:.3f}" for row in rows
                                           if row["cell"] == cell) for cell in CELLS)
  return {"summary": f"accuracy of copying {LENGTH} of {SYMBOLS} symbols by gap (chance {1 / SYMBOLS:.3f}) after "
                     f"{FLAGS.steps} updates, {lines}", "rows": rows}


def texts(num: int, gap: int, seed: int) -> np.ndarray:
  """Symbols, blanks, a mark, and the symbols again: int32 [num, 2 LENGTH + gap + 1]."""
  symbols = np.random.default_rng(seed).integers(0, SYMBOLS, (num, LENGTH))
  middle = np.full((num, gap + 1), BLANK)
  middle[:, -1] = MARK
  return np.concatenate([symbols, middle, symbols], 1).astype(np.int32)


def copied(cell: str, gap: int) -> float:
  """Returns the fraction of symbols that a trained model copies from new texts."""
  model = lstm_lm(vocab_size=SYMBOLS + 2, dim=DIM, num_layers=1, cell=cell, dropout=0.0,
                  optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(3e-3)))
  train_texts = texts(20_000, gap, FLAGS.seed)
  source = array_source({"tokens": train_texts, "begins": np.ones(len(train_texts), np.float32)}, 64, seed=FLAGS.seed)
  state = train(model, source, steps=FLAGS.steps, seed=FLAGS.seed, steps_per_dispatch=50)
  new = jnp.asarray(texts(500, gap, FLAGS.seed + 1))

  @jax.jit
  def right(state):
    ranks = []
    for i in range(LENGTH):  # By the likelihood of every symbol in this place.
      place = new.shape[1] - LENGTH + i
      options = jnp.repeat(new[:, :place + 1], SYMBOLS, 0).at[:, -1].set(jnp.tile(jnp.arange(SYMBOLS), len(new)))
      scores = model.outputs["log_likelihood"](state, {"tokens": options})[:, -1].reshape(-1, SYMBOLS)
      ranks.append(scores.argmax(1) == new[:, place])
    return jnp.stack(ranks).mean()

  return float(right(state))


def gradient_norms(cell: str, length: int) -> np.ndarray:
  """Returns the norm of the last output's gradient to the input at each lag, of a cell before training."""
  stack = RecurrentStack(cell, DIM, 1)
  x = jax.random.normal(jax.random.key(FLAGS.seed), (16, length, DIM))
  carry = zero_carry(16, cell, DIM, 1)
  params = stack.init(jax.random.key(FLAGS.seed + 1), x, carry)
  slopes = jax.jit(jax.grad(lambda x: stack.apply(params, x, carry)[0][:, -1].sum()))(x)
  return np.linalg.norm(slopes, axis=(0, 2))[::-1]
