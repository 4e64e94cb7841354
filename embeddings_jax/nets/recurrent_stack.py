"""Layers of recurrent cells that go on from a given state, as language models of running text need.

  rnn   h' = tanh(W x + U h + b)                                              (Elman 1990)
  gru   r, z = σ(W x + U h + b),  n = tanh(W x + b + r ∘ (U h + c)),  h' = (1 - z) ∘ n + z ∘ h   (Cho et al. 2014)
  lstm  i, f, o = σ(W x + U h + b),  g = tanh(W x + U h + b),  c' = f ∘ c + i ∘ g,  h' = o ∘ tanh(c')

in the forms and orders of gates of cuDNN and PyTorch (r, z, n and i, f, g, o), whose two biases are one here where
they are added. `W x` of all times is one product outside of the loop.
"""
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from embeddings_jax.nets.recurrent import orthogonal_gates

State = tuple[Array, ...]  # float32 [B, D] each, the output first.


class Cell(NamedTuple):
  """A recurrent cell.

  Attributes:
    num_gates: Number of its products.
    num_states: Number of its vectors, of which the first is the output.
    step: (W x + b, U h, c or None, state) -> state, of which the first two have `num_gates` times D features.
  """

  num_gates: int
  num_states: int
  step: Callable[[Array, Array, Array | None, State], State]


def rnn_step(x: Array, u: Array, candidate_bias: Array | None, state: State) -> State:
  del candidate_bias, state
  return (jnp.tanh(x + u),)


def gru_step(x: Array, u: Array, candidate_bias: Array | None, state: State) -> State:
  (r, z, n), (u_r, u_z, u_n) = jnp.split(x, 3, -1), jnp.split(u, 3, -1)
  z = nn.sigmoid(z + u_z)
  n = jnp.tanh(n + nn.sigmoid(r + u_r) * (u_n + candidate_bias))
  return ((1 - z) * n + z * state[0],)


def lstm_step(x: Array, u: Array, candidate_bias: Array | None, state: State) -> State:
  del candidate_bias
  i, f, g, o = jnp.split(x + u, 4, -1)
  c = nn.sigmoid(f) * state[1] + nn.sigmoid(i) * jnp.tanh(g)
  return nn.sigmoid(o) * jnp.tanh(c), c


CELLS = {"rnn": Cell(1, 1, rnn_step), "gru": Cell(3, 1, gru_step), "lstm": Cell(4, 2, lstm_step)}


class RecurrentStack(nn.Module):
  """Layers of one cell, [B, T, F] -> [B, T, D] of the last, and their states.

  Attributes:
    cell: One of `CELLS`.
    dim: D.
    num_layers: Number of layers.
    dropout: Dropout rate between layers.
    dtype: Data type of the products; the states are float32.
    unroll: Times in an iteration of the loop.
  """

  cell: str
  dim: int
  num_layers: int
  dropout: float = 0.0
  dtype: DTypeLike = jnp.float32
  unroll: int = 1

  @nn.compact
  def __call__(
      self,
      inputs: Float[Array, "batch time features"],
      carry: Float[Array, "batch layers states dim"],
      *,
      kept: Bool[Array, "batch time"] | None = None,
      valid: Bool[Array, "batch time"] | None = None,
      deterministic: bool = True,
  ) -> tuple[Float[Array, "batch time dim"], Float[Array, "batch layers states dim"]]:
    """Returns the outputs and the states behind the last time.

    Args:
      inputs: Vectors.
      carry: States before the first time, see `zero_carry`.
      kept: False where the state is zero before that time is read.
      valid: False on padding, which changes no state.
      deterministic: Without dropout; else the `dropout` rng collection is used.
    """
    cell, x, states = CELLS[self.cell], inputs, []
    for depth in range(self.num_layers):
      if depth and self.dropout:
        x = nn.Dropout(self.dropout)(x, deterministic)
      x, state = self._layer(depth, cell, x, carry[:, depth], kept, valid)
      states.append(state)
    return x, jnp.stack(states, 1)

  def _layer(self, depth, cell, inputs, carry, kept, valid):
    width = cell.num_gates * self.dim
    bias_init = nn.initializers.zeros if self.cell != "lstm" else _forget_one
    projected = nn.Dense(width, dtype=self.dtype, bias_init=bias_init, name=f"input_{depth}")(inputs)
    kernel = self.param(f"recurrent_{depth}", orthogonal_gates, (self.dim, width)).astype(self.dtype)
    bias = self.param(f"candidate_bias_{depth}", nn.initializers.zeros, (self.dim,)) if self.cell == "gru" else None

    def step(state, now):
      x, keep, valid = now
      before = state if keep is None else tuple(jnp.where(keep[:, None], part, 0.0) for part in state)
      u = jnp.dot(before[0].astype(self.dtype), kernel).astype(jnp.float32)
      after = cell.step(x.astype(jnp.float32), u, bias, before)
      if valid is not None:
        after = tuple(jnp.where(valid[:, None], new, old) for new, old in zip(after, state))
      return after, after[0]

    times = (jnp.moveaxis(projected, 1, 0), None if kept is None else kept.T, None if valid is None else valid.T)
    state, outputs = jax.lax.scan(step, tuple(jnp.moveaxis(carry, 1, 0)), times, unroll=self.unroll)
    return jnp.moveaxis(outputs, 0, 1), jnp.stack(state, 1)


def zero_carry(num_rows: int, cell: str, dim: int, num_layers: int) -> Float[Array, "batch layers states dim"]:
  """Returns the states before the first time."""
  return jnp.zeros((num_rows, num_layers, CELLS[cell].num_states, dim))


def _forget_one(rng, shape, dtype=jnp.float32):
  del rng
  return jnp.zeros(shape, dtype).at[shape[0] // 4:shape[0] // 2].set(1.0)
