"""The full softmax over a vocabulary, without ever holding all of its scores."""
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from embeddings_jax.ops.sharding import num_data_shards
from embeddings_jax.types import Array, InputError


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def weighted_log_partition(
    queries: Float[Array, "b n d"], table: Float[Array, "rows d"], weight: Float[Array, "b n"], vocab_size: int,
    chunk: int,
) -> Float[Array, ""]:
  """sum_i weight_i log sum_{w < vocab_size} exp(q_i . t_w), a scalar in nats.

  The cross entropy of any targets is this, minus the targets' own scores: the scores of a position are computed once
  however many words it has to predict. Value and gradient come from one pass over the positions, in chunks.

  Args:
    queries: [B, N, d]; chunks are cut along N, so that B may be sharded.
    table: [V', d], V' >= vocab_size; rows past the vocabulary take no part. May be sharded by rows.
    weight: [B, N] how many words each position predicts; it gets no gradient.
    vocab_size: V.
    chunk: positions of all blocks whose scores are held at the same time.
  """
  return _value_and_gradient(queries, table, weight, vocab_size, chunk)[0]


def _value_and_gradient(queries, table, weight, vocab_size, chunk):
  num_blocks, size, dim = queries.shape
  width = max(1, min(size, chunk // num_blocks))
  number = -(-size // width)

  def in_chunks(x):
    x = jnp.pad(x, [(0, 0), (0, number * width - size)] + [(0, 0)] * (x.ndim - 2))
    return jnp.moveaxis(x.reshape((num_blocks, number, width) + x.shape[2:]), 1, 0)

  outside = jnp.where(jnp.arange(len(table)) < vocab_size, 0.0, -jnp.inf)

  def one(carry, part):
    total, grad_table = carry
    query, share = part
    scores = jnp.einsum("bnd,vd->bnv", query, table) + outside
    top = scores.max(-1, keepdims=True)
    unnormalized = jnp.exp(scores - top)
    partition = unnormalized.sum(-1, keepdims=True)
    error = unnormalized * (share[..., None] / partition)
    total += (share * (top + jnp.log(partition))[..., 0]).sum()
    grad_table += jnp.einsum("bnv,bnd->vd", error, query)
    return (total, grad_table), jnp.einsum("bnv,vd->bnd", error, table)

  start = jnp.zeros(()), jnp.zeros_like(table)
  (total, grad_table), grad_queries = jax.lax.scan(one, start, (in_chunks(queries), in_chunks(weight)))
  grad_queries = jnp.moveaxis(grad_queries, 0, 1).reshape(num_blocks, number * width, dim)[:, :size]
  return total, (grad_queries, grad_table)


def _backward(vocab_size, chunk, gradient, cotangent):
  del vocab_size, chunk
  return cotangent * gradient[0], cotangent * gradient[1], None


weighted_log_partition.defvjp(_value_and_gradient, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def cross_entropy(
    queries: Float[Array, "b n d"], table: Float[Array, "V d"], targets: Int[Array, "b n"],
    weight: Float[Array, "b n"], chunk: int,
) -> tuple[Float[Array, ""], Float[Array, "b n"], Float[Array, "b n"]]:
  """-sum_i weight_i log p(target_i | q_i) with p = softmax(q t^T), in nats, and what each position thought.

  The scores of a chunk of positions are all that is ever held, and each is computed once for the value, the accuracy
  and the gradient.

  Args:
    queries: [B, N, d], float32 or bfloat16, which is then the type of the products; chunks are cut along N, so that B
      may be sharded.
    table: [V, d].
    targets: int32 [B, N].
    weight: [B, N]; it gets no gradient.
    chunk: positions whose scores a data shard holds at the same time.

  Returns:
    The loss, a scalar; log p(target) [B, N]; whether the target had the highest score, float32 [B, N]. The gradient
    is of the loss alone.
  """
  return _cross_entropy(queries, table, targets, weight, chunk, False)[0]


def _cross_entropy(queries, table, targets, weight, chunk, with_gradient):
  num_blocks, size, _ = queries.shape
  width = max(1, min(size, chunk * num_data_shards() // num_blocks))
  number = -(-size // width)
  matrix = table.astype(queries.dtype)
  product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)

  def one(grad_table, part):
    query, target, share = part
    scores = product("bnd,vd->bnv", query, matrix)
    chosen = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 2) == target[..., None]
    top = scores.max(-1, keepdims=True)
    unnormalized = jnp.exp(scores - top)
    partition = unnormalized.sum(-1, keepdims=True)
    own = jnp.where(chosen, scores, 0).sum(-1)
    result = own - (top + jnp.log(partition))[..., 0], (own >= top[..., 0]).astype(jnp.float32)
    if not with_gradient:
      return grad_table, result
    error = (share[..., None] * (unnormalized / partition - chosen)).astype(query.dtype)
    grad_table += product("bnv,bnd->vd", error, query)
    return grad_table, (*result, product("bnv,vd->bnd", error, matrix))

  parts = (queries, targets, weight)
  start = jnp.zeros(table.shape if with_gradient else (), jnp.float32)
  if number == 1:
    grad_table, results = one(start, parts)
  else:
    cut = lambda x: jnp.moveaxis(jnp.pad(x, [(0, 0), (0, number * width - size)] + [(0, 0)] * (x.ndim - 2)).reshape(
        (num_blocks, number, width) + x.shape[2:]), 1, 0)
    join = lambda x: jnp.moveaxis(x, 0, 1).reshape((num_blocks, number * width) + x.shape[3:])[:, :size]
    grad_table, results = jax.lax.scan(one, start, tuple(map(cut, parts)))
    results = tuple(map(join, results))
  log_likelihood, right, *grad_queries = results
  value = -(weight * log_likelihood).sum(), log_likelihood, right
  return value, (grad_queries[0].astype(queries.dtype), grad_table.astype(table.dtype)) if with_gradient else None


def _cross_entropy_forward(queries, table, targets, weight, chunk):
  return _cross_entropy(queries, table, targets, weight, chunk, True)


def _cross_entropy_backward(chunk, gradient, cotangents):
  del chunk
  grad_queries, grad_table = gradient
  return ((cotangents[0] * grad_queries).astype(grad_queries.dtype), cotangents[0] * grad_table, None, None)


cross_entropy.defvjp(_cross_entropy_forward, _cross_entropy_backward)


def sampled_cross_entropy(
    rng: Array, queries: Float[Array, "b n d"], table: Float[Array, "V d"], targets: Int[Array, "b n"],
    weight: Float[Array, "b n"], num_samples: int,
) -> Float[Array, ""]:
  """-sum_i weight_i log p(target_i | q_i) with p over the target and some random words instead of all, in nats.

  Words are drawn with replacement from q(w) = log((w + 2) / (w + 1)) / log(V + 1), about Zipf's law for words that
  are numbered by frequency, and are the same for all positions. Their scores are lowered by log(num_samples q(w)),
  and one that is the position's target does not count: the partition function is estimated without bias, and loss
  and gradient are those of the whole softmax in the limit (importance sampling; Bengio and Senécal 2008).

  Args:
    rng: Key of the samples.
    queries, table, targets, weight: as for `cross_entropy`.
    num_samples: Number of sampled words.
  """
  size = len(table)
  # The inverse of the distribution function log(w + 1) / log(V + 1).
  drawn = jnp.expm1(jax.random.uniform(rng, (num_samples,)) * jnp.log(size + 1.0)).astype(jnp.int32)
  drawn = jnp.minimum(drawn, size - 1)
  own = jnp.einsum("bnd,bnd->bn", queries, table[targets].astype(queries.dtype), preferred_element_type=jnp.float32)
  others = jnp.einsum("bnd,sd->bns", queries, table[drawn].astype(queries.dtype), preferred_element_type=jnp.float32)
  expected = num_samples * jnp.log1p(1 / (drawn + 1.0)) / jnp.log(size + 1.0)
  others = jnp.where(drawn == targets[..., None], -jnp.inf, others - jnp.log(expected))
  partition = jax.nn.logsumexp(jnp.concatenate([own[..., None], others], -1), axis=-1)
  return (weight * (partition - own)).sum()


def check_affordable(name: str, vocab_size: int, dim: int, num_tables: int, chunk: int, max_memory: float) -> None:
  """Refuses a vocabulary whose full softmax needs more than `max_memory` GB, and says what it would need.

  Counted are the tables with their gradients and two moments of an optimizer, and the scores of a chunk of positions
  with their exponentials, in float32.
  """
  tables, scores = 4 * 4 * num_tables * vocab_size * dim / 1e9, 2 * 4 * chunk * vocab_size / 1e9
  if tables + scores > max_memory:
    raise InputError(
        f"{name}: the full softmax over {vocab_size} words of {dim} dimensions needs about {tables + scores:.1f} GB "
        f"({tables:.1f} for tables and optimizer, {scores:.1f} for the scores of {chunk} positions), more than "
        f"max_memory={max_memory:g}; limit the vocabulary (data.max_size), lower chunk, or sample negatives")
