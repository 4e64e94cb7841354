"""A profile of some steps of a run, for TensorBoard and Perfetto."""
from typing import Any

import jax

from embeddings_jax.types import InputError


class Profiler:
  """Records what devices and host do from one step to another.

  A directory `plugins/profile/` is what TensorBoard reads; `perfetto_trace.json.gz` in it opens at ui.perfetto.dev.
  """

  def __init__(self, steps: str, directory: Any):
    """Parses the range.

    Args:
      steps: `first:last`, updates; a dispatch that reaches into the range belongs to it.
      directory: Directory to write to.
    """
    first, _, last = steps.partition(":")
    if not (first.isdigit() and last.isdigit() and int(first) < int(last)):
      raise InputError(f"profile={steps}: must be first:last, as 20:30")
    self._first, self._last, self._directory = int(first), int(last), str(directory)
    self._running = self._done = False

  def before(self, stop: int) -> None:
    """Starts, if the dispatch that ends at step `stop` is the first of the range."""
    if not self._done and not self._running and stop > self._first:
      jax.profiler.start_trace(self._directory, create_perfetto_trace=True)
      self._running = True

  def after(self, stop: int, results: Any) -> None:
    """Ends, if the dispatch was the last of the range, once its results are there."""
    if self._running and stop >= self._last:
      jax.block_until_ready(results)
      self.close()

  def close(self) -> None:
    """Ends a profile that is under way, as of a run that ends before the range does."""
    if self._running:
      self._running, self._done = False, True
      jax.profiler.stop_trace()
