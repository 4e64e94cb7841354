"""Latent semantic analysis (Deerwester, Dumais, Furnas, Landauer & Harshman 1990): the truncated singular value
decomposition of a matrix of documents x words.

From the counts c of a word w in a document d (of n), whose local weight is scaled by the word's global one,

  count          a_dw = c
  tf-idf         a_dw = t(c) (1 + log (1 + n) / (1 + n_w)),  t(c) = 1 + log c (c below 1: c),  n_w documents have w
  log-entropy    a_dw = log (1 + c) (1 - H_w / log n),  H_w the entropy of w's occurrences over the documents
                 (Dumais 1991)

and, with `unit`, each row scaled to length 1, the uncentered matrix A is approximated by A ~ U S V' of rank k. The
singular values can stand on either side, or be split: documents are the rows of U S^p, words those of V S^(1-p), so
that the product of a document and a word is their entry of A. A new document's row a is folded in as a V S^(p-1),
which for a document of A is its row of U S^p.

| symbol | code | shape |
|---|---|---|
| V', S | `state.components`, `state.values` | [k, V], [k] |
| H or n_w, as factors | `state.weights` | [V] |
| p | `power` | [] |

How it is computed: V and S^2 are the largest eigenvectors and eigenvalues of A'A, which is never formed: the block
Lanczos process of `ops/lanczos.py` multiplies blocks of vectors by A and then by A'. Where the batch is the whole
set, one update goes on until the basis is full; else a block takes a pass over the batches. Documents are split over
the data shards, and one all-reduce [V, b] adds the products up. In float32: singular values are exact to some 1e-6 of
the largest.

The loss is the share of the sum of squares that is not explained, 1 - sum s_i^2 / |A|^2. It ends when the k residuals
|A'A v - s^2 v| are below `tol` times s^2.

Split: document | its place in few dimensions | its weighted counts.

Expected: scipy's singular values and scikit-learn's vectors (tests/models/factorization/test_lsa.py). Command:
`python -m experiments.run --model=lsa`.
"""
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Float, Int

from embeddings_jax.ops import lanczos
from embeddings_jax.ops.batches import takes
from embeddings_jax.ops.chunks import sum_over_chunks
from embeddings_jax.ops.sharding import DATA_AXES, num_data_shards
from embeddings_jax.ops.sparse import csr_matmul
from embeddings_jax.types import Array, Batch, Fact, InputError, Model

STAGES, LARGE = 4, 1 << 20  # A step costs what the basis has room for: a large one grows by stages.
WEIGHTINGS = ("tf-idf", "log-entropy", "count")


class Cells(NamedTuple):
  """Weighted cells of a block of documents, by document and by word; leading axes of blocks may stand before.

  Attributes:
    values, col: [C], and row_start [R + 1] in them.
    turned, row: [C], and col_start [V + 1] in them: of the transposed matrix.
  """

  values: Array
  col: Array
  row_start: Array
  turned: Array
  row: Array
  col_start: Array


class LSAState(NamedTuple):
  """The decomposition so far and the search under way.

  Attributes:
    step: [] int32, updates made.
    components: [k, V] orthonormal; 0 before the first are known.
    values: [k] singular values, descending.
    weights: [V] global weights of the words.
    square: [] |A|^2, of the epoch under way.
    image: [V, b] A'A block, of the epoch under way; () where the batch is the whole set.
    search: the Lanczos process.
    unexplained, residual: [] the loss; the largest residual of k, relative to its value.
    converged: [] int32.
  """

  step: Array
  components: Array
  values: Array
  weights: Array
  square: Array
  image: Any
  search: lanczos.Process
  unexplained: Array
  residual: Array
  converged: Array


