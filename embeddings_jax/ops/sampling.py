"""Drawing tokens from a language model's scores."""
import jax
import jax.numpy as jnp

from embeddings_jax.types import Array, InputError


def check_sampling(temperature: float, top_k: int, top_p: float) -> None:
  """Raises unless these options of `draw` make sense."""
  if temperature < 0:
    raise InputError(f"temperature={temperature}: must be at least 0, which takes the likeliest token")
  if top_k < 0:
    raise InputError(f"top_k={top_k}: must be at least 1, or 0 for all tokens")
  if not 0 < top_p <= 1:
    raise InputError(f"top_p={top_p}: must lie in (0, 1]")


def keep_top_k(scores: Array, k: int) -> Array:
  """[B, V] with -inf for all but the k highest scores of a row (Fan et al. 2018); ties of the last stay."""
  if not 0 < k < scores.shape[-1]:
    return scores
  least = jax.lax.top_k(scores, k)[0][:, -1:]
  return jnp.where(scores < least, -jnp.inf, scores)


def keep_top_p(scores: Array, p: float) -> Array:
  """[B, V] with -inf for all but the fewest tokens that have the probability p together (Holtzman et al. 2020)."""
  if p >= 1:
    return scores
  order = jnp.argsort(-scores, axis=-1)
  probability = jax.nn.softmax(jnp.take_along_axis(scores, order, -1), -1)
  before = jnp.cumsum(probability, -1) - probability  # Of the tokens that are likelier.
  kept = jnp.put_along_axis(jnp.zeros(scores.shape, bool), order, before < p, -1, inplace=False)
  return jnp.where(kept, scores, -jnp.inf)


def draw(rng: Array, scores: Array, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Array:
  """int32 [B], a token of each row of `scores` [B, V].

  Args:
    rng: a key.
    scores: unnormalized, in nats.
    temperature: divides the scores; 0 takes the highest.
    top_k: only these many tokens are drawn from; 0: all.
    top_p: only the likeliest tokens that have this probability together, after temperature and `top_k`; 1: all.
  """
  check_sampling(temperature, top_k, top_p)
  if not temperature:
    return scores.argmax(-1).astype(jnp.int32)
  scores = keep_top_p(keep_top_k(scores / temperature, top_k), top_p)
  return jax.random.categorical(rng, scores).astype(jnp.int32)
