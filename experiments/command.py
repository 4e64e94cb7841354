"""Flags, and what becomes of mistakes: one clear line and a non-zero exit."""
import difflib
import importlib
import importlib.metadata
import importlib.util
import os
import pathlib
import sys
from collections.abc import Callable, Sequence

import ml_collections
from absl import flags, logging
from ml_collections import config_flags

from embeddings_jax.types import InputError

FLAGS = flags.FLAGS
PRESETS = ("demo", "tiny", "small", "paper")
MAX_SEED = (1 << 32) - 1
USAGE_ERROR, FAILURE, INTERRUPTED = 2, 1, 130
NO_YNNPACK_CONVOLUTIONS = (
    "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,"
    "LIBRARY_FUSION_TYPE_REDUCE")

# What every config has; a config file only states what differs. The keys of `data`, `model` and
# `optimizer` are the model's own.
DEFAULTS = dict(
    name="",
    task="",  # What to fine-tune for: stands for `data.name`.
    factory="",  # The model's module and function, where they are not called as the config.
    model={},
    data=dict(name="", errors="strict"),
    optimizer={},
    steps=0,  # 0: from `epochs`.
    epochs=0,
    batch_size=0,
    seed=0,
    steps_per_dispatch=1,
    log_every=100,
    eval_every=0,
    save_every=1000,
    evals=(),  # Protocols, as `linear_probe` or `word_similarity:ws353`.
    evals_between=(),  # Those of every `eval_every` steps; none: `evals`.
    eval_items=0,  # Evaluate on a sample of this many items where there is no official split; 0: all.
    baselines=False,  # Evaluate the untrained model and features without learning too.
    baseline_seeds=1,  # Number of random seeds for the untrained baseline; the mean is reported.
    best_metric="",  # Keep, and report, the checkpoint with the best value of this evaluation metric.
    horizon=0,  # Updates over which schedules run; 0: as many as the run was first asked for.
)


_BOUNDS = dict(steps=(0, 1 << 31), epochs=(0, 1 << 31), seed=(0, MAX_SEED), steps_per_dispatch=(1, 1 << 31),
               log_every=(0, 1 << 31), eval_every=(0, 1 << 31), save_every=(0, 1 << 31), eval_items=(0, 1 << 31),
               baseline_seeds=(1, 1 << 31), horizon=(0, 1 << 31))


def check_numbers(config: ml_collections.ConfigDict) -> None:
  """Raises if one of the numbers that every config has is out of its bounds."""
  for name, (least, most) in _BOUNDS.items():
    if not least <= config[name] <= most:
      raise InputError(f"--config.{name}={config[name]}: must be from {least} to {most}")


def model_names() -> list[str]:
  """Models that have a config."""
  folder = pathlib.Path(__file__).parent / "configs"
  return sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")


