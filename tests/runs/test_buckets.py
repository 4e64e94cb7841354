"""Work directories in a bucket, which here is a folder behind the same interface."""
import importlib.machinery
import json
import sys
import types

import numpy as np
import pytest
from etils.epath import backend
from fsspec.implementations.local import LocalFileSystem

from embeddings_jax.data.files import growing
from embeddings_jax.runs import metrics_log, workdir
from embeddings_jax.train.checkpoints import CheckpointReader, Checkpoints
from embeddings_jax.types import InputError


@pytest.fixture
def bucket(tmp_path, monkeypatch):
  """The folder in which gs:// is."""

  class Bucket(LocalFileSystem):
    cachable = False

    @classmethod
    def _strip_protocol(cls, path):
      path = str(path)
      return LocalFileSystem._strip_protocol(str(tmp_path / path[5:]) if path.startswith("gs://") else path)

    def open(self, path, mode="rb", **options):
      if "a" in mode or "+" in mode:
        raise NotImplementedError("objects are whole")
      return super().open(path, mode, **options)

    def glob(self, path, **options):
      return [path.removeprefix(f"{tmp_path}/") for path in super().glob(path, **options)]  # bucket/name

  module = types.ModuleType("gcsfs")
  module.__spec__ = importlib.machinery.ModuleSpec("gcsfs", None)
  monkeypatch.setitem(sys.modules, "gcsfs", module)
  files = Bucket()
  monkeypatch.setattr(backend.fsspec_backend, "fs", lambda path: files)
  return tmp_path


def test_checkpoints_in_a_bucket_are_found_and_verified(bucket):
  """`gs:` is no folder of the current one. They are written to the folder here: Orbax has its own way to buckets."""
  writer = Checkpoints(str(bucket / "name" / "run"))
  writer.save(2, {"x": np.arange(3.0)})
  writer.wait()
  writer.close()
  said: list[str] = []
  reader = CheckpointReader("gs://name/run", report=said.append)
  assert (reader.latest(), reader.newest_sound()) == (2, 2), said
  damaged = next(path for path in (bucket / "name" / "run" / "2").rglob("*") if path.name == "manifest.ocdbt")
  damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
  assert CheckpointReader("gs://name/run", report=said.append).newest_sound() is None
  assert "manifest.ocdbt" in said[0]


def test_a_log_in_a_bucket_continues_where_the_checkpoint_is(bucket):
  workdir.located("gs://name/run").mkdir(parents=True)
  for begin, losses in ((0, {1: 3.0, 2: 2.0}), (1, {2: 1.5})):
    log = metrics_log.MetricsLog(workdir.located("gs://name/run"))
    log.start(begin)
    for step, loss in losses.items():
      log.write(step, {"loss": loss})
    log.close()
  folder = bucket / "name" / "run"
  records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
  assert [(record["step"], record["loss"]) for record in records] == [(1, 3.0), (2, 1.5)]
  assert len(list((folder / "tensorboard").iterdir())) == 2
  workdir.write_json(workdir.located("gs://name/run") / "config.json", {"a": 1})
  assert sorted(path.name for path in folder.iterdir()) == ["config.json", "metrics.jsonl", "tensorboard"]


def test_growing_objects_are_written_once_a_minute(bucket, monkeypatch):
  from etils import epath

  clock = [0.0]
  monkeypatch.setattr(growing.time, "monotonic", lambda: clock[0])
  path = epath.Path("gs://name/log")
  path.parent.mkdir()
  file, seen = growing.growing(path), []
  for seconds in (0, 30, 59, 61):
    clock[0] = seconds
    file.write(b"x")
    file.flush()
    seen.append((bucket / "name" / "log").read_bytes())
  file.write(b"y")
  file.close()
  assert seen == [b"x", b"x", b"x", b"xxxx"] and path.read_bytes() == b"xxxxy"
  with_more = growing.growing(path, append=True)
  with_more.write(b"z")
  with_more.close()
  assert path.read_bytes() == b"xxxxyz"


@pytest.mark.parametrize("path, message", [
    ("s3://name/run", "workdir=s3://name/run: must be a local directory, or begin with gs://"),
    ("memory://run", "workdir=memory://run: must be"), ("gs://name/run", "needs gcsfs, which pip install")])
def test_what_cannot_be_reached_is_refused(path, message):
  with pytest.raises(InputError, match=message):
    workdir.located(path)
