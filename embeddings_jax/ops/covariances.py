"""Forms of a Gaussian mixture's covariances: full, tied (one for all components), diagonal, spherical.

Each form is a group of pure functions of the covariances C that it keeps. `xt` are rows, transposed so that
reductions run over whole vectors; `offsets` are the components' means. Shapes: k components, d features, n rows.
"""
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from embeddings_jax.ops.centers import squared_distances

LOG_2PI = 1.8378770664093453
HIGHEST = jax.lax.Precision.HIGHEST  # GPUs and TPUs would round the factors of a product to fewer bits.


class Density(NamedTuple):
  """Parameters in the form that the log density needs."""

  offsets: Float[Array, "k d"]
  whitening: Float[Array, "..."]  # W with W'W the inverse covariance; of diagonal ones its diagonal
  log_scale: Float[Array, " k"]
  least: Float[Array, "..."]  # The least conditional variance, of each component or of all.


class Full:
  """C [k, d, d]."""

  def num_parameters(self, k: int, dim: int) -> float:
    """Returns the number of free parameters of C."""
    return k * dim * (dim + 1) / 2

  def keep(self, second: Float[Array, "k d d"], share: Float[Array, " k"]) -> Array:
    """Returns what this form keeps of second moments; `share` is each component's."""
    return second

  def expand(self, covariances: Array, k: int, dim: int) -> Float[Array, "k d d"]:
    """Returns C as one matrix for each component."""
    return jnp.broadcast_to(covariances, (k, dim, dim))

  def whiten(self, covariances: Array, reg_covar: float, dim: int) -> tuple[Array, Array, Array]:
    """Returns the whitening W of C + reg_covar I, half of its log determinant, and its least conditional variance."""
    factor = cholesky(covariances + reg_covar * jnp.eye(dim))
    pivots = jnp.diagonal(factor, axis1=-2, axis2=-1)
    return inverse_of_lower(factor), jnp.log(pivots).sum(-1), (pivots ** 2).min(-1)

  def distances(self, whitening: Array, offsets: Array, xt: Float[Array, "d n"]) -> Float[Array, "k n"]:
    """Returns squared Mahalanobis distances of the rows from the means."""
    whitened = jnp.matmul(whitening, xt[None] - offsets[:, :, None], precision=HIGHEST)
    return (whitened ** 2).sum(1)

  def second_moment(self, weighted: Float[Array, "k d n"], offset: Float[Array, "k d n"], first: Float[Array, "k d"],
                    offsets: Float[Array, "k d"], xt: Float[Array, "d n"]) -> Array:
    """Returns sum_n r (x - mu)(x - mu)'; `weighted` is r (x - mu), `offset` x - mu, `first` the sum of `weighted`.

    Only one factor is taken around the mean, for sum r (x - mu) x' - [sum r (x - mu)] mu' is that of both.
    """
    k, dim = offsets.shape
    around = jnp.matmul(weighted.reshape(k * dim, -1), xt.T, precision=HIGHEST).reshape(k, dim, dim)
    return around - first[:, :, None] * offsets[:, None]

  def average(self, second: Array, count: Float[Array, " k"], total: Float[Array, ""]) -> Array:
    """Returns second moments divided by each component's `count`, or by the `total` of all rows."""
    return second / along(count, second)

  def repair(self, covariances: Array) -> Array:
    """Returns C without the asymmetry or the negative variances that rounding leaves."""
    return 0.5 * (covariances + covariances.swapaxes(-2, -1))

  def where(self, empty: Bool[Array, " k"], old: Array, new: Array) -> Array:
    """Returns the old C of empty components and the new of the others."""
    return jnp.where(along(empty, new), old, new)

  def scale(self, weights: Float[Array, " k"], covariances: Array) -> Array:
    """Returns the second moments per row of all rows, given the components' weights: `average` inverted."""
    return along(weights, covariances) * covariances


class Tied(Full):
  """C [d, d], the mean of the components' covariances by their weights."""

  def num_parameters(self, k: int, dim: int) -> float:
    return dim * (dim + 1) / 2

  def keep(self, second: Float[Array, "k d d"], share: Float[Array, " k"]) -> Array:
    return jnp.einsum("k,kde->de", share, second)

  def distances(self, whitening: Array, offsets: Array, xt: Float[Array, "d n"]) -> Float[Array, "k n"]:
    # One product for rows and means: of two of them, jaxlib 0.10 on CPUs computes wrong distances.
    k = len(offsets)
    whitened = jnp.matmul(whitening, jnp.concatenate([xt, offsets.T], 1), precision=HIGHEST)
    return squared_distances(whitened[:, :-k], whitened[:, -k:].T)

  def second_moment(self, weighted: Float[Array, "k d n"], offset: Float[Array, "k d n"], first: Float[Array, "k d"],
                    offsets: Float[Array, "k d"], xt: Float[Array, "d n"]) -> Array:
    around = jnp.matmul(weighted.sum(0), xt.T, precision=HIGHEST)
    return around - jnp.matmul(first.T, offsets, precision=HIGHEST)

  def average(self, second: Array, count: Float[Array, " k"], total: Float[Array, ""]) -> Array:
    return second / total

  def where(self, empty: Bool[Array, " k"], old: Array, new: Array) -> Array:
    return new

  def scale(self, weights: Float[Array, " k"], covariances: Array) -> Array:
    return covariances


