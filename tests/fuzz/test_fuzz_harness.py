"""The harness finds every kind of failure that it is there for."""
import os
import time

import harness
import pytest

from embeddings_jax.types import InputError


def crash(folder):
  os.kill(os.getpid(), 11)


def allocate(folder):
  bytearray(2 * harness.MEMORY)


def refuse_in_two_lines(folder):
  raise InputError("a\nb")


def spin(folder):
  while True:
    time.sleep(0)


@pytest.mark.parametrize("read, what", [
    (crash, "crash"), (allocate, "MemoryError"), (refuse_in_two_lines, "unclear message"), (spin, "hang"),
    (lambda folder: [][0], "IndexError"), (lambda folder: (folder / "a").read_bytes(), None)])
def test_failures_are_named(read, what, monkeypatch):
  monkeypatch.setattr(harness, "SECONDS", 0.2)
  failures = harness.fuzz(harness.Reader("x", [{"a": b"1,2\n"}], read), 2)
  assert [failure["what"] for failure in failures] == ([what] * 2 if what else [])


def test_a_case_is_a_function_of_the_readers_name_and_the_number():
  reader = harness.Reader("x", [{"a": b"1,2\n3,4\n", "b": b"{}"}], print)
  assert harness.case(reader, 0) == {"a": b"1,2\n3,4\n", "b": b"{}"}
  cases = [harness.case(reader, i) for i in range(1, 50)]
  assert cases == [harness.case(reader, i) for i in range(1, 50)]
  assert len({tuple(sorted(files.items())) for files in cases}) > 40