@takes(words=2, counts=2, row=None, col=None, count=None, mask=None)
def lsa(
    *,
    vocab_size: Fact[int],
    num_documents: Fact[int],
    document_frequency: Fact[Any],
    entropy: Fact[Any],
    dim: int = 100,
    steps_per_epoch: Fact[int] = 1,
    weighting: str = "tf-idf",
    unit: bool = True,
    power: float = 1.0,
    block: int = 16,
    basis: int = 464,
    num_oversamples: int = 10,
    tol: float = 5e-3,
) -> Model:
  """A `Model` of blocks of documents, see `data/bags.py: bag_source`.

  Args:
    vocab_size, num_documents: V, n.
    document_frequency: [V], n_w.
    entropy: [V], H_w, nats.
    dim: k.
    steps_per_epoch: batches of an epoch; 1: each batch is the whole set.
    weighting: `tf-idf`, `log-entropy` or `count`.
    unit: scale the weighted documents to length 1.
    power: p: 1 puts the singular values on the documents' side, 0 on the words', 1/2 splits them.
    block: b, vectors that are multiplied at a time. Where batches are read from the disk, few passes are wanted:
      as many as `dim`, then.
    basis: vectors that the search holds before it looks at what they give, at least dim + num_oversamples + block.
    num_oversamples: triplets that are kept beyond k when it goes on.
    tol: 0 never converges.

  Returns:
    `embed` gives vectors [n, k] of documents, a batch of `words` and `counts` [n, length], padded with -1 and 0; one
    without known words is a zero vector. Outputs: `components`: `words` [V, k] and `values` [k]; `loss` of such a
    batch, the share of its squares that V does not hold; `weighted` [blocks, C], A's entries for a training batch.
  """
  if weighting not in WEIGHTINGS:
    raise InputError(f"lsa: weighting={weighting!r}: must be one of {', '.join(WEIGHTINGS)}")
  if not 1 <= dim <= min(vocab_size, num_documents):
    raise InputError(f"lsa: dim={dim}: must be from 1 to {min(vocab_size, num_documents)}, for there are "
                     f"{num_documents} documents of {vocab_size} words")
  for name, value, least in (("block", block, 1), ("num_oversamples", num_oversamples, 0),
                             ("basis", basis, dim + num_oversamples + block)):
    if value < least:
      raise InputError(f"lsa: {name}={value}: must be at least {least}")
  kept = dim + num_oversamples
  weigh = functools.partial(weighted_block, weighting=weighting, unit=unit)
  rows_of = functools.partial(weighted_rows, weighting=weighting, unit=unit)
  whole = steps_per_epoch == 1

  def init(rng, batch):
    del batch
    start = lanczos.orthonormal(jax.random.normal(rng, (vocab_size, block)), jnp.zeros((vocab_size, 1)))
    search = lanczos.fresh(start, kept if whole else basis)
    weights = jnp.asarray(_global_weights(weighting, num_documents, document_frequency, entropy), jnp.float32)
    zero, one = jnp.zeros(()), jnp.ones(())
    return LSAState(
        step=jnp.zeros((), jnp.int32), components=jnp.zeros((dim, vocab_size)), values=jnp.zeros(dim),
        weights=weights, square=zero, image=() if whole else jnp.zeros((vocab_size, block)), search=search,
        unexplained=one, residual=one, converged=jnp.zeros((), jnp.int32))

  def update(state, batch, rng):
    del rng
    batch = {name: batch[name] for name in ("row", "col", "count", "mask", "row_start", "turned", "col_start")}
    state = jax.lax.cond(state.converged > 0, lambda state: state,
                         lambda state: (search_whole if whole else accumulate)(state, batch), state)
    return state, {"loss": state.unexplained, "residual": state.residual, "largest": state.values[0],
                   "smallest": state.values[-1], "converged": state.converged}

  def search_whole(state, batch):
    cells = each_block(weigh, state.weights, batch)
    first = lambda tree: jax.tree.map(lambda x: x[0], tree)
    multiply = lambda x: sum_over_chunks(lambda x, cells: normal_product(first(cells), x), x, cells, 1)
    search = state.search
    stages = STAGES if basis * vocab_size > LARGE else 1
    for capacity in np.linspace(max(kept, block), basis, stages + 1).astype(int)[1:]:
      search = jax.lax.while_loop(lambda search: ~lanczos.full(search),
                                  lambda search: lanczos.extend(search, multiply(search.block)),
                                  lanczos.grown(search, int(capacity)))
    return found(state._replace(step=state.step + 1), search, (cells.values ** 2).sum(), kept)

  def accumulate(state, batch):
    def one_block(args, block):
      (weights, x), block = args, jax.tree.map(lambda x: x[0], block)
      cells = weigh(weights, block)
      return normal_product(cells, x), (cells.values ** 2).sum()

    image, square = sum_over_chunks(one_block, (state.weights, state.search.block), batch, 1)
    state = state._replace(step=state.step + 1, image=state.image + image, square=state.square + square)
    return jax.lax.cond(state.step % steps_per_epoch == 0, end_of_pass, lambda state: state, state)

  def end_of_pass(state):
    search, square = lanczos.extend(state.search, state.image), state.square
    state = state._replace(search=search, image=jnp.zeros_like(state.image), square=jnp.zeros(()))
    return jax.lax.cond(lanczos.full(search), lambda state: found(state, search, square, basis), lambda state: state,
                        state)

  def found(state, search, square, capacity):
    """The new triplets, and a search of that capacity that resumes from them."""
    vectors, squares, residual, beyond = lanczos.restart(search, kept)
    relative = (residual / jnp.maximum(squares, 1e-6 * squares[0] + 1e-30))[:dim].max()
    explained = jnp.maximum(squares[:dim], 0)
    return state._replace(
        components=vectors[:dim], values=jnp.sqrt(explained), residual=relative,
        unexplained=jnp.maximum(1 - explained.sum() / jnp.maximum(square, 1e-30), 0),
        converged=(relative < tol).astype(jnp.int32),
        search=lanczos.start(vectors, squares, beyond, capacity))

  def embed(state, batch):
    return project(*rows_of(state.weights, batch), state.components.T * powers(state.values, power - 1))

  def loss(state, batch):
    values, col = rows_of(state.weights, batch)
    explained = (project(values, col, state.components.T) ** 2).sum()
    return 1 - explained / jnp.maximum((values ** 2).sum(), 1e-30)

  def components(state):
    return {"words": state.components.T * powers(state.values, 1 - power), "values": state.values}

  def weighted(state, batch):
    return each_block(weigh, state.weights, batch).values

  rules = ((r"(^|/)(components|basis)$", P(None, "model")), (r"(^|/)(image|block)$", P("model", None)))
  return Model(init, update, embed, {"components": components, "loss": loss, "weighted": weighted}, rules)


