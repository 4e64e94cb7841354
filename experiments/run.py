"""Trains a model: `python -m experiments.run --model=cpc --preset=demo`."""
import contextlib
import ipaddress
import os
import socket
import sys
from collections.abc import Collection, Sequence
from typing import Any

from absl import flags

from embeddings_jax.errors import InputError
from embeddings_jax.runs import presets
from embeddings_jax.train.signals import Signals
from experiments import command, processes, watchdog

FLAGS = flags.FLAGS

flags.DEFINE_string("model", "", "Model to train; --list_models names them.")
flags.DEFINE_string("preset", "demo", "demo (embedded data, minutes), tiny (seconds), small or paper.")
flags.DEFINE_string("config_file", "", "A config from outside the repository: a Python file with get_config(preset).")
flags.DEFINE_string("data", None, "Dataset: a name of --list_data, tfds:NAME, a path or glob, or FILE.py:FUNCTION.")
flags.DEFINE_string("data_dir", None, "Directory of the catalog's files (default: $EMBEDDINGS_DATA).")
flags.DEFINE_string("cache_dir", None,
                    "Directory of derived data (default: $EMBEDDINGS_CACHE, ~/.cache/embeddings_jax).")
flags.DEFINE_integer("steps", None, "Number of updates; a larger number extends a finished run.", lower_bound=1)
flags.DEFINE_integer("batch_size", None, "Rows of the global batch.", lower_bound=1)
flags.DEFINE_integer("seed", None, "Random seed for initialization, data order and noise.", lower_bound=0,
                     upper_bound=presets.MAX_SEED)
flags.DEFINE_string("mesh", "", "Sizes of the mesh's axes, as data:4,fsdp:2; dcn:2 is the number of slices "
                    "(default: all devices along data).")
flags.DEFINE_string("workdir", "", "Directory of the run (default: runs/MODEL-PRESET-HASH).")
flags.DEFINE_string("init_from", "", "Start from a pretrained network: a work directory, or one of Hugging Face; or "
                    "from word vectors: a work directory, or a file.")
flags.DEFINE_bool("overwrite", False, "Move an existing run aside and start a new one.")
flags.DEFINE_bool("figures", True, "Draw figures when the run ends.")
flags.DEFINE_bool("deterministic", False, "Bit-for-bit reproducible on GPUs too, at some cost.")
flags.DEFINE_enum("distributed", "auto", ["auto", "off"], "auto joins the tasks that a scheduler started.")
flags.DEFINE_string("coordinator", "", "host:port of process 0, to start several processes by hand.")
flags.DEFINE_integer("num_processes", None, "Number of processes, with --coordinator.", lower_bound=1)
flags.DEFINE_integer("process_id", None, "Number of this process from 0, with --coordinator.", lower_bound=0)
flags.DEFINE_integer("heartbeat", 20, "Seconds without a sign of life of another process after which this one ends "
                     "with 75, to be started again.", lower_bound=1)
flags.DEFINE_float("save_minutes", 0.0, "Minutes after which a checkpoint is due, beside --config.save_every; 0: "
                   "never.", lower_bound=0.0)
flags.DEFINE_string("profile", "", "Steps first:last to profile, for TensorBoard and Perfetto, in WORKDIR/profile.")
flags.DEFINE_string("compilation_cache", "", "Directory of compiled programs, which later runs on equal machines "
                    "read.")
flags.DEFINE_bool("list_models", False, "List the models and exit.")
flags.DEFINE_bool("list_data", False, "List the datasets and exit.")
flags.DEFINE_bool("print_config", False, "Print the config as JSON and exit.")


def main(argv: Sequence[str]) -> int:
  with Signals() as signals:  # From here on a signal ends in exit code 75 and a state that the same command resumes.
    config = command.parse_with_config(argv)
    if FLAGS.list_models:
      print("\n".join(presets.model_names()))
      return 0
    if FLAGS.list_data:
      return list_data()
    apply_flags(config)
    if FLAGS.print_config:
      print(config.to_json(indent=1))
      return 0
    start_processes()
    with watchdog.of_run(FLAGS.heartbeat) or contextlib.nullcontext():
      train(config, command.overridden(argv), signals)
    return 0


def list_data() -> int:
  from embeddings_jax.data import catalog

  for entry in catalog.available(FLAGS.data_dir):
    print(f"{entry.name:16} {entry.kind:6} {entry.description} [{entry.license}] ({entry.where})")
  return 0


