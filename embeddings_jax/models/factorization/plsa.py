"""Probabilistic latent semantic analysis (Hofmann 1999, "Probabilistic Latent Semantic Analysis"; Hofmann 2001,
"Unsupervised Learning by Probabilistic Latent Semantic Analysis").

Maximizes the log likelihood of the counts n(d, w) of words w in documents d,

  L = sum_dw n(d, w) log p(w|d),   p(w|d) = sum_k beta_kw theta_dk,   sum_w beta_kw = sum_k theta_dk = 1,

by expectation maximization, in the asymmetric form (the documents' own frequencies are left out):

  E step:  q_dwk = beta_kw theta_dk / sum_j beta_jw theta_dj                    (the posterior p(k|d, w))
  M step:  beta_kw ~ sum_d n(d, w) q_dwk,   theta_dk ~ sum_w n(d, w) q_dwk

| symbol | code | shape |
|---|---|---|
| theta (p(z|d)) | `theta`, `embed` | [blocks, R, k] in the order of the batch; [n, k] |
| beta (p(w|z)) | `beta` | [V, k] |
| p(z) | `weights` | [k] |
| b (beta in the papers: the inverse computational temperature) | `inverse_temperature` | [] |

EM is coordinate ascent (Neal & Hinton 1998). For any distributions q_dw over the topics let

  F(q, beta, theta) = sum_dwk n(d, w) q_dwk log [q_dwk / (beta_kw theta_dk)];   then
  L = -F + sum_dw n(d, w) KL(q_dw || posterior_dw).

The E step minimizes F over q: L does not depend on q, and where q is the posterior KL is 0 and F = -L. The M step
minimizes F over beta and theta. So both half steps lower F, and L never falls (its test).

Tempered EM: q_dwk ~ (beta_kw theta_dk)^b with b <= 1, so that the documents' own peculiarities count for less. As in
the papers: plain EM (b = 1) until the likelihood of held-out occurrences no longer improves; then b is multiplied by
`tempering` for as long as that, too, brings an improvement. An iteration that is none is not taken, except the first
at each temperature.

New documents are folded in: theta by EM from equal shares with beta held, at the temperature that training ended at.

One update is one batch, in one of two ways:
- EM on the whole set, whose theta is part of the state;
- `stepwise=True` (Cappe & Moulines 2009), for streams of documents: theta of the batch's documents by folding in,
  then an M step with the running averages s <- (1 - eta_t) s + eta_t s_batch of the topics' words,
  eta_t = (t + 2)^-power.

How it is computed: with T = theta^b and B = beta^b the sums over a cell's topics, s_dw = sum_k T_dk B_wk, are
products sampled at the cells; with Q = n / s the M step is theta ~ T (Q B), beta ~ B (Q' T), two sparse products.
Nothing of the size documents x words, or cells x topics, ever exists. Blocks of documents are shared out to the data
shards; one all-reduce adds the words' sums up.

Deviations: a probability below 1e-30 counts as 1e-30 in the likelihood; a document without words has equal shares; a
topic without occurrences keeps its words. The loss is -L / sum n: nats per occurrence (its exponential: perplexity).

Split: token of a document | the document | the word.

Expected: see `embeddings_jax/configs/plsa.py`.
"""
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Float, Int

from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.restarts import restarts
from embeddings_jax.ops.sharding import DATA_AXES, num_data_shards
from embeddings_jax.ops.sparse import csr_matmul, sampled_products
from embeddings_jax.types import Array, Fact, InputError, Model

WIDTH_MULTIPLE = 8  # Of what sparse products read: rows that begin at a cache line are twice as fast.
CHUNK = 1 << 14  # Cells of a sampled product: more of them leave the cache.
LEAST = 1e-30


class PlsaState(NamedTuple):
  """The parameters, and what tells when to stop.

  Attributes:
    step: [] int32.
    theta: [blocks, R, k] topics of the documents; [1, 1, k] of stepwise EM, which keeps none.
    beta: [V, k] words of the topics; columns sum up to 1.
    weights: [k] the topics' shares of all occurrences.
    document: [blocks, R] int32, the number of each document; -1 is none.
    inverse_temperature: [] b.
    score: [] what the last update was judged by: log likelihood per (held-out) occurrence.
    gained: [] int32, whether this temperature has brought an improvement.
    fresh: [] int32, whether the temperature was lowered just now, so that there is nothing to judge.
    converged: [] int32.
  """

  step: Array
  theta: Array
  beta: Array
  weights: Array
  document: Array
  inverse_temperature: Array
  score: Array
  gained: Array
  fresh: Array
  converged: Array


