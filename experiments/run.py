"""Trains a model: `python -m experiments.run --model=cpc --preset=demo`."""
import contextlib
import ipaddress
import json
import os
import socket
import sys
from collections.abc import Collection, Sequence
from typing import Any

from absl import flags

from embeddings_jax.runs import presets
from embeddings_jax.train.signals import Signals
from embeddings_jax.types import InputError
from experiments import command

FLAGS = flags.FLAGS

flags.DEFINE_string("model", "", "Model to train; --list_models names them.")
flags.DEFINE_string("preset", "demo", "demo (embedded data, minutes), tiny (seconds), small or paper.")
flags.DEFINE_string("config_file", "", "A config from outside the repository: a Python file with get_config(preset).")
flags.DEFINE_string("data", None, "Data set: a name of --list_data, tfds:NAME, a path or glob, or FILE.py:FUNCTION.")
flags.DEFINE_string("data_dir", None, "Directory of the catalog's files (default: $EMBEDDINGS_DATA).")
flags.DEFINE_string("cache_dir", None, "Derived data (default: $EMBEDDINGS_CACHE, ~/.cache/embeddings_jax).")
flags.DEFINE_integer("steps", None, "Updates in all; more than before continue a run.", lower_bound=1)
flags.DEFINE_integer("batch_size", None, "Rows of the global batch.", lower_bound=1)
flags.DEFINE_integer("seed", None, "Of initialisation, order and noise.", lower_bound=0, upper_bound=presets.MAX_SEED)
flags.DEFINE_string("mesh", "", "Sizes of the mesh's axes, as data:4,fsdp:2 (default: all devices along data).")
flags.DEFINE_string("workdir", "", "Where the run is kept (default: runs/MODEL-PRESET-HASH).")
flags.DEFINE_string("init_from", "", "Start from a pretrained network: a work directory, or one of Hugging Face; or "
                    "from word vectors: a work directory, or a file.")
flags.DEFINE_bool("overwrite", False, "Move what is in the work directory aside and start anew.")
flags.DEFINE_bool("figures", True, "Draw figures when the run ends.")
flags.DEFINE_bool("deterministic", False, "Bit-for-bit reproducible on GPUs too, at some cost.")
flags.DEFINE_enum("distributed", "auto", ["auto", "off"], "auto: join the tasks that a scheduler started.")
flags.DEFINE_string("coordinator", "", "host:port of process 0, to start several processes by hand.")
flags.DEFINE_integer("num_processes", None, "Number of processes, with --coordinator.", lower_bound=1)
flags.DEFINE_integer("process_id", None, "Number of this process from 0, with --coordinator.", lower_bound=0)
flags.DEFINE_bool("list_models", False, "Name the models and stop.")
flags.DEFINE_bool("list_data", False, "Name the data sets and stop.")
flags.DEFINE_bool("print_config", False, "Print the config as JSON and stop.")


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
    return run(config, command.overridden(argv), signals)


def list_data() -> int:
  from embeddings_jax.data import catalog

  for entry in catalog.available(FLAGS.data_dir):
    print(f"{entry.name:16} {entry.kind:6} {entry.description} [{entry.licence}] ({entry.where})")
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
    if config.data.get("form") != "task":
      raise InputError(f"--config.task={config.task}: {config.name} learns no task; give it to --model=finetune")
    config.data.name = config.task


def start_processes() -> None:
  """Joins the other processes of the run, before JAX looks at any device."""
  import jax

  if FLAGS.deterministic:
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_deterministic_ops=true"
  by_hand = (FLAGS.num_processes, FLAGS.process_id)
  if FLAGS.coordinator:
    if None in by_hand or FLAGS.process_id >= FLAGS.num_processes:
      raise InputError("--coordinator needs --num_processes=N and --process_id from 0 to N - 1")
    address = bind_address(FLAGS.coordinator) if FLAGS.process_id == 0 else None
    jax.distributed.initialize(FLAGS.coordinator, *by_hand, initialization_timeout=120,
                               coordinator_bind_address=address)
  elif by_hand != (None, None):
    raise InputError("--num_processes and --process_id need --coordinator=HOST:PORT")
  elif FLAGS.distributed == "auto" and several_tasks():
    jax.distributed.initialize()


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


def several_tasks() -> bool:
  """Whether a scheduler says that this process is one of several."""
  counts = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
  hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
  # In an allocation without srun, SLURM_NTASKS counts tasks that nobody started.
  started = "SLURM_PROCID" in os.environ or "SLURM_NTASKS" not in os.environ
  return len(hosts) > 1 or (started and any(int(os.environ.get(name, "1") or 1) > 1 for name in counts))


