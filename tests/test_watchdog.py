"""Processes that end when another one died."""
import threading
import time

import pytest

from embeddings_jax.errors import InputError
from embeddings_jax.train.loop import Stopped
from experiments.watchdog import DONE, PREFIX, Watchdog


class Store:
  """Key-value store of the coordinator, which may be out of reach."""

  def __init__(self):
    self.values, self.reachable = {}, True

  def key_value_set(self, key, value, allow_overwrite=False):
    if not self.reachable:
      raise RuntimeError("UNAVAILABLE")
    self.values[key] = value

  def key_value_dir_get(self, prefix):
    return [(key, value) for key, value in self.values.items() if key.startswith(prefix)]


class Peer(threading.Thread):
  """Another process, which beats until it is stopped."""

  def __init__(self, store, number):
    super().__init__(daemon=True)
    self.store, self.number, self.dead = store, number, threading.Event()
    self.start()

  def run(self):
    for beat in range(10_000):
      self.store.values[f"{PREFIX}/{self.number}"] = str(beat)
      if self.dead.wait(0.02):
        return


def watch(store, patience=0.3):
  said = []
  return Watchdog(store, 0, 3, patience, end=said.append), said


def until(condition, seconds=5.0):
  deadline = time.monotonic() + seconds
  while not condition() and time.monotonic() < deadline:
    time.sleep(0.01)
  return condition()


def test_a_dead_process_is_named_and_the_living_are_not():
  store = Store()
  peers = [Peer(store, number) for number in (1, 2)]
  dog, said = watch(store)
  with dog:
    time.sleep(0.6)  # Twice the patience.
    assert not said and int(store.values[f"{PREFIX}/0"]) > 3
    peers[1].dead.set()
    assert until(lambda: said)
    assert said[0] == "error: process 2 of the run is gone; the same command resumes from the last checkpoint"
    peers[0].dead.set()
    assert until(lambda: any("processes 1, 2 of the run are gone" in line for line in said))


def test_who_is_done_is_not_missed():
  store = Store()
  store.values = {f"{PREFIX}/{number}": DONE for number in (1, 2)}
  dog, said = watch(store)
  with dog:
    time.sleep(0.6)
  assert not said and store.values[f"{PREFIX}/0"] == DONE


def test_without_a_coordinator_all_are_lost():
  store = Store()
  store.reachable = False
  dog, said = watch(store)
  with dog:
    assert until(lambda: said)


@pytest.mark.parametrize("error, alive, ended, left", [
    (RuntimeError("connection closed by peer"), False, True, False),
    (RuntimeError("a defect"), True, False, False),
    (InputError("a mistake"), False, False, False),
    (Stopped(3, "SIGTERM", True), True, False, True)])
def test_an_error_is_this_processs_own_unless_another_is_lost(error, alive, ended, left):
  """The others hear that a process has left in order, not that it failed."""
  store = Store()
  peers = [Peer(store, number) for number in (1, 2)]
  dog, said = watch(store)
  with pytest.raises(type(error)), dog:
    assert until(lambda: all(value for value, _ in dog._seen.values()))
    if not alive:
      peers[0].dead.set()
    raise error
  assert bool(said) == ended and (store.values[f"{PREFIX}/0"] == DONE) == left
  for peer in peers:
    peer.dead.set()