@takes(words=2, counts=2, document=None, row=None, col=None, count=None)
def plsa(
    *,
    vocab_size: Fact[int],
    num_documents: Fact[int],
    counts: Fact[Any],
    num_topics: int = 50,
    tempering: float = 1.0,
    early_stopping: bool = True,
    tol: float = 1e-5,
    stepwise: bool = False,
    power: float = 0.7,
    fold_in_steps: int = 30,
    num_init: int = 1,
) -> Model:
  """Topics of documents. A training batch is what `data.bags.bag_source` says.

  Args:
    vocab_size, num_documents: V and the number of documents.
    counts: [V] occurrences of each word.
    num_topics: k.
    tempering: factor of b, from 0 to 1; 1 is plain EM. Below 1 needs occurrences that are held out.
    early_stopping: stop by the held-out occurrences, where there are any; else by the likelihood of the others.
    tol: an iteration is an improvement where the log likelihood per occurrence rises by more than this,
      relative to its size. EM has converged at the first that is none; stepwise EM does not converge, nor does EM
      that is judged by its own likelihood where this is 0.
    stepwise: make an M step after every batch.
    power: Exponent of the decay of the stepwise rate, in (0.5, 1].
    fold_in_steps: EM steps of folding in.
    num_init: Number of starts, trained together; the one with the best score is kept: the log likelihood per
      occurrence by which `early_stopping` stops (stepwise: of a batch).

  Returns:
    A `Model`. `embed` takes `words` [n, L] int32, padded with -1, and `counts` [n, L], and gives theta [n, k].
    Outputs for the same batches: `log_likelihood` [n], sums over a document's occurrences, and `loss`; and
    `components`: `beta` [k, V], `weights` [k] and, unless stepwise, `theta` [num_documents, k].
  """
  if num_topics < 1:
    raise InputError(f"plsa: num_topics={num_topics}: must be at least 1")
  if not 0 < tempering <= 1:
    raise InputError(f"plsa: tempering={tempering}: must be above 0 and at most 1")
  if tempering < 1 and not early_stopping:
    raise InputError(f"plsa: tempering={tempering} goes by the held-out occurrences, as early_stopping=True does")
  if stepwise and (tempering < 1 or not 0.5 < power <= 1):
    raise InputError(f"plsa: stepwise EM converges for powers in (0.5, 1], not {power}, and is not tempered")
  if tol < 0 or fold_in_steps < 1:
    raise InputError(f"plsa: tol={tol} must not be negative, fold_in_steps={fold_in_steps} at least 1")
  counts = np.asarray(counts, np.float64)
  if counts.shape != (vocab_size,):
    raise InputError(f"plsa: counts of shape {counts.shape} do not fit vocab_size={vocab_size}")

  def init(rng, batch):
    if tempering < 1 and "held" not in batch:
      raise InputError(f"plsa: tempering={tempering} needs occurrences that are held out: data.held_out=0.1")
    document = batch["document"]
    if stepwise:  # There is no theta to keep, but neither can arrays without elements be saved.
      document = jnp.full((1, 1), -1, jnp.int32)
    # The words' frequencies, each topic's with a noise of its own; documents start from equal shares.
    beta = jnp.asarray(counts / counts.sum(), jnp.float32)[:, None] * jax.random.exponential(
        rng, (vocab_size, num_topics), jnp.float32)
    integer = lambda value: jnp.asarray(value, jnp.int32)
    return PlsaState(
        step=integer(0), theta=jnp.full((*document.shape, num_topics), 1 / num_topics, jnp.float32),
        beta=beta / beta.sum(0), weights=jnp.full(num_topics, 1 / num_topics, jnp.float32),
        # A copy, for the state is donated and the batch is not.
        document=jnp.copy(document), inverse_temperature=jnp.float32(1),
        score=jnp.finfo(jnp.float32).min, gained=integer(1), fresh=integer(0), converged=integer(0))

  def update(state, batch, rng):
    del rng  # EM is deterministic.
    return stepwise_update(state, batch) if stepwise else exact_update(state, batch)

  def exact_update(state, batch):
    power = None if tempering == 1 else state.inverse_temperature
    theta, words, sums = _over_shards(_em_sums, state.theta, state.beta, power, batch)
    log_likelihood, occurrences, held_log_likelihood, held_occurrences = sums
    beta, weights = _m_step(state.beta, words)
    loss = -log_likelihood / jnp.maximum(occurrences, LEAST)
    metrics = {"loss": loss, "perplexity": jnp.exp(loss), "inverse_temperature": state.inverse_temperature}
    score = -loss
    if "held" in batch:
      held_loss = -held_log_likelihood / jnp.maximum(held_occurrences, LEAST)
      metrics |= {"held_out_loss": held_loss, "held_out_perplexity": jnp.exp(held_loss)}
      score = -held_loss if early_stopping else score
    # A score after b was lowered is that of the same parameters as before.
    better = (score > state.score + tol * jnp.abs(state.score)) | (state.fresh > 0)
    better |= tol == 0 and not ("held" in batch and early_stopping)
    lower = ~better & (state.gained > 0) & (tempering < 1)
    new = PlsaState(
        step=state.step + 1, theta=theta, beta=beta, weights=weights, document=state.document,
        inverse_temperature=state.inverse_temperature, score=score,
        gained=jnp.where(state.fresh > 0, state.gained, 1), fresh=jnp.zeros_like(state.fresh),
        converged=state.converged)
    stay = state._replace(
        step=state.step + 1, inverse_temperature=jnp.where(lower, tempering, 1) * state.inverse_temperature,
        gained=jnp.zeros_like(state.gained), fresh=lower.astype(jnp.int32), converged=(~lower).astype(jnp.int32))
    new = jax.tree.map(lambda a, b: jnp.where(better, a, b), new, stay)
    new = jax.tree.map(lambda a, b: jnp.where(state.converged > 0, a, b), state, new)
    return new, metrics | {"converged": new.converged}

  def stepwise_update(state, batch):
    start = jnp.full((*batch["document"].shape, num_topics), 1 / num_topics, jnp.float32)
    _, words, sums = _over_shards(_em_sums, start, state.beta, None, batch, fold_in_steps)
    occurrences = jnp.maximum(sums[1], LEAST)
    rate = (state.step + 2.0) ** -power
    beta, weights = _m_step(state.beta, (1 - rate) * state.beta * state.weights + rate * words / occurrences)
    loss = -sums[0] / occurrences
    new = state._replace(step=state.step + 1, beta=beta, weights=weights, score=-loss)
    return new, {"loss": loss, "perplexity": jnp.exp(loss), "converged": state.converged}

  def folded_in(state, batch):
    """theta [n, k], and its words' beta [n, L, k]."""
    words, count = batch["words"], batch["counts"]
    known = (words >= 0) & (words < vocab_size)
    count = jnp.where(known, count, 0)
    beta = state.beta.at[jnp.where(known, words, vocab_size)].get(mode="fill", fill_value=0)
    power = None if tempering == 1 else state.inverse_temperature
    tempered = _tempered(beta, power)

    def em_step(_, old):
      theta = _tempered(old, power)
      share = count / jnp.maximum(jnp.einsum("nlk,nk->nl", tempered, theta), LEAST)
      return _shares(theta * jnp.einsum("nlk,nl->nk", tempered, share), old)

    theta = jnp.full((len(words), num_topics), 1 / num_topics, jnp.float32)
    return jax.lax.fori_loop(0, fold_in_steps, em_step, theta), beta, count

  def embed(state, batch):
    return folded_in(state, batch)[0]

  def log_likelihood(state, batch):
    theta, beta, count = folded_in(state, batch)
    return (count * jnp.log(jnp.maximum(jnp.einsum("nlk,nk->nl", beta, theta), LEAST))).sum(1)

  def loss(state, batch):
    known = (batch["words"] >= 0) & (batch["words"] < vocab_size)
    valid = row_mask(batch) > 0
    occurrences = jnp.where(known & valid[:, None], batch["counts"], 0).sum()
    return -jnp.where(valid, log_likelihood(state, batch), 0).sum() / jnp.maximum(occurrences, LEAST)

  def components(state):
    components = {"beta": state.beta.T, "weights": state.weights}
    if not stepwise:
      index = jnp.where(state.document < 0, num_documents, state.document)
      components["theta"] = jnp.zeros((num_documents, num_topics)).at[index].set(state.theta, mode="drop")
    return components

  rules = ((r"(^|/)(theta|document)$", P(DATA_AXES)),)
  outputs = {"log_likelihood": log_likelihood, "loss": loss, "components": components}
  return restarts(Model(init, update, embed, outputs, rules), num_init, lambda states: states.score,
                  in_turn=True)


