"""Checkpoints: round trips, other meshes, damage, retention, a full disk."""
import json
import logging
import os
import pathlib
import random
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from embeddings_jax.train import checkpoints as checkpoints_module
from embeddings_jax.train.checkpoints import CheckpointError, CheckpointReader, Checkpoints
from embeddings_jax.train.checksums import inspect_checkpoint
from embeddings_jax.train.mesh import make_mesh
from embeddings_jax.types import InputError

REPLICATED = P()


def layout_of(state, mesh, spec=REPLICATED):
  return jax.tree.map(lambda x: NamedSharding(mesh, spec if x.ndim else P()), state)


def make_state(mesh, value=0.0, spec=REPLICATED):
  state = {"table": jnp.arange(4096.0).reshape(64, 64) + value, "step": jnp.int32(value)}
  return jax.tree.map(jax.device_put, state, layout_of(state, mesh, spec))


def restore(directory, mesh, report=print, spec=REPLICATED, preferred=None, **options):
  checkpoints = Checkpoints(str(directory), report=report, **options)
  state = jax.eval_shape(lambda: {"table": jnp.zeros((64, 64)), "step": jnp.int32(0)})
  actual = checkpoints.restore(state, layout_of(state, mesh, spec), preferred)
  checkpoints.close()
  return actual


def save_steps(directory, mesh, steps, **options):
  checkpoints = Checkpoints(str(directory), **options)
  for step in steps:
    checkpoints.save(step, make_state(mesh, step))
  checkpoints.wait()
  checkpoints.close()


def test_round_trip_on_another_mesh(tmp_path):
  save_steps(tmp_path / "c", make_mesh("data:8"), [3])
  other = make_mesh("data:2,fsdp:4")
  state, step, converged_at = restore(tmp_path / "c", other, spec=P("fsdp"))
  assert (step, converged_at) == (3, None)
  assert state["table"].sharding.spec == P("fsdp")
  np.testing.assert_array_equal(state["table"], np.arange(4096.0).reshape(64, 64) + 3)


def test_nothing_to_restore(tmp_path):
  assert restore(tmp_path / "c", make_mesh()) is None


def test_retention_keeps_the_latest_and_the_best(tmp_path):
  checkpoints = Checkpoints(str(tmp_path / "c"), keep=2, best_metric="score")
  for step, score in [(1, 0.1), (2, 0.9), (3, 0.5), (4, 0.2), (5, 0.3)]:
    checkpoints.save(step, make_state(make_mesh(), step), scores={"score": score})
  checkpoints.wait()
  assert checkpoints.best() == 2
  checkpoints.close()
  assert sorted(int(p.name) for p in (tmp_path / "c").iterdir() if p.name.isdigit()) == [2, 4, 5]
  assert restore(tmp_path / "c", make_mesh())[1] == 5
  assert restore(tmp_path / "c", make_mesh(), preferred=2)[1] == 2
  flip_one_bit(data_files(tmp_path / "c" / "2")[0], random.Random(1))
  assert restore(tmp_path / "c", make_mesh(), report=[].append, preferred=2)[1] == 5


def test_of_checkpoints_written_by_another_process_the_best_is_known_too(tmp_path):
  for best, lower in ((1, True), (3, False)):
    directory = tmp_path / str(best)
    for step, score in [(1, 0.1), (3, 0.5), (4, None), (5, np.nan)]:
      checkpoints = Checkpoints(str(directory), best_metric="score", lower_is_better=lower)
      checkpoints.save(step, make_state(make_mesh(), step), scores=None if score is None else {"score": score})
      checkpoints.wait()
      assert checkpoints.best() == (1 if step == 1 else best)
      checkpoints.close()
  for other in ("none", "1"):  # Of no checkpoint, and of those that were measured by something else.
    checkpoints = Checkpoints(str(tmp_path / other), best_metric="other")
    assert checkpoints.best() is None
    checkpoints.close()
  assert Checkpoints(str(tmp_path / "3")).best() is None


def test_a_damaged_score_does_not_stop_the_others(tmp_path):
  mesh, lines = make_mesh(), []
  save_scored = Checkpoints(str(tmp_path / "c"), best_metric="score")
  for step, score in [(1, 0.9), (2, 0.5), (3, 0.4)]:
    save_scored.save(step, make_state(mesh, step), scores={"score": score})
  save_scored.wait()
  save_scored.close()
  (tmp_path / "c" / "1" / "metrics" / "metrics").write_text("{")
  checkpoints = Checkpoints(str(tmp_path / "c"), best_metric="score", report=lines.append)
  assert checkpoints.best() == 2
  state = make_state(mesh)
  assert checkpoints.restore(jax.eval_shape(lambda: state), layout_of(state, mesh), checkpoints.best())[1] == 2
  checkpoints.save(4, state, scores={"score": 0.95})
  checkpoints.wait()
  assert checkpoints.best() == 4
  checkpoints.close()
  assert len(lines) == 1 and "checkpoint 1 is damaged" in lines[0]


