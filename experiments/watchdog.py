"""Ends this process when another one of the run died, as collectives would wait for it for minutes."""
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from embeddings_jax.errors import InputError
from embeddings_jax.train.signals import TRY_AGAIN

PREFIX = "embeddings_jax/alive"
DONE = "done"


class Watchdog:
  """While entered, tells the other processes that this one lives, and ends it with 75 when one of them does not.

  Signs of life go through the key-value store of JAX's coordinator. Losing the coordinator's process, and with it the
  store, counts as losing process 0. Where an error comes first, as of a collective whose connection broke, the other
  processes' next signs decide whether it is this process's own. JAX's own check takes longer, and aborts.
  """

  def __init__(self, client: Any, process: int, num_processes: int, patience: float,
               end: Callable[[str], None] | None = None):
    """Prepares; nothing is sent before it is entered.

    Args:
      client: The store: `key_value_set`, `key_value_dir_get`; see `of_run`.
      process: Number of this process.
      num_processes: Number of all processes.
      patience: Seconds without a sign of life after which a process counts as dead.
      end: Replaces the end of the process, for tests; gets the line that says why.
    """
    self._client, self._process, self._patience = client, process, patience
    self._interval = min(2.0, patience / 5)
    self._end = end or _end
    self._seen = {other: ("", 0.0) for other in range(num_processes) if other != process}
    self._stopping = threading.Event()
    self._threads = [threading.Thread(target=work, daemon=True) for work in (self._beat, self._judge)]

  def __enter__(self) -> "Watchdog":
    now = time.monotonic()
    self._seen = {other: ("", now) for other in self._seen}
    for thread in self._threads:
      thread.start()
    return self

  def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
    # Mistakes and signals are told to all processes alike; of another error others may be the cause.
    orderly = error is None or hasattr(error, "exit_code")
    if not orderly and not isinstance(error, (InputError, KeyboardInterrupt)):
      if lost := self._cause(time.monotonic()):
        self._end(_line(lost))
    self._stopping.set()
    if orderly:  # Else the others find out that this process is gone.
      try:
        self._client.key_value_set(f"{PREFIX}/{self._process}", DONE, allow_overwrite=True)
      except Exception:  # noqa: BLE001 - the coordinator may have ended before
        pass

  def lost(self) -> list[int]:
    """Returns the processes that have given no sign of life for too long."""
    now = time.monotonic()
    return [other for other, (value, at) in self._seen.items() if value != DONE and now - at > self._patience]

  def _beat(self) -> None:
    number = 0
    while not self._stopping.is_set():
      number += 1
      try:
        self._client.key_value_set(f"{PREFIX}/{self._process}", str(number), allow_overwrite=True)
        signs = dict(self._client.key_value_dir_get(PREFIX))
      except Exception:  # noqa: BLE001 - whatever the store's connection raises means that nothing is known
        signs = {}
      now = time.monotonic()
      for key, value in signs.items():
        other = int(key.rpartition("/")[2])
        if other in self._seen and self._seen[other][0] != value:
          self._seen[other] = (value, now)
      self._stopping.wait(self._interval)

  def _judge(self) -> None:
    """In a thread of its own, as the store's calls wait for a coordinator that does not answer."""
    while not self._stopping.wait(self._interval / 2):
      if lost := self.lost():
        self._end(_line(lost))

  def _cause(self, since: float) -> list[int]:
    """Waits until all other processes have given signs since then, or some are lost, which it returns.

    A dead process's last sign may be read one interval later.
    """
    while not (lost := self.lost()):
      if all(value == DONE or at > since + 1.5 * self._interval for value, at in self._seen.values()):
        return []
      time.sleep(self._interval / 2)
    return lost


def of_run(patience: float) -> Watchdog | None:
  """Returns the watchdog of a run of several processes that JAX has joined; None for one process."""
  import jax
  from orbax.checkpoint import multihost

  if jax.process_count() == 1:
    return None
  return Watchdog(multihost.get_jax_distributed_client(), jax.process_index(), jax.process_count(), patience)


def _line(lost: list[int]) -> str:
  many = len(lost) > 1
  names = f"process{'es' if many else ''} {', '.join(map(str, lost))}"
  return (f"error: {names} of the run {'are' if many else 'is'} gone; "
          "the same command resumes from the last checkpoint")


def _end(line: str) -> None:
  sys.stdout.flush()
  os.write(2, f"{line}\n".encode())
  os._exit(TRY_AGAIN)  # Not by an exception: the main thread waits within a collective.