def apply_flags(config: Any) -> None:
  """Flags of a config key's name win over the config."""
  for key in ("steps", "batch_size", "seed"):
    if FLAGS[key].value is not None:
      config[key] = FLAGS[key].value
  presets.check_numbers(config)
  if FLAGS.data is not None:
    config.data.name = FLAGS.data
  if config.task:
    if config.pipeline != "task":
      raise InputError(f"--config.task={config.task}: {config.name} learns no task; give it to --model=finetune")
    config.data.name = config.task


def start_processes() -> None:
  """Joins the other processes of the run, before JAX looks at any device."""
  import jax

  if FLAGS.deterministic:
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_deterministic_ops=true"
  if FLAGS.compilation_cache:
    jax.config.update("jax_compilation_cache_dir", FLAGS.compilation_cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # Every process compiles many small ones.
  by_hand = (FLAGS.num_processes, FLAGS.process_id)
  # JAX's own check aborts: it has to come after the watchdog.
  limits = {"initialization_timeout": 120, "heartbeat_timeout_seconds": max(100, 4 * FLAGS.heartbeat)}
  if FLAGS.coordinator:
    if None in by_hand or FLAGS.process_id >= FLAGS.num_processes:
      raise InputError("--coordinator needs --num_processes=N and --process_id from 0 to N - 1")
    address = bind_address(FLAGS.coordinator) if FLAGS.process_id == 0 else None
    jax.distributed.initialize(FLAGS.coordinator, *by_hand, coordinator_bind_address=address, **limits)
  elif by_hand != (None, None):
    raise InputError("--num_processes and --process_id need --coordinator=HOST:PORT")
  elif FLAGS.distributed == "auto" and (named := processes.of_environment()):
    jax.distributed.initialize(*named, **limits)
  elif FLAGS.distributed == "auto" and processes.several_tasks():
    jax.distributed.initialize(heartbeat_timeout_seconds=limits["heartbeat_timeout_seconds"])


def bind_address(coordinator: str) -> str | None:
  """Returns where the coordinator should listen, as its protocol has no authentication.

  None leaves it to JAX: to `$JAX_COORDINATOR_BIND_ADDRESS`, else to all interfaces.
  """
  if os.environ.get("JAX_COORDINATOR_BIND_ADDRESS"):
    return None
  host, _, port = coordinator.rpartition(":")
  host = host.strip("[]")
  if not host or not port.isdecimal() or int(port) >= 1 << 16:
    raise InputError(f"--coordinator={coordinator}: must be HOST:PORT")
  try:
    family, _, _, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
    # Many systems give their own name the address 127.0.1.1, where other machines would not reach it.
    by_name = host != "localhost" and address[0] != host
    if by_name and ipaddress.ip_address(address[0]).is_loopback:
      raise OSError(f"its address here is {address[0]}")
    with socket.socket(family, socket.SOCK_STREAM) as probe:
      probe.bind((address[0], 0))
  except OSError as error:
    print(f"--coordinator={coordinator}: cannot listen at {host} alone ({error.strerror or error}), and listens on "
          "all interfaces; the protocol has no authentication", flush=True)
    return None
  return f"[{address[0]}]:{port}" if family == socket.AF_INET6 else f"{address[0]}:{port}"


def train(config: Any, explicit: Collection[str], signals: Signals) -> None:
  """Trains and evaluates what the config and the flags say."""
  import jax

  from embeddings_jax.runs import fit
  from embeddings_jax.train.mesh import make_mesh
  from experiments.progress import Preparation, Training

  preparation, training = Preparation(), Training()
  try:
    fit.train_config(
        config, preset=FLAGS.preset, explicit=explicit, workdir=FLAGS.workdir or None, default_workdir=True,
        init_from=FLAGS.init_from, overwrite=FLAGS.overwrite, mesh=make_mesh(FLAGS.mesh), data_dir=FLAGS.data_dir,
        cache_dir=FLAGS.cache_dir, allow_code=True,  # All that this config names, this command line has named.
        save_minutes=FLAGS.save_minutes, profile=FLAGS.profile, figures=FLAGS.figures,
        command=" ".join(["python -m experiments.run", *sys.argv[1:]]), signals=signals,
        report=print if jax.process_index() == 0 else lambda line: None, progress=training, preparation=preparation)
  finally:
    preparation.close()
    training.close()


if __name__ == "__main__":
  command.call(main)
