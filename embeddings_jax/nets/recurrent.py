"""Recurrent networks."""
import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float


class GRU(nn.Module):
  """Gated recurrent unit over time (Cho et al. 2014, in the form of cuDNN, PyTorch and Flax's `GRUCell`).

    r = σ(W_r x + U_r h),  z = σ(W_z x + U_z h),  n = tanh(W_n x + r ∘ (U_n h + b)),  h' = (1 - z) ∘ n + z ∘ h

  `W x` of all times and gates is one matrix product outside the loop. Gates are in the order r, z, n.

  Attributes:
    dim: of the hidden state, which starts at zero and is kept in float32.
    dtype: of the matrix products.
    unroll: time steps per iteration of the loop.
  """

  dim: int
  dtype: DTypeLike = jnp.float32
  unroll: int = 1

  @nn.compact
  def __call__(self, inputs: Float[Array, "batch time features"]) -> Float[Array, "batch time dim"]:
    projected = nn.Dense(3 * self.dim, dtype=self.dtype, name="input")(inputs)
    kernel = self.param("recurrent", _orthogonal_gates, (self.dim, 3 * self.dim))
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


def _orthogonal_gates(rng, shape, dtype=jnp.float32):
  """One orthogonal matrix per gate, side by side."""
  keys = jax.random.split(rng, shape[1] // shape[0])
  return jnp.concatenate([nn.initializers.orthogonal()(key, (shape[0], shape[0]), dtype) for key in keys], axis=1)
