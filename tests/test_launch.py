"""Launch scripts, with stand-ins for the programs of a cluster."""
import os
import pathlib
import signal
import subprocess
import time

import pytest
import yaml

LAUNCH = pathlib.Path(__file__).parents[1] / "scripts" / "launch"


def program(folder, name, body):
  """Writes an executable script."""
  path = folder / name
  path.write_text(f"#!/usr/bin/env bash\n{body}\n")
  path.chmod(0o755)
  return path


def call(*command, path=None, **environment):
  names = os.environ | {key: str(value) for key, value in environment.items()}
  if path:
    names["PATH"] = f"{path}:{names['PATH']}"
  return subprocess.run([str(part) for part in command], capture_output=True, text=True, env=names, timeout=60)


@pytest.mark.parametrize("codes, starts, end", [
    ([0], 1, 0), ([75, 75, 0], 3, 0), ([134, 0], 2, 0), ([75, 2], 2, 2), ([1], 1, 1), ([75, 75, 75, 75], 3, 75)])
def test_a_command_is_started_again_after_a_save_or_a_lost_peer(codes, starts, end, tmp_path):
  code = program(tmp_path, "train", f"""echo "$@" >> {tmp_path}/calls
codes=({' '.join(map(str, codes))})
exit "${{codes[$(($(wc -l < {tmp_path}/calls) - 1))]}}" """)
  done = call(LAUNCH / "restarting", code, "--model=x", "a b", MAX_RESTARTS=2)
  assert done.returncode == end, done.stderr
  assert (tmp_path / "calls").read_text().splitlines() == ["--model=x a b"] * starts
  assert ("error: ended with 75 after 2 restarts" in done.stderr) == (len(codes) > 3)


def test_a_signal_reaches_the_command_and_ends_the_loop(tmp_path):
  saving = program(tmp_path, "train", f"trap 'sleep .3; touch {tmp_path}/saved; exit 75' TERM\n"
                                      f"touch {tmp_path}/begun\nwhile true; do sleep .05; done")
  process = subprocess.Popen([LAUNCH / "restarting", saving])
  while not (tmp_path / "begun").exists():
    time.sleep(0.02)
  process.send_signal(signal.SIGTERM)
  assert process.wait(timeout=30) == 75 and (tmp_path / "saved").exists()


@pytest.mark.parametrize("code, requeued", [(0, False), (75, True), (134, True), (2, False)])
def test_a_slurm_job_is_queued_again_where_it_can_go_on(code, requeued, tmp_path):
  program(tmp_path, "srun", f"echo \"$@\" > {tmp_path}/srun.txt; exit {code}")
  program(tmp_path, "scontrol", f"echo \"$@\" > {tmp_path}/scontrol.txt")
  done = call(LAUNCH / "slurm", "--model=bert", "--workdir=w", path=tmp_path, SLURM_JOB_ID=7,
              SLURM_SUBMIT_DIR=tmp_path)
  assert done.returncode == code
  assert (tmp_path / "srun.txt").read_text() == "--kill-on-bad-exit=1 scripts/run --model=bert --workdir=w\n"
  assert (tmp_path / "scontrol.txt").exists() == requeued
  if requeued:
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 7\n"


def test_a_slurm_job_without_a_work_directory_is_refused(tmp_path):
  done = call(LAUNCH / "slurm", "--model=bert", path=tmp_path)
  assert done.returncode == 2 and done.stderr.startswith("error: give --workdir=DIR")


def test_flags_reach_every_host_of_a_slice_as_they_are(tmp_path):
  show = program(tmp_path, "gcloud", 'printf "%s\\n" "$@"')
  done = call(LAUNCH / "tpu", "name", "zone", "--model=bert", "--data=my files/*.txt", GCLOUD=show)
  *options, command = done.stdout.splitlines()
  assert options == ["compute", "tpus", "tpu-vm", "ssh", "name", "--zone=zone", "--worker=all"]
  assert command == ("--command=cd ~/embeddings_jax && EMBEDDINGS_EXTRAS=tpu scripts/launch/restarting scripts/run "
                     r"--model=bert --data=my\ files/\*.txt")
  assert call(LAUNCH / "tpu", "name").returncode == 2


def test_a_jobset_names_its_processes():
  (job,) = yaml.safe_load((LAUNCH / "jobset.yaml").read_text())["spec"]["replicatedJobs"]
  spec = job["template"]["spec"]
  (rule,) = spec["podFailurePolicy"]["rules"]
  assert rule["action"] == "Ignore" and rule["onExitCodes"]["values"] == [75, 134]
  pod = spec["template"]["spec"]
  environment = {entry["name"]: entry.get("value") for entry in pod["containers"][0]["env"]}
  assert spec["completionMode"] == "Indexed"
  assert environment["JAX_NUM_PROCESSES"] == str(spec["parallelism"]) == str(spec["completions"])
  assert environment["JAX_COORDINATOR_ADDRESS"].startswith(f"embeddings-{job['name']}-0-0.{pod['subdomain']}:")
  assert pod["restartPolicy"] == "Never" and rule["onExitCodes"]["containerName"] == pod["containers"][0]["name"]