def run(config: Any, explicit: Collection[str] = (), signals: Signals | None = None) -> int:
  """Trains and evaluates.

  Args:
    config: The completed config.
    explicit: Keys of the config that the command line sets.
    signals: Asks the training to stop.
  """
  import jax
  from etils import epath

  from embeddings_jax.runs import build, loading, metrics_log, optimizers, protocols, reports, workdir
  from embeddings_jax.train import loop
  from embeddings_jax.train.checkpoints import Checkpoints
  from embeddings_jax.train.mesh import check_batch_size, make_mesh
  from experiments.progress import Preparation, Progress

  named = "optimizer.name" in explicit  # What a preset has for another optimizer is then left over.
  optimizers.check_options(config.optimizer, [key for key in config.optimizer
                                              if not named or f"optimizer.{key}" in explicit])
  alone = jax.process_index() == 0
  say = print if alone else lambda *_: None
  mesh = make_mesh(FLAGS.mesh)
  cache_dir = FLAGS.cache_dir
  found = words = None
  if FLAGS.init_from:
    from embeddings_jax.runs import pretrained, word_start

    words = word_start.find(FLAGS.init_from)
    if not words:
      found = pretrained.load(FLAGS.init_from)
      pretrained.adapt(config, found, explicit)
  for name in (*config.evals, *config.evals_between):
    protocols.check(name)
  if config.best_metric:
    if not config.eval_every:
      raise InputError(f"--config.best_metric={config.best_metric}: needs --config.eval_every above 0")
    protocols.check_best_metric(config.best_metric)
  # All that this config names, this command line has named.
  preparation = Preparation()
  try:
    data = loading.load_data(config, data_dir=FLAGS.data_dir, cache_dir=cache_dir,
                             encoder=found.encoder if found else None, allow_code=True, progress=preparation)
  finally:
    preparation.close()
  if data.dataset.note:
    say(data.dataset.note)
  source = data.splits["train"]
  steps = config.steps or config.epochs * data.facts["steps_per_epoch"]
  if not steps:
    raise InputError("--steps is missing: the config has neither `steps` nor `epochs`")
  if not source.whole:
    check_batch_size(mesh, source.batch_size)

  initial, origin = None, found or words
  if found:
    initial = pretrained.initial(found, say)
  elif words:
    initial = word_start.initial(words, data.encoder, say)
  course = workdir.trajectory(config.to_dict(), data.dataset.fingerprint, origin.fingerprint if origin else "")
  path = epath.Path(FLAGS.workdir) if FLAGS.workdir else workdir.default_path(config, FLAGS.preset, course)
  horizon = config.horizon or (not FLAGS.overwrite and workdir.recorded_horizon(path)) or steps
  model = build.make_model(config, data.facts, horizon)
  if build.depends_on_horizon(config):
    course["horizon"] = horizon
  record = {
      "config": json.loads(config.to_json_best_effort()), "preset": FLAGS.preset, "trajectory": course,
      "steps": steps, "horizon": horizon,
      "encoder": data.encoder.fingerprint, "facts": workdir.described_facts(data.facts),
      "batch": {k: [list(v.shape), str(v.dtype)] for k, v in source.batch_at(0).items()},
      "command": " ".join(["python -m experiments.run", *sys.argv[1:]]),
      **({"init_from": str(origin.path)} if origin else {}),
  }
  if words and data.splits.get("validation") and word_start.has_read(words, data.dataset.fingerprint):
    record["note"] = "the word vectors it started from had also read the validation documents"
    say(f"--init_from={FLAGS.init_from}: {record['note']}")
  with workdir.prepared(path, course, overwrite=FLAGS.overwrite, report=say) if alone else contextlib.nullcontext():
    if jax.process_count() > 1:  # Process 0 has made and locked the directory before any other looks into it.
      from jax.experimental import multihost_utils
      multihost_utils.sync_global_devices("work directory")
    metadata = {"trajectory": course, "encoder": data.encoder.fingerprint, "versions": workdir.versions()}
    checkpoints = Checkpoints(str(path / "checkpoints"), **workdir.best_of(config), metadata=metadata, report=say)
    begun = checkpoints.newest_sound()
    old = workdir.read_results(path, report=say)
    if workdir.is_finished(old, begun, steps):
      say(f"{path}: finished at step {begun}" + ("; more --steps continue it" if begun >= steps else ", converged"))
      return 0
    if begun:
      say(f"{path}: going on from step {begun}"
          + (f"; {steps} are asked for, so there is nothing to train, and what is there is evaluated"
             if begun >= steps else ""))
    else:
      workdir.check_restart(path, checkpoints.rejected(), old)
    if alone:
      data.encoder.save(path / "encoder")
      workdir.write_json(path / "config.json", record)
    say(f"{config.name}: {data.facts['num_rows']} rows of {data.dataset.name}, {steps} steps of batch "
        f"{source.batch_size}, mesh {dict(mesh.shape)} of {jax.devices()[0].device_kind}; in {path}")
    if horizon < steps and "horizon" in course:
      say(f"schedules run over {horizon} steps, beyond which the learning rate stays at its end")

    report = reports.Report(config, data, model, mesh, FLAGS.data_dir, cache_dir, say)
    log = metrics_log.MetricsLog(path, say) if alone else None
    progress = Progress(steps) if alone else None
    try:
      state = loop.train(
          model, source, steps=steps, seed=config.seed, mesh=mesh, steps_per_dispatch=config.steps_per_dispatch,
          checkpoints=checkpoints, save_every=config.save_every,
          evaluate=report.between if config.eval_every else None, eval_every=config.eval_every,
          write=log.write if log else None, log_every=config.log_every, started=log.start if log else None,
          progress=progress.show if progress else None, signals=signals,
          initial=initial)
      step, best = checkpoints.latest(), checkpoints.best()
      if best not in (None, step):
        layout = jax.tree.map(lambda leaf: leaf.sharding, state)
        state, best, _ = checkpoints.restore(jax.eval_shape(lambda: state), layout, best)
        say(f"{config.best_metric} was best at step {best}, which is reported")
    finally:
      if progress:
        progress.close()
      checkpoints.close()
      if log:
        log.close()
    seconds = log.seconds() if log else 0.0
    report.finish(state, step, path, seconds=seconds, record=record, write=alone, draw=FLAGS.figures, best=best)
  return 0


if __name__ == "__main__":
  command.call(main)
