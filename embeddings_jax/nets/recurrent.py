"""Recurrent networks."""
import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float


class GRU(nn.Module):
  """Gated recurrent unit over time (Cho et al. 2014, in the form of cuDNN, PyTorch and Flax's `GRUCell`).

    r = σ(W_r x + U_r h),  z = σ(W_z x + U_z h),  n = tanh(W_n x + r ∘ (U_n h + b)),  h' = (1 - z) ∘ n + z ∘ h

  `W x` of all times and gates is one matrix product outside the loop. Gates are in the order r, z, n.

  Attributes:
    dim: Dimension of the hidden state, which starts at zero and is kept in float32.
    dtype: Data type of the matrix products.
    unroll: time steps per iteration of the loop.
  """

  dim: int
  dtype: DTypeLike = jnp.float32
  unroll: int = 1

  @nn.compact
  def __call__(self, inputs: Float[Array, "batch time features"]) -> Float[Array, "batch time dim"]:
    projected = nn.Dense(3 * self.dim, dtype=self.dtype, name="input")(inputs)
    kernel = self.param("recurrent", orthogonal_gates, (self.dim, 3 * self.dim))
    bias = self.param("candidate_bias", nn.initializers.zeros, (self.dim,))

    def step(h, x):
      r, z, n = jnp.split(x.astype(jnp.float32), 3, axis=-1)
      u = jnp.dot(h.astype(self.dtype), kernel.astype(self.dtype)).astype(jnp.float32)
      u_r, u_z, u_n = jnp.split(u, 3, axis=-1)
      z = nn.sigmoid(z + u_z)
      n = nn.tanh(n + nn.sigmoid(r + u_r) * (u_n + bias))
      h = (1 - z) * n + z * h
      return h, h

    start = jnp.zeros((inputs.shape[0], self.dim), jnp.float32)
    _, hidden = jax.lax.scan(step, start, jnp.moveaxis(projected, 1, 0), unroll=self.unroll)
    return jnp.moveaxis(hidden, 0, 1)


class LSTM(nn.Module):
  """Long short-term memory over time, on request with a projected output (Sak et al. 2014, arXiv:1402.1128).

    i, f, o = σ(W x + U h + b) with W, U, b of each,  g = tanh(W_g x + U_g h + b_g)
    c' = f ∘ c + i ∘ g,  h' = P (o ∘ tanh(c'))

  `W x` of all times and gates is one matrix product outside the loop. Gates are in the order i, f, g, o, which is
  PyTorch's. The bias of the forget gate is 1 at first.

  Attributes:
    dim: Dimension of the cell, which starts at zero and is kept in float32.
    projection: Dimension of the output; 0: it is `dim`, there is no P.
    cell_clip, projection_clip: bounds of the entries of c' and h'; 0: none.
    reverse: from the last time to the first.
    dtype: Data type of the matrix products.
    unroll: time steps per iteration of the loop.
  """

  dim: int
  projection: int = 0
  cell_clip: float = 0.0
  projection_clip: float = 0.0
  reverse: bool = False
  dtype: DTypeLike = jnp.float32
  unroll: int = 1

  @nn.compact
  def __call__(
      self, inputs: Float[Array, "batch time features"], valid: Bool[Array, "batch time"] | None = None,
  ) -> Float[Array, "batch time size"]:
    """Where not `valid`, the state stays as it is and the output is 0."""
    size, init = self.projection or self.dim, nn.initializers.lecun_normal()
    gates = nn.Dense(4 * self.dim, dtype=self.dtype, bias_init=_forget_one, name="input")(inputs)
    recurrent = self.param("recurrent", init, (size, 4 * self.dim)).astype(self.dtype)
    projection = self.param("projection", init, (self.dim, size)).astype(self.dtype) if self.projection else None

    def product(x, kernel):
      return jnp.dot(x.astype(self.dtype), kernel).astype(jnp.float32)

    def step(state, xs):
      c, h = state
      x, kept = xs
      i, f, g, o = jnp.split(x.astype(jnp.float32) + product(h, recurrent), 4, axis=-1)
      new_c = _clipped(nn.sigmoid(f) * c + nn.sigmoid(i) * nn.tanh(g), self.cell_clip)
      new_h = nn.sigmoid(o) * nn.tanh(new_c)
      if projection is not None:
        new_h = _clipped(product(new_h, projection), self.projection_clip)
      if kept is None:
        return (new_c, new_h), new_h
      state = jnp.where(kept[:, None], new_c, c), jnp.where(kept[:, None], new_h, h)
      return state, jnp.where(kept[:, None], new_h, 0.0)

    start = jnp.zeros((len(inputs), self.dim), jnp.float32), jnp.zeros((len(inputs), size), jnp.float32)
    times = jnp.moveaxis(gates, 1, 0), None if valid is None else valid.T
    _, hidden = jax.lax.scan(step, start, times, reverse=self.reverse, unroll=self.unroll)
    return jnp.moveaxis(hidden, 0, 1)


def _clipped(x, bound):
  return jnp.clip(x, -bound, bound) if bound else x


def _forget_one(rng, shape, dtype=jnp.float32):
  del rng
  return jnp.zeros(shape, dtype).at[shape[0] // 4:shape[0] // 2].set(1.0)


def orthogonal_gates(rng, shape, dtype=jnp.float32):
  """Returns one orthogonal matrix for each gate, side by side."""
  keys = jax.random.split(rng, shape[1] // shape[0])
  return jnp.concatenate([nn.initializers.orthogonal()(key, (shape[0], shape[0]), dtype) for key in keys], axis=1)
