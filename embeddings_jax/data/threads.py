"""A map over threads that keeps the order and holds few results."""
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

WORKERS = os.cpu_count() or 1


def map_in_order(function: Callable[[Any], Any], values: Iterable[Any], *, ahead: int = 0,
                 workers: int = WORKERS) -> Iterator[Any]:
  """Yields `function(value)` of each value in order, computed by threads.

  Args:
    function: Releases the interpreter's lock where threads are to help.
    values: Read as results are taken.
    ahead: Largest number of results that are computed or kept before they are taken; 0: `workers`.
    workers: Number of threads, at most one for each core.
  """
  ahead = ahead or workers
  with ThreadPoolExecutor(workers) as pool:
    waiting: deque[Any] = deque()
    for value in values:
      if len(waiting) == ahead:
        yield waiting.popleft().result()
      waiting.append(pool.submit(function, value))
    while waiting:
      yield waiting.popleft().result()
