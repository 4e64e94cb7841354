"""Configs: the keys that every config has, and loading one by its model's name or from a file."""
import importlib
import importlib.util
import inspect
import pathlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, get_args

import ml_collections
from ml_collections import config_dict

from embeddings_jax import extensions
from embeddings_jax.errors import InputError, check_choice

PRESETS = ("demo", "tiny", "small", "paper")
MAX_SEED = (1 << 32) - 1

# What every config has; a config file only states what differs. The keys of `data`, `model` and
# `optimizer` are the model's own.
DEFAULTS = dict(
    name="",  # Name of the run's model, as results show it.
    task="",  # Dataset to fine-tune for; sets `data.name`.
    factory="",  # The model's module and function, where they are not called as the config.
    model={},  # Arguments of the model's factory.
    pipeline="",  # Makes the training data; a module of `data/pipelines/`.
    data=dict(name=""),  # Name of the dataset, and options of its reader and pipeline.
    optimizer={},  # Name and arguments of an optax optimizer and its schedule.
    steps=0,  # Updates in all; 0: from `epochs`.
    epochs=0,  # Passes over the training data, where `steps` is 0.
    batch_size=0,  # Rows of the global batch; 0: all rows, where the pipeline allows it.
    seed=0,  # Random seed for initialization, data order and noise.
    steps_per_dispatch=1,  # Updates that one compiled call makes.
    precision="",  # Of float32 matrix products: default, high or highest; "": JAX's, which rounds on TPUs and GPUs.
    gradient_dtype="",  # In which gradients are sent between data shards, as bfloat16; "": float32.
    log_every=100,  # Steps between log records.
    eval_every=0,  # Steps between evaluations; 0: at the end alone.
    save_every=1000,  # Steps between checkpoints.
    evals=(),  # Protocols, as `linear_probe` or `word_similarity:ws353`.
    evals_between=(),  # Protocols of every `eval_every` steps; none: `evals`.
    eval_items=0,  # Evaluate on a sample of this many items where there is no official split; 0: all.
    baselines=False,  # Evaluate the untrained model and features without learning too.
    baseline_seeds=1,  # Number of random seeds for the untrained baseline; the mean is reported.
    best_metric="",  # Keep, and report, the checkpoint with the best value of this evaluation metric.
    horizon=0,  # Steps over which schedules run; 0: the steps first asked for.
)


_BOUNDS = dict(steps=(0, 1 << 31), epochs=(0, 1 << 31), seed=(0, MAX_SEED), steps_per_dispatch=(1, 1 << 31),
               log_every=(0, 1 << 31), eval_every=(0, 1 << 31), save_every=(0, 1 << 31), eval_items=(0, 1 << 31),
               baseline_seeds=(1, 1 << 31), horizon=(0, 1 << 31))


def check_numbers(config: ml_collections.ConfigDict) -> None:
  """Raises if one of the numbers that every config has is out of its bounds."""
  for name, (least, most) in _BOUNDS.items():
    if not least <= config[name] <= most:
      raise InputError(f"{name}={config[name]}: must be from {least} to {most}")


def model_names() -> list[str]:
  """Models that have a config."""
  folder = pathlib.Path(__file__).parents[1] / "configs"
  return sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")


