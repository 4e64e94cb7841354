"""EM as coordinate descent of one function (Neal & Hinton 1998).

For a distribution q over the hidden z of a row x, and parameters theta,

  F(q, theta) = E_q[log q(z) - log p(x, z | theta)]        (the variational free energy, nats)
  log p(x | theta) = -F(q, theta) + KL(q || p(z | x, theta))

The E step minimizes F over q: it sets q = p(z | x, theta), where the KL is 0 and -F the log likelihood. The M step
minimizes F over theta. Neither can raise F, so the log likelihood never falls.
"""
import jax
from jax.scipy.special import xlogy
from jaxtyping import Array, Float


def free_energy(log_joint: Float[Array, "n k"], resp: Float[Array, "n k"]) -> Float[Array, " n"]:
  """F of each row, nats: `log_joint` is log p(x, z = k | theta), `resp` is q, whose rows sum to 1."""
  return (xlogy(resp, resp) - resp * log_joint).sum(1)


def posterior_divergence(log_joint: Float[Array, "n k"], resp: Float[Array, "n k"]) -> Float[Array, " n"]:
  """KL(q || p(z | x, theta)) of each row, nats."""
  return (xlogy(resp, resp) - resp * jax.nn.log_softmax(log_joint, axis=1)).sum(1)
