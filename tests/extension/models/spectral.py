"""Spectral embedding (Ng, Jordan & Weiss 2002): eigenvectors of D^-1/2 A D^-1/2 with the largest eigenvalues."""
from typing import NamedTuple

import jax
import jax.numpy as jnp

from embeddings_jax.types import Array, Fact, Model


class SpectralState(NamedTuple):
  vectors: Array  # [num_nodes, dim]


def spectral(*, num_nodes: Fact[int], dim: int = 2) -> Model:
  """The first `dim` eigenvectors after the constant one, in a single update, of `adjacency` [n, num_nodes]."""

  def init(rng, batch):
    return SpectralState(jnp.zeros((num_nodes, dim)))

  def update(state, batch, rng):
    adjacency = batch["adjacency"][:num_nodes]
    scale = jax.lax.rsqrt(jnp.maximum(adjacency.sum(1), 1e-12))
    values, vectors = jnp.linalg.eigh(scale[:, None] * adjacency * scale)
    vectors = scale[:, None] * vectors[:, ::-1][:, 1:1 + dim]
    return SpectralState(vectors), {"loss": -values[-2], "converged": jnp.ones(())}

  return Model(init, update, lambda state, batch: state.vectors[batch["node"]],
               {"components": lambda state: {"vectors": state.vectors}})
