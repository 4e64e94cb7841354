import os
import signal
import subprocess
import sys
import time

import pytest

from embeddings_jax.data.cache import cached
from embeddings_jax.types import InputError

BUILDER = """
import sys, time
from pathlib import Path
from embeddings_jax.data.cache import cached

target, log, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])

def build(folder):
  folder.mkdir()
  (folder / "first").write_text("1")
  with open(log, "a") as file:
    file.write("built\\n")
  time.sleep(seconds)
  (folder / "second").write_text("2")

path = cached(target, build)
print((path / "first").read_text() + (path / "second").read_text())
"""


def start(target, log, seconds):
  return subprocess.Popen([sys.executable, "-c", BUILDER, str(target), str(log), str(seconds)],
                          stdout=subprocess.PIPE, text=True)


def wait_for(path):
  for _ in range(2000):
    if path.exists():
      return
    time.sleep(0.01)
  raise AssertionError(f"{path} did not appear")


def test_one_process_builds_while_others_wait(tmp_path):
  processes = [start(tmp_path / "x", tmp_path / "log", 0.3) for _ in range(3)]
  assert [process.communicate(timeout=60)[0] for process in processes] == ["12\n"] * 3
  assert (tmp_path / "log").read_text() == "built\n"


def test_killed_builder_frees_the_lock_and_leaves_nothing_half_built(tmp_path):
  first = start(tmp_path / "x", tmp_path / "log", 600)
  wait_for(tmp_path / "log")
  second = start(tmp_path / "x", tmp_path / "log", 0)
  time.sleep(0.3)
  assert second.poll() is None and not (tmp_path / "x").exists()
  os.kill(first.pid, signal.SIGKILL)
  assert second.communicate(timeout=60)[0] == "12\n"
  first.communicate()
  assert (tmp_path / "log").read_text() == "built\n" * 2
  assert not (tmp_path / "x.partial").exists()


def test_failed_build_is_swept_and_repeated(tmp_path):
  def fail(path):
    path.write_text("half")
    raise RuntimeError("no")

  with pytest.raises(RuntimeError):
    cached(tmp_path / "x", fail)
  assert not (tmp_path / "x").exists() and not (tmp_path / "x.partial").exists()
  assert cached(tmp_path / "x", lambda path: path.write_text("whole")).read_text() == "whole"
  assert cached(tmp_path / "x", fail).read_text() == "whole"


def test_unusable_cache_is_one_line(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(InputError, match="cannot be written .*--cache_dir"):
    cached(tmp_path / "file" / "x", lambda path: None)

  def full(path):
    raise OSError(28, "No space left on device")

  with pytest.raises(InputError, match="no space left for the cache"):
    cached(tmp_path / "x", full)
