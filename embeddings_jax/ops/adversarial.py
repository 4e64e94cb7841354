"""Losses of a discriminator D and a generator G from logits l, D = sigmoid(l), and what keeps D smooth.

With r the logits of real rows and f those of generated ones, in nats (Goodfellow et al. 2014, arXiv:1406.2661; hinge:
Lim & Ye 2017, arXiv:1705.02894; Wasserstein: Arjovsky et al. 2017, arXiv:1701.07875):

| loss | of D | of G | dG / df |
|---|---|---|---|
| `minimax` | softplus(-r) + softplus(f) | -softplus(f) | -D |
| `non_saturating` | softplus(-r) + softplus(f) | softplus(-f) | D - 1 |
| `hinge` | relu(1 - r) + relu(1 + f) | -f | -1 |
| `wasserstein` | f - r | -f | -1 |

softplus(-r) is -log D and softplus(f) is -log(1 - D). For densities p and q of real and generated rows the first loss
is least at D = p / (p + q), where it is 2 log 2 - 2 JSD(p, q).
"""
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from embeddings_jax.types import InputError

LOSSES = ("minimax", "non_saturating", "hinge", "wasserstein")
PENALTIES = ("none", "r1", "gradient")
TINY = 1e-12


def check_loss(loss: str, penalty: str) -> None:
  """Raises unless both are known."""
  for name, value, choices in (("loss", loss, LOSSES), ("penalty", penalty, PENALTIES)):
    if value not in choices:
      raise InputError(f"{name}={value!r}: must be one of {', '.join(choices)}")


def discriminator_losses(loss: str, real: Float[Array, " n"], fake: Float[Array, " m"]) -> tuple[
    Float[Array, " n"], Float[Array, " m"]]:
  """Returns D's loss on real and on generated rows, whose means add up to the loss of the table."""
  if loss == "hinge":
    return jax.nn.relu(1 - real), jax.nn.relu(1 + fake)
  if loss == "wasserstein":
    return -real, fake
  return jax.nn.softplus(-real), jax.nn.softplus(fake)


def generator_losses(loss: str, fake: Float[Array, " m"]) -> Float[Array, " m"]:
  """Returns G's loss on generated rows."""
  if loss == "minimax":
    return -jax.nn.softplus(fake)
  return jax.nn.softplus(-fake) if loss == "non_saturating" else -fake


def squared_slopes(logits: Callable[[Array], Array], x: Float[Array, "n ..."]) -> Float[Array, " n"]:
  """Returns |dl_i / dx_i|^2 of each row, for logits of which each depends on its own row alone."""
  slopes = jax.grad(lambda x: logits(x).sum())(x)
  return jnp.square(slopes).reshape(len(x), -1).sum(1)


def r1_penalties(logits: Callable[[Array], Array], real: Float[Array, "n ..."]) -> Float[Array, " n"]:
  """Returns |dl / dx|^2 / 2 at real rows (Mescheder et al. 2018, arXiv:1801.04406, equation 9 without gamma)."""
  return squared_slopes(logits, real) / 2


def gradient_penalties(
    logits: Callable[[Array], Array], real: Float[Array, "n ..."], fake: Float[Array, "n ..."],
    share: Float[Array, " n"],
) -> Float[Array, " n"]:
  """Returns (|dl / dx| - 1)^2 between real and generated rows (Gulrajani et al. 2017, arXiv:1704.00028, equation 3).

  Args:
    logits: Rows -> logits.
    real, fake: Rows.
    share: Share of the real row in each point, uniform in [0, 1].
  """
  share = share.reshape(-1, *[1] * (real.ndim - 1))
  slopes = squared_slopes(logits, share * real + (1 - share) * fake)
  return jnp.square(jnp.sqrt(slopes + TINY) - 1)


def spectral_norm(kernel: Float[Array, "..."], u: Float[Array, " out"]) -> tuple[
    Float[Array, ""], Float[Array, " out"]]:
  """Returns the largest singular value of a kernel by one power iteration, and the next u.

  Miyato et al. 2018 (arXiv:1802.05957), algorithm 1: the kernel is a matrix [..., out] of all its axes but the last;
  the gradient passes through the kernel and not through the singular vectors.

  Args:
    kernel: Weights, whose last axis are the outputs.
    u: Left singular vector of the transposed matrix, as far as it is known.
  """
  matrix = kernel.reshape(-1, kernel.shape[-1])
  normalize = lambda x: x / (jnp.linalg.norm(x) + TINY)
  v = normalize(matrix @ u)
  u = normalize(matrix.T @ v)
  u, v = jax.lax.stop_gradient((u, v))
  return v @ matrix @ u, u


def spread(x: Float[Array, "n ..."], weight: Float[Array, " n"]) -> Float[Array, ""]:
  """Returns the root of the total variance of rows; 0 where they are all alike."""
  x = x.reshape(len(x), -1)
  share = weight / jnp.maximum(weight.sum(), 1)
  mean = share @ x
  return jnp.sqrt((share @ jnp.square(x - mean)).sum())


def arc(first: Float[Array, " dim"], last: Float[Array, " dim"], num: int) -> Float[Array, "{num} dim"]:
  """Returns points [num, dim] from one vector to another, whose directions and lengths change evenly.

  Points on the line between two draws of a Gaussian of many dimensions are shorter than draws are.
  """
  lengths = jnp.linalg.norm(first), jnp.linalg.norm(last)
  units = first / lengths[0], last / lengths[1]
  angle = jnp.arccos(jnp.clip(units[0] @ units[1], -1, 1))
  share = jnp.linspace(0, 1, num)[:, None]
  weight = lambda share: jnp.where(angle > 1e-4, jnp.sin(share * angle) / jnp.maximum(jnp.sin(angle), 1e-12), share)
  length = (1 - share) * lengths[0] + share * lengths[1]
  return length * (weight(1 - share) * units[0] + weight(share) * units[1])
