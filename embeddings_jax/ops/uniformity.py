"""Alignment and uniformity of embeddings (Wang & Isola 2020, arXiv:2005.10242, section 4.2), for unit vectors, and a
measure of their collapse (Chen & He 2021, arXiv:2011.10566, figure 2)."""
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from embeddings_jax.ops.similarity import l2_normalize, squared_distances


def alignment(
    x: Float[Array, "n dim"],
    y: Float[Array, "n dim"],
    mask: Float[Array, " n"] | None = None,
) -> Float[Array, ""]:
  """mean_i |x_i - y_i|², of rows that belong together: 0 for equal ones, 2 on average for independent ones.

  Args:
    x, y: row i of one is the positive of row i of the other.
    mask: 1 = valid; other rows do not count. Without a valid row the mean is 0.
  """
  mask = jnp.ones(len(x)) if mask is None else mask
  distance = jnp.square(x.astype(jnp.float32) - y.astype(jnp.float32)).sum(1)
  return (mask * distance).sum() / jnp.maximum(mask.sum(), 1)


def uniformity(
    x: Float[Array, "n dim"],
    mask: Float[Array, " n"] | None = None,
    t: float = 2.0,
) -> Float[Array, ""]:
  """log mean_{i != j} exp(-t |x_i - x_j|²): 0 if all rows are one, and lower the more evenly they lie.

  Takes [n, n] of memory. Rows drawn evenly from a sphere of many dimensions have about -2 t.

  Args:
    x: vectors.
    mask: 1 = valid; other rows do not count. Of fewer than two valid rows it is nan.
    t: how much the nearest count; the paper's is 2.
  """
  x, mask = x.astype(jnp.float32), jnp.ones(len(x)) if mask is None else mask
  distance = squared_distances(x, x)
  pairs = mask[:, None] * mask[None, :] * (1 - jnp.eye(len(x)))
  return jax.nn.logsumexp(-t * distance, b=pairs) - jnp.log(pairs.sum())


def deviation(x: Float[Array, "n dim"], mask: Float[Array, " n"] | None = None) -> Float[Array, ""]:
  """√dim times the standard deviation, over the rows, of each dimension of x_i / |x_i|, and of these the mean.

  0 where all rows point the same way (they have collapsed); about 1 where their directions are drawn evenly.

  Args:
    x: vectors of any length.
    mask: 1 = valid; other rows do not count.
  """
  x, mask = l2_normalize(x.astype(jnp.float32)), (jnp.ones(len(x)) if mask is None else mask)[:, None]
  count = jnp.maximum(mask.sum(), 1)
  centered = x - (mask * x).sum(0) / count
  return x.shape[1] ** 0.5 * jnp.sqrt((mask * jnp.square(centered)).sum(0) / count).mean()
