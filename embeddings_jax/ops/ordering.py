"""The order of frames from the odds that triples of them are in order. On the host: a few frames at a time."""
import numpy as np

from embeddings_jax.types import InputError

MOST = 24  # Frames; a move is judged by all triples.


def best_order(scores: np.ndarray, *, starts: int = 4, seed: int = 0) -> np.ndarray:
  """Returns frames in the order whose triples have the largest sum of log odds; an order and its reverse are equal.

  Starting from random orders, one frame at a time is moved to the place where the sum is largest, until no move
  raises it. The best of all starts is returned, so that its first frame has a lower number than its last.

  Args:
    scores: `[t, t, t]`, log odds that frames (i, j, k) are in order or in the reverse order.
    starts: Random orders to start from.
    seed: Random seed of these.
  """
  number = len(scores)
  if scores.shape != (number,) * 3 or not 3 <= number <= MOST:
    raise InputError(f"scores: have the shape {list(scores.shape)}, expected [t, t, t] with t from 3 to {MOST}")
  scores = (scores + scores.transpose(2, 1, 0)) / 2
  rng, best, best_rows = np.random.default_rng(seed), -np.inf, None
  for _ in range(starts):
    order, total = list(rng.permutation(number)), -np.inf
    while True:
      moved = [order[:i] + order[i + 1:] for i in range(number)]
      options = [rest[:j] + [frame] + rest[j:] for frame, rest in zip(order, moved) for j in range(number)]
      totals = order_score(scores, np.array(options))
      if totals.max() <= total + 1e-9:
        break
      order, total = options[int(totals.argmax())], totals.max()
    if total > best:
      best, best_rows = total, order
  return np.array(best_rows if best_rows[0] < best_rows[-1] else best_rows[::-1])


def order_score(scores: np.ndarray, orders: np.ndarray) -> np.ndarray:
  """Returns the sum of the scores of all triples in order, of each of `[n, t]` orders."""
  first, second, third = np.array([(i, j, k) for k in range(orders.shape[1]) for j in range(k) for i in range(j)]).T
  return scores[orders[:, first], orders[:, second], orders[:, third]].sum(1)


def kendall_tau(order: np.ndarray) -> float:
  """Returns Kendall's tau of an order and 0, 1, 2, ...: 1 where they agree, -1 where they are reversed."""
  later = np.sign(np.subtract.outer(order, order)).T
  return float(np.triu(later, 1).sum() / (len(order) * (len(order) - 1) / 2))
