"""Reads from the environment which processes belong to the run, as schedulers say it."""
import os

from embeddings_jax.errors import InputError


def of_environment() -> tuple[str, int, int] | None:
  """Returns the coordinator, the number of processes and this one's id, as a Kubernetes JobSet's manifest names them.

  JAX reads the first alone, and finds the others by itself on some clusters only. The id of a pod of an indexed job
  is its completion index.
  """
  coordinator = os.environ.get("JAX_COORDINATOR_ADDRESS", "")
  number = os.environ.get("JAX_NUM_PROCESSES", "")
  if not coordinator or not number:
    return None
  process = os.environ.get("JAX_PROCESS_ID") or os.environ.get("JOB_COMPLETION_INDEX", "")
  if not (number.isdecimal() and process.isdecimal() and int(process) < int(number)):
    raise InputError(f"$JAX_NUM_PROCESSES={number} and $JAX_PROCESS_ID (or $JOB_COMPLETION_INDEX)={process}: must be "
                     "N and a number from 0 to N - 1")
  return coordinator, int(number), int(process)


def several_tasks() -> bool:
  """Returns whether a scheduler says that this process is one of several."""
  counts = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
  hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
  # In an allocation without srun, SLURM_NTASKS counts tasks that nobody started.
  started = "SLURM_PROCID" in os.environ or "SLURM_NTASKS" not in os.environ
  return len(hosts) > 1 or (started and any(int(os.environ.get(name, "1") or 1) > 1 for name in counts))