def local_weight(count: Float[Array, "*cells"], weighting: str) -> Float[Array, "*cells"]:
  """Returns the local weights of counts; a fractional count below 1 is its own weight under `tf-idf`."""
  if weighting == "count":
    return count
  safe = jnp.maximum(count, 1)
  return jnp.log1p(count) if weighting == "log-entropy" else jnp.where(count >= 1, 1 + jnp.log(safe), count)


def weighted_block(weights: Float[Array, " V"], block: Batch, *, weighting: str, unit: bool) -> Cells:
  """Returns the entries of A of one block of documents."""
  row, col = block["row"], block["col"]
  values = local_weight(block["count"] * block["mask"], weighting) * weights[col]
  if unit:
    squares = jnp.zeros(block["row_start"].shape[0] - 1).at[row].add(values ** 2)
    values *= jax.lax.rsqrt(jnp.maximum(squares, 1e-30))[row]
  return Cells(values, col, block["row_start"], values[block["turned"]], row[block["turned"]], block["col_start"])


def each_block(weigh: Callable[[Array, Batch], Cells], weights: Float[Array, " V"], batch: Batch) -> Cells:
  """Returns `weigh` of all blocks of a batch; none leaves its device."""
  local = lambda weights, batch: jax.lax.map(lambda block: weigh(weights, block), batch)
  if num_data_shards() == 1:
    return local(weights, batch)
  return jax.shard_map(local, in_specs=(P(), P(DATA_AXES)), out_specs=P(DATA_AXES))(weights, batch)


def normal_product(cells: Cells, x: Float[Array, "V b"]) -> Float[Array, "V b"]:
  """Returns A'A x of one block."""
  image = csr_matmul(cells.values, cells.col, cells.row_start, x)
  return csr_matmul(cells.turned, cells.row, cells.col_start, image)


def weighted_rows(
    weights: Float[Array, " V"], batch: Batch, *, weighting: str, unit: bool,
) -> tuple[Float[Array, "n length"], Int[Array, "n length"]]:
  """Returns documents' rows of A, of `words` and `counts`: values and columns, 0 where there is no word."""
  valid = (batch["words"] >= 0) & (batch["words"] < len(weights))
  col = jnp.where(valid, batch["words"], 0)
  values = jnp.where(valid, local_weight(batch["counts"], weighting) * weights[col], 0)
  if unit:
    values *= jax.lax.rsqrt(jnp.maximum((values ** 2).sum(1, keepdims=True), 1e-30))
  return values, col


def project(values: Float[Array, "n length"], col: Int[Array, "n length"],
            table: Float[Array, "V k"]) -> Float[Array, "n k"]:
  """Returns rows of A times a table."""
  starts = jnp.arange(values.shape[0] + 1, dtype=jnp.int32) * values.shape[1]
  return csr_matmul(values.reshape(-1), col.reshape(-1), starts, table)


def powers(values: Float[Array, " k"], exponent: float) -> Float[Array, " k"]:
  """Returns S^exponent; 0 where a singular value is 0 up to rounding."""
  valid = values > 1e-6 * values[0]
  return jnp.where(valid, jnp.where(valid, values, 1) ** exponent, 0)


def _global_weights(weighting: str, num_documents: int, document_frequency: Any, entropy: Any) -> np.ndarray:
  """[V], float64."""
  frequency = np.asarray(document_frequency, np.float64)
  if weighting == "tf-idf":
    return 1 + np.log((1 + num_documents) / (1 + frequency))
  if weighting == "log-entropy":
    # A word that is spread evenly says nothing; rounding must not make that negative.
    return np.maximum(1 - np.asarray(entropy, np.float64) / max(np.log(num_documents), 1e-30), 0)
  return np.ones(len(frequency))