def load_config(model: str, preset: str, config_file: str = "", pipeline: str = "",
                names: Mapping[str, str] = {}) -> ml_collections.ConfigDict:
  """Returns the locked, completed config of a model.

  Args:
    model: Name of a config of the repository.
    preset: Name of a preset.
    config_file: File of the user's to take the config from.
    pipeline: Replaces the config's pipeline; options that it does not have are left out.
    names: Key -> name of a network or an optimizer that replaces the config's, as of `model.encoder.name`; options of
      a network that the new one does not have are left out.
  """
  if config_file:
    path = pathlib.Path(config_file)
    if not path.is_file() or path.suffix != ".py":
      raise InputError(f"config_file={config_file}: {'must be a .py file' if path.exists() else 'no such file'}")
    extensions.extend(path.parent)
    spec = importlib.util.spec_from_file_location("config_file", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
      raise InputError(f"config_file={config_file}: it defines no get_config(preset)")
  else:
    if not model:
      raise InputError(f"model=: is missing; one of {', '.join(model_names())}")
    check_choice("model", model, model_names())
    module = importlib.import_module(f"embeddings_jax.configs.{model}")
  check_choice("preset", preset, PRESETS)
  config = ml_collections.ConfigDict(DEFAULTS)
  for key in ("model", "data", "optimizer"):
    config[key].unlock()
  config.update(module.get_config(preset))
  config.name = config.name or model
  if not config.name:
    raise InputError(f"config_file={config_file}: give model, or `name` in the config")
  if pipeline:
    set_pipeline(config, pipeline)
  for key, name in names.items():
    _set_name(config, key, name)
  complete(config)
  return config.lock()


def set_pipeline(config: ml_collections.ConfigDict, name: str) -> None:
  """Changes the pipeline of a config; of its options those stay that the new one has too."""
  from embeddings_jax.data import pipelines

  known = pipelines.options(pipelines.find(name))
  config.pipeline = name
  with config.data.unlocked():
    for key in [key for key in config.data if key not in known]:
      del config.data[key]
  complete(config)


def _set_name(config: ml_collections.ConfigDict, path: str, name: str) -> None:
  """Sets the name of a nested network or optimizer; what is unknown is an error once the flag itself is parsed."""
  *parts, last = path.split(".")
  node: Any = config
  for part in parts:
    node = node.get(part) if hasattr(node, "keys") else None
  if not hasattr(node, "keys") or last not in node:
    return
  with node.unlocked():
    node[last] = name
    known = defaults(config).get(".".join(parts), {})
    if parts[0] == "model":
      for key in [key for key in node if key != last and key not in known]:
        del node[key]


def complete(config: ml_collections.ConfigDict) -> None:
  """Adds the defaults of the arguments of pipeline, model, network and optimizer, so that each can be set."""
  for path, values in defaults(config).items():
    target = config
    for part in path.split("."):
      target = target[part]
    with target.unlocked():
      for key, value in values.items():
        if key not in target:
          target[key] = config_dict.placeholder(float) if value is None else value


def defaults(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
  """Returns the defaults of the arguments that a config can set, by its parts, as `data` or `model.encoder`.

  Facts, optimizers, functions and arrays are no options. A default of None is a placeholder of the annotated type.
  """
  from embeddings_jax.data import pipelines
  from embeddings_jax.runs import build, optimizers

  values = {}
  if config["pipeline"]:
    values["data"] = pipelines.options(pipelines.find(config["pipeline"]))
  left_out = {"optimizer"} | ({"learning_rate"} if config["optimizer"] else set())
  values["model"] = _options(build.find_factory(config), left_out)
  encoder = config["model"].get("encoder")
  if hasattr(encoder, "keys") and encoder.get("name"):
    try:
      values["model.encoder"] = _options(build.network_module(encoder["name"]).encoder, left_out)
    except (ModuleNotFoundError, AttributeError):
      pass  # An unknown network is an error once it is built.
  parameters = inspect.signature(build.find_factory(config)).parameters
  whole = not {"optimizer", "optimizers"}.isdisjoint(parameters)
  if players := optimizers.players(config["optimizer"]):
    values |= {f"optimizer.{player}": optimizers.defaults(config["optimizer"][player], whole=True)
               for player in players}
  elif config["optimizer"]:
    values["optimizer"] = optimizers.defaults(config["optimizer"], whole=whole)
  return values


def _options(function: Callable[..., Any], left_out: Collection[str]) -> dict[str, Any]:
  """Returns the keywords of a function that are options, with their defaults."""
  from embeddings_jax.types import is_fact  # Imports jax.

  options = {}
  for name, parameter in inspect.signature(function).parameters.items():
    if parameter.default is parameter.empty or name in left_out or is_fact(parameter.annotation):
      continue
    if parameter.default is None:
      kinds = [kind for kind in (bool, int, float, str, tuple) if kind in get_args(parameter.annotation)]
      if len(kinds) == 1:
        options[name] = config_dict.placeholder(kinds[0])
    elif isinstance(parameter.default, (bool, int, float, str, tuple)):
      options[name] = parameter.default
  return options


def assign(node: ml_collections.ConfigDict, key: str, value: Any) -> None:
  """Sets an option of a config to a value of any type, as an array or None."""
  with node.unlocked():
    if key in node:
      del node[key]
    node[key] = value
