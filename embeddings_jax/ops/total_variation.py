"""Restoration with total variation as an explicit prior (Rudin, Osher & Fatemi 1992).

  minimize over y:  1/2 |d(y) - x|^2 + weight * sum over pixels of |gradient of y|

where the gradient is of forward differences, 0 at the far borders, and its norm is over both directions and all
channels (isotropic). By the primal-dual method of Condat (2013) and Vu (2013): with |d| <= 1 and |gradient|^2 <= 8
the steps 1/4 and 7/16 converge.
"""
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from embeddings_jax.ops.degradations import Degradation

STEP, DUAL_STEP = 0.25, 0.4375

Images = Float[Array, "batch _ _ _"]


def restore(degradation: Degradation, observed: Images, mask: Images | None = None, *, weight: float,
            num_steps: int = 300) -> Images:
  """Returns the restored images, clipped to [0, 1].

  Args:
    degradation: d.
    observed: x.
    mask: Of inpainting, 1 where visible.
    weight: Weight of the total variation, in units of the pixels' range.
    num_steps: Iterations.
  """
  def step(carry, _):
    y, dual = carry
    slope = degradation.adjoint(degradation.forward(y, mask) - observed, mask) - divergence(dual)
    new = y - STEP * slope
    dual = dual + DUAL_STEP * gradient(2 * new - y)
    norm = jnp.sqrt(jnp.square(dual).sum((0, -1), keepdims=True))
    return (new, dual * jnp.minimum(1.0, weight / jnp.maximum(norm, 1e-12))), None

  start = degradation.guess(observed, mask)
  (restored, _), _ = jax.lax.scan(step, (start, jnp.zeros((2, *start.shape))), None, length=num_steps)
  return jnp.clip(restored, 0, 1)


def gradient(y: Images) -> Float[Array, "2 batch _ _ _"]:
  """Returns forward differences down and to the right, 0 beyond the border."""
  down = jnp.pad(y[:, 1:] - y[:, :-1], ((0, 0), (0, 1), (0, 0), (0, 0)))
  right = jnp.pad(y[:, :, 1:] - y[:, :, :-1], ((0, 0), (0, 0), (0, 1), (0, 0)))
  return jnp.stack([down, right])


def divergence(dual: Float[Array, "2 batch _ _ _"]) -> Images:
  """Returns minus the adjoint of `gradient`."""
  down, right = dual[0, :, :-1], dual[1, :, :, :-1]
  pad = lambda x, axis, before, after: jnp.pad(x, [(before, after) if i == axis else (0, 0) for i in range(4)])
  return (pad(down, 1, 0, 1) - pad(down, 1, 1, 0)) + (pad(right, 2, 0, 1) - pad(right, 2, 1, 0))


def total_variation(y: Images) -> Float[Array, " batch"]:
  """Returns the sum over pixels of the gradient's norm."""
  return jnp.sqrt(jnp.square(gradient(y)).sum((0, -1))).sum((1, 2))
