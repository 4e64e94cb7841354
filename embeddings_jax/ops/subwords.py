"""Vectors of words that are means over rows of a table: the word's own and those of its character n-grams.

A table has V' rows of words, of which those from V on are 0, and then a row for each hash of n-grams. `members`
[V', M] lists the rows of each word, with V for nothing.
"""
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from embeddings_jax.ops import word_blocks
from embeddings_jax.types import Array

WORDS_AT_ONCE = 1024


def members_of(ngrams: np.ndarray, num_rows: int) -> np.ndarray:
  """Returns the rows of each word, int32 [num_rows, 1 + most n-grams], from its n-grams [V, most n-grams]."""
  vocab_size, most = ngrams.shape
  members = np.full((num_rows, 1 + most), vocab_size, np.int32)
  members[:vocab_size, 0] = np.arange(vocab_size)
  members[:vocab_size, 1:] = np.where(ngrams >= 0, ngrams + num_rows, vocab_size)
  return members


def random_table(rng: Array, num_rows: int, num_buckets: int, vocab_size: int, dim: int) -> Float[Array, "rows d"]:
  """Returns rows uniform on +- 1 / dim, as fastText starts, and 0 between those of words and of n-grams."""
  rows = num_rows + -(-num_buckets // word_blocks.ROW_MULTIPLE) * word_blocks.ROW_MULTIPLE
  vectors = jax.random.uniform(rng, (rows, dim), jnp.float32, -1 / dim, 1 / dim)
  place = jnp.arange(rows)[:, None]
  return jnp.where((place < vocab_size) | (place >= num_rows), vectors, 0)


def means(
    table: Float[Array, "rows d"], members: Int[Array, "*ids M"], vocab_size: int,
) -> Float[Array, "*ids d"]:
  """Returns the mean over the listed rows, 0 where there is none."""
  number = (members != vocab_size).sum(-1, keepdims=True)
  return word_blocks.take_rows(table, members).sum(-2) / jnp.maximum(number, 1)


def word_vectors(
    table: Float[Array, "rows d"], members: Int[Array, "num_rows M"], vocab_size: int,
) -> Float[Array, "V d"]:
  """Returns the vectors of all words, some at a time."""
  return jax.lax.map(lambda listed: means(table, listed, vocab_size), members[:vocab_size],
                     batch_size=WORDS_AT_ONCE)


def add_steps(
    table: Float[Array, "rows d"], members: Int[Array, "*ids M"], steps: Float[Array, "*ids d"],
    weight: Float[Array, "*ids"], rate: Float[Array, ""], max_mass: float, vocab_size: int,
) -> Float[Array, "rows d"]:
  """Returns the table after each word's step went to all of its rows in full, as in fastText.

  Args:
    table: Rows.
    members: [B, ..., M] rows of each word.
    steps: [B, ..., d] minus the gradients of the words' vectors.
    weight: [B, ...] terms of the objective in each.
    rate: Learning rate.
    max_mass: Most terms whose gradients a row takes in full; see `word_blocks.step_sizes`.
    vocab_size: V.
  """
  valid = members != vocab_size
  sizes = word_blocks.step_sizes(len(table), members, jnp.where(valid, weight[..., None], 0), rate, max_mass)
  return word_blocks.add_rows(table, members, jnp.where(valid, sizes, 0)[..., None] * steps[..., None, :])


def mean_of_texts(
    table: Float[Array, "rows d"], members: Int[Array, "num_rows M"], tokens: Int[Array, "n length"],
    ngrams: Int[Array, "n length K"], vocab_size: int,
) -> Float[Array, "n d"]:
  """Returns the mean over the words of each text; of a word out of the vocabulary the mean of its n-grams counts.

  Args:
    table, members: Rows, and those of each word.
    tokens: Words; one out of the vocabulary is not in [0, V).
    ngrams: N-grams of words out of the vocabulary, -1 for nothing.
    vocab_size: V.
  """
  known = (tokens >= 0) & (tokens < vocab_size)
  of_known = means(table, members[jnp.where(known, tokens, vocab_size)], vocab_size)
  listed = jnp.where(known[..., None] | (ngrams < 0), vocab_size, ngrams + len(members))
  of_unseen = means(table, listed, vocab_size)
  number = known | (listed != vocab_size).any(-1)
  return (of_known + of_unseen).sum(1) / jnp.maximum(number.sum(1, keepdims=True), 1)
