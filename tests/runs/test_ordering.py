"""Frames are sorted by the triples that are likeliest."""
import numpy as np
import pytest

from embeddings_jax.ops.ordering import best_order, kendall_tau, order_score
from embeddings_jax.runs.ordering import order_frames, sort_frames
from embeddings_jax.types import InputError


def between(places):
  """Log odds 1 where the second place lies between the others, else -1."""
  i, j, k = np.meshgrid(*[places] * 3, indexing="ij")
  return np.where((i < j) & (j < k) | (i > j) & (j > k), 1.0, -1.0)


def test_the_likeliest_order_is_found():
  for seed in range(5):
    places = np.random.default_rng(seed).permutation(9)
    order = best_order(between(places))
    assert abs(np.diff(places[order])).tolist() == [1] * 8 and order[0] < order[-1]
  noisy = between(np.arange(8)) + 1.5 * np.random.default_rng(0).normal(size=(8, 8, 8))
  assert best_order(noisy).tolist() == list(range(8))  # A sum over 56 triples, each twice.
  assert order_score(between(np.arange(4)), np.array([[0, 1, 2, 3], [1, 0, 2, 3]])).tolist() == [4, 0]
  with pytest.raises(InputError, match="expected .t, t, t. with t from 3 to 24"):
    best_order(np.zeros((2, 2, 2)))


def test_kendall_tau():
  assert kendall_tau(np.arange(5)) == 1 and kendall_tau(np.arange(5)[::-1]) == -1
  assert kendall_tau(np.array([0, 2, 1, 3])) == pytest.approx(4 / 6)


def test_shuffled_frames_are_sorted_and_numbered_as_they_were():
  """A network that reads the time off the frames."""
  frames = np.arange(0, 70, 10, dtype=np.uint8)[:, None, None, None] * np.ones((7, 2, 2, 1), np.uint8)
  predict = lambda state, batch: between(batch["clip"][0, :, 0, 0, 0].astype(int))[None]
  actual = sort_frames(predict, None, frames, seed=3)
  assert actual.tau == 1 and actual.order.tolist() in (list(range(7)), list(range(7))[::-1])
  assert sorted(actual.shuffled) == list(range(7)) and actual.shuffled.tolist() != list(range(7))

  class Run:
    config = {"name": "arrow_of_time"}

  with pytest.raises(InputError, match="is one of arrow_of_time, which does not verify orders"):
    order_frames(Run(), frames)
