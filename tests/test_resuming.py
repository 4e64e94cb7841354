"""Runs that go on with other numbers of processes and devices."""
import json
import socket

import numpy as np
import pytest
from commands import call
from test_command import start

MODELS = ("gmm", "sgns", "bert", "simclr", "mae", "node2vec")


def stage(model, steps, workdir, devices, processes=1):
  arguments = [f"--model={model}", "--preset=tiny", f"--steps={steps}", "--config.log_every=1", "--config.horizon=12",
               "--config.steps_per_dispatch=1", "--config.evals=()", "--config.batch_size=16", f"--workdir={workdir}"]
  if model == "gmm":
    arguments += ["--config.model.tol=0.0", "--config.data.order=sequential"]
  if processes == 1:
    done = call("run", *arguments, devices=devices)
    assert done.returncode == 0, done.stderr
    return
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  both = [start(*arguments, f"--coordinator=127.0.0.1:{port}", f"--num_processes={processes}", f"--process_id={i}",
                devices=devices) for i in range(processes)]
  for process in both:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


def losses(workdir):
  records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  return np.array([record["loss"] for record in records if "loss" in record])


@pytest.mark.long
@pytest.mark.parametrize("model", MODELS)
def test_a_chain_of_processes_and_of_devices_changes_no_loss(model, tmp_path):
  """1, 2, 1 processes and 1, 8, 4 devices, of four steps each, against twelve steps at one go."""
  stage(model, 12, tmp_path / "whole", 1)
  expected = losses(tmp_path / "whole")
  assert len(expected) == 12
  for name, stages in {"processes": [(1, 1), (1, 2), (1, 1)], "devices": [(1, 1), (8, 1), (4, 1)]}.items():
    for number, (devices, processes) in enumerate(stages, 1):
      stage(model, 4 * number, tmp_path / name, devices, processes)
    np.testing.assert_allclose(losses(tmp_path / name), expected, rtol=1e-5)
