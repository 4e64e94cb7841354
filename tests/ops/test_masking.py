"""Masks of BERT: shares, what is never touched, whole words, masks that never change."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax.ops.masking import content_keys, mask_tokens
from embeddings_jax.types import InputError

V, MASK, SPECIAL = 1003, 4, (0, 1, 2, 3, 4)


def text(rng, rows, length):
  """Rows of different lengths, [CLS] first and [SEP] last."""
  tokens = rng.integers(5, V, (rows, length)).astype(np.int32)
  lengths = rng.integers(length // 4, length + 1, rows)
  tokens[:, 0] = 2
  tokens[np.arange(rows), lengths - 1] = 3
  tokens[np.arange(length) >= lengths[:, None]] = -1
  return tokens


@functools.partial(jax.jit, static_argnums=2)
def drawn(rng, tokens, whole_words=False):
  continues = jnp.arange(V) % 2 == 1 if whole_words else None
  return mask_tokens(rng, tokens, mask_id=MASK, vocab_size=V, special_ids=SPECIAL, continues=continues)


def test_shares_over_ten_million_tokens():
  rng = np.random.default_rng(0)
  eligible = chosen = 0
  kinds = np.zeros(3)
  for seed in range(10):
    tokens = text(rng, 12_000, 128)
    actual = jax.device_get(drawn(jax.random.key(seed), tokens))
    eligible += (tokens > 4).sum()
    weights = actual.weights > 0
    chosen += weights.sum()
    new = np.take_along_axis(actual.tokens, actual.positions, 1)[weights]
    old = actual.targets[weights]
    np.testing.assert_array_equal(old, np.take_along_axis(tokens, actual.positions, 1)[weights])
    kinds += [(new == MASK).sum(), ((new != MASK) & (new != old)).sum(), (new == old).sum()]
    assert (old > 4).all() and (new >= MASK).all()
    untouched = np.ones(tokens.shape, bool)
    np.put_along_axis(untouched, np.where(weights, actual.positions, 0), False, 1)
    np.testing.assert_array_equal(actual.tokens[untouched], tokens[untouched])
    places = [row[:int(n)] for row, n in zip(actual.positions[:50], actual.weights[:50].sum(1))]
    assert all(len(set(row)) == len(row) for row in places)
  assert eligible > 9_000_000
  assert abs(chosen / eligible - 0.15) < 3 * np.sqrt(0.15 * 0.85 / eligible)
  # A random token is the old one now and then.
  same = 0.1 / (V - len(SPECIAL))
  for count, share in zip(kinds, (0.8, 0.1 - same, 0.1 + same)):
    assert abs(count / chosen - share) < 3 * np.sqrt(share * (1 - share) / chosen)


def test_random_tokens_are_every_token_but_the_special_ones():
  tokens = jnp.full((2000, 128), 7, jnp.int32)
  actual = mask_tokens(jax.random.key(0), tokens, mask_id=1, vocab_size=9, special_ids=(1, 4), mask_share=0.0,
                       random_share=1.0)
  counts = np.bincount(np.take_along_axis(np.asarray(actual.tokens), np.asarray(actual.positions), 1)[
      np.asarray(actual.weights) > 0], minlength=9)
  assert counts[[1, 4]].sum() == 0
  expected = counts.sum() / 7
  assert (np.abs(np.delete(counts, [1, 4]) - expected) < 4 * np.sqrt(expected)).all()


def test_whole_words_are_hidden_as_a_whole_and_keep_the_share():
  tokens = text(np.random.default_rng(1), 20_000, 64)
  actual = jax.device_get(drawn(jax.random.key(5), tokens, True))
  chosen = np.zeros(tokens.shape, bool)
  rows, columns = np.nonzero(actual.weights)
  chosen[rows, actual.positions[rows, columns]] = True
  eligible = tokens > 4
  inner = eligible[:, 1:] & eligible[:, :-1] & (tokens[:, 1:] % 2 == 1)  # The second token continues the first.
  np.testing.assert_array_equal(chosen[:, 1:][inner], chosen[:, :-1][inner])
  share = chosen.sum() / eligible.sum()
  assert abs(share - 0.15) < 4 * np.sqrt(0.15 * 0.85 / eligible.sum())


def test_keys_depend_on_the_content_alone():
  tokens = text(np.random.default_rng(2), 500, 32)
  tokens = jnp.asarray(tokens)
  keys = np.asarray(jax.random.key_data(content_keys(tokens)))
  np.testing.assert_array_equal(np.asarray(jax.random.key_data(content_keys(tokens[::-1])))[::-1], keys)
  assert len(np.unique(keys, axis=0)) == 500


def test_rows_without_a_word_are_left_alone():
  tokens = jnp.array([[2, 3, -1, -1], [-1, -1, -1, -1]], jnp.int32)
  actual = drawn(jax.random.key(0), tokens)
  np.testing.assert_array_equal(actual.tokens, tokens)
  assert not actual.weights.any()


def test_bad_shares():
  with pytest.raises(InputError, match="mask rate 1.0"):
    mask_tokens(jax.random.key(0), jnp.zeros((1, 4), jnp.int32), mask_id=1, vocab_size=5, rate=1.0)
  with pytest.raises(InputError, match="must be shares"):
    mask_tokens(jax.random.key(0), jnp.zeros((1, 4), jnp.int32), mask_id=1, vocab_size=5, random_share=0.3)