def load_config(model: str, preset: str, config_file: str = "") -> ml_collections.ConfigDict:
  """The locked config of a model, from the repository or from a file of the user's."""
  if config_file:
    path = pathlib.Path(config_file)
    if not path.is_file() or path.suffix != ".py":
      raise InputError(f"--config_file={config_file}: {'must be a .py file' if path.exists() else 'no such file'}")
    spec = importlib.util.spec_from_file_location("config_file", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
      raise InputError(f"--config_file={config_file}: it defines no get_config(preset)")
  else:
    if not model:
      raise InputError(f"--model is missing: one of {', '.join(model_names())}")
    check_choice("--model", model, model_names())
    module = importlib.import_module(f"experiments.configs.{model}")
  check_choice("--preset", preset, PRESETS)
  config = ml_collections.ConfigDict(DEFAULTS)
  for key in ("model", "data", "optimizer"):
    config[key].unlock()
  config.update(module.get_config(preset))
  config.name = config.name or model
  if not config.name:
    raise InputError(f"--config_file={config_file}: name the model by --model or by `name` in the config")
  return config.lock()


def check_choice(what: str, value: str, choices: Sequence[str]) -> None:
  """Raises with the nearest choice unless `value` is one of them."""
  if value not in choices:
    raise InputError(f"{what}={value}: unknown; {nearest(value, choices)}one of {', '.join(choices)}")


def nearest(value: str, choices: Sequence[str]) -> str:
  close = difflib.get_close_matches(value, choices, n=1)
  return f"did you mean {close[0]}? " if close else ""


def check_output(output: str, *inputs: str) -> None:
  """Raises, before anything is computed, if a file cannot be written or is one of those to be read.

  Args:
    output: Value of --output, a file.
    inputs: Files that the command reads.
  """
  path = pathlib.Path(output)
  if path.is_dir():
    raise InputError(f"--output={output}: is a directory; name a file in it")
  if "://" not in output and not path.parent.is_dir():
    raise InputError(f"--output={output}: there is no directory {path.parent}; create it first")
  for name in inputs:
    if path.exists() and os.path.exists(name) and path.samefile(name):
      raise InputError(f"--output={output}: is the file that is read; name another one")


def parse_with_config(argv: Sequence[str]) -> ml_collections.ConfigDict | None:
  """Parses twice: for the model and preset, then with their config as `--config`.

  Returns None where the flags ask for something that needs no model.
  """
  # What follows --config. belongs to the second pass.
  early = [a for a in argv if not a.lstrip("-").startswith("config.")]
  _parse(early)
  if FLAGS.list_models or FLAGS.list_data:
    return None
  config = load_config(FLAGS.model, FLAGS.preset, FLAGS.config_file)
  _check_overrides(argv, config)
  FLAGS.unparse_flags()
  config_flags.DEFINE_config_dict("config", config)
  _parse(argv)
  return FLAGS.config


def overridden(argv: Sequence[str]) -> set[str]:
  """Keys of the config that the command line sets, as `model.dim`."""
  names = (argument.lstrip("-").partition("=")[0] for argument in argv if argument.startswith("-"))
  return {name.removeprefix("config.") for name in names if name.startswith("config.")}


def parse(argv: Sequence[str]) -> None:
  """Parses flags that know of no config."""
  _parse(argv)


def listed(flag: flags.Flag, kind: type) -> list:
  """The numbers of a flag that is a list, of `kind` int or float; InputError unless each is one and above 0."""
  try:
    found = [kind(value) for value in flag.value]
  except ValueError:
    found = [0]
  if any(value <= 0 for value in found):
    raise InputError(f"--{flag.name}={','.join(flag.value)}: must be numbers above 0, with commas between")
  return found


def _parse(argv: Sequence[str]) -> None:
  try:
    rest = FLAGS(list(argv))[1:]
  except flags.UnrecognizedFlagError as error:
    close = difflib.get_close_matches(error.flagname, list(FLAGS), n=1)
    hint = f"; did you mean --{close[0]}?" if close else ""
    raise InputError(f"--{error.flagname}: no such flag{hint}") from error
  except (flags.Error, TypeError, ValueError) as error:
    raise InputError(" ".join(str(error).split())) from error
  if rest:
    raise InputError(f"{rest[0]!r} is not a flag; flags are written --name=value")


def _check_overrides(argv: Sequence[str], config: ml_collections.ConfigDict) -> None:
  for argument in argv:
    name, _, _ = argument.lstrip("-").partition("=")
    if not argument.startswith("-") or not name.startswith("config."):
      continue
    node, seen = config, "--config"
    for part in name.split(".")[1:]:
      keys = list(node.keys()) if isinstance(node, ml_collections.ConfigDict) else []
      if part not in keys:
        known = f"{nearest(part, keys)}it has {', '.join(keys)}" if keys else "it has no keys"
        raise InputError(f"{argument.partition('=')[0]}: {seen} has no {part!r}; {known}")
      node, seen = node[part], f"{seen}.{part}"


def speed_up_cpus() -> None:
  """Takes convolutions from YNNPACK, to which XLA gives them by default, unless the user says what that is to do.

  All else that it does by default it goes on doing: single products (`INDIVIDUAL_DOT`) of bfloat16 reach the matrix
  units of processors only there. Without YNNPACK's convolutions a training step of SimCLR's ResNet-18 of width 16
  took .7 (jax 0.10) and .8 (0.11) of the time on two cores. XLA reads its flags when it starts, so it must not have
  started.
  """
  given = os.environ.get("XLA_FLAGS", "")
  # XLA stops at a flag that it does not know; this one is experimental, and the XLA of TPUs is one of its own.
  known = importlib.metadata.version("jax").startswith(("0.10.", "0.11.")) and not importlib.util.find_spec("libtpu")
  if known and "ynn_fusion" not in given:
    os.environ["XLA_FLAGS"] = f"{given} {NO_YNNPACK_CONVOLUTIONS}".strip()


def call(main: Callable[[Sequence[str]], int | None]) -> None:
  """Runs a command and exits; what a user can mend ends in one line, not in a traceback."""
  speed_up_cpus()
  logging.set_verbosity(logging.FATAL)  # Libraries raise what they log as errors.
  try:
    code = main(sys.argv) or 0
  except InputError as error:
    code = _fail(error, USAGE_ERROR)
  except KeyboardInterrupt as error:
    code = _fail(str(error) or "interrupted", getattr(error, "exit_code", INTERRUPTED))
  except BrokenPipeError:
    code = FAILURE
  except OSError as error:
    where = f"{error.filename}: " if error.filename else ""
    code = _fail(f"{where}{error.strerror or error}", FAILURE)
  except RuntimeError as error:
    # The loop's own errors are meant for people; any other is a defect and keeps its traceback.
    if not type(error).__module__.startswith("embeddings_jax."):
      raise
    code = _fail(error, getattr(error, "exit_code", FAILURE))
  sys.stdout.flush()
  sys.exit(code)


def _fail(message: object, code: int) -> int:
  print(f"error: {message}", file=sys.stderr, flush=True)
  return code
