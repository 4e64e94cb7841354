"""Eight simulated devices, a compilation cache for the run, and the markers."""
import collections
import gc
import importlib.metadata
import os
import pathlib
import tempfile

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Subprocesses share what this process compiled, and fail fast where collectives cannot meet.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", tempfile.mkdtemp(prefix="xla-cache-"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
# Threads of the reference libraries would wait for each other on cores that two test processes fill.
for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
  os.environ.setdefault(threads, "1")
os.environ.setdefault("EMBEDDINGS_CACHE", tempfile.mkdtemp(prefix="embeddings-cache-"))
# Tests compile for longer than they compute: machine code as it comes takes a third of the time of optimized code,
# and a little less in one piece. Of jax 0.10's two ways to write it the older takes half of that, and less again
# where operations are not split among threads, for which two processes leave no core. XLA stops at flags that it
# does not know.
XLA_FLAGS = ["--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1",
             "--xla_cpu_collective_call_terminate_timeout_seconds=60"]
if importlib.metadata.version("jax").startswith("0.10."):
  XLA_FLAGS += ["--xla_cpu_use_fusion_emitters=false", "--xla_disable_hlo_passes=cpu-parallel-task-assigner"]
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *XLA_FLAGS])
if "EMBEDDINGS_DATA" in os.environ:
  os.environ["EMBEDDINGS_DATA"] = str(pathlib.Path(os.environ["EMBEDDINGS_DATA"]).resolve())

from jaxtyping import install_import_hook  # noqa: E402

# Annotations of shapes and dtypes are checked wherever the tests call.
install_import_hook(["embeddings_jax.models", "embeddings_jax.nets", "embeddings_jax.ops", "embeddings_jax.eval"],
                    "typecheck.check")

import jax  # noqa: E402
import pytest  # noqa: E402

# What tracing leaves behind is collected less often, and the libraries' own objects never: a tenth of the time.
gc.freeze()
gc.set_threshold(50_000, 20, 20)

ASKED = {
    "data": ("EMBEDDINGS_DATA" in os.environ, "$EMBEDDINGS_DATA is not set"),
    "parity": (None, "--parity was not given"),
    "slow": (None, "--fast was given"),
    "long": (None, "--slow was not given"),
}
# Files that take minutes go first, so that at the end no process waits for another's.
LONG = ("test_contract.py", "test_command.py", "test_kill.py")


def pytest_addoption(parser):
  parser.addoption("--parity", action="store_true", help="compare with the reference libraries")
  parser.addoption("--fast", action="store_true", help="leave out the slow tests")
  parser.addoption("--slow", action="store_true", help="add the tests that take minutes")


def pytest_collection_modifyitems(config, items):
  """Deselects the tests whose needs are not met, and says how many and why."""
  wanted = {"data": ASKED["data"][0], "parity": config.getoption("--parity"), "slow": not config.getoption("--fast"),
            "long": config.getoption("--slow")}
  left_out = {}
  for item in items:
    for marker, there in wanted.items():
      if not there and item.get_closest_marker(marker):
        left_out.setdefault(item, marker)
  if left_out:
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]
  items.sort(key=lambda item: item.path.name not in LONG)
  config.left_out = collections.Counter(left_out.values())
  if hasattr(config, "workeroutput"):  # One of several processes, whose chief sees no test itself.
    config.workeroutput["left_out"] = dict(config.left_out)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
  node.config.left_out = getattr(node, "workeroutput", {}).get("left_out", {})


def pytest_terminal_summary(terminalreporter, config):
  for marker, (_, reason) in ASKED.items():
    number = getattr(config, "left_out", {}).get(marker, 0)
    if number:
      terminalreporter.write_line(f"{number} {marker!r} tests were left out: {reason}")


@pytest.fixture
def mesh_of():
  """Makes a mesh over the first simulated devices: `mesh_of("data:4,fsdp:2")`."""
  from embeddings_jax.train.mesh import make_mesh

  def make(spec: str = "data:1"):
    import math
    size = math.prod(int(part.split(":")[1]) for part in spec.split(","))
    return make_mesh(spec, jax.devices()[:size])

  return make