class Diagonal(Full):
  """C [k, d]: variances."""

  def num_parameters(self, k: int, dim: int) -> float:
    return k * dim

  def keep(self, second: Float[Array, "k d d"], share: Float[Array, " k"]) -> Array:
    return jnp.diagonal(second, axis1=1, axis2=2)

  def expand(self, covariances: Array, k: int, dim: int) -> Float[Array, "k d d"]:
    return jnp.broadcast_to(covariances.reshape(k, -1, 1), (k, dim, 1)) * jnp.eye(dim)

  def whiten(self, covariances: Array, reg_covar: float, dim: int) -> tuple[Array, Array, Array]:
    variances = covariances + reg_covar
    return variances ** -0.5, 0.5 * jnp.log(variances).sum(1), variances.min(1)

  def distances(self, whitening: Array, offsets: Array, xt: Float[Array, "d n"]) -> Float[Array, "k n"]:
    scale = whitening.reshape(len(offsets), -1, 1)
    return (((xt[None] - offsets[:, :, None]) * scale) ** 2).sum(1)

  def second_moment(self, weighted: Float[Array, "k d n"], offset: Float[Array, "k d n"], first: Float[Array, "k d"],
                    offsets: Float[Array, "k d"], xt: Float[Array, "d n"]) -> Array:
    return over_rows(weighted * offset)

  def repair(self, covariances: Array) -> Array:
    return jnp.maximum(covariances, 0)


class Spherical(Diagonal):
  """C [k]: one variance for each component."""

  def num_parameters(self, k: int, dim: int) -> float:
    return k

  def keep(self, second: Float[Array, "k d d"], share: Float[Array, " k"]) -> Array:
    return super().keep(second, share).mean(1)

  def whiten(self, covariances: Array, reg_covar: float, dim: int) -> tuple[Array, Array, Array]:
    variances = covariances + reg_covar
    return variances ** -0.5, 0.5 * dim * jnp.log(variances), variances

  def second_moment(self, weighted: Float[Array, "k d n"], offset: Float[Array, "k d n"], first: Float[Array, "k d"],
                    offsets: Float[Array, "k d"], xt: Float[Array, "d n"]) -> Array:
    return over_rows(weighted * offset).mean(1)


FORMS = {"full": Full(), "tied": Tied(), "diagonal": Diagonal(), "spherical": Spherical()}


def over_rows(table: Float[Array, "k d n"]) -> Float[Array, "k d"]:
  """Returns the sums over the last axis, as one product."""
  k, dim, num_rows = table.shape
  return jnp.matmul(table.reshape(k * dim, -1), jnp.ones(num_rows), precision=HIGHEST).reshape(k, dim)


def mixture_density(form: Full, weights: Float[Array, " k"], offsets: Float[Array, "k d"], covariances: Array,
                    reg_covar: float) -> Density:
  """Returns what `mixture_log_joint` needs of a mixture's parameters."""
  dim = offsets.shape[1]
  whitening, half_log_determinant, least = form.whiten(covariances, reg_covar, dim)
  return Density(offsets, whitening, jnp.log(weights) - half_log_determinant - 0.5 * dim * LOG_2PI, least)


def mixture_log_joint(form: Full, density: Density, xt: Float[Array, "d n"]) -> Float[Array, "k n"]:
  """Returns log pi_k N(x_n; mu_k, Sigma_k)."""
  return density.log_scale[:, None] - 0.5 * form.distances(density.whitening, density.offsets, xt)


def cholesky(covariances: Float[Array, "*k d d"]) -> Float[Array, "*k d d"]:
  """Returns lower factors; covariances that rounding has left indefinite get 1e-4 of the diagonal added."""
  diagonal = jnp.diagonal(covariances, axis1=-2, axis2=-1)[..., None] * jnp.eye(covariances.shape[-1])
  exact, more = (jnp.linalg.cholesky(x) for x in (covariances, covariances + 1e-4 * diagonal))
  return jnp.where(jnp.isfinite(exact).all((-2, -1), keepdims=True), exact, more)


def inverse_of_lower(factor: Float[Array, "*k d d"]) -> Float[Array, "*k d d"]:
  """Returns the inverses of lower triangular matrices, row by row.

  On CPUs a triangular solve is OpenBLAS's, whose threads go on spinning and slow down what XLA does after it.
  """
  identity = jnp.eye(factor.shape[-1])

  def row(i, inverse):
    rest = jnp.einsum("...e,...ed->...d", factor[..., i, :], inverse, precision=HIGHEST)
    return inverse.at[..., i, :].set((identity[i] - rest) / factor[..., i, i, None])

  return jax.lax.fori_loop(0, factor.shape[-1], row, jnp.zeros_like(factor))


def along(values: Float[Array, " k"] | Bool[Array, " k"], table: Float[Array, "k ..."]) -> Array:
  """Returns `values` as [k, 1, ...], with as many axes as the table."""
  return values.reshape((-1,) + (1,) * (table.ndim - 1))