def _em_sums(
    theta: Float[Array, "blocks R k"], beta: Float[Array, "V k"], power: Float[Array, ""] | None, batch: Any,
    fold_in_steps: int = 0,
) -> tuple[Float[Array, "blocks R k"], Float[Array, "V k"], Float[Array, "4"]]:
  """One EM step on some blocks of documents, whose theta may first be folded in.

  Returns the next theta [blocks, R, k]; the words' sums B (Q' T) [V, k]; and four sums over the cells: log likelihood
  and number of the occurrences, and of those held out.
  """
  num_topics = theta.shape[2]
  extra = -num_topics % WIDTH_MULTIPLE
  widen = lambda x: jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, extra)])
  plain = widen(beta)
  tempered = widen(_tempered(beta, power))

  def one_block(total, part):
    theta, block = part
    cells = lambda first, second: _sampled(first, second, block["row"], block["col"])

    def document_side(theta):
      topics = _tempered(theta, power)
      sums = cells(topics, tempered)
      share = block["count"] / jnp.maximum(sums, LEAST)
      new = topics * csr_matmul(share, block["col"], block["row_start"], tempered)
      return topics, sums, share, _shares(new, theta)

    if fold_in_steps:
      theta = jax.lax.fori_loop(0, fold_in_steps, lambda _, theta: document_side(theta)[3], theta)
    topics, sums, share, new = document_side(theta)
    turned = block["turned"]
    words = tempered * csr_matmul(share[turned], block["row"][turned], block["col_start"], topics)
    probability = sums if power is None else jax.lax.cond(power == 1, lambda: sums, lambda: cells(theta, plain))
    logs = jnp.log(jnp.maximum(probability, LEAST))
    held = block.get("held", jnp.zeros_like(logs))
    numbers = jnp.stack([(block["count"] * logs).sum(), block["count"].sum(), (held * logs).sum(), held.sum()])
    return (total[0] + words, total[1] + numbers), new

  start = (jnp.zeros_like(tempered), jnp.zeros(4))
  if num_data_shards() > 1:
    start = jax.lax.pcast(start, DATA_AXES, to="varying")
  blocks = {name: batch[name] for name in batch if name not in ("mask", "document")}
  (words, numbers), new = jax.lax.scan(one_block, start, (widen(theta), blocks))
  return new[..., :num_topics], words[:, :num_topics], numbers


