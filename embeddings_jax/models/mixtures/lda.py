"""Latent Dirichlet allocation by variational Bayes (Blei, Ng & Jordan 2003; Hoffman, Blei & Bach 2010, "Online
Learning for Latent Dirichlet Allocation").

Topics beta_k ~ Dirichlet(eta) over words, mixtures theta_d ~ Dirichlet(alpha) over topics; each occurrence of a word
in document d draws a topic from theta_d and a word from it. The posterior is approximated by

  q(beta_k) = Dirichlet(lambda_k),   q(theta_d) = Dirichlet(gamma_d),   phi_dwk ~ exp(E log theta_dk + E log beta_kw)

and the evidence lower bound is raised by turns, with E log theta_dk = psi(gamma_dk) - psi(sum_j gamma_dj):

  E step, until gamma moves by less than `tol`:   gamma_dk <- alpha + sum_w n(d, w) phi_dwk
  M step, batch:   lambda_kw <- eta + sum_d n(d, w) phi_dwk
  M step, online:  lambda <- (1 - rho_t) lambda + rho_t (eta + D / |B| sum_{d in B} n(d, w) phi_dwk),
                   rho_t = (tau + t)^-kappa

  ELBO = sum_d E_q[log p(w_d, z_d, theta_d | alpha, beta) / q(z_d, theta_d)] - sum_k KL(q(beta_k) || p(beta_k))

| symbol | code | shape |
|---|---|---|
| lambda | `topics` | [V, k] |
| gamma | `embed` (divided by its sum: the mean of theta) | [n, k] |
| alpha, eta | `alpha`, `eta` | |
| tau, kappa | `offset`, `power` | |
| D, B | `num_documents`, the batch | |

How it is computed: as in `plsa`, sums over a cell's topics are products sampled at the cells, and sums over cells
are sparse products: with T = exp(E log theta), S = exp(E log beta) and Q = n / (T S) at the cells, gamma is
alpha + T (Q S) and the words' sums are S (Q' T). Blocks of documents are shared out to the data shards, and one
all-reduce adds them up. With `warm_start` gamma starts where the last update left it, else, and in streams, at 1. The
loss is minus the ELBO per occurrence, nats, of the topics before the update: with batch updates and a warm start it
never rises. A stream's ELBO is that of the batch, scaled by D / |B|.

Deviations: documents of a block go on until the last has converged.

Split: document | its mixture of topics | its counts.

Expected: scikit-learn's batch updates from the same start (tests/models/mixtures/test_lda.py), and
`embeddings_jax/configs/lda.py`.
"""
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, gammaln
from jax.sharding import PartitionSpec as P
from jaxtyping import Float

from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.centers import given_start
from embeddings_jax.ops.sharding import DATA_AXES, num_data_shards
from embeddings_jax.ops.sparse import csr_matmul, sampled_products
from embeddings_jax.types import Array, Fact, InputError, Model

CHUNK = 1 << 14  # Cells of a sampled product: more of them leave the cache.
LEAST = 1e-30


class LdaState(NamedTuple):
  """The topics, and what tells when to stop.

  Attributes:
    step: [] int32, updates made.
    topics: [V, k] lambda.
    mixtures: [blocks, R, k] gamma; [1, 1, k] where it is not kept.
    score: [] ELBO per occurrence of the last update.
    converged: [] int32.
  """

  step: Array
  topics: Array
  mixtures: Array
  score: Array
  converged: Array


