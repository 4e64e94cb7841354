"""Signals that ask a run to save and stop."""
import os
import signal

import jax
from jax.experimental import multihost_utils


class Signals:
  """While it is entered, SIGTERM, SIGUSR1 and Ctrl-C only leave word for the loop.

  A second Ctrl-C interrupts at once. With several processes, one that gets a signal must not stop
  alone: JAX's preemption service, which holds SIGTERM there, agrees on a step for all of them.
  """

  def __init__(self):
    self._name: str | None = None
    self._previous = {}
    self._asked = 0

  def __enter__(self):
    watched = [signal.SIGUSR1, signal.SIGINT]
    if jax.process_count() == 1:
      watched.append(signal.SIGTERM)
    for number in watched:
      self._previous[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *exc):
    for number, handler in self._previous.items():
      signal.signal(number, handler)

  def received(self) -> str | None:
    """The name of the signal that came, once all processes know of it; ask after every dispatch."""
    if jax.process_count() == 1:
      return self._name
    # The service agrees on the count after the highest one it has seen: ours must not leave any out.
    self._asked += 1
    return (self._name or "SIGTERM") if multihost_utils.reached_preemption_sync_point(self._asked) else None

  def _note(self, number, frame):
    if number == signal.SIGINT and self._name == "SIGINT":
      raise KeyboardInterrupt
    self._name = signal.Signals(number).name
    if jax.process_count() > 1:
      os.kill(os.getpid(), signal.SIGTERM)
