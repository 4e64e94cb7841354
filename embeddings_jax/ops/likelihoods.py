"""Likelihoods of images given the output of a decoder, and bounds on their marginal.

  bernoulli              log p = sum_i x_i log m_i + (1 - x_i) log(1 - m_i), m = sigmoid(output), x in [0, 1]
  gaussian               log p = sum_i log N(x_i; m_i, s_i^2)
  discretized_logistic   log p = sum_i log [F((x_i + h - m_i) / s_i) - F((x_i - h - m_i) / s_i)], F = sigmoid,
                         h = 1 / 510: the probability of an 8-bit value; the bins of 0 and 255 reach to infinity
                         (Salimans, Karpathy, Chen & Kingma 2017, arXiv:1701.05517)

All are sums over pixels and channels, nats. The first two are densities where x is continuous, the third is a
probability, so that -log_2 of it is a number of bits.
"""
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

HALF_BIN = 1 / 510  # Half of the distance of two of 256 values in [0, 1].
LOG_2PI = math.log(2 * math.pi)

Images = Float[Array, "*draws height width channels"]


def bernoulli(x: Images, logits: Images) -> Float[Array, "*draws"]:
  """Returns the log likelihood of each image."""
  return (x * jax.nn.log_sigmoid(logits) + (1 - x) * jax.nn.log_sigmoid(-logits)).sum((-3, -2, -1))


def gaussian(x: Images, mean: Images, log_scale: Float[Array, "..."]) -> Float[Array, "*draws"]:
  """Returns the log density of each image."""
  each = -0.5 * (jnp.square((x - mean) * jnp.exp(-log_scale)) + LOG_2PI) - log_scale
  return each.sum((-3, -2, -1))


def discretized_logistic(x: Images, mean: Images, log_scale: Float[Array, "..."]) -> Float[Array, "*draws"]:
  """Returns the log probability of each image, whose values are multiples of 1 / 255.

  F(a) - F(b) = F(a) F(-b) (1 - exp(b - a)), in which nothing cancels.
  """
  per_scale = jnp.exp(-log_scale)
  above, below = ((x + sign * HALF_BIN - mean) * per_scale for sign in (1, -1))
  first, last = x < HALF_BIN, x > 1 - HALF_BIN
  inner = jnp.log(-jnp.expm1(-2 * HALF_BIN * per_scale))
  each = jnp.where(last, 0, jax.nn.log_sigmoid(above)) + jnp.where(first, 0, jax.nn.log_sigmoid(-below))
  return (each + jnp.where(first | last, 0, inner)).sum((-3, -2, -1))


def gaussian_kl(mean: Float[Array, "*n dim"], log_variance: Float[Array, "*n dim"]) -> Float[Array, "*n dim"]:
  """Returns KL(N(mean, exp(log_variance)) || N(0, 1)) of each unit, nats."""
  return 0.5 * (jnp.square(mean) + jnp.exp(log_variance) - log_variance - 1)


def log_normal(z: Float[Array, "*n dim"], mean: Float[Array, "..."], log_variance: Float[Array, "..."],
               ) -> Float[Array, "*n"]:
  """Returns log N(z; mean, diag(exp(log_variance)))."""
  return -0.5 * (jnp.square(z - mean) * jnp.exp(-log_variance) + log_variance + LOG_2PI).sum(-1)


def bits_per_dim(nats: Any, size: int) -> Any:
  """Returns -log likelihood in bits for each of `size` numbers, from a log likelihood in nats."""
  return -nats / (size * math.log(2))
