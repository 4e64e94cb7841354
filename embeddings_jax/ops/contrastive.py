"""Contrastive losses as pure functions. Losses in nats, means over valid queries."""
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from embeddings_jax.types import InputError

NEGATIVES = ("same", "other", "all", "group_other", "group")
_EXCLUDED = -1e30  # Finite, so that a row without candidates has no NaN in its gradient.


class Contrast(NamedTuple):
  """What a contrastive loss says about a batch; all [].

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
    keys: Float[Array, "n dim"],
    *,
    mask: Float[Array, " n"] | None = None,
    temperature: float | Array = 1.0,
) -> Contrast:
  """InfoNCE with the batch's other keys as negatives (van den Oord et al. 2018, equation 4).

    L = -1/n Σ_i log( exp(q_i · k_i / τ) / Σ_j exp(q_i · k_j / τ) ),   I(q; k) >= log n - L

  Args:
    queries, keys: row i of one is the positive of row i of the other.
    mask: 1 = valid; other rows are neither queries nor candidates.
    temperature: τ.
  """
  mask = jnp.ones(queries.shape[0]) if mask is None else mask
  logits = jnp.einsum("id,jd->ij", queries, keys, preferred_element_type=jnp.float32) / temperature
  positive = jnp.eye(queries.shape[0], dtype=bool)
  return _contrast([(logits, positive, mask[None, :])], mask)


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
    negatives: of `NEGATIVES`, the table above.
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
                     "--config.data.group names a label of the data set")
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
