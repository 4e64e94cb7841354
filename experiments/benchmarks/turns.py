"""Turns of ours and of a peer, and the rate that both are held against."""
import statistics
import time

import jax
import jax.numpy as jnp


def by_turns(ours, theirs, repeats) -> list[tuple[float, float]]:
  """Seconds of each, `repeats` times after two that are not counted."""
  def seconds(turn) -> float:
    start = time.perf_counter()
    turn()
    return time.perf_counter() - start

  return [(seconds(ours), seconds(theirs)) for _ in range(2 + repeats)][2:]


def compared(turns: list[tuple[float, float]], what: str) -> dict:
  """The result of such turns with `transformers`, of steps of `what`."""
  own, other = (statistics.median(column) for column in zip(*turns))
  ratio = statistics.median(theirs / ours for ours, theirs in turns)
  return {
      "summary": f"{ratio:.2f} x as fast as transformers with torch, {own:.2f} s against {other:.2f} s a step of "
                 f"{what} (median of {len(turns)} turns)",
      "ratio": round(ratio, 3), "seconds": round(own, 3), "seconds_peer": round(other, 3),
      "all": [[round(x, 3) for x in turn] for turn in turns],
  }


def matrix_rate(size: int = 8192, times: int = 10) -> float:
  """Operations a second of products of bfloat16 matrices, normal numbers."""
  x, y = (jax.random.normal(jax.random.key(i), (size, size), jnp.bfloat16) for i in range(2))
  multiply = jax.jit(jnp.matmul)
  jax.block_until_ready([multiply(x, y) for _ in range(3)])
  start = time.perf_counter()
  jax.block_until_ready([multiply(x, y) for _ in range(times)])
  return times * 2 * size**3 / (time.perf_counter() - start)