def test_a_best_metric_that_is_not_measured_is_named(tmp_path):
  checkpoints = Checkpoints(str(tmp_path / "c"), best_metric="skore")
  with pytest.raises(InputError, match="best_metric='skore': was not measured; there are loss, score"):
    checkpoints.save(1, make_state(make_mesh()), scores={"score": 1.0, "loss": 2.0})
  checkpoints.close()


def flip_one_bit(path, rng):
  data = bytearray(path.read_bytes())
  place = rng.randrange(len(data))
  data[place] ^= 1 << rng.randrange(8)
  path.write_bytes(data)


def data_files(folder):
  return sorted(p for p in folder.rglob("*") if p.is_file() and "/d/" in str(p) and p.stat().st_size)


def test_twenty_flipped_bits_are_named_and_the_previous_checkpoint_is_used(tmp_path):
  mesh, rng = make_mesh(), random.Random(0)
  save_steps(tmp_path / "sound", mesh, [1, 2])
  for trial in range(20):
    copy = tmp_path / f"c{trial}"
    shutil.copytree(tmp_path / "sound", copy)
    victim = rng.choice(data_files(copy / "2"))
    flip_one_bit(victim, rng)
    lines = []
    state, step, _ = restore(copy, mesh, report=lines.append)
    assert step == 1 and int(state["step"]) == 1
    assert len(lines) == 1 and "checkpoint 2 is damaged" in lines[0] and victim.name in lines[0]
    assert (copy / "damaged-2").is_dir() and not (copy / "2").exists()


@pytest.mark.parametrize("harm", ["truncate", "delete", "checksums"])
def test_other_damage_is_named(tmp_path, harm):
  save_steps(tmp_path / "c", make_mesh(), [1, 2])
  victim = data_files(tmp_path / "c" / "2")[0]
  if harm == "truncate":
    victim.write_bytes(victim.read_bytes()[:-1])
  elif harm == "delete":
    victim.unlink()
  else:
    victim = tmp_path / "c" / "2" / "checksums.0.json"
    victim.write_text("{")
  lines = []
  assert restore(tmp_path / "c", make_mesh(), report=lines.append)[1] == 1
  assert victim.name in lines[0]


def test_the_step_of_a_damaged_checkpoint_can_be_saved_again(tmp_path):
  save_steps(tmp_path / "c", make_mesh(), [1, 2])
  flip_one_bit(data_files(tmp_path / "c" / "2")[0], random.Random(1))
  assert restore(tmp_path / "c", make_mesh())[1] == 1
  save_steps(tmp_path / "c", make_mesh(), [2])
  assert restore(tmp_path / "c", make_mesh())[1] == 2


def test_all_damaged_means_a_new_start(tmp_path):
  save_steps(tmp_path / "c", make_mesh(), [1])
  flip_one_bit(data_files(tmp_path / "c" / "1")[0], random.Random(1))
  assert restore(tmp_path / "c", make_mesh()) is None


def test_another_shape_is_one_clear_line(tmp_path):
  save_steps(tmp_path / "c", make_mesh(), [1])
  checkpoints = Checkpoints(str(tmp_path / "c"))
  state = jax.eval_shape(lambda: {"other": jnp.zeros(3)})
  with pytest.raises(CheckpointError, match="could not restore checkpoint 1 in .*complete: 1"):
    checkpoints.restore(state, layout_of(state, make_mesh()))
  checkpoints.close()


FULL_DISK = """
import resource, signal, sys
import jax, jax.numpy as jnp
from embeddings_jax.train.checkpoints import CheckpointError, CheckpointReader, Checkpoints
from embeddings_jax.train.checksums import inspect_checkpoint
checkpoints = Checkpoints(sys.argv[1])
checkpoints.save(1, {"x": jnp.arange(1000.0)})
checkpoints.wait()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
state = {"x": jax.random.normal(jax.random.key(0), (100_000,))}
try:
  checkpoints.save(2, state)
  checkpoints.wait()
except CheckpointError as error:
  print("CAUGHT", error)
"""


def test_a_disk_that_takes_no_more_is_one_clear_line_and_keeps_what_is_saved(tmp_path):
  done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path / "c")], capture_output=True, text=True,
                        env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"}, timeout=120,
                        cwd=pathlib.Path(__file__).parents[2])
  assert "CAUGHT could not save" in done.stdout, done.stdout + done.stderr
  assert "complete: 1" in done.stdout


def listing(folder):
  return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


def read(directory, report=print, **options):
  state = jax.eval_shape(lambda: {"table": jnp.zeros((64, 64)), "step": jnp.int32(0)})
  return CheckpointReader(str(directory), report=report, **options).restore(state, layout_of(state, make_mesh()))


def test_a_reader_changes_nothing_beside_a_save_in_progress(tmp_path):
  save_steps(tmp_path / "c", make_mesh(), [1, 2])
  (tmp_path / "c" / "3.orbax-checkpoint-tmp" / "state").mkdir(parents=True)  # As of a save in progress.
  flip_one_bit(data_files(tmp_path / "c" / "2")[0], random.Random(1))
  before, lines = listing(tmp_path), []
  assert read(tmp_path / "c", report=lines.append, best_metric="score")[1] == 1
  assert listing(tmp_path) == before
  assert len(lines) == 1 and "checkpoint 2 is damaged" in lines[0] and lines[0].endswith("it is skipped")
  assert read(tmp_path / "none") is None and not (tmp_path / "none").exists()


