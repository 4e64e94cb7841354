"""Commands as a user gives them, run by a process that has imported the libraries once and forks for each command.

A command starts in a tenth of a second of processor time instead of five, and is a process of its own all the same:
with its own flags, exit code, output and signals.
"""
import atexit
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
# Imports what commands import, but for `experiments`, whose modules define flags; no backend of JAX may start here.
SERVER = """
import json, os, runpy, signal, sys
import jax, flax, optax, orbax.checkpoint, ml_collections.config_flags, scipy.stats
import sklearn.cluster, sklearn.linear_model, sklearn.metrics, sklearn.model_selection
import embeddings_jax.runs.fit, embeddings_jax.runs.load, embeddings_jax.runs.export, embeddings_jax.runs.evaluation

for line in sys.stdin:
  request = json.loads(line)
  if not (pid := os.fork()):
    os.chdir(request["cwd"])
    os.environ.update(request["env"])
    for number, path in ((1, request["stdout"]), (2, request["stderr"])):
      os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    signal.alarm(request["timeout"])  # Ends a command that hangs.
    jax.config.update("jax_num_cpu_devices", request["devices"])
    sys.argv = [request["module"], *request["arguments"]]
    try:
      runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
    except SystemExit as error:
      sys.stdout.flush()
      os._exit(error.code if isinstance(error.code, int) else int(error.code is not None))
    except BaseException:
      sys.excepthook(*sys.exc_info())
      sys.stderr.flush()
      os._exit(1)
    sys.stdout.flush()
    os._exit(0)
  code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
  print(json.dumps(code), flush=True)
"""


def call(module: str, *arguments: object, devices: int = 1, timeout: int = 180, env: dict[str, str] | None = None,
         cwd: object = ROOT) -> subprocess.CompletedProcess:
  """Runs `python -m experiments.MODULE`; a training draws only if it is asked to, as that takes longer than training.

  Args:
    module: Module of `experiments`.
    *arguments: Flags.
    devices: Number of simulated devices.
    timeout: Seconds.
    env: Environment variables that the command reads when it runs; the libraries are imported already.
    cwd: Working directory.
  """
  if module == "run" and "--figures" not in arguments:
    arguments = ("--nofigures", *arguments)
  server = _server()
  with tempfile.TemporaryDirectory() as folder:
    request = {"module": f"experiments.{module}", "arguments": [str(argument) for argument in arguments],
               "devices": devices, "timeout": timeout, "cwd": str(cwd), "env": env or {},
               "stdout": f"{folder}/out", "stderr": f"{folder}/err"}
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    code = json.loads(server.stdout.readline())
    out, err = ((pathlib.Path(folder) / name).read_text(errors="replace") for name in ("out", "err"))
  return subprocess.CompletedProcess(request["arguments"], code, out, err)


@functools.cache
def _server() -> subprocess.Popen:
  server = subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                            env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=ROOT)
  atexit.register(server.wait)  # So that its time counts as the tests'.
  atexit.register(server.stdin.close)
  return server
