"""Lengths and distances of vectors whose gradients are finite everywhere."""
import jax.numpy as jnp
from jaxtyping import Array, Float


def l2_normalize(x: Float[Array, "*rows dim"], eps: float = 1e-6) -> Float[Array, "*rows dim"]:
  """x / |x|; a vector not longer than `eps` has no direction and gives zeros, with a gradient of zeros.

  So no entry of the gradient's Jacobian is above 1 / eps.
  """
  square = jnp.square(x).sum(-1, keepdims=True)
  long = square > eps**2
  return jnp.where(long, x / jnp.sqrt(jnp.where(long, square, 1)), 0)


def squared_distances(x: Float[Array, "n dim"], y: Float[Array, "m dim"]) -> Float[Array, "n m"]:
  """|x_i - y_j|² as |x_i|² + |y_j|² - 2 x_i · y_j, at least 0: no [n, m, dim] is held.

  Rounding is relative to the squares of the lengths, not of the distance.
  """
  product = jnp.einsum("id,jd->ij", x, y, precision="highest", preferred_element_type=jnp.float32)
  return jnp.maximum(jnp.square(x).sum(-1)[:, None] + jnp.square(y).sum(-1) - 2 * product, 0)


def root(square: Float[Array, "..."]) -> Float[Array, "..."]:
  """The square root of what is at least 0, with a gradient of 0 at 0: a distance from its square."""
  positive = square > 0
  return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 0)
