"""Reads ahead, so that a slow source never starves a fast device."""
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any


def prefetch(items: Iterator[Any], make: Callable[[Any], Any], depth: int = 2) -> Iterator[tuple[Any, Any]]:
  """Yields `(item, make(item))`, computing up to `depth` of them ahead in a thread.

  Closing the generator stops the thread; an error in `make` is raised where its item is due.
  """
  ready: queue.Queue = queue.Queue(depth)
  stopped = threading.Event()

  def offer(value) -> None:
    while not stopped.is_set():
      try:
        return ready.put(value, timeout=0.1)
      except queue.Full:
        continue

  def work() -> None:
    try:
      for item in items:
        if stopped.is_set():
          return
        offer((item, make(item), None))
      offer((None, None, StopIteration()))
    except BaseException as error:  # noqa: BLE001 - handed over to the consumer, which raises it
      offer((None, None, error))

  thread = threading.Thread(target=work, name="prefetch", daemon=True)
  thread.start()
  try:
    while True:
      item, made, error = ready.get()
      if isinstance(error, StopIteration):
        return
      if error is not None:
        raise error
      yield item, made
  finally:
    stopped.set()
    thread.join()
