"""Centers of clusters: squared distances to them, and what to start from. Shared by hard and soft clustering."""
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from embeddings_jax.ops.batches import row_mask
from embeddings_jax.ops.sharding import DATA_AXES, constrain, num_data_shards
from embeddings_jax.types import Batch, InputError

INITS = ("kmeans++", "random")


def row_weight(batch: Batch) -> Float[Array, " n"]:
  """Returns the weights of a batch's rows: `weight`, 1 by default, and 0 where `mask` says that it is padding."""
  weight = row_mask(batch)
  return weight * batch["weight"] if "weight" in batch else weight


def given_start(name: str, value: Any, shape: tuple[int, ...]) -> Array:
  """Parameters to start from, float32; an `InputError` unless they are finite and have this shape."""
  value = np.asarray(value, np.float32)
  if value.shape != shape:
    raise InputError(f"{name} to start from: of shape {list(value.shape)}, should be {list(shape)}")
  if not np.isfinite(value).all():
    raise InputError(f"{name} to start from: hold a number that is not finite")
  return jnp.asarray(value)


def squared_distances(x: Float[Array, "d n"], centers: Float[Array, "k d"]) -> Float[Array, "k n"]:
  """Squared Euclidean distances, by differences: |x|^2 - 2 x'c + |c|^2 would lose small ones to rounding in float32.

  Features lead and rows come last, so that a CPU's vector units work on rows; nothing of [k, d, n] is kept.
  """
  return ((x[None] - centers[:, :, None]) ** 2).sum(1)


def starting_centers(
    rng: Array,
    init: str,
    x: Float[Array, "n d"],
    weight: Float[Array, " n"],
    num: int,
    label: Int[Array, " n"] | None = None,
) -> Float[Array, "k d"]:
  """Rows to start from, with a weight above 0.

  Args:
    rng: a key.
    init: `kmeans++` (Arthur & Vassilvitskii 2007): one after another, each with a probability in proportion to its
      weight and its squared distance from those before; `random`: rows with a probability in proportion to their
      weight, none twice.
    x: rows.
    weight: Weights of the rows, 0 for padding.
    num: k, the number of centers.
    label: Clusters of rows where they are known, else -1; a cluster with such rows starts at their mean.

  Raises:
    InputError: fewer rows than centers, or an unknown `init`.
  """
  if init not in INITS:
    raise InputError(f"init={init!r}: must be one of {', '.join(INITS)}, or means must be given")
  if num > len(x):
    raise InputError(f"num_components={num}: exceeds the {len(x)} rows that the centers start from")
  known = jnp.zeros(num, bool)
  centers = jnp.zeros((num, x.shape[1]))
  if label is not None:
    member = (label == jnp.arange(num)[:, None]) * weight
    known = member.sum(1) > 0
    centers = member @ x / jnp.where(known, member.sum(1), 1)[:, None]
  if init == "random":
    # The largest of log weight + Gumbel noise: a draw without replacement (Vieira 2014).
    keys = jnp.where(weight > 0, jnp.log(weight) + jax.random.gumbel(rng, weight.shape), -jnp.inf)
    return jnp.where(known[:, None], centers, _rows_of_largest(keys, x, num))

  def distance(center):
    return ((x - center) ** 2).sum(1)

  def draw(rng, score):
    # Rows that coincide with all others have a score of 0: any row with a weight will do then.
    score = jnp.where((score * weight).sum() > 0, score * weight, weight)
    return _row(x, jax.random.categorical(rng, jnp.log(score)))

  def body(index, carry):
    centers, nearest = carry
    center = jnp.where(known[index], centers[index],
                       draw(jax.random.fold_in(rng, index), jnp.where(jnp.isinf(nearest), 1, nearest)))
    return centers.at[index].set(center), jnp.minimum(nearest, distance(center))

  nearest = jnp.full(len(x), jnp.inf)
  if label is not None:
    nearest = jnp.where(known[:, None], squared_distances(x.T, centers), jnp.inf).min(0)
  return jax.lax.fori_loop(0, num, body, (centers, nearest))[0]


def _row(x: Float[Array, "n d"], index: Int[Array, ""]) -> Float[Array, " d"]:
  """Returns x[index]. Where rows are split over devices each looks among its own: an index would gather all rows."""
  if num_data_shards() == 1:
    return x[index]
  return jnp.where((jnp.arange(len(x)) == index)[:, None], x, 0).sum(0)


def _rows_of_largest(keys: Float[Array, " n"], x: Float[Array, "n d"], num: int) -> Float[Array, "num d"]:
  """Returns the rows with the `num` largest keys, the largest first; of each device's rows only so many are moved."""
  def largest(keys, x, num):
    keys, index = jax.lax.top_k(keys, num)
    return keys, x[index]

  shards = num_data_shards()
  if shards == 1:
    return largest(keys, x, num)[1]
  local = jax.shard_map(lambda keys, x: largest(keys, x, min(num, len(x))), in_specs=(P(DATA_AXES), P(DATA_AXES)),
                        out_specs=(P(DATA_AXES), P(DATA_AXES)))
  return largest(*constrain(local(keys, x), P()), num)[1]
