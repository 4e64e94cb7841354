"""Killed at any moment, a run loses no completed checkpoint and ends where it would have ended."""
import json
import os
import pathlib
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from commands import call

ROOT = pathlib.Path(__file__).parents[2]
STEPS = 300


def arguments(workdir):
  return ["--model=sgns", "--preset=tiny", f"--steps={STEPS}", "--config.log_every=1", "--config.save_every=16",
          "--config.steps_per_dispatch=2", "--nofigures", f"--workdir={workdir}"]


def start(workdir):
  env = os.environ | {"JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
  return subprocess.Popen([sys.executable, "-m", "experiments.run", *arguments(workdir)], env=env, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def until_begun(process):
  """Returns the run's output up to the line that names its directory."""
  lines = []
  for line in process.stdout:
    lines.append(line)
    if " steps of batch " in line:
      break
  return "".join(lines)


def committed(workdir):
  folder = workdir / "checkpoints"
  names = [path.name for path in folder.iterdir()] if folder.exists() else []
  return max((int(name) for name in names if name.isdigit()), default=0)


def last_step(workdir):
  try:
    with open(workdir / "metrics.jsonl", "rb") as file:
      file.seek(max(0, file.seek(0, os.SEEK_END) - 2000))
      return max((int(step) for step in re.findall(rb'"step": (\d+),', file.read())), default=0)
  except FileNotFoundError:
    return 0


def is_saving(workdir):
  folder = workdir / "checkpoints"
  return folder.exists() and any("tmp" in path.name for path in folder.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("num_kills", [2, pytest.param(20, marks=pytest.mark.long)])
def test_kills_change_nothing(num_kills, tmp_path):
  """The moments are uniform over the training; in every fourth the kill waits for a save to be under way."""
  undisturbed = call("run", *arguments(tmp_path / "undisturbed"))
  assert undisturbed.returncode == 0, undisturbed.stderr

  workdir = tmp_path / "killed"
  moments = np.sort(np.random.default_rng(0).integers(1, STEPS - 20, num_kills))
  saved_before, while_saving, kills = 0, 0, 0
  for trial, moment in enumerate(moments):
    process = start(workdir)
    # What an earlier run logged is there until this one has looked at its checkpoints.
    printed = until_begun(process)
    deadline = time.monotonic() + 120
    while last_step(workdir) < moment and process.poll() is None and time.monotonic() < deadline:
      time.sleep(0.001)
    while trial % 4 == 0 and not is_saving(workdir) and process.poll() is None and time.monotonic() < deadline:
      time.sleep(0.0005)
    while_saving += is_saving(workdir)
    kills += process.poll() is None
    process.kill()
    process.communicate()
    resumed = re.search(r"going on from step (\d+)", printed)
    assert (int(resumed[1]) if resumed else 0) == saved_before  # The newest completed one, never an older.
    saved_before = committed(workdir)
  process = start(workdir)
  printed, errors = process.communicate(timeout=180)
  assert process.returncode == 0, errors
  assert kills == num_kills and while_saving >= num_kills // 4
  np.testing.assert_array_equal(np.load(workdir / "embeddings.npy"),
                                np.load(tmp_path / "undisturbed" / "embeddings.npy"))
  steps = [[json.loads(line)["step"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
           for name in ("killed", "undisturbed")]
  assert steps[0] == steps[1] == list(range(1, STEPS + 1))
