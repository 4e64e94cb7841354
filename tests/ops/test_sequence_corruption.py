"""Corruption of token sequences: frequencies, order, what stays; by a plain loop where there is one."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax.ops.sequence_corruption import Noise, corrupt, infill

CLS, SEP, MASK, STOP = 2, 3, 4, 9
SPECIAL = (0, 1, CLS, SEP, MASK)


def rows(*texts, length=24):
  tokens = np.full((len(texts), length), -1, np.int32)
  for row, text in zip(tokens, texts):
    row[:len(text) + 2] = [CLS, *text, SEP]
  return jnp.asarray(tokens)


@functools.partial(jax.jit, static_argnums=2)
def noisy(rng, tokens, noise):
  return corrupt(rng, tokens, noise, special_ids=SPECIAL, mask_id=MASK, stop_ids=(STOP,))


def contents(tokens):
  """The rows between their special tokens, which stand where they should."""
  actual = []
  for row in np.asarray(tokens):
    size = (row >= 0).sum()
    assert row[0] == CLS and row[size - 1] == SEP and (row[size:] == -1).all()
    actual.append(row[1:size - 1].tolist())
  return actual


def subsequence(part, whole):
  rest = iter(whole)
  return all(token in rest for token in part)


def test_deletion_keeps_the_order_and_its_share():
  text = list(range(10, 30))
  actual = contents(noisy(jax.random.key(0), rows(*[text] * 500), Noise(deletion=0.6)))
  assert all(subsequence(row, text) and row for row in actual)
  kept = np.mean([len(row) for row in actual])
  assert abs(kept / 20 - 0.4) < 4 * (0.24 / 20 / 500) ** 0.5
  assert contents(noisy(jax.random.key(0), rows(text), Noise())) == [text]


def test_spans_have_the_share_and_the_lengths_that_are_asked_for():
  """Recovered from distinct tokens: between two that stay, one mask stands for what lies between them."""
  text = list(range(10, 110))
  tokens = jnp.tile(jnp.asarray(text), (400, 1))
  actual = np.asarray(jax.jit(lambda key: infill(key, tokens, 0.3, 3.0, MASK))(jax.random.key(0)))
  lengths, hidden = [], []
  for row in actual:
    row = row[row >= 0].tolist()
    assert not any(a == b == MASK for a, b in zip(row, row[1:]))
    assert subsequence([token for token in row if token != MASK], text)
    hidden.append(100 - sum(token != MASK for token in row))
    ends = [9, *row, 110]
    lengths += [ends[i + 1] - ends[i - 1] - 1 for i in range(1, len(ends) - 1) if ends[i] == MASK]
  assert set(hidden) == {30}
  # The last span of a row is cut: the first nine of some ten tell the distribution, Poisson(3), up to that.
  assert abs(np.mean(lengths) - 3.0) < 0.25 and abs(np.mean(np.array(lengths) == 0) - np.exp(-3)) < 0.015


def test_sentences_are_permuted_as_wholes_and_each_order_is_as_likely():
  sentences = [[10, 11, STOP], [12, STOP], [13, 14, 15]]
  actual = contents(noisy(jax.random.key(0), rows(*[sum(sentences, [])] * 1200), Noise(permute_sentences=True)))
  orders = [sum((sentences[i] for i in order), []) for order in
            ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))]
  counts = [actual.count(order) for order in orders]
  assert sum(counts) == 1200 and np.abs(np.array(counts) - 200).max() < 4 * (200 * 5 / 6) ** 0.5


def test_rotation_begins_anywhere_and_masking_hides_its_share():
  text = list(range(10, 20))
  actual = contents(noisy(jax.random.key(0), rows(*[text] * 600), Noise(rotate=True)))
  assert all(row == text[row[0] - 10:] + text[:row[0] - 10] for row in actual)
  assert np.abs(np.bincount([row[0] - 10 for row in actual], minlength=10) - 60).max() < 4 * 54**0.5
  masked = np.array(contents(noisy(jax.random.key(0), rows(*[text] * 600), Noise(masking=0.25))))
  assert abs((masked == MASK).mean() - 0.25) < 4 * (0.1875 / 6000) ** 0.5
  assert (masked[masked != MASK] == np.tile(text, (600, 1))[masked != MASK]).all()


@pytest.mark.parametrize("noise", [Noise(True, 0.9, 1.0, 0.5, 0.9, True), Noise(False, 0.9, 9.0, 0.0, 0.99)])
def test_texts_shorter_than_the_corruption_keep_a_token(noise):
  """A token, nothing, a full row, and a row without special tokens at its end."""
  tokens = jnp.concatenate([rows([10], [], list(range(10, 32))), jnp.arange(40, 64)[None]])
  for seed in range(3):
    actual = np.asarray(noisy(jax.random.key(seed), tokens, noise))
    sizes = (actual >= 0).sum(1)
    assert sizes[0] == 3 and actual[1].tolist() == tokens[1].tolist() and 3 <= sizes[2] <= 24 and 1 <= sizes[3] <= 24
    assert ((actual >= 0) == (np.arange(24) < sizes[:, None])).all() and actual[2, sizes[2] - 1] == SEP