@pytest.mark.parametrize("harm", ["empty folder", "file", "unreadable"])
def test_a_newest_checkpoint_without_checksums_that_cannot_be_read_gives_way_to_an_older_one(tmp_path, harm):
  save_steps(tmp_path / "c", make_mesh(), [1, 2])
  newest = tmp_path / "c" / "30"
  if harm == "file":
    newest.write_text("")
  elif harm == "empty folder":
    newest.mkdir()
  else:
    (tmp_path / "c" / "2").rename(newest)
    (newest / "checksums.0.json").unlink()
    for path in data_files(newest):
      path.write_bytes(b"")
  lines = []
  state, step, _ = restore(tmp_path / "c", make_mesh(), report=lines.append)
  assert step == int(state["step"]) == (1 if harm == "unreadable" else 2)
  assert (tmp_path / "c" / "damaged-30").exists() and not newest.exists()
  assert "checkpoint 30 is damaged" in lines[-1] and str(newest) in " ".join(lines)


@pytest.mark.parametrize("missing", ["all", "of one file"])
def test_a_checkpoint_that_cannot_be_verified_says_so_and_is_used(tmp_path, missing):
  save_steps(tmp_path / "c", make_mesh(), [1, 2])
  checksums = tmp_path / "c" / "2" / "checksums.0.json"
  listed = json.loads(checksums.read_text())
  checksums.unlink()
  if missing == "of one file":  # As if one of several processes had been killed before it wrote its own.
    checksums.write_text(json.dumps(dict(list(listed.items())[1:])))
  lines = []
  assert restore(tmp_path / "c", make_mesh(), report=lines.append)[1] == 2
  assert lines == ["checkpoint 2 has no complete checksums, as after a kill: its content cannot be verified"]


def test_what_was_set_aside_is_never_deleted(tmp_path):
  for _ in range(2):
    save_steps(tmp_path / "c", make_mesh(), [1])
    flip_one_bit(data_files(tmp_path / "c" / "1")[0], random.Random(1))
    assert restore(tmp_path / "c", make_mesh(), report=[].append) is None
  assert CheckpointReader(str(tmp_path / "c")).rejected() == ["damaged-1", "damaged-1+"]


def test_other_libraries_may_log_while_checkpoints_are_open(tmp_path):
  logger, records = logging.getLogger("absl"), []
  before = logger.level
  handler = logging.Handler()
  handler.emit = records.append
  logger.addHandler(handler)
  try:
    checkpoints = Checkpoints(str(tmp_path / "c"))
    checkpoints.save(1, make_state(make_mesh()))
    logger.error("of the caller")
    checkpoints.wait()
    checkpoints.close()
  finally:
    logger.removeHandler(handler)
  assert logger.level == before and not logger.filters
  assert [record.getMessage() for record in records if "orbax" in record.pathname] == []
  assert [record.getMessage() for record in records] == ["of the caller"]


def test_damage_of_every_file_is_named(tmp_path):
  checkpoints = Checkpoints(str(tmp_path / "c"), best_metric="score")
  checkpoints.save(1, make_state(make_mesh()), scores={"score": 1.0})
  checkpoints.wait()
  checkpoints.close()
  folder = epath.Path(tmp_path / "c" / "1")
  files = [path for path in (tmp_path / "c" / "1").rglob("*") if path.is_file()]
  assert {"_METADATA", "metadata", "metrics", "checksums.0.json"} <= {path.name for path in files}
  for path in files:
    content = path.read_bytes()
    for harm in ("flip", "truncate", "delete"):
      if harm == "flip" and content:
        flip_one_bit(path, random.Random(2))
      elif harm == "truncate" and content:
        path.write_bytes(content[:-2])
      elif harm == "delete":
        path.unlink()
      damage, unverified = inspect_checkpoint(folder)
      if path.name == "checksums.0.json" and harm == "delete":
        assert not damage and unverified
      elif content or harm == "delete":  # A flipped bit in the checksums points at the file they are of.
        assert any(path.name in line for line in damage) or path.name == "checksums.0.json" and damage, (path, harm)
      path.write_bytes(content)
  assert inspect_checkpoint(folder) == ([], False)


def test_a_reader_follows_a_run_that_removes_old_checkpoints_while_it_reads(tmp_path, monkeypatch):
  save_steps(tmp_path / "c", make_mesh(), [1])
  save_steps(tmp_path / "new", make_mesh(), [5])
  inspect, lines = checkpoints_module.inspect_checkpoint, []

  def retention_first(folder, *args, **options):
    if folder.name == "1":
      (tmp_path / "new" / "5").rename(tmp_path / "c" / "5")
      shutil.rmtree(tmp_path / "c" / "1")
    return inspect(folder, *args, **options)

  monkeypatch.setattr(checkpoints_module, "inspect_checkpoint", retention_first)
  assert read(tmp_path / "c", report=lines.append)[1] == 5 and lines == []