@takes(words=2, counts=2, document=None, row=None, col=None, count=None)
def lda(
    *,
    vocab_size: Fact[int],
    num_documents: Fact[int],
    topics: Fact[Any] = None,
    num_topics: int = 50,
    alpha: float = 0.0,
    eta: float = 0.0,
    online: bool = False,
    warm_start: bool = True,
    offset: float = 10.0,
    power: float = 0.7,
    inner_steps: int = 100,
    inner_tol: float = 1e-3,
    tol: float = 1e-5,
) -> Model:
  """Topics of documents. A training batch is what `data/bags.py: bag_source` says.

  Args:
    vocab_size, num_documents: V and D.
    topics: lambda [V, k] to start from; by default draws from Gamma(100, 1/100).
    num_topics: k.
    alpha, eta: Concentrations of the Dirichlet priors of mixtures and of topics; 0: 1 / k.
    online: Make an M step of a weight rho_t after every batch of a stream.
    warm_start: Begin the E step of batch updates where the last one ended.
    offset, power: tau and kappa, in (0.5, 1].
    inner_steps: Turns of the E step at most.
    inner_tol: The E step ends when the mean change of each document's gamma is below this.
    tol: Converged when the ELBO per occurrence rises by less than this relative to its size; 0: never. Online never.

  Returns:
    A `Model`. `embed` takes `words` [n, L] int32, padded with -1, and `counts` [n, L], and gives the mean mixtures
    [n, k]. Outputs for the same batches: `log_likelihood` [n], a lower bound given the topics' means, and `loss`; and
    `components`: `beta` [k, V], the topics' means, `weights` [k] and `lambda` [k, V].
  """
  if num_topics < 1 or inner_steps < 1:
    raise InputError(f"lda: num_topics={num_topics}, inner_steps={inner_steps}: must be at least 1")
  if min(alpha, eta, tol, inner_tol, offset) < 0:
    raise InputError(f"lda: alpha={alpha}, eta={eta}, tol={tol}, inner_tol={inner_tol}, offset={offset}: must not be "
                     "negative")
  if online and not 0.5 < power <= 1:
    raise InputError(f"lda: power={power}: online learning converges for powers in (0.5, 1]")
  alpha, eta = alpha or 1 / num_topics, eta or 1 / num_topics
  kept = warm_start and not online
  start = None if topics is None else given_start("topics", topics, (vocab_size, num_topics))

  def init(rng, batch):
    if not online and batch["document"].size < num_documents:
      raise InputError(f"lda: the batch has room for {batch['document'].size} of {num_documents} documents, and "
                       "batch updates need all; set batch_size=0, or model.online=True")
    shape = batch["document"].shape if kept else (1, 1)
    drawn = jax.random.gamma(rng, 100.0, (vocab_size, num_topics)) / 100 if start is None else start
    return LdaState(jnp.zeros((), jnp.int32), drawn, jnp.ones((*shape, num_topics)), jnp.finfo(jnp.float32).min,
                    jnp.zeros((), jnp.int32))

  def update(state, batch, rng):
    del rng  # The E step is deterministic.
    blocks = {name: batch[name] for name in ("row", "col", "count", "row_start", "col_start", "turned", "document")}
    blocks["count"] = blocks["count"] * row_mask(batch)[:, None]
    blocks["document"] = jnp.where(row_mask(batch)[:, None] > 0, blocks["document"], -1)
    gamma = state.mixtures if kept else jnp.ones((*blocks["document"].shape, num_topics))
    words, sums, gamma = _over_shards(state.topics, gamma, blocks, alpha, inner_steps, inner_tol)
    bound, occurrences, documents, turns = sums
    scale = num_documents / jnp.maximum(documents, 1) if online else 1.0
    elbo = (scale * bound - topic_divergence(state.topics, eta)) / jnp.maximum(scale * occurrences, 1)
    rate = (state.step + offset) ** -power if online else 1.0
    fresh = (1 - rate) * state.topics + rate * (eta + scale * words)
    close = jnp.abs(elbo - state.score) <= tol * jnp.abs(elbo)
    converged = (close & (not online) & (tol > 0)).astype(jnp.int32)
    new = LdaState(state.step + 1, fresh, gamma if kept else state.mixtures, elbo, converged)
    new = jax.tree.map(lambda a, b: jnp.where(state.converged > 0, a, b), state, new)
    return new, {"loss": -elbo, "perplexity": jnp.exp(-elbo), "inner_turns": turns / batch["count"].shape[0],
                 "converged": new.converged}

  def mixtures(state, batch):
    """gamma [n, k] of bags, and each one's bound given the topics, [n]."""
    words, count = batch["words"], batch["counts"]
    known = (words >= 0) & (words < vocab_size)
    count = jnp.where(known, count, 0)
    weights = jnp.exp(expected_log(state.topics, 0)).at[jnp.where(known, words, vocab_size)].get(
        mode="fill", fill_value=0)

    def turn(gamma):
      mixture = jnp.exp(expected_log(gamma, -1))
      share = count / jnp.maximum(jnp.einsum("nlk,nk->nl", weights, mixture), LEAST)
      return alpha + mixture * jnp.einsum("nlk,nl->nk", weights, share)

    # Each document stops by itself, so that it does not depend on the others.
    gamma = _until(turn, jnp.ones((len(words), num_topics)), inner_steps, inner_tol, each=True)[0]
    logs = expected_log(gamma, -1)
    total = jnp.log(jnp.maximum(jnp.einsum("nlk,nk->nl", weights, jnp.exp(logs)), LEAST))
    return gamma, (count * total).sum(1) + mixture_terms(gamma, logs, alpha)

  def embed(state, batch):
    gamma, _ = mixtures(state, batch)
    return gamma / gamma.sum(1, keepdims=True)

  def loss(state, batch):
    known = (batch["words"] >= 0) & (batch["words"] < vocab_size)
    mask = row_mask(batch)
    occurrences = (jnp.where(known, batch["counts"], 0) * mask[:, None]).sum()
    return -(mask * mixtures(state, batch)[1]).sum() / jnp.maximum(occurrences, 1)

  def components(state):
    total = state.topics.sum(0)
    return {"beta": (state.topics / total).T, "weights": total / total.sum(), "lambda": state.topics.T}

  outputs = {"log_likelihood": lambda state, batch: mixtures(state, batch)[1], "loss": loss, "components": components}
  rules = ((r"(^|/)topics$", P("model", None)), (r"(^|/)mixtures$", P(DATA_AXES)))
  return Model(init, update, embed, outputs, rules)


