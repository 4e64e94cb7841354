"""Mutual information: exactly, of small tables and of Gaussians, and lower bounds from a critic's scores. In nats.

For a critic s(x, c) that scores n pairs crosswise, s_ij = s(x_j, c_i) with the pairs on the diagonal, the bounds say
how much x tells about c:

  InfoNCE           mean_i ( s_ii - log Σ_j exp(s_ij) ) + log n     at most log n, of little variance
  NWJ               mean_i s_ii - e^-1 mean_{i != j} exp(s_ij)      a bound in expectation, of large variance
  Donsker-Varadhan  mean_i s_ii - log mean_{i != j} exp(s_ij)       tightest in the limit; the log of a mean over a
                                                                    batch is too low, so the estimate too high

The best critic of the first is log p(x|c)/p(x) plus anything that depends on c alone, of the second the same plus 1,
of the third plus any constant.

That InfoNCE is a lower bound is often shown as van den Oord et al. 2018 do in their appendix, with the best critic
and the last step

  E log( 1 + p(x)/p(x|c) (N - 1) ) >= E log( p(x)/p(x|c) N ),

which needs p(x)/p(x|c) <= 1; this does not hold everywhere. The bound holds nevertheless, for every critic: Poole et
al. 2019, arXiv:1905.06922, section 2.3, prove it without that step.
"""
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from embeddings_jax.types import InputError


class Expressions(NamedTuple):
  """I(x; c) of a table p(x, c), written in four ways; all [], equal but for rounding.

  Attributes:
    divergence: KL( p(x, c) || p(x) p(c) ).
    from_x: H(x) - H(x|c).
    from_c: H(c) - H(c|x).
    from_both: H(x) + H(c) - H(x, c).
  """

  divergence: Array
  from_x: Array
  from_c: Array
  from_both: Array


def expressions(joint: Float[Array, "x c"]) -> Expressions:
  """The four textbook expressions of I(x; c), each computed as it is written; `joint` is p(x, c) and sums to 1."""
  of_x, of_c = joint.sum(1), joint.sum(0)
  surprise = lambda p: -jnp.log(jnp.where(p > 0, p, 1))
  entropy = lambda p: (p * surprise(p)).sum()
  conditioned = lambda of: jnp.where(of > 0, joint / jnp.where(of > 0, of, 1), 0)
  conditional = lambda of: (joint * surprise(conditioned(of))).sum()
  return Expressions(
      divergence=(joint * (surprise(of_x[:, None] * of_c) - surprise(joint))).sum(),
      from_x=entropy(of_x) - conditional(of_c),
      from_c=entropy(of_c) - conditional(of_x[:, None]),
      from_both=entropy(of_x) + entropy(of_c) - entropy(joint))


def log_ratio(joint: Float[Array, "x c"]) -> Float[Array, "x c"]:
  """log p(x|c)/p(x), the best critic of a table p(x, c) that sums to 1; -inf where p(x, c) = 0."""
  return jnp.log(joint) - jnp.log(joint.sum(1, keepdims=True) * joint.sum(0))


def posterior(scores: Float[Array, "*rows n"]) -> Float[Array, "*rows n"]:
  """p(d = positive | x_1 ... x_n, c) ∝ exp(s(x_d, c)): which of n samples the positive is.

  One of them, with equal chances the d-th, is drawn from p(x|c), the others from p(x). With the best critic this is
  the exact posterior (van den Oord et al. 2018, equation 5); it is what InfoNCE's cross entropy is about.
  """
  return jax.nn.softmax(scores, axis=-1)


def info_nce_bound(scores: Float[Array, "n n"]) -> Array:
  """mean_i ( s_ii - log Σ_j exp(s_ij) ) + log n (van den Oord et al. 2018), []: log n less InfoNCE's loss."""
  return jnp.mean(jnp.diagonal(scores) - jax.nn.logsumexp(scores, axis=1)) + jnp.log(len(scores))


def nwj_bound(scores: Float[Array, "n n"]) -> Array:
  """mean_i s_ii - e^-1 mean_{i != j} exp(s_ij) (Nguyen, Wainwright, Jordan 2010), []."""
  return jnp.diagonal(scores).mean() - jnp.exp(_log_mean_of_others(scores) - 1)


def donsker_varadhan_bound(scores: Float[Array, "n n"]) -> Array:
  """mean_i s_ii - log mean_{i != j} exp(s_ij) (Donsker and Varadhan 1983; MINE: Belghazi et al. 2018), [].

  The log of a batch's mean is in expectation below that of the mean (Jensen), so that the estimate, and what its
  gradient climbs to, may be above I. MINE corrects the gradient by a moving average of the mean; here it is plain.
  """
  return jnp.diagonal(scores).mean() - _log_mean_of_others(scores)


def gaussian_information(correlation: float | Array, dim: int) -> Array:
  """-d/2 log(1 - ρ²), []: of Gaussians x, c in R^d whose d pairs of coordinates have the correlation ρ."""
  return -dim / 2 * jnp.log1p(-jnp.square(correlation))


def gaussian_pairs(
    rng: Array, num: int, dim: int, correlation: float | Array,
) -> tuple[Float[Array, "n dim"], Float[Array, "n dim"]]:
  """`num` pairs (x, c) of such Gaussians of mean 0 and variance 1: x = ρ c + (1 - ρ²)^½ ε."""
  c, noise = jax.random.normal(rng, (2, num, dim))
  return correlation * c + jnp.sqrt(1 - jnp.square(correlation)) * noise, c


def gaussian_log_ratio(
    x: Float[Array, "n dim"], c: Float[Array, "m dim"], correlation: float | Array,
) -> Float[Array, "m n"]:
  """log p(x_j|c_i)/p(x_j) of such Gaussians, their best critic: (2ρ c·x - ρ² (|x|² + |c|²)) / 2(1 - ρ²) + I."""
  square = jnp.square(correlation)
  lengths = jnp.square(c).sum(1)[:, None] + jnp.square(x).sum(1)
  product = jnp.einsum("id,jd->ij", c, x, precision="highest")
  return (2 * correlation * product - square * lengths) / (2 * (1 - square)) + gaussian_information(
      correlation, x.shape[1])


def _log_mean_of_others(scores):
  """log mean_{i != j} exp(s_ij)."""
  num = len(scores)
  if num < 2:
    raise InputError("this bound needs scores of two pairs at least: other pairs stand for independent ones")
  others = jnp.where(jnp.eye(num, dtype=bool), -jnp.inf, scores)
  return jax.nn.logsumexp(others) - jnp.log(num * (num - 1))
