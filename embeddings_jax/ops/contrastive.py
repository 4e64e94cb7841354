"""Contrastive losses as pure functions: those with a softmax. Losses in nats, means over valid queries or anchors.

Those with a margin are in `ops/metric_learning.py`. Similarities are inner products of the vectors as they come:
`ops/similarity.py: l2_normalize` makes them cosines. Under a mesh the rows of the global batch are each other's
negatives: the keys are gathered, scores stay with their queries. With `chunk_size` a device holds the scores of that
many queries at a time, and nothing of n x n ever exists; value and gradient are the same.

What the batch cannot say: a query without a negative adds a loss of 0, an anchor without a positive is left out of
the mean, and where all are left out the loss is 0, with a gradient of zeros.
"""
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer

from embeddings_jax.ops.chunks import loss_over_chunks
from embeddings_jax.ops.similarity import squared_distances
from embeddings_jax.types import InputError

NEGATIVES = ("same", "other", "all", "group_other", "group")
_EXCLUDED = -1e30  # Finite, so that a row without candidates has no NaN in its gradient.


class Contrast(NamedTuple):
  """Loss and metrics of a batch; all scalars.

  Attributes:
    loss: -mean log p(positive), in nats.
    bound: mean (log N - loss), a lower bound of the mutual information of query and key.
    accuracy: share of the queries whose positive is above every negative.
    log_num_candidates: mean log N, the largest value that `bound` can take.
  """

  loss: Array
  bound: Array
  accuracy: Array
  log_num_candidates: Array