def expected_log(concentration: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
  """Returns E log of the probabilities that have a Dirichlet distribution along an axis."""
  return digamma(concentration) - digamma(concentration.sum(axis, keepdims=True))


def mixture_terms(gamma: Float[Array, "*n k"], logs: Float[Array, "*n k"], alpha: float) -> Float[Array, "*n"]:
  """Returns -KL(q(theta) || p(theta)) of each document; `logs` is E log theta."""
  k = gamma.shape[-1]
  return (((alpha - gamma) * logs).sum(-1) + gammaln(gamma).sum(-1) - gammaln(gamma.sum(-1))
          + gammaln(k * alpha) - k * gammaln(alpha))


def topic_divergence(topics: Float[Array, "V k"], eta: float) -> Float[Array, ""]:
  """Returns the sum of KL(q(beta_k) || p(beta_k)) over topics."""
  size = topics.shape[0]
  gain = ((eta - topics) * expected_log(topics, 0)).sum(0) + gammaln(topics).sum(0) - gammaln(topics.sum(0))
  return -(gain + gammaln(size * eta) - size * gammaln(eta)).sum()


def _until(turn: Any, start: Array, steps: int, tol: float, each: bool = False) -> tuple[Array, Array]:
  """Repeats `turn` until no row changes by more than `tol` on average, or rows stop one by one; and counts turns."""
  def go_on(carry):
    return (carry[2] < steps) & carry[1].any()

  def body(carry):
    old, moving, number = carry
    new = turn(old)
    new = jnp.where(moving[:, None], new, old) if each else new
    moves = jnp.abs(new - old).mean(-1) >= tol
    return new, moving & moves if each else moves, number + 1

  moving = start.sum(-1) > 0  # All rows, on the shards that have them.
  gamma, _, number = jax.lax.while_loop(go_on, body, (start, moving, jnp.zeros((), jnp.int32)))
  return gamma, number


def _sums(topics: Array, start: Array, blocks: Any, alpha: float, steps: int,
          tol: float) -> tuple[Array, Array, Array]:
  """The words' sums [V, k] of some blocks; their bound, occurrences, documents and turns; and gamma, from `start`."""
  weights = jnp.exp(expected_log(topics, 0))

  def one_block(total, part):
    start, block = part
    row, col, count = block["row"], block["col"], block["count"]

    def cells(mixture):
      return count / jnp.maximum(_sampled(mixture, weights, row, col), LEAST)

    def turn(gamma):
      mixture = jnp.exp(expected_log(gamma, -1))
      return alpha + mixture * csr_matmul(cells(mixture), col, block["row_start"], weights)

    gamma, turns = _until(turn, start, steps, tol)
    logs = expected_log(gamma, -1)
    mixture = jnp.exp(logs)
    turned = block["turned"]
    words = weights * csr_matmul(cells(mixture)[turned], row[turned], block["col_start"], mixture)
    valid = block["document"] >= 0
    bound = (count * jnp.log(jnp.maximum(_sampled(mixture, weights, row, col), LEAST))).sum()
    bound += jnp.where(valid, mixture_terms(gamma, logs, alpha), 0).sum()
    numbers = jnp.stack([bound, count.sum(), valid.sum(dtype=jnp.float32), turns.astype(jnp.float32)])
    return (total[0] + words, total[1] + numbers), gamma

  zeros = (jnp.zeros_like(topics), jnp.zeros(4))
  if num_data_shards() > 1:
    zeros = jax.lax.pcast(zeros, DATA_AXES, to="varying")
  sums, gamma = jax.lax.scan(one_block, zeros, (start, blocks))
  return *sums, gamma


def _over_shards(topics: Array, start: Array, blocks: Any, *options: Any) -> tuple[Array, Array, Array]:
  """`_sums` of each shard's blocks, added up over the shards in one all-reduce."""
  if num_data_shards() == 1:
    return _sums(topics, start, blocks, *options)

  def local(topics, start, blocks):
    *sums, gamma = _sums(topics, start, blocks, *options)
    return *jax.lax.psum(sums, DATA_AXES), gamma

  shards = P(DATA_AXES)
  return jax.shard_map(local, in_specs=(P(), shards, shards), out_specs=(P(), P(), shards))(topics, start, blocks)


def _sampled(first: Array, second: Array, row: Array, col: Array) -> Array:
  """`sampled_products` in chunks that stay in the cache."""
  num_cells = row.shape[0]
  chunks = -(-num_cells // CHUNK)
  size = -(-num_cells // chunks)
  row, col = (jnp.pad(x, (0, chunks * size - len(x))).reshape(chunks, size) for x in (row, col))
  return jax.lax.map(lambda at: sampled_products(first, second, *at), (row, col)).reshape(-1)[:num_cells]
