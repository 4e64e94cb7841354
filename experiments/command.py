"""Flags, and what becomes of mistakes: one clear line and a non-zero exit."""
import difflib
import importlib.metadata
import importlib.util
import inspect
import logging as standard_logging
import os
import pathlib
import re
import sys
import textwrap
from collections.abc import Callable, Sequence

import ml_collections
from absl import flags, logging
from ml_collections import config_flags

from embeddings_jax.errors import PROGRESS, InputError, nearest
from embeddings_jax.runs import presets

FLAGS = flags.FLAGS
_ARGUMENT = re.compile(r"(?<![\w.\-/'\"])([a-z]\w*(?:\.[a-z]\w*)*)=([^\s,;:)]*)")  # `name=value` in a message.
USAGE_ERROR, FAILURE, INTERRUPTED = 2, 1, 130
NO_YNNPACK_CONVOLUTIONS = (
    "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,"
    "LIBRARY_FUSION_TYPE_REDUCE")


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
  if any(name in FLAGS and FLAGS[name].value for name in ("list_models", "list_data")):
    return None
  # Names come first: they decide which other keys there are.
  named = dict(a.lstrip("-").removeprefix("config.").split("=", 1) for a in argv
               if re.match(r"--?config\.(pipeline|[\w.]+\.name)=", a))
  named.pop("data.name", None)
  config = presets.load_config(FLAGS.model, FLAGS.preset, FLAGS.config_file, named.pop("pipeline", ""), named)
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


def parse_paths(argv: Sequence[str]) -> list[str]:
  """Parses flags that know of no config; returns the other arguments, which are paths."""
  return _parse(argv, paths=True)


def listed(flag: flags.Flag, kind: type) -> list:
  """The numbers of a flag that is a list, of `kind` int or float; InputError unless each is one and above 0."""
  try:
    values = [kind(value) for value in flag.value]
  except ValueError:
    values = [0]
  if any(value <= 0 for value in values):
    raise InputError(f"--{flag.name}={','.join(flag.value)}: must be numbers above 0, with commas between")
  return values


def _parse(argv: Sequence[str], paths: bool = False) -> list[str]:
  try:
    rest = FLAGS(list(argv))[1:]
  except flags.UnrecognizedFlagError as error:
    close = difflib.get_close_matches(error.flagname, list(FLAGS), n=1)
    hint = f"; did you mean --{close[0]}?" if close else ""
    raise InputError(f"--{error.flagname}: no such flag{hint}") from error
  except (flags.Error, TypeError, ValueError) as error:
    raise InputError(" ".join(str(error).split())) from error
  if rest and not paths:
    raise InputError(f"{rest[0]!r} is not a flag; flags are written --name=value")
  return rest


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
  flags = os.environ.get("XLA_FLAGS", "")
  # XLA stops at a flag that it does not know; this one is experimental, and the XLA of TPUs is one of its own.
  known = importlib.metadata.version("jax").startswith(("0.10.", "0.11.")) and not importlib.util.find_spec("libtpu")
  if known and "ynn_fusion" not in flags:
    os.environ["XLA_FLAGS"] = f"{flags} {NO_YNNPACK_CONVOLUTIONS}".strip()


def described(main: Callable[[Sequence[str]], int | None], argv: Sequence[str]) -> str:
  """Returns the help of a command: what it does, its flags, and with `--model` the keys of that model's config."""
  wrapped = lambda line: textwrap.wrap(line, 100, initial_indent="  ", subsequent_indent="      ")
  text = [inspect.getdoc(inspect.getmodule(main)) or "", "", "Flags:"]
  for module, defined in FLAGS.flags_by_module_dict().items():
    if module.startswith("experiments") or module == sys.argv[0] or module == "__main__":
      for flag in defined:
        shown = "" if flag.default in (None, "", []) else f" (default: {flag.default})"
        text += wrapped(f"--{flag.name}: {flag.help}{shown}")
  if "model" in FLAGS and any(argument.lstrip("-").startswith("model=") for argument in argv):
    from experiments import pages  # Imports models, which takes a while.

    _parse([argument for argument in argv if argument.lstrip("-").partition("=")[0] in ("model", "preset")
            or argument == argv[0]])
    text += ["", f"Keys of --model={FLAGS.model} --preset={FLAGS.preset}:"]
    for key, value, meaning in pages.config_rows(presets.load_config(FLAGS.model, FLAGS.preset)):
      text += wrapped(f"--config.{key}={value}  {meaning}")
  return "\n".join(text)


def call(main: Callable[[Sequence[str]], int | None]) -> None:
  """Runs a command and exits; what a user can mend ends in one line, not in a traceback."""
  show_messages()
  try:
    if {"--help", "-help", "-h"} & set(sys.argv[1:]):
      print(described(main, sys.argv))
      code = 0
    else:
      speed_up_cpus()
      code = main(sys.argv) or 0
  except InputError as error:
    code = _fail(with_flags(str(error)), USAGE_ERROR)
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


class _Message(standard_logging.Formatter):
  """Formats messages for people, without the name of a logger."""

  def format(self, record: standard_logging.LogRecord) -> str:
    word = "" if record.levelno < standard_logging.WARNING else f"{record.levelname.lower()}: "
    return f"{word}{super().format(record)}"


def show_messages() -> None:
  """Writes warnings to the standard error, and the progress of long readings to the standard output."""
  logging.set_verbosity(logging.FATAL)  # Libraries raise what they log as errors.
  root, progress = standard_logging.getLogger(), standard_logging.getLogger(PROGRESS)
  for other in [other for other in root.handlers if type(other) is standard_logging.StreamHandler]:
    root.removeHandler(other)  # Of a library, which would write each message once more.
  for logger, stream in ((root, sys.stderr), (progress, sys.stdout)):
    handler = standard_logging.StreamHandler(stream)
    handler.setFormatter(_Message())
    logger.addHandler(handler)
  progress.setLevel(standard_logging.INFO)
  progress.propagate = False


def with_flags(message: str) -> str:
  """Returns an error message of the library in which arguments are the flags by which users set them.

  `workdir=w` becomes `--workdir=w`, `min_count=9` becomes `--config.data.min_count=9`. Of a name in several parts of
  the config, the part with that value is meant; if none or several have it, the name stays.
  """
  config = FLAGS["config"].value if "config" in FLAGS else None
  nodes = {name: config[name] for name in ("data", "model", "optimizer")} if config is not None else {}

  def flag(match: re.Match[str]) -> str:
    name, value = match[1], match[2]
    node, _, key = name.partition(".")
    if name in FLAGS:
      return f"--{name}" if FLAGS[name].boolean and value == "True" else f"--{name}={value}"
    if node in nodes and key:
      return f"--config.{name}={value}"
    if name in presets.DEFAULTS and name not in ("data", "model", "optimizer"):
      return f"--config.{name}={value}"
    known = [node for node, options in nodes.items() if name in options]
    matching = [node for node in known if str(nodes[node][name]) == value.strip("'")]
    chosen = known if len(known) == 1 else matching
    return f"--config.{chosen[0]}.{name}={value}" if len(chosen) == 1 else match[0]

  return _ARGUMENT.sub(flag, message.replace("catalog.available() lists", "--list_data lists"))


def _fail(message: object, code: int) -> int:
  print(f"error: {message}", file=sys.stderr, flush=True)
  return code
