"""Reading what a scheduler says about the processes of a run."""
import pytest

from embeddings_jax.types import InputError
from experiments import processes

NAMES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "JOB_COMPLETION_INDEX", "SLURM_NTASKS",
         "SLURM_PROCID", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "TPU_WORKER_HOSTNAMES")


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
  for name in NAMES:
    monkeypatch.delenv(name, raising=False)


def setenv(monkeypatch, environment):
  for name, value in environment.items():
    monkeypatch.setenv(name, value)


@pytest.mark.parametrize("environment, several", [
    ({}, False), ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, True), ({"SLURM_NTASKS": "4"}, False),
    ({"OMPI_COMM_WORLD_SIZE": "2"}, True), ({"PMI_SIZE": "1"}, False), ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
    ({"TPU_WORKER_HOSTNAMES": "a"}, False)])
def test_one_of_several_tasks(environment, several, monkeypatch):
  setenv(monkeypatch, environment)
  assert processes.several_tasks() == several


@pytest.mark.parametrize("process", ["JAX_PROCESS_ID", "JOB_COMPLETION_INDEX"])
def test_a_jobset_names_coordinator_number_and_id(process, monkeypatch):
  setenv(monkeypatch, {"JAX_COORDINATOR_ADDRESS": "a-0.a:1234", process: "3"})
  assert processes.of_environment() is None
  monkeypatch.setenv("JAX_NUM_PROCESSES", "4")
  assert processes.of_environment() == ("a-0.a:1234", 4, 3)
  monkeypatch.setenv("JAX_NUM_PROCESSES", "3")
  with pytest.raises(InputError, match=r"JAX_NUM_PROCESSES=3 and .*=3: must be N and a number from 0 to N - 1"):
    processes.of_environment()
