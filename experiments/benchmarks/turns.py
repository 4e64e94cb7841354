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


def compared(turns: list[tuple[float, float]], what: str, peer: str = "transformers with torch",
             digits: int = 3) -> dict:
  """The result of such turns with a peer, of steps of `what`; seconds have so many digits."""
  own, other = (statistics.median(column) for column in zip(*turns))
  ratio = statistics.median(theirs / ours for ours, theirs in turns)
  seconds = f"{own:.{digits - 1}f} s against {other:.{digits - 1}f} s"
  return {
      "summary": f"{ratio:.2f} x as fast as {peer}, {seconds} a step of {what} (median of {len(turns)} turns)",
      "ratio": round(ratio, 3), "seconds": round(own, digits), "seconds_peer": round(other, digits),
      "all": [[round(x, digits) for x in turn] for turn in turns],
  }


def matrix_rate(size: int = 8192, times: int = 10) -> float:
  """Operations a second of products of bfloat16 matrices, normal numbers."""
  x, y = (jax.random.normal(jax.random.key(i), (size, size), jnp.bfloat16) for i in range(2))
  multiply = jax.jit(jnp.matmul)
  jax.block_until_ready([multiply(x, y) for _ in range(3)])
  start = time.perf_counter()
  jax.block_until_ready([multiply(x, y) for _ in range(times)])
  return times * 2 * size**3 / (time.perf_counter() - start)
