"""NetMF (Qiu, Dong, Ma, Li, Wang & Tang 2018, "Network Embedding as Matrix Factorization", arXiv:1710.02971): the
matrix that DeepWalk factorizes implicitly, factorized.

  M = vol / (b T) (sum_{r=1..T} (D^-1 A)^r) D^-1,     log max(1, M) = U S V',     vectors = U_d S_d^(1/2)

| paper | here | shape |
|---|---|---|
| A, D, vol(G) | `batch`'s edges, `degrees`, their sum | [n, n], [n], [] |
| T, b | `window`, `num_negatives` | [] |
| d, h | `dim`, `rank` | [] |
| U_d, S_d | `state.left`, magnitudes of `state.values` | [n, d], [d] |

M is symmetric, so U, S and V are the eigenvectors and the magnitudes of the eigenvalues with the largest magnitudes,
found by block Lanczos (`ops/lanczos.py`). Three ways to M:

- `sparse`, for T = 1: vol A_ij / (b d_i d_j), nothing beyond the edges.
- `exact`: the sum as it is, T products of [n, n].
- `filtered` (the paper's algorithm 4): the h largest eigenvalues l of D^-1/2 A D^-1/2 with their vectors Q give
  vol / b D^-1/2 Q f(L) Q' D^-1/2, f(l) = max(0, 1/T sum_{r=1..T} l^r). As f is not negative, it is X X' with X [n,
  h], of which rows are made when they are needed where [n, n] would exceed `max_memory`.

A loop counts once in A and in D. Isolated nodes have no row in M and get the vector 0: their 1 / d is taken as 0, so
that they take no eigenpair. Directed graphs are refused or symmetrized by the pipeline.

A node that the graph lacks is projected: its row of log max(1, M), whose walks go on from its neighbors with the
degrees of the graph as it is, times V S^(-1/2). A copy of a node of the graph, with its neighbors, gets that node's
vector.

All devices compute the whole. Expected: see `embeddings_jax/configs/netmf.py`.

Split: pair of nodes | one node | how often walks lead from it to the other.
"""
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Float

from embeddings_jax.ops import lanczos
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.sharding import constrain
from embeddings_jax.ops.sparse import csr_matmul
from embeddings_jax.types import Array, Fact, InputError, Model

SOLVERS = ("auto", "sparse", "exact", "filtered")
EXACT_NODES = 4096  # Beyond, `auto` filters: the exact sum costs n**3.
_ROWS = 1024  # Rows of M that are made at a time.
_matmul = functools.partial(jnp.matmul, precision="highest")


class NetmfState(NamedTuple):
  """Vectors, 0 before the first update.

  Attributes:
    vectors: [n + 1, d] U_d S_d^(1/2); the last row is 0, for what is no node.
    values: [d] eigenvalues of log max(1, M), descending in magnitude.
    unexplained: [] 1 - |S_d|^2 / |log max(1, M)|^2, the loss.
    residual: [] largest residual of the d eigenpairs, relative to their eigenvalue.
    done: [] int32, 1 after the first update.
    inverse: [n + 1] 1 / d, 0 for isolated nodes.
    reach: [n + 1, k], for new nodes: rows of vol / (b T) (sum_{r=1..T-1} (D^-1 A)^r) D^-1 (`exact`), or the factor of
      vol / b D^-1/2 Q f(L) / L Q' D^-1/2 (`filtered`); k = 0 for `sparse`.
  """

  vectors: Array
  values: Array
  unexplained: Array
  residual: Array
  done: Array
  inverse: Array
  reach: Array


