"""Compiles a run for machines that are not there, and says what it would hold, compute and send.

  TPUs        python -m experiments.plan --model=bert --preset=paper --topology=v5e:4x4 --mesh=data:16
  CPUs        python -m experiments.plan --model=mae --preset=demo --devices=cpu:16 --mesh=data:4,fsdp:4 --chip=v5e
  many rows   python -m experiments.plan --model=gmm --preset=paper --topology=v6e:16x16 --num_rows=1000000000
                --item_shape=128
  slices      python -m experiments.plan --model=bert --preset=paper --topology=v5e:4x4 --mesh=dcn:2
  meshes      python -m experiments.plan --model=bert --preset=paper --topology=v5e:4x4 --sweep

Initialization, update and evaluation of the training loop are compiled for stand-in data; nothing is read or run.
TPUs need the compiler of `pip install 'embeddings_jax[tpu]'` and no TPU; simulated CPUs show the kinds and places of
collectives, not a TPU's bytes. Layers are scanned unless --config.model.unroll is given, as a compiler takes many
minutes for unrolled ones. Times are predictions from published figures of the chips. Exit code 0: it fits; 3: it does
not; 2: the flags are wrong.
"""
import json
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from embeddings_jax.errors import InputError
from embeddings_jax.runs import presets
from experiments import command

FLAGS = flags.FLAGS
DOES_NOT_FIT = 3

flags.DEFINE_string("model", "", "Model; python -m experiments.run --list_models names them.")
flags.DEFINE_string("preset", "paper", "demo, tiny, small or paper.")
flags.DEFINE_string("config_file", "", "A config from outside the repository: a Python file with get_config(preset).")
flags.DEFINE_string("topology", "", "TPU slice, as v5e:16x16 or v5p:4x4x4.")
flags.DEFINE_string("devices", "", "Simulated devices instead, as cpu:16.")
flags.DEFINE_string("chip", "", "Chip whose figures predict times (default: that of the topology).")
flags.DEFINE_float("memory_gb", 0.0, "Memory of a device in GB (default: the chip's).", lower_bound=0.0)
flags.DEFINE_string("mesh", "", "Sizes of the mesh's axes, as data:4,fsdp:2; dcn:2 is the number of slices "
                    "(default: all devices along data).")
flags.DEFINE_integer("batch_size", None, "Rows of the global batch.", lower_bound=1)
flags.DEFINE_integer("num_rows", 0, "Rows of the data, where a batch is all of them.", lower_bound=0)
flags.DEFINE_list("item_shape", [], "Shape of an item, as 128 features or 224,224,3 (default: the dataset's).")
flags.DEFINE_bool("evaluation", True, "Compile the evaluation too.")
flags.DEFINE_bool("sweep", False, "Compile the update for several meshes, rank them, and predict 8 to 256 devices.")
flags.DEFINE_string("output", "", "File for the plan as JSON.")


def main(argv: Sequence[str]) -> int:
  config = command.parse_with_config(argv)
  if FLAGS.output:
    command.check_output(FLAGS.output)
  item_shape = tuple(command.listed(FLAGS["item_shape"], int))
  if FLAGS.batch_size:
    config.batch_size = FLAGS.batch_size
  presets.check_numbers(config)
  if "unroll" in config.model and "model.unroll" not in command.overridden(argv):
    config.model.unroll = 1
  config.steps_per_dispatch = 1

  available, chip, slices = machine()
  if FLAGS.sweep and slices > 1:
    raise InputError(f"--mesh={FLAGS.mesh}: --sweep compares meshes of one slice; leave dcn out")
  from embeddings_jax.plan import sweep
  from embeddings_jax.train.mesh import make_mesh

  if not FLAGS.sweep:
    plan = planned(config, make_mesh(FLAGS.mesh, available), chip, item_shape, FLAGS.evaluation, slices)
    write({"command": " ".join(sys.argv[1:]), "config": json.loads(config.to_json_best_effort()), **plan})
    return 0 if plan["fits"] else DOES_NOT_FIT
  if chip is None:
    raise InputError("--sweep predicts times: give --topology, or --chip with --devices")
  plans: dict[str, Any] = {}
  for spec in sweep.meshes(len(available), model=True):
    try:
      plans[spec] = planned(config, make_mesh(spec, available), chip, item_shape, False, quiet=True)
    except InputError as error:
      print(f"{spec} is left out: {error}", flush=True)
  if not plans:
    raise InputError(f"--batch_size={config.batch_size}: no mesh of {len(available)} devices takes it")
  write_sweep(plans)
  return 0 if any(plan["fits"] for plan in plans.values()) else DOES_NOT_FIT


