"""A similarity matrix of words, then its best approximation of low rank (Levy & Goldberg 2014, "Neural Word Embedding
as Implicit Matrix Factorization"; Levy, Goldberg & Dagan 2015, "Improving Distributional Similarity with Lessons
Learned from Word Embeddings").

From co-occurrence counts C_ij of a word i and a context j, with N = total, p_i = C_i. / N and
P_a(j) = C_.j^a / sum C_.j^a,

  pmi    M_ij = log (C_ij / N) / (p_i P_a(j)) - log k          on the cells with C_ij > 0, 0 elsewhere
  ppmi   M_ij = max(pmi, 0)                                    (Levy & Goldberg 2014, equation 12)
  ratio  M_ij = (C_ij / N) / (p_i P_a(j))
  log    M_ij = log(1 + C_ij)
  raw    M_ij = C_ij

and M ~ U S V' of rank d, or, where M is symmetric, M ~ U L U' with its d largest eigenvalues (negative ones count
as 0). Words are the rows of U S^p, contexts those of V S^p (Levy et al. 2015, equation 5).

| paper | here | shape |
|---|---|---|
| k, a (alpha = cds), p (eig) | `shift`, `smoothing`, `power` | [] |
| U, V, S | `state.left`, `state.right`, `state.values` | [V, r], [V, r], [r], r = d + `num_oversamples` |

How it is computed: one update is one cycle of the block Golub-Kahan-Lanczos process with thick restarts (Golub, Luk &
Overton 1981; Baglama & Reichel 2005), in float32 with full orthogonalisation, done twice. The cycle starts from the
best r approximate triplets and widens their span by `blocks` blocks of `block` vectors, each two products with the
sparse matrix: orthonormal Q and P with M Q = P R. The singular value decomposition of the small R gives the next
triplets, and their residuals |M' u - s v| without a further product. The eigen form does the same with P = Q, the
block Lanczos process. Columns that the span has already are set to 0, which is harmless, so that matrices of any rank
and size may come. Cells are split over the data shards, each of which multiplies its own; one all-reduce adds the
products up.

The loss is the share of the sum of squares that is not explained, 1 - sum_{i<=d} s_i^2 / |M|^2. The model has
converged when all d residuals are below `tol` times their value.

Split: pair of words | one word | its pointwise mutual information with the other.

Expected: see `embeddings_jax/configs/ppmi.py`.
"""
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Float, Int

from embeddings_jax.ops import lanczos
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.lanczos import orthonormal, signs
from embeddings_jax.ops.sharding import DATA_AXES, num_data_shards
from embeddings_jax.ops.sparse import csr_matmul
from embeddings_jax.types import Array, Fact, InputError, Model

SIMILARITIES = ("ppmi", "pmi", "ratio", "log", "raw")
CHUNK = 1 << 16  # Cells of a scattered product at a time.


class PpmiState(NamedTuple):
  """The triplets found so far, and what the next cycle begins with.

  Attributes:
    left, right: [V, r] orthonormal columns, or 0 where there is none yet.
    values: [r] singular values (eigenvalues), descending.
    block: [V, b] orthonormal to `right`.
    log_row, log_context: [V] log p_i and log P_a(j).
    unexplained: [] the loss.
    residual: [] the largest of d, relative to its value.
    converged: [] int32.
  """

  left: Array
  right: Array
  values: Array
  block: Array
  log_row: Array
  log_context: Array
  unexplained: Array
  residual: Array
  converged: Array


