"""A word's vector from its spelling."""
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Integer


class CharacterNetwork(nn.Module):
  """Convolutions over a word's characters, the maximum over its places, highway layers, a projection.

  Kim, Jernite, Sontag, Rush 2016, arXiv:1508.06615, and Józefowicz et al. 2016, arXiv:1602.02410: with y = the
  concatenated maxima of relu(W_w * characters + b_w) over the widths w,

    highway:  y' = g ∘ relu(A y + a) + (1 - g) ∘ y,   g = σ(B y + b),   b = -2 at first.

  A convolution is a product of a matrix with neighboring characters side by side, which is some times as fast as
  XLA's convolution on CPUs.

  Attributes:
    num_characters: ids of characters.
    character_dim: Dimension of the characters' vectors.
    filters: (width, number) of each convolution.
    num_highway: layers.
    dim: Dimension of the result.
    dtype: Data type of the products.
  """

  num_characters: int
  character_dim: int
  filters: Sequence[tuple[int, int]]
  num_highway: int
  dim: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, characters: Integer[Array, "*shape places"]) -> Float[Array, "*shape dim"]:
    x = nn.Embed(self.num_characters, self.character_dim, embedding_init=_uniform, dtype=self.dtype,
                 name="embedding")(characters.astype(jnp.int32))
    length, features = characters.shape[-1], []
    for width, number in self.filters:
      sides = jnp.concatenate([x[..., i:length - width + 1 + i, :] for i in range(width)], -1)
      dense = nn.Dense(number, dtype=self.dtype, name=f"width_{width}")
      features.append(nn.relu(dense(sides).max(-2)))
    x = jnp.concatenate(features, -1)
    for i in range(self.num_highway):
      carry = nn.Dense(x.shape[-1], dtype=self.dtype, name=f"gate_{i}", bias_init=nn.initializers.constant(-2.0))(x)
      new = nn.relu(nn.Dense(x.shape[-1], dtype=self.dtype, name=f"highway_{i}")(x))
      gate = jax.nn.sigmoid(carry)
      x = gate * new + (1 - gate) * x
    return nn.Dense(self.dim, dtype=self.dtype, name="projection")(x)


def _uniform(rng, shape, dtype=jnp.float32):
  return jax.random.uniform(rng, shape, dtype, -1.0, 1.0)