def machine() -> tuple[Sequence[Any], Any, int]:
  """Returns the devices that the flags name, the figures of their chip or None, and the number of slices."""
  from embeddings_jax.plan import chips, machines

  if bool(FLAGS.topology) == bool(FLAGS.devices):
    raise InputError("--topology=v5e:4x4 or --devices=cpu:16: give one of them")
  named = [part.partition(":")[2] for part in FLAGS.mesh.split(",") if part.startswith("dcn:")]
  slices = int(named[0]) if named and named[0].isdigit() else 1  # What is wrong is an error of the mesh.
  if FLAGS.topology:
    available, chip = machines.topology(FLAGS.topology, slices)
  else:
    kind, _, number = FLAGS.devices.partition(":")
    if kind != "cpu" or not number.isdigit() or not int(number):
      raise InputError(f"--devices={FLAGS.devices}: must be cpu and a number, as cpu:16")
    available, chip = machines.simulated(int(number)), None
  if FLAGS.chip:
    chip = chips.by_name(FLAGS.chip)
  if FLAGS.memory_gb:
    if chip is None:
      raise InputError(f"--memory_gb={FLAGS.memory_gb}: needs --chip")
    chip = chip._replace(memory=FLAGS.memory_gb * 1e9)
  return available, chip, slices


def planned(config: Any, mesh: Any, chip: Any, item_shape: tuple[int, ...], evaluation: bool,
            slices: int = 1, quiet: bool = False) -> dict[str, Any]:
  """Compiles for a mesh, prints the tables unless `quiet`, and returns the plan."""
  from embeddings_jax.plan import programs, report

  say = lambda name: print(f"compiling {name} ...", file=sys.stderr, flush=True)
  compiled = programs.compile_run(config.to_dict(), mesh, num_rows=FLAGS.num_rows, item_shape=item_shape,
                                  evaluation=evaluation, report=say)
  plan = report.described(compiled, mesh, compiled.model.rules, chip, slices)
  if not quiet:
    print(report.text(plan))
  return plan


def write_sweep(plans: dict[str, Any]) -> None:
  """Prints the meshes in order and the scaling of the best one, and writes both."""
  from embeddings_jax.plan import report, sweep

  order = sweep.ranked(plans)
  rows = []
  for spec in order:
    update = plans[spec]["programs"]["update"]
    rows.append([spec, "yes" if plans[spec]["fits"] else "no", report.size(plans[spec]["peak_bytes"]),
                 *(f"{1e3 * update['seconds'][part]:.3g}" for part in ("arithmetic", "memory", "links", "sum")),
                 f"{update['utilization']['sum']:.0%}"])
  header = ["mesh", "fits", "a device", "ms: arithmetic", "memory", "links", "sum", "used"]
  print("\n".join(report.table(header, rows)))
  scaling = {spec: sweep.weak_scaling(plans[spec]) for spec in order}
  print("\n".join(report.table(
      [f"devices of {order[0]}'s kind", "ms: sum", "limit", "efficiency"],
      [[str(row["devices"]), f"{1e3 * row['seconds']['sum']:.3g}", row["limit"], f"{row['efficiency']:.0%}"]
       for row in scaling[order[0]]])))
  write({"command": " ".join(sys.argv[1:]), "ranking": order, "plans": plans, "scaling": scaling})


def write(plan: dict[str, Any]) -> None:
  if FLAGS.output:
    with open(FLAGS.output, "w", encoding="utf-8") as file:
      json.dump(plan, file, indent=1)


if __name__ == "__main__":
  command.call(main)
