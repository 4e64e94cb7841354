"""Where in an image a network looks: class activation maps, Grad-CAM and attention rollout.

  symbol  name     shape
  A       maps     [n, rows, columns, dim], a layer's map
  dy/dA   slopes   [n, rows, columns, dim], gradient of a score with respect to it
  w       weights  [dim] or [n, dim], of a linear classifier on means over places
"""
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def class_activation(maps: Float[Array, "n rows columns dim"], weights: Float[Array, "*n dim"]) -> Float[
    Array, "n rows columns"]:
  """Returns Σ_d w_d A_d (Zhou et al. 2016, arXiv:1512.04150); its mean over places is the class's logit, less the
  bias."""
  return jnp.einsum("nrcd,nd->nrc", maps, jnp.broadcast_to(weights, (len(maps), maps.shape[-1])))


def grad_cam(maps: Float[Array, "n rows columns dim"], slopes: Float[Array, "n rows columns dim"]) -> Float[
    Array, "n rows columns"]:
  """Returns relu(Σ_d a_d A_d) with a_d the mean of dy/dA_d over places (Selvaraju et al. 2017, arXiv:1610.02391)."""
  return jax.nn.relu(class_activation(maps, slopes.mean((1, 2))))


def rollout(attention: Float[Array, "n layers heads time time"], *, leading: int = 1, residual: float = 0.5) -> Float[
    Array, "n patches"]:
  """Returns how much of each patch reaches the output by attention (Abnar & Zuidema 2020, arXiv:2005.00928).

  Layer by layer the mean of the heads is mixed with the identity, for the residual connection, and multiplied.

  Args:
    attention: Weights, whose rows have the sum 1.
    leading: Tokens in front of the patches; the first one's row is returned, without any the mean of all rows.
    residual: Share of the identity.
  """
  time = attention.shape[-1]
  mixed = (1 - residual) * attention.mean(2) + residual * jnp.eye(time)
  total = jnp.broadcast_to(jnp.eye(time), mixed[:, 0].shape)
  for layer in range(mixed.shape[1]):
    total = jnp.einsum("nij,njk->nik", mixed[:, layer], total, precision="highest")
  return total[:, 0, leading:] if leading else total.mean(1)


def scaled(maps: Float[Array, "n rows columns"]) -> Float[Array, "n rows columns"]:
  """Returns maps from 0 to 1, each by its own least and greatest value; a constant map becomes 0."""
  low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
  return (maps - low) / jnp.maximum(high - low, 1e-12)


def enlarged(maps: Float[Array, "n rows columns"], height: int, width: int) -> Float[Array, "n {height} {width}"]:
  """Returns maps at each pixel of an image, bilinear."""
  return jax.image.resize(maps, (len(maps), height, width), "bilinear")
