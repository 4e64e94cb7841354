"""Signals in every phase of a run: exit code 75, and the same command continues."""
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
# Imports once, then forks a run for each phase, in which a function sends its process a signal first.
DRIVER = """
import os, signal, sys
import sklearn.cluster, sklearn.datasets, sklearn.metrics
from embeddings_jax.runs import build, evaluation, presets, reports, workdir
from embeddings_jax.train import checkpoints, loop
from experiments import command, run
workdir_name, *phases = sys.argv[1:]
for phase in phases:
  place, number = phase.split("=")
  sys.stdout.flush()
  if not (pid := os.fork()):
    module, _, name = place.rpartition(".")
    target = eval(module) if module else None
    if target:
      original = getattr(target, name)
      def interrupted(*args, original=original, number=number, **options):
        os.kill(os.getpid(), getattr(signal, number))
        return original(*args, **options)
      setattr(target, name, interrupted)
    sys.argv = ["run", "--model=gmm", "--preset=tiny", "--nofigures", "--config.save_every=0",
                "--workdir=" + workdir_name]
    command.call(run.main)
  print(phase, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
PHASES = {  # In the order in which a run meets them.
    "presets.load_config": "SIGTERM", "build.prepare": "SIGUSR1", "workdir.Lock.acquire": "SIGTERM",
    "checkpoints.Checkpoints.newest_sound": "SIGTERM", "workdir.write_json": "SIGUSR1",
    "checkpoints.Checkpoints.save": "SIGTERM", "evaluation.Evaluator.evaluate": "SIGTERM",
    "workdir.write_array": "SIGINT"}
FEW = ("build.prepare", "checkpoints.Checkpoints.save", "evaluation.Evaluator.evaluate")


@pytest.mark.parametrize("places", [FEW, pytest.param(tuple(PHASES), marks=pytest.mark.long)], ids=["few", "all"])
def test_a_signal_in_any_phase_ends_in_75_and_the_same_command_continues(places, tmp_path):
  phases = [f"{place}={PHASES[place]}" for place in places] + ["="]  # At last undisturbed.
  done = subprocess.run([sys.executable, "-c", DRIVER, str(tmp_path / "w"), *phases], capture_output=True, text=True,
                        timeout=300, env=os.environ | {"JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": str(ROOT)})
  codes = ["0" if phase == "=" else "130" if phase.endswith("SIGINT") else "75" for phase in phases]
  ends = [line.rsplit(" ", 1) for line in done.stdout.splitlines() if line.rsplit(" ", 1)[0] in phases]
  assert ends == [list(pair) for pair in zip(phases, codes)], done.stdout + done.stderr
  errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
  assert len(errors) == len(places) and all(" received: " in line for line in errors), done.stderr
  assert "SIGTERM received: saved at step 20" in done.stderr and "going on from step 20" in done.stdout
  results = json.loads((tmp_path / "w" / "results.json").read_text())
  assert results["metrics"]["class/all/nmi"] > 0.6 and "pending" not in results
  assert np.load(tmp_path / "w" / "embeddings.npy").shape == (150, 3)
  assert [path.name for path in (tmp_path / "w").iterdir() if path.name.endswith(".draft")] == []
