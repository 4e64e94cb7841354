"""Pointers between feature maps: what lies at a place of one is copied from where another looks the same.

  A_ij = softmax_i(f_i . f_j / τ),   y_j = Σ_i A_ij c_i

with f_j of the target's places (queries), f_i of the reference's (keys) and c_i the values to be copied there. All
matrices of scores are [queries, keys]; with `block` only those of so many queries are held at a time, and in the
backward pass they are computed again.
"""
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def copied(
    queries: Float[Array, "n q dim"], keys: Float[Array, "n k dim"], values: Float[Array, "n k channels"], *,
    temperature: float = 1.0, block: int = 0,
) -> Float[Array, "n q channels"]:
  """Returns the values that the queries point to, y.

  Args:
    queries: Features of the target's places.
    keys: Features of the references' places.
    values: Values at the references' places.
    temperature: τ.
    block: Queries whose scores are held at a time; 0: all.
  """
  def attend(queries):
    scores = jnp.einsum("nqd,nkd->nqk", queries, keys, precision="highest") / temperature
    return jnp.einsum("nqk,nkc->nqc", jax.nn.softmax(scores, -1), values, precision="highest")

  n, q, dim = queries.shape
  if not block or block >= q:
    return attend(queries)
  num = -(-q // block)
  padded = jnp.pad(queries, ((0, 0), (0, num * block - q), (0, 0)))
  parts = jnp.moveaxis(padded.reshape(n, num, block, dim), 1, 0)
  outputs = jax.lax.map(jax.checkpoint(attend), parts)
  return jnp.moveaxis(outputs, 0, 1).reshape(n, num * block, -1)[:, :q]