def info_nce(
    queries: Float[Array, "n dim"],
    keys: Float[Array, "m dim"],
    *,
    mask: Float[Array, " n"] | None = None,
    temperature: float | Array = 1.0,
    ids: Int[Array, " n"] | None = None,
    hard_weight: float = 1.0,
    concentration: float = 0.0,
    positive_prior: float = 0.0,
    chunk_size: int = 0,
) -> Contrast:
  """InfoNCE with the batch's other keys as negatives (van den Oord et al. 2018, equation 4).

    L = -1/n Σ_i log( exp(s_ii) / (exp(s_ii) + G_i) ),   s_ij = q_i · k_j / τ,   G_i = Σ_{j in N_i} exp(s_ij)

  N_i are the keys but the i-th. I(q; k) >= log n - L holds with m = n and none of the options. They change G_i:

    hard_weight      G_i = Σ_j α^[j mod n = i] exp(s_ij): the weight α of the query's own hard negatives, the keys
                     n + i, 2n + i, ... (Gao et al. 2021, arXiv:2104.08821, equation 8)
    concentration    G_i = |N_i| Σ_j exp((1 + β) s_ij) / Σ_j exp(β s_ij): negatives as if drawn in proportion to
                     exp(β s_ij) (Robinson et al. 2021, arXiv:2010.04592, section 3)
    positive_prior   max( (G_i - |N_i| ρ exp(s_ii)) / (1 - ρ), |N_i| exp(-1/τ) ) in the place of G_i: less what a
                     share ρ of false negatives adds (Chuang et al. 2020, arXiv:2007.00224, with the positive as
                     the sample of their class); the lower limit is meant for unit vectors

  Together, |N_i| and the sums count a key with weight α as α keys. A batch of one has no negatives: the loss is 0.

  Args:
    queries, keys: key i is the positive of query i; keys n ... m - 1 are further negatives of all queries (m >= n).
    mask: 1 = valid; other rows are neither queries nor candidates. Key j is valid as row j mod n is.
    temperature: τ.
    ids: what item a query and its positive belong to: another query's positive with the same id is no negative.
      Further keys always are.
    hard_weight: α > 0.
    concentration: β >= 0, Robinson's.
    positive_prior: ρ in [0, 1), the probability that a negative is of the query's class.
    chunk_size: queries whose scores a device holds at a time; 0: all.
  """
  (num, _), num_keys = queries.shape, keys.shape[0]
  _check_temperature(temperature)
  if num_keys < num:
    raise InputError(f"info_nce: {num_keys} keys for {num} queries; each query needs its positive")
  if num_keys % num and (mask is not None or hard_weight != 1):
    raise InputError(f"info_nce: {num_keys} keys for {num} queries; mask and hard_weight need a multiple of them")
  if hard_weight <= 0 or concentration < 0 or not 0 <= positive_prior < 1:
    raise InputError(f"info_nce: hard_weight={hard_weight} must be above 0, concentration={concentration} at least 0 "
                     f"and positive_prior={positive_prior} from 0 to below 1")
  weights = jnp.ones(num) if mask is None else mask
  args = {"keys": keys, "temperature": jnp.asarray(temperature, jnp.float32)}
  rows = {"queries": queries, "index": jnp.arange(num), "weights": weights}
  if mask is not None:
    args["valid"] = jnp.tile(mask > 0, num_keys // num)
  if ids is not None:
    args["ids"] = rows["ids"] = ids
  fn = functools.partial(_one_among_others, num=num, hard_weight=hard_weight, concentration=concentration,
                         positive_prior=positive_prior)
  loss, sums = _summed(fn, args, rows, chunk_size)
  log_num, correct = (x / jnp.maximum(weights.sum(), 1) for x in sums)
  loss = loss / jnp.maximum(weights.sum(), 1)
  return Contrast(loss, log_num - loss, correct, log_num)


def nt_xent(
    first: Float[Array, "n dim"],
    second: Float[Array, "n dim"],
    *,
    mask: Float[Array, " n"] | None = None,
    temperature: float | Array = 0.5,
    ids: Int[Array, " n"] | None = None,
    chunk_size: int = 0,
) -> Contrast:
  """NT-Xent (Chen et al. 2020, arXiv:2002.05709, equation 1): each view has to find the other of its item.

    L = -1/2n Σ_i log( exp(z_i · z_p(i) / τ) / Σ_{k != i} exp(z_i · z_k / τ) )

  over all 2n views z, p(i) the other view of the same item: 2n - 2 negatives and the positive, so that identical
  vectors have a loss of log(2n - 1).

  Args:
    first, second: two views of n items; the paper's are unit vectors.
    mask: 1 = valid item.
    temperature: τ.
    ids: items with the same id are no negatives of each other.
    chunk_size: views whose scores a device holds at a time; 0: all.
  """
  # The views of an item lie side by side, so that a sharded batch stays where it is.
  views = lambda *pair: jnp.stack(pair, 1).reshape((-1, *pair[0].shape[1:]))
  ids = jnp.arange(first.shape[0]) if ids is None else ids
  return info_nce(views(first, second), views(second, first), mask=None if mask is None else views(mask, mask),
                  temperature=temperature, ids=views(ids, ids), chunk_size=chunk_size)


def supervised_contrastive(
    vectors: Float[Array, "n dim"],
    labels: Int[Array, " n"],
    *,
    mask: Float[Array, " n"] | None = None,
    temperature: float | Array = 0.1,
    chunk_size: int = 0,
) -> Array:
  """Supervised contrastive loss (Khosla et al. 2020, arXiv:2004.11362, equation 2: L_out), [].

    L = -mean_i 1/|P_i| Σ_{p in P_i} log( exp(z_i · z_p / τ) / Σ_{a != i} exp(z_i · z_a / τ) )

  P_i are the others with the label of i: classes, pseudo-labels, or the item that several views are of. The mean is
  over the anchors that have one (the paper sums).

  Args:
    vectors: z, in the paper unit vectors; views of an item are rows of their own.
    labels: Labels of the rows.
    mask: 1 = valid.
    temperature: τ.
    chunk_size: anchors whose scores a device holds at a time; 0: all.
  """
  return _over_anchors(_mean_of_positives, vectors, labels, mask, temperature, chunk_size)


def soft_nearest_neighbor(
    vectors: Float[Array, "n dim"],
    labels: Int[Array, " n"],
    *,
    mask: Float[Array, " n"] | None = None,
    temperature: float | Array = 1.0,
    chunk_size: int = 0,
) -> Array:
  """Soft nearest neighbor loss (Salakhutdinov and Hinton 2007; Frosst et al. 2019, arXiv:1902.01889, eq. 1), [].

    L = -mean_i log( Σ_{j != i, y_j = y_i} exp(-|x_i - x_j|² / T) / Σ_{k != i} exp(-|x_i - x_k|² / T) )

  Args:
    vectors: x.
    labels: y.
    mask: 1 = valid.
    temperature: T.
    chunk_size: anchors whose distances a device holds at a time; 0: all.
  """
  return _over_anchors(_any_of_positives, vectors, labels, mask, temperature, chunk_size)


def nce(
    scores: Float[Array, " n"],
    noise_scores: Float[Array, "n k"],
    log_noise: Float[Array, " n"],
    noise_log_noise: Float[Array, "n k"],
    *,
    mask: Float[Array, " n"] | None = None,
) -> Array:
  """Noise-contrastive estimation (Gutmann and Hyvärinen 2010; 2012 with k samples of noise), [].

    L = -mean_i ( log σ(G(x_i)) + Σ_{s=1..k} log σ(-G(y_is)) ),   G(u) = log p_m(u) - log p_n(u) - log k

  A logistic regression that tells data x from noise y; the model's density need not be normalized (its constant may
  be a parameter). Where model and noise agree L = log(1 + k) + k log(1 + 1/k).

  Args:
    scores: log p_m(x_i).
    noise_scores: log p_m(y_is).
    log_noise, noise_log_noise: log p_n of the same.
    mask: 1 = valid example, with its noise.
  """
  mask = jnp.ones(scores.shape) if mask is None else mask
  log_k = jnp.log(noise_scores.shape[1])
  loss = jax.nn.softplus(log_noise + log_k - scores)
  loss += jax.nn.softplus(noise_scores - noise_log_noise - log_k).sum(-1)
  return (mask * loss).sum() / jnp.maximum(mask.sum(), 1)


def sequence_info_nce(
    queries: Float[Array, "batch queries dim"],
    keys: Float[Array, "batch time dim"],
    *,
    offset: int,
    mask: Float[Array, "batch time"] | None = None,
    group: Integer[Array, " batch"] | None = None,
    negatives: str = "all",
    temperature: float | Array = 1.0,
) -> Contrast:
  """InfoNCE where the query at time t of a sequence has to tell its key at time t + offset from others.

    L = -mean_{b,t} log( exp(q_bt · k_b,t+offset / τ) / Σ_{(c,s) in S_bt} exp(q_bt · k_cs / τ) )

  The candidates S_bt, the positive among them, and their number N for B sequences of T frames:

    same:         (b, s) for every s                        T              other times of the same sequence
    other:        (c, t + offset) for every c               B              the same time of other sequences
    all:          the union of both                         B + T - 1
    group_other:  (c, t + offset) for every c of b's group  B_g            the same time of others of the group
    group:        the union of that and `same`              B_g + T - 1

  (All B·T frames as candidates would take (B·T)^2 scores per offset.) Under a mesh the sequences of
  the global batch are candidates: the keys are gathered, scores stay with their queries. With negatives of one group
  (one speaker) what the group tells of the key helps nobody, and `bound` is of the information beyond it.

  Args:
    queries: `queries[b, t]` predicts `keys[b, t + offset]`; at most T - offset of them.
    keys: candidates.
    offset: how far ahead.
    mask: 1 = valid frame; others are neither queries, positives nor negatives, and N is smaller.
    group: the group of each sequence.
    negatives: One of `NEGATIVES`, the table above.
    temperature: τ.
  """
  if negatives not in NEGATIVES:
    raise InputError(f"negatives={negatives!r}: must be one of {', '.join(NEGATIVES)}")
  (batch, num_queries, _), time = queries.shape, keys.shape[1]
  if not 1 <= num_queries <= time - offset:
    raise InputError(f"sequences of {time} frames are too short to predict {offset} frames ahead at {num_queries} "
                     "times: use longer windows, fewer predictions or smaller strides")
  if negatives in ("group_other", "group") and group is None:
    raise InputError(f"negatives={negatives!r}: the batch says of no sequence which `group` it is of; "
                     "data.group names a label of the dataset")
  mask = jnp.ones((batch, time)) if mask is None else mask
  ahead = slice(offset, offset + num_queries)
  blocks = []
  if negatives in ("same", "all", "group"):
    logits = jnp.einsum("btd,bsd->bts", queries, keys, preferred_element_type=jnp.float32)
    blocks.append((logits / temperature, jnp.eye(num_queries, time, offset, dtype=bool), mask[:, None, :]))
  if negatives != "same":
    logits = jnp.einsum("btd,ctd->btc", queries, keys[:, ahead], preferred_element_type=jnp.float32)
    positive = jnp.eye(batch, dtype=bool)[:, None, :]
    valid = mask[:, ahead].T[None]
    if negatives in ("group_other", "group"):
      valid = valid * (group[:, None, None] == group)
    blocks.append((logits / temperature, positive, valid))
  return _contrast(blocks, mask[:, :num_queries] * mask[:, ahead])


def _contrast(blocks, weights) -> Contrast:
  """Cross entropy over the union of blocks `(logits, positive, mask)` that all contain the one positive."""
  scores, positives, maxima, counts = [], [], [], []
  for i, (logits, positive, mask) in enumerate(blocks):
    valid = jnp.broadcast_to(mask > 0, logits.shape)
    negative = valid & ~positive
    positives.append(jnp.where(positive, logits, 0).sum(-1))
    maxima.append(jnp.where(negative, logits, _EXCLUDED).max(-1))
    candidate = negative if i else negative | positive  # The positive counts once.
    scores.append(jax.nn.logsumexp(jnp.where(candidate, logits, _EXCLUDED), axis=-1))
    counts.append(candidate.sum(-1))
  loss = jax.nn.logsumexp(jnp.stack(scores), axis=0) - positives[0]
  log_num = jnp.log(sum(counts).astype(jnp.float32))
  correct = (positives[0] > jnp.stack(maxima).max(0)).astype(jnp.float32)
  total = jnp.maximum(weights.sum(), 1)

  def mean(x):
    return (weights * x).sum() / total

  return Contrast(mean(loss), mean(log_num - loss), mean(correct), mean(log_num))


def _check_temperature(temperature) -> None:
  if not isinstance(temperature, jax.Array) and temperature <= 0:
    raise InputError(f"temperature={temperature}: must be above 0")


def _summed(fn, args, rows, chunk_size):
  """`fn(args, rows) -> (loss, sums)`, sums over rows, at once or in chunks."""
  if chunk_size < 0:
    raise InputError(f"chunk_size={chunk_size}: must be a number of rows, or 0 for all at once")
  return loss_over_chunks(fn, args, rows, chunk_size) if chunk_size else fn(args, rows)


def _one_among_others(args, rows, *, num, hard_weight, concentration, positive_prior):
  """Sums over queries of `info_nce`'s loss, and of (log N, whether the positive is above all negatives)."""
  scores = jnp.einsum("id,jd->ij", rows["queries"], args["keys"], preferred_element_type=jnp.float32)
  scores = scores / args["temperature"]
  column, index = jnp.arange(scores.shape[1]), rows["index"][:, None]
  is_positive = column == index
  negative = ~is_positive
  if "valid" in args:
    negative &= args["valid"]
  if "ids" in args:
    negative &= (jnp.pad(args["ids"], (0, len(column) - num)) != rows["ids"][:, None]) | (column >= num)
  positive = jnp.where(is_positive, scores, 0).sum(-1)
  number = negative.sum(-1)
  rival = jnp.where(negative, scores, _EXCLUDED).max(-1)

  log_weight = jnp.log(hard_weight) * ((column >= num) & (column % num == index)) if hard_weight != 1 else 0.0
  weighted = lambda power: jax.nn.logsumexp(jnp.where(negative, power * scores + log_weight, _EXCLUDED), axis=-1)
  log_negatives = weighted(1.0)
  if concentration or positive_prior:
    log_number = weighted(0.0) if hard_weight != 1 else jnp.log(jnp.maximum(number, 1))
    if concentration:
      log_negatives = log_number + weighted(1 + concentration) - weighted(concentration)
    if positive_prior:
      log_negatives = _debiased(log_negatives, positive, log_number, positive_prior, args["temperature"])
    log_negatives = jnp.where(number > 0, log_negatives, _EXCLUDED)
  losses = jax.nn.softplus(log_negatives - positive)
  log_num = jnp.log1p(number.astype(jnp.float32))
  correct = (positive > rival).astype(jnp.float32)
  weights = rows["weights"]
  return (weights * losses).sum(), ((weights * log_num).sum(), (weights * correct).sum())


def _debiased(log_negatives, positive, log_number, prior, temperature):
  """log max( (G - N ρ exp(s)) / (1 - ρ), N exp(-1/τ) ) from log G, s and log N."""
  false = positive + log_number + jnp.log(prior)
  least = log_number - 1 / temperature
  top = jax.lax.stop_gradient(jnp.maximum(jnp.maximum(log_negatives, false), least))
  rest = (jnp.exp(log_negatives - top) - jnp.exp(false - top)) / (1 - prior)
  above = rest > jnp.exp(least - top)
  return jnp.where(above, top + jnp.log(jnp.where(above, rest, 1)), least)


def _over_anchors(fn, vectors, labels, mask, temperature, chunk_size):
  """The mean over valid anchors with a positive of the losses `fn(x, y, temperature, positive, other)`."""
  _check_temperature(temperature)
  weights = jnp.ones(labels.shape) if mask is None else mask
  args = {"vectors": vectors, "labels": labels, "valid": weights > 0,
          "temperature": jnp.asarray(temperature, jnp.float32)}
  rows = {"vectors": vectors, "labels": labels, "weights": weights, "index": jnp.arange(len(labels))}

  def summed(args, rows):
    other = args["valid"] & (jnp.arange(len(args["labels"])) != rows["index"][:, None])
    positive = other & (args["labels"] == rows["labels"][:, None])
    losses = fn(rows["vectors"], args["vectors"], args["temperature"], positive, other)
    weights = rows["weights"] * positive.any(-1)
    return (weights * losses).sum(), weights.sum()

  loss, count = _summed(summed, args, rows, chunk_size)
  return loss / jnp.maximum(count, 1)


def _mean_of_positives(x, y, temperature, positive, other):
  scores = jnp.einsum("id,jd->ij", x, y, preferred_element_type=jnp.float32) / temperature
  mean = jnp.where(positive, scores, 0).sum(-1) / jnp.maximum(positive.sum(-1), 1)
  return jax.nn.logsumexp(jnp.where(other, scores, _EXCLUDED), axis=-1) - mean


def _any_of_positives(x, y, temperature, positive, other):
  scores = -squared_distances(x, y) / temperature
  among = lambda chosen: jax.nn.logsumexp(jnp.where(chosen, scores, _EXCLUDED), axis=-1)
  return among(other) - among(positive)