@takes(row=None, col=None, weight=None, node=None)
def netmf(
    *,
    num_nodes: Fact[int],
    degrees: Fact[Any],
    dim: int = 128,
    window: int = 10,
    num_negatives: float = 1.0,
    rank: int = 256,
    solver: str = "auto",
    block: int = 0,
    blocks: int = 12,
    num_oversamples: int = 10,
    tol: float = 1e-3,
    max_cycles: int = 20,
    max_memory: float = 1.0,
) -> Model:
  """NetMF. A batch is all edges, `row`, `col`, `weight`, `mask` [m], sorted by row; one update does it all.

  Args:
    num_nodes: Number of nodes, n.
    degrees: Sum of the weights of each node's edges, [n].
    dim: Size of the vectors, at most n.
    window: Largest distance of a node and its context in a walk, T.
    num_negatives: Negative samples per pair, b.
    rank: Eigenpairs of `filtered`, h.
    solver: `sparse`, `exact`, `filtered`, or `auto`: the first for T = 1, the second for up to 4,096 nodes.
    block: Vectors of a Lanczos block; 0: 16 for `sparse`, where products are cheap beside orthogonalization, else 32.
    blocks: Lanczos blocks of a cycle.
    num_oversamples: Eigenpairs kept beyond those that are asked for.
    tol: Residual, relative to the eigenvalue, at which the search ends; 0 makes all cycles.
    max_cycles: Cycles after which it ends anyway.
    max_memory: GB that [n, n] may take; a larger matrix is made row by row for each product.
  """
  if solver not in SOLVERS:
    raise InputError(f"netmf: solver={solver!r}: must be one of {', '.join(SOLVERS)}")
  for name, value in {"dim": dim, "window": window, "rank": rank, "blocks": blocks,
                      "max_cycles": max_cycles}.items():
    if value < 1:
      raise InputError(f"netmf: {name}={value}: must be at least 1")
  if block < 0:
    raise InputError(f"netmf: block={block}: must be at least 0")
  if dim > num_nodes:
    raise InputError(f"netmf: dim={dim}: exceeds the {num_nodes} nodes")
  if not num_negatives > 0:
    raise InputError(f"netmf: num_negatives={num_negatives}: must be above 0")
  if solver == "sparse" and window != 1:
    raise InputError(f"netmf: window={window}: solver=sparse is exact for window=1 alone")
  way = solver if solver != "auto" else (
      "sparse" if window == 1 else "exact" if num_nodes <= EXACT_NODES else "filtered")
  if way == "exact" and 4e-9 * num_nodes**2 > max_memory:
    raise InputError(f"netmf: solver=exact needs matrices of {4e-9 * num_nodes**2:.1f} GB, max_memory={max_memory}; "
                     "use filtered")
  degrees = np.asarray(degrees, np.float64)
  inverse = np.where(degrees > 0, 1 / np.maximum(degrees, 1e-300), 0)
  volume = degrees.sum() / num_negatives
  block = block or (16 if way == "sparse" else 32)
  search = functools.partial(lanczos.largest, block=block, blocks=blocks, num_oversamples=num_oversamples, tol=tol,
                             max_cycles=max_cycles)

  width = {"sparse": 0, "exact": num_nodes, "filtered": min(rank, num_nodes)}[way]

  def init(rng, batch):
    del rng, batch
    return NetmfState(jnp.zeros((num_nodes + 1, dim)), jnp.zeros(dim), jnp.ones(()), jnp.ones(()),
                      jnp.zeros((), jnp.int32), jnp.asarray(np.append(inverse, 0), jnp.float32),
                      jnp.zeros((num_nodes + 1, width)))

  def operator(batch, rng) -> tuple[Callable[[Array], Array], Array, Array]:
    """Returns the product with log max(1, M), [n, b] -> [n, b], the sum of its squares, and `reach` [n, k]."""
    valid = row_mask(batch) > 0
    row, col, weight = constrain((jnp.where(valid, batch["row"], num_nodes), batch["col"],
                                  jnp.where(valid, batch["weight"], 0)), P())
    starts = jnp.searchsorted(row, jnp.arange(num_nodes + 1)).astype(jnp.int32)
    scale = lambda power: jnp.asarray(inverse**power, jnp.float32)
    if way == "sparse":
      root = jnp.pad(jnp.asarray(inverse, jnp.float32), (0, 1))
      cells = jnp.log(jnp.maximum(1, volume * (weight * root[row] * root[col])))
      return lambda x: csr_matmul(cells, col, starts, x), (cells * cells).sum(), jnp.zeros((num_nodes, 0))
    if way == "exact":
      adjacency = jnp.zeros((num_nodes, num_nodes)).at[row, col].add(weight, mode="drop")
      matrix = log_matrix(adjacency, scale(1), window, volume)
      reach = volume / window * powers(scale(1)[:, None] * adjacency, window - 1) * scale(1)
      return lambda x: _matmul(matrix, x), (matrix * matrix).sum(), reach
    root = jnp.pad(scale(0.5), (0, 1))
    cells = weight * root[row] * root[col]
    # Shifted by 1, as the search ranks what it has not found yet as 0.
    vectors, values, _ = search(lambda x: csr_matmul(cells, col, starts, x) + x, num_nodes, width, rng)
    vectors = scale(0.5)[:, None] * vectors
    kept = filtered(values - 1, window)
    factor = vectors * jnp.sqrt(kept * volume)
    # A step of a walk multiplies by l; so f(l) / l at the neighbors is f(l) at the node.
    reach = vectors * jnp.sqrt(jnp.where(kept > 0, kept / jnp.maximum(values - 1, 1e-6), 0) * volume)
    rows_of = lambda part: jnp.log(jnp.maximum(1, _matmul(part, factor.T)))
    if 4e-9 * num_nodes**2 <= max_memory:
      matrix = rows_of(factor)
      return lambda x: _matmul(matrix, x), (matrix * matrix).sum(), reach
    parts = jnp.pad(factor, ((0, -num_nodes % _ROWS), (0, 0))).reshape(-1, _ROWS, width)
    squares = jax.lax.map(lambda part: jnp.square(rows_of(part)).sum(), parts).sum()
    return lambda x: jax.lax.map(lambda part: _matmul(rows_of(part), x), parts).reshape(-1, x.shape[1])[
        :num_nodes], squares, reach

  def update(state, batch, rng):
    def solve(state):
      first, second = jax.random.split(rng)
      product, squares, reach = operator(batch, first)
      vectors, values, residual = search(product, num_nodes, dim, second, magnitude=True)
      vectors = jnp.where((degrees > 0)[:, None], vectors * jnp.sqrt(jnp.abs(values)), 0)
      return NetmfState(jnp.pad(vectors, ((0, 1), (0, 0))), values,
                        jnp.maximum(1 - (values**2).sum() / jnp.maximum(squares, 1e-30), 0), residual,
                        jnp.ones((), jnp.int32), state.inverse, jnp.pad(reach, ((0, 1), (0, 0))))

    state = jax.lax.cond(state.done > 0, lambda state: state, solve, state)
    return state, {"loss": state.unexplained, "residual": state.residual,
                   "converged": (state.residual < tol).astype(jnp.float32)}

  def embed(state, batch):
    vectors = state.vectors[jnp.where(batch["node"] >= 0, batch["node"], num_nodes)]
    if "neighbors" in batch:
      vectors += jax.lax.map(lambda around: projected(state, around), batch["neighbors"])
    return vectors

  def volume_of(inverse):
    """The sum of degrees over b; the factory's own is not known to a model that is loaded."""
    return jnp.where(inverse > 0, 1 / jnp.maximum(inverse, 1e-30), 0).sum() / num_negatives

  def projected(state, around):
    """The vector of a new node [d], 0 without neighbors [k]."""
    near = jnp.where(around >= 0, around, num_nodes)
    share = 1 / jnp.maximum((around >= 0).sum(), 1)
    row = share * state.reach[near].sum(0)
    if way == "filtered":
      row = _matmul(state.reach[:num_nodes], row)
    else:
      row = row if way == "exact" else jnp.zeros(num_nodes)
      row = row.at[near].add(share * volume_of(state.inverse) / window * state.inverse[near], mode="drop")
    row = jnp.log(jnp.maximum(1, row))
    size = jnp.maximum(jnp.abs(state.values), 1e-6 * jnp.abs(state.values[0]) + 1e-30)
    return _matmul(row, state.vectors[:num_nodes]) * jnp.sign(state.values) / size

  components = lambda state: {"input": state.vectors[:num_nodes], "values": state.values}
  return Model(init, update, embed, {"components": components})


def log_matrix(
    adjacency: Float[Array, "n n"], inverse: Float[Array, " n"], window: int, volume: float | Float[Array, ""],
) -> Float[Array, "n n"]:
  """Returns log max(1, volume / T (sum_{r=1..T} (D^-1 A)^r) D^-1), [n, n]; `inverse` [n] is 1 / d."""
  return jnp.log(jnp.maximum(1, volume / window * powers(inverse[:, None] * adjacency, window) * inverse))


def powers(step: Float[Array, "n n"], window: int) -> Float[Array, "n n"]:
  """Returns sum_{r=1..T} step^r, [n, n]; 0 for T = 0."""
  total = jnp.zeros_like(step)
  for _ in range(window):
    total = step + _matmul(step, total)
  return total


def filtered(values: Float[Array, "*any"], window: int) -> Float[Array, "*any"]:
  """Returns f(l) = max(0, 1/T sum_{r=1..T} l^r); 0 for T = 0."""
  total = jnp.zeros_like(values)
  for _ in range(window):
    total = values * (1 + total)
  return jnp.maximum(total / max(window, 1), 0)