@takes(row=None, col=None, count=None, mask=None, tokens=2)
def ppmi(
    *,
    vocab_size: Fact[int],
    marginals: Fact[Any],
    context_marginals: Fact[Any],
    total: Fact[float],
    symmetric: Fact[bool] = True,
    dim: int = 100,
    similarity: str = "ppmi",
    shift: float = 1.0,
    smoothing: float = 0.75,
    factorization: str = "svd",
    power: float = 0.5,
    vectors: str = "w",
    block: int = 32,
    blocks: int = 8,
    num_oversamples: int = 10,
    tol: float = 1e-2,
) -> Model:
  """A `Model` of batches `row`, `col`, `count`, `mask` [num_cells], sorted by row: the whole matrix.

  Args:
    vocab_size: V.
    marginals, context_marginals: [V], C_i. and C_.j, or of sliding windows the number with a word.
    total: N.
    symmetric: C_ij = C_ji; else products with the transposed matrix are scattered, which is about ten times as slow.
    dim: d.
    similarity: `ppmi`, `pmi`, `ratio`, `log` or `raw`; see above.
    shift: k of `ppmi` and `pmi`, the number of negative samples that sgns would have.
    smoothing: a, exponent of the contexts' distribution; 1 is none.
    factorization: `svd` or `eigen`, which needs a symmetric matrix (and so no smoothing).
    power: p, exponent of the values in the vectors.
    vectors: what `embed` gives: `w` [n, d], `w+c` [n, d] or `both` [n, 2 d], next to each other.
    block, blocks, num_oversamples: b, their number in a cycle, and triplets that are kept beyond d.
    tol: converged when all residuals are below this, relative to their value; 0 never converges.
  """
  _check_choice("similarity", similarity, SIMILARITIES)
  _check_choice("factorization", factorization, ("svd", "eigen"))
  _check_choice("vectors", vectors, ("w", "w+c", "both"))
  if not 1 <= dim <= vocab_size:
    raise InputError(f"ppmi: dim={dim}: must be from 1 to the {vocab_size} words of the vocabulary")
  for name, value, least in (("block", block, 1), ("blocks", blocks, 1), ("num_oversamples", num_oversamples, 0)):
    if value < least:
      raise InputError(f"ppmi: {name}={value}: must be at least {least}")
  if shift <= 0:
    raise InputError(f"ppmi: shift={shift}: its logarithm is taken, so it must be above 0")
  smoothed = similarity in ("ppmi", "pmi", "ratio") and smoothing != 1
  if factorization == "eigen" and (smoothed or not symmetric):
    raise InputError("ppmi: factorization=eigen needs a symmetric matrix: symmetric counts, and smoothing=1")
  num_kept = dim + num_oversamples
  cycle = _eigen_cycle if factorization == "eigen" else _svd_cycle

  def init(rng, batch):
    del batch
    nothing = jnp.zeros((vocab_size, num_kept), jnp.float32)
    log_row, log_context = _log_probabilities(marginals, context_marginals, total, smoothing)
    return PpmiState(
        left=nothing, right=nothing, values=jnp.zeros(num_kept, jnp.float32),
        block=orthonormal(jax.random.normal(rng, (vocab_size, block)), nothing),
        log_row=jnp.asarray(log_row, jnp.float32), log_context=jnp.asarray(log_context, jnp.float32),
        unexplained=jnp.ones((), jnp.float32), residual=jnp.ones((), jnp.float32),
        converged=jnp.zeros((), jnp.int32))

  def matrix(state, batch, row, col):
    """Values of the cells, `row` being the words' and `col` the contexts' ids."""
    count, valid = batch["count"], row_mask(batch) > 0
    if similarity == "raw":
      return jnp.where(valid, count, 0)
    valid &= count > 0
    count = jnp.where(valid, count, 1)
    if similarity == "log":
      return jnp.where(valid, jnp.log1p(count), 0)
    pmi = jnp.log(count) - jnp.log(total) - state.log_row[row] - state.log_context[col]
    if similarity == "ratio":
      return jnp.where(valid, jnp.exp(pmi), 0)
    pmi -= jnp.log(shift)
    return jnp.where(valid, jnp.maximum(pmi, 0) if similarity == "ppmi" else pmi, 0)

  def update(state, batch, rng):
    del rng

    def one_cycle(state):
      row, col = batch["row"], batch["col"]
      values = matrix(state, batch, row, col)
      cells = (jnp.where(row_mask(batch) > 0, row, vocab_size), col)  # The padding comes last.
      multiply = lambda x: _product(values, *cells, x)
      if symmetric:  # M'_ij is the similarity of the same count with the roles exchanged.
        transposed = matrix(state, batch, col, row)
        multiply_transposed = lambda x: _product(transposed, *cells, x)
      else:
        multiply_transposed = lambda x: _product(values, *cells, x, transposed=True)
      new = cycle(state, multiply, multiply_transposed, blocks)
      eigenvalues, size = jnp.maximum(new.values, 0), jnp.maximum((values * values).sum(), 1e-30)
      residual = (new.residual / jnp.maximum(eigenvalues, 1e-6 * eigenvalues[0] + 1e-30))[:dim].max()
      return new._replace(unexplained=jnp.maximum(1 - (eigenvalues[:dim] ** 2).sum() / size, 0), residual=residual,
                          converged=(residual < tol).astype(jnp.int32))

    state = jax.lax.cond(state.converged > 0, lambda state: state, one_cycle, state)
    return state, {"loss": state.unexplained, "residual": state.residual, "largest": state.values[0],
                   "smallest": state.values[dim - 1], "converged": state.converged}

  def tables(state):
    """Vectors of words and of contexts, [V, d] each."""
    weight = jnp.maximum(state.values[:dim], 0) ** power
    return state.left[:, :dim] * weight, state.right[:, :dim] * weight

  def embed(state, batch):
    words, contexts = tables(state)
    table = {"w": lambda: words, "w+c": lambda: words + contexts,
             "both": lambda: jnp.concatenate([words, contexts], 1)}[vectors]()
    tokens = batch["tokens"]
    valid = (tokens >= 0) & (tokens < vocab_size)
    rows = table.at[jnp.where(valid, tokens, vocab_size)].get(mode="fill", fill_value=0)
    return rows.sum(-2) / jnp.maximum(valid.sum(-1, keepdims=True), 1)

  def components(state):
    words, contexts = tables(state)
    return {"input": words, "output": contexts, "values": state.values[:dim]}

  def similarities(state, batch):
    """Values of the matrix at the batch's cells: [num_cells]."""
    return matrix(state, batch, batch["row"], batch["col"])

  rules = ((r"(^|/)(left|right|block)$", P("model", None)),)
  return Model(init, update, embed, {"components": components, "similarities": similarities}, rules)