def _sampled(
    first: Float[Array, "R k"], second: Float[Array, "V k"], row: Int[Array, " C"], col: Int[Array, " C"],
) -> Float[Array, " C"]:
  """`sampled_products` in chunks that stay in the cache."""
  num_cells = row.shape[0]
  chunks = -(-num_cells // CHUNK)
  size = -(-num_cells // chunks)
  row, col = (jnp.pad(x, (0, chunks * size - num_cells)).reshape(chunks, size) for x in (row, col))
  return jax.lax.map(lambda at: sampled_products(first, second, *at), (row, col)).reshape(-1)[:num_cells]


def _over_shards(
    fn: Any, theta: Array, beta: Array, power: Array | None, batch: Any, *options: Any,
) -> tuple[Array, ...]:
  """`fn` of each shard's blocks, its sums added up over the shards in one all-reduce."""
  if num_data_shards() == 1:
    return fn(theta, beta, power, batch, *options)

  def local(theta, beta, power, batch):
    new, words, numbers = fn(theta, beta, power, batch, *options)
    return new, *jax.lax.psum((words, numbers), DATA_AXES)

  shards = P(DATA_AXES)
  return jax.shard_map(local, in_specs=(shards, P(), P(), shards), out_specs=(shards, P(), P()))(
      theta, beta, power, batch)


def _tempered(x: Array, power: Array | None) -> Array:
  return x if power is None else x ** power


def _shares(sums: Float[Array, "*rows k"], old: Float[Array, "*rows k"]) -> Float[Array, "*rows k"]:
  """Rows that sum up to 1; one whose sums are all 0 stays as it was."""
  total = sums.sum(-1, keepdims=True)
  return jnp.where(total > 0, sums / jnp.maximum(total, LEAST), old)


def _m_step(
    beta: Float[Array, "V k"], words: Float[Array, "V k"],
) -> tuple[Float[Array, "V k"], Float[Array, " k"]]:
  """Topics [V, k] and their weights [k] from the words' sums [V, k]."""
  total = words.sum(0)
  new = jnp.where(total > 0, words / jnp.maximum(total, LEAST), beta)
  return new, total / jnp.maximum(total.sum(), LEAST)
