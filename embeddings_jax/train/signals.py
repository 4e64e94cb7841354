"""Signals that ask a run to save and stop."""
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator

TRY_AGAIN, INTERRUPTED = 75, 130  # 75 (EX_TEMPFAIL) asks a scheduler to start the run again.


def exit_code(signal_name: str) -> int:
  """Returns the exit code of a run that a signal has stopped."""
  return INTERRUPTED if signal_name == "SIGINT" else TRY_AGAIN


class Interrupted(KeyboardInterrupt):
  """A signal came while nothing was in memory that is not also on disk."""

  def __init__(self, signal_name: str):
    super().__init__(f"{signal_name} received: stopped; the same command continues")
    self.exit_code = exit_code(signal_name)
    self.number = signal.Signals[signal_name]


class Signals:
  """While entered, turns SIGTERM, SIGUSR1 and Ctrl-C into an orderly end of the run.

  Outside of `deferred` a signal raises `Interrupted` at once. Inside, where the training loop has a state to save, it
  only leaves word; a second Ctrl-C interrupts at once. With several processes, one that gets a signal must not stop
  alone: JAX's preemption service, which holds SIGTERM there, agrees on a step for all of them.
  """

  def __init__(self):
    self._name: str | None = None
    self._previous = {}
    self._deferred = False
    self._num_queries = 0

  def __enter__(self) -> "Signals":
    for number in (signal.SIGUSR1, signal.SIGINT, signal.SIGTERM):
      self._previous[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *exc: object) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)

  @contextlib.contextmanager
  def deferred(self) -> Iterator[None]:
    """Leaves signals to `received` while the block runs; one that comes too late for that is raised at its end."""
    self._deferred = True
    try:
      yield
    finally:
      self._deferred = False
    if self._name and not _several_processes():
      raise Interrupted(self._name)

  def received(self) -> str | None:
    """Returns the name of the signal that came, once all processes know of it; call after every dispatch."""
    if not _several_processes():
      return self._name
    from jax.experimental import multihost_utils

    # The service agrees on the count after the highest one it has seen: ours must not leave any out.
    self._num_queries += 1
    return (self._name or "SIGTERM") if multihost_utils.reached_preemption_sync_point(self._num_queries) else None

  def _note(self, number, frame):
    again = number == signal.SIGINT and self._name == "SIGINT"
    self._name = signal.Signals(number).name
    if again or not self._deferred:
      raise Interrupted(self._name)
    if _several_processes():
      os.kill(os.getpid(), signal.SIGTERM)


class Timer:
  """Says when some minutes have passed, to all processes at the same call: by the clock of process 0."""

  EVERY = 8  # Calls between which several processes do not ask each other.

  def __init__(self, minutes: float):
    self._seconds = 60 * minutes
    self._calls = 0
    self.restart()

  def restart(self) -> None:
    """Counts from now on."""
    self._begun = time.monotonic()

  def is_up(self) -> bool:
    """Returns whether the time is over; never without minutes. Call it after every dispatch."""
    if not self._seconds:
      return False
    over = time.monotonic() - self._begun >= self._seconds
    if not _several_processes():
      return over
    self._calls += 1
    if self._calls % self.EVERY:
      return False
    from jax.experimental import multihost_utils

    return bool(multihost_utils.broadcast_one_to_all(over))


def _several_processes() -> bool:
  """Returns whether the run has several processes; without importing JAX, which takes seconds."""
  jax = sys.modules.get("jax")
  return jax is not None and jax.process_count() > 1
