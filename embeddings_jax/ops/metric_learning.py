"""Contrastive losses with a margin, and N-pair: distances between vectors as they come, means as each says.

Those with a softmax are in `ops/contrastive.py`. Gradients are finite where vectors coincide. What has no term (no
pair, no triplet) has the loss 0 and a gradient of zeros.
"""
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from embeddings_jax.ops.chunks import loss_over_chunks
from embeddings_jax.ops.contrastive import info_nce
from embeddings_jax.ops.similarity import root, squared_distances
from embeddings_jax.types import InputError

MINING = ("all", "hard", "semi-hard")
_FAR = 1e30


def pair_loss(
    x: Float[Array, "n dim"],
    y: Float[Array, "n dim"],
    positive: Float[Array, " n"],
    *,
    mask: Float[Array, " n"] | None = None,
    margin: float = 1.0,
) -> Array:
  """Contrastive loss of given pairs (Chopra et al. 2005; Hadsell et al. 2006, equation 4, without its halves), [].

    L = 1/n Σ_i  D_i²  of a positive pair,  max(0, ε - D_i)²  of a negative one,   D_i = |x_i - y_i|

  The gradient of a negative pair whose vectors coincide has no direction and is 0.

  Args:
    x, y: row i of both is a pair.
    positive: 1 = the same, 0 = different.
    mask: 1 = valid pair.
    margin: ε > 0.
  """
  _check_margin(margin)
  mask = jnp.ones(positive.shape) if mask is None else mask
  square = jnp.square(x - y).sum(-1)
  losses = positive * square + (1 - positive) * jnp.square(jnp.maximum(0, margin - root(square)))
  return (mask * losses).sum() / jnp.maximum(mask.sum(), 1)


def triplet(
    vectors: Float[Array, "n dim"],
    labels: Int[Array, " n"],
    *,
    mask: Float[Array, " n"] | None = None,
    margin: float = 0.2,
    mining: str = "semi-hard",
    chunk_size: int = 0,
) -> Array:
  """Triplet loss over a labeled batch (Schroff et al. 2015, arXiv:1503.03832, equation 2), [].

    L = mean over triplets (a, p, n) of max(0, D_ap² - D_an² + α),   y_p = y_a, p != a, y_n != y_a

  The triplets, each of which counts in the mean whether or not it violates the margin:

    all        every one
    hard       for every anchor the farthest positive and the nearest negative
    semi-hard  for every anchor and positive the nearest negative that is farther than the positive (equation 4); a
               pair without such a one is left out

  Args:
    vectors: in the paper unit vectors.
    labels: y.
    mask: 1 = valid.
    margin: α > 0.
    mining: `all`, `hard` or `semi-hard`.
    chunk_size: anchors that a device treats at a time, each with up to n x n triplets; 0: all.
  """
  _check_margin(margin)
  if mining not in MINING:
    raise InputError(f"mining={mining!r}: must be one of {', '.join(MINING)}")
  weights = jnp.ones(labels.shape) if mask is None else mask
  args = {"vectors": vectors, "labels": labels, "valid": weights > 0}
  rows = {"vectors": vectors, "labels": labels, "weights": weights, "index": jnp.arange(len(labels))}

  def summed(args, rows):
    square = squared_distances(rows["vectors"], args["vectors"])
    same = args["labels"] == rows["labels"][:, None]
    valid = args["valid"] & (rows["weights"] > 0)[:, None]
    positive = valid & same & (jnp.arange(len(args["labels"])) != rows["index"][:, None])
    negative = valid & ~same
    if mining == "hard":
      farthest = jnp.where(positive, square, -1).max(-1)
      nearest = jnp.where(negative, square, _FAR).min(-1)
      counts = positive.any(-1) & negative.any(-1)
      losses = farthest - nearest + margin
    elif mining == "semi-hard":
      farther = negative[:, None, :] & (square[:, None, :] > square[:, :, None])
      nearest = jnp.where(farther, square[:, None, :], _FAR).min(-1)
      counts = positive & farther.any(-1)
      losses = square - nearest + margin
    else:
      counts = positive[:, :, None] & negative[:, None, :]
      losses = square[:, :, None] - square[:, None, :] + margin
    return jnp.where(counts, jnp.maximum(losses, 0), 0).sum(), counts.sum().astype(jnp.float32)

  if chunk_size < 0:
    raise InputError(f"chunk_size={chunk_size}: must be a number of anchors, or 0 for all at once")
  loss, count = loss_over_chunks(summed, args, rows, chunk_size) if chunk_size else summed(args, rows)
  return loss / jnp.maximum(count, 1)


def lifted_structured(
    vectors: Float[Array, "n dim"],
    labels: Int[Array, " n"],
    *,
    mask: Float[Array, " n"] | None = None,
    margin: float = 1.0,
) -> Array:
  """Lifted structured loss (Song et al. 2015, arXiv:1511.06452): positive pairs against all negatives of both, [].

    L = 1/2|P| Σ_{(i,j) in P} max(0, J_ij)²
    J_ij = log( Σ_{k: y_k != y_i} exp(α - D_ik) + Σ_{l: y_l != y_j} exp(α - D_jl) ) + D_ij   (equation 4)

  D are distances, not squared; P the pairs of different rows with one label. A pair without negatives adds 0.

  Args:
    vectors, labels: D and y.
    mask: 1 = valid.
    margin: α > 0.
  """
  _check_margin(margin)
  valid = jnp.ones(labels.shape, bool) if mask is None else mask > 0
  valid = valid & valid[:, None]
  distance = root(squared_distances(vectors, vectors))
  same = labels == labels[:, None]
  positive = valid & same & ~jnp.eye(len(labels), dtype=bool)
  of_row = jax.nn.logsumexp(jnp.where(valid & ~same, margin - distance, -_FAR), axis=-1)
  violation = jnp.maximum(0, jnp.logaddexp(of_row[:, None], of_row) + distance)
  return jnp.where(positive, jnp.square(violation), 0).sum() / (2 * jnp.maximum(positive.sum(), 1))


def n_pair(
    anchors: Float[Array, "n dim"],
    positives: Float[Array, "n dim"],
    *,
    mask: Float[Array, " n"] | None = None,
    ids: Int[Array, " n"] | None = None,
    decay: float = 0.0,
    chunk_size: int = 0,
) -> Array:
  """Multi-class N-pair loss (Sohn 2016: N-pair-mc), [].

    L = 1/n Σ_i log( 1 + Σ_{j != i} exp(f_i · f_j+ - f_i · f_i+) ) + λ/2n Σ_i (|f_i|² + |f_i+|²)

  The first term is InfoNCE of inner products at temperature 1; the vectors are not normalized, so the paper keeps
  their lengths small by the second.

  Args:
    anchors, positives: f and f+, one pair of each of n classes.
    mask: 1 = valid pair.
    ids: classes, where one may have several pairs: these are no negatives of each other.
    decay: λ.
    chunk_size: anchors whose scores a device holds at a time; 0: all.
  """
  weights = jnp.ones(anchors.shape[0]) if mask is None else mask
  lengths = jnp.square(anchors).sum(-1) + jnp.square(positives).sum(-1)
  penalty = decay / 2 * (weights * lengths).sum() / jnp.maximum(weights.sum(), 1)
  return info_nce(anchors, positives, mask=mask, ids=ids, chunk_size=chunk_size).loss + penalty


def _check_margin(margin) -> None:
  if not isinstance(margin, jax.Array) and margin <= 0:
    raise InputError(f"margin={margin}: must be above 0")