def _svd_cycle(state: PpmiState, multiply: Callable, multiply_transposed: Callable, blocks: int) -> PpmiState:
  """One cycle; in the state that it returns `residual` is [r], absolute."""
  kept, size = state.values.shape[0], state.block.shape[1]
  widen = lambda x: jnp.pad(x, ((0, 0), (0, blocks * size)))
  core = jnp.zeros((kept + blocks * size,) * 2).at[jnp.arange(kept), jnp.arange(kept)].set(state.values)

  def one_block(j, carry):
    left, right, core, block, _ = carry
    corner = (0, kept + j * size)
    right = jax.lax.dynamic_update_slice(right, block, corner)
    image = multiply(block)
    new = orthonormal(image, left)
    left = jax.lax.dynamic_update_slice(left, new, corner)
    core = jax.lax.dynamic_update_slice(core, left.T @ image, corner)
    image = multiply_transposed(new)
    block = orthonormal(image, right)
    return left, right, core, block, block.T @ image

  start = (widen(state.left), widen(state.right), core, state.block, jnp.zeros((size, size)))
  left, right, core, block, beyond = jax.lax.fori_loop(0, blocks, one_block, start)
  first, values, second = jnp.linalg.svd(core)
  residual = jnp.linalg.norm(beyond @ first[-size:, :kept], axis=0)
  left, right = left @ first[:, :kept], right @ second.T[:, :kept]
  sign = signs(right)
  return state._replace(left=left * sign, right=right * sign, values=values[:kept], block=block, residual=residual)


def _eigen_cycle(state: PpmiState, multiply: Callable, multiply_transposed: Callable, blocks: int) -> PpmiState:
  """The same for a symmetric matrix, by one product a block."""
  del multiply_transposed
  kept, size = state.values.shape[0], state.block.shape[1]
  process = lanczos.start(state.right.T, state.values, state.block, kept + blocks * size)
  process = jax.lax.fori_loop(0, blocks, lambda _, process: lanczos.extend(process, multiply(process.block)), process)
  vectors, values, residual, block = lanczos.restart(process, kept)
  return state._replace(left=vectors.T, right=vectors.T, values=values, block=block, residual=residual)


def _product(
    values: Float[Array, " C"], row: Int[Array, " C"], col: Int[Array, " C"], x: Float[Array, "V b"],
    transposed: bool = False,
) -> Float[Array, "V b"]:
  """M x or M' x, [V, b], of cells sorted by row and split over the data shards; rows from V on are padding."""
  num_rows = x.shape[0]

  def local(values, row, col, x):
    if transposed:
      return _scattered(values, row, col, x)
    return csr_matmul(values, col, jnp.searchsorted(row, jnp.arange(num_rows + 1)).astype(jnp.int32), x)

  if num_data_shards() == 1:
    return local(values, row, col, x)
  return jax.shard_map(
      lambda *args: jax.lax.psum(local(*args), DATA_AXES),
      in_specs=(P(DATA_AXES), P(DATA_AXES), P(DATA_AXES), P()), out_specs=P())(values, row, col, x)


def _scattered(
    values: Float[Array, " C"], row: Int[Array, " C"], col: Int[Array, " C"], x: Float[Array, "V b"],
) -> Float[Array, "V b"]:
  """M' x in chunks; padding adds 0 to some row."""
  extra = -len(values) % CHUNK
  chunks = [jnp.pad(cells, (0, extra)).reshape(-1, CHUNK) for cells in (values, row, col)]

  def add(total, chunk):
    values, row, col = chunk
    return total.at[col].add(values[:, None] * x.at[row].get(mode="fill", fill_value=0)), None

  total = jnp.zeros_like(x)
  if num_data_shards() > 1:
    total = jax.lax.pcast(total, DATA_AXES, to="varying")
  return jax.lax.scan(add, total, tuple(chunks))[0]


def _log_probabilities(marginals: Any, context_marginals: Any, total: float,
                       smoothing: float) -> tuple[np.ndarray, np.ndarray]:
  """log p_i and log P_a(j); words that never occur get a finite one, which no cell asks for."""
  rows, contexts = (np.maximum(np.asarray(x, np.float64), 1e-300) for x in (marginals, context_marginals))
  smoothed = contexts ** smoothing
  # Sliding windows overlap, so that their marginals sum up to more than their number; smoothing keeps that sum.
  return np.log(rows / total), np.log(smoothed / smoothed.sum() * (contexts.sum() / total))


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
  if value not in choices:
    raise InputError(f"ppmi: {name}={value!r}: must be one of {', '.join(choices)}")
