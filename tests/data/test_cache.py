import io
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from embeddings_jax.data.cache import cached
from embeddings_jax.data.cooccurrence import count_cooccurrences
from embeddings_jax.data.dataset import Dataset, from_texts
from embeddings_jax.data.images import decoded, fitted
from embeddings_jax.data.text import tokenize
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


def test_one_process_builds_while_another_waits(tmp_path):
  processes = [start(tmp_path / "x", tmp_path / "log", 0.3) for _ in range(2)]
  assert [process.communicate(timeout=60)[0] for process in processes] == ["12\n"] * 2
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


def test_unusable_cache_is_one_line(tmp_path, monkeypatch):
  (tmp_path / "file").write_text("")
  with pytest.raises(InputError, match="cannot be written .*cache_dir"):
    cached(tmp_path / "file" / "x", lambda path: None)

  with pytest.raises(InputError, match="cannot be written .*cache_dir"):
    from_texts(["a"], cache_dir=tmp_path / "file")

  def full(path):
    raise OSError(28, "No space left on device")

  with pytest.raises(InputError, match="no space left for the cache"):
    cached(tmp_path / "x", full)
  monkeypatch.setattr("embeddings_jax.data.dataset.write_documents", lambda *_: full(None))
  with pytest.raises(InputError, match="no space left for the cache"):
    from_texts(["a"], cache_dir=tmp_path)


def test_space_for_mapped_files_is_allocated_first(tmp_path, monkeypatch):
  """A page that finds the disk full while it is written would kill the process."""
  sizes = []

  def full(descriptor, offset, size):
    sizes.append(size)
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(os, "posix_fallocate", full)
  images = np.zeros((3, 10, 10, 1), np.uint8)
  picture = io.BytesIO()
  Image.fromarray(images[0, ..., 0]).save(picture, "PNG")
  dataset = Dataset("x", "images", images, fingerprint="f")
  with pytest.raises(InputError, match="no space left for the cache"):
    fitted(dataset, 20, 20, 3, cache_dir=tmp_path)
  with pytest.raises(InputError, match="no space left for the cache"):
    decoded("x", "g", [("a.png", picture.getvalue()), ("b.png", picture.getvalue())], tmp_path)
  assert sizes == [128 + 3 * 20 * 20 * 3, 128 + 2 * 10 * 10 * 3]
  assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def words(folder):
  """A tokenized corpus in a cache, its entry, and the tokens that are read back."""
  dataset = from_texts(["the cat sat", "the dog ran"], cache_dir=folder)
  return tokenize(dataset, normalize="lower", min_count=1, cache_dir=folder).tokens.tolist()


@pytest.mark.parametrize("change", ["cut", "flip", "delete", "grow"])
def test_damaged_entries_are_named_removed_and_built_again(tmp_path, caplog, change):
  expected = words(tmp_path)
  files = [file for file in tmp_path.rglob("*") if file.is_file() and file.parent != tmp_path]
  assert {"facts.json", "tokens.npy", "vocabulary.txt", "meta.json", "stream.bin"} <= {file.name for file in files}
  for file in files:
    data = file.read_bytes()
    if change == "delete":
      file.unlink()
    else:
      file.write_bytes({"cut": data[:-1], "flip": bytes([data[0] ^ 1]) + data[1:], "grow": data + b" "}[change])
    caplog.clear()
    assert words(tmp_path) == expected
    assert f"{file.parent}: '{file.name}' is " in caplog.text and "built again" in caplog.text
    assert file.read_bytes() == data


def test_a_damaged_manifest_and_an_entry_without_one(tmp_path, caplog):
  expected = words(tmp_path)
  manifests = list(tmp_path.glob("*.manifest"))
  assert len(manifests) == 2
  for manifest in manifests:
    manifest.unlink()
  assert words(tmp_path) == expected and not caplog.text and all(manifest.exists() for manifest in manifests)
  for manifest in manifests:
    manifest.write_text("{")
  assert words(tmp_path) == expected and caplog.text.count("it cannot be verified") == 2
  caplog.clear()
  assert words(tmp_path) == expected and not caplog.text


def test_an_interrupted_count_survives_damage_to_what_it_had(tmp_path):
  tokens = np.random.default_rng(0).integers(0, 30, 4000).astype(np.int32)
  count = lambda folder, report=None: count_cooccurrences(tokens, 30, key="k", window=2, cache_dir=folder,
                                                          memory=3 << 20, report=report)
  expected = count(tmp_path / "whole")

  def stop(done, total):
    if done > 0.9 * total:
      raise KeyboardInterrupt

  for name, content in (("journal.npz", b"PK"), ("run-000000.npy", b"x"), ("plan.json", b"\xff")):
    with pytest.raises(KeyboardInterrupt):
      count(tmp_path / name, stop)
    (work,) = (tmp_path / name).glob("*.work")
    (work / name).write_bytes(content)
    counted = count(tmp_path / name)
    np.testing.assert_array_equal(counted.count, expected.count)
    np.testing.assert_array_equal(counted.col, expected.col)
