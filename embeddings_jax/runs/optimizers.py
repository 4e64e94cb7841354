"""Builds optax schedules and optimizers from a config."""
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from embeddings_jax.errors import check_choice, nearest
from embeddings_jax.types import InputError, PyTree

SCHEDULES = ("constant", "linear", "cosine", "rsqrt")
# Options of each optimizer beside those of all: the schedule's, `name`, `clip_norm` and `constant`.
_ADAM = ("b1", "b2", "eps")
OPTIONS = {"adam": _ADAM, "adamw": (*_ADAM, "weight_decay"), "sgd": ("momentum", "weight_decay"),
           "lamb": (*_ADAM, "weight_decay"), "lars": ("momentum", "weight_decay"), "adagrad": (), "rmsprop": (),
           "muon": ("b1", "b2", "weight_decay", "adam_fraction")}
OPTIMIZERS = tuple(OPTIONS)
# Options of every optimizer, with the values at which they change nothing.
SHARED = {"schedule": "constant", "warmup_steps": 0, "warmup_fraction": 0.0, "end_fraction": 0.0, "clip_norm": 0.0,
          "constant": ()}
KEYS = ("name", "learning_rate", "schedule", "warmup_steps", "warmup_fraction", "end_fraction", "clip_norm",
        "constant", *dict.fromkeys(key for options in OPTIONS.values() for key in options))
MEANINGS = {
    "name": "Optimizer: " + ", ".join(OPTIONS), "learning_rate": "Peak of the learning rate",
    "schedule": "Course of the learning rate after the warm-up: " + ", ".join(SCHEDULES),
    "warmup_steps": "Steps of the linear warm-up", "warmup_fraction": "Steps of the warm-up, as a fraction of all",
    "end_fraction": "Learning rate at the end, as a fraction of the peak",
    "clip_norm": "Largest norm of the gradient; 0: no clipping",
    "constant": "Names of parameters whose rate does not fall", "b1": "Decay of the first moment",
    "b2": "Decay of the second moment", "eps": "Added to the root of the second moment",
    "weight_decay": "Decoupled weight decay, of kernels and tables", "momentum": "Momentum",
    "adam_fraction": "Rate of parameters that muon leaves to AdamW, as a fraction of its own"}
# Values at which an option that an optimizer lacks changes nothing: presets may keep them.
NEUTRAL = {"weight_decay": (0, None), "adam_fraction": (1, None), "momentum": (0, None)}
_RANGES = {"learning_rate": (0, np.inf), "warmup_steps": (0, np.inf), "warmup_fraction": (0, 1),
           "end_fraction": (0, 1), "clip_norm": (0, np.inf), "weight_decay": (0, np.inf), "momentum": (0, 1),
           "b1": (0, 1), "b2": (0, 1), "eps": (0, np.inf), "adam_fraction": (0, np.inf)}


def players(config: Mapping[str, Any]) -> tuple[str, ...]:
  """Returns the names of the optimizers in a mapping of them, as for a generator and a discriminator; else ()."""
  several = [name for name, value in config.items() if hasattr(value, "keys")]
  if several and len(several) < len(config):
    alone = next(name for name in config if name not in several)
    raise InputError(f"optimizer.{alone}={config[alone]}: stands beside the optimizers of {', '.join(several)}; give "
                     "it to each of them")
  return tuple(several)


def defaults(config: Mapping[str, Any], *, whole: bool) -> dict[str, Any]:
  """Returns the defaults of the options that an optimizer's config can have; None stands for optax's own.

  Args:
    config: Options of one optimizer.
    whole: Whether the optimizer is used, and not its schedule alone.
  """
  options = OPTIONS.get(config.get("name", "adam"), ()) if whole else ()
  return SHARED | ({"name": "adam"} if whole else {}) | dict.fromkeys(options)


def schedule(config: Mapping[str, Any], num_steps: int, name: str = "optimizer") -> optax.Schedule:
  """Returns a learning rate over `num_steps`: linear warm-up, then `schedule` down to `end_fraction` of the peak.

  Args:
    config: Options of one optimizer.
    num_steps: Updates of the run.
    name: The optimizer's, for error messages.
  """
  _check(config, name)
  kind, peak = config.get("schedule", "constant"), config["learning_rate"]
  check_choice(f"{name}.schedule", kind, SCHEDULES)
  warmup = min(max(config.get("warmup_steps", 0), round(config.get("warmup_fraction", 0.0) * num_steps)), num_steps)
  end, rest = peak * config.get("end_fraction", 0.0), max(num_steps - warmup, 1)
  after = {
      "constant": lambda: optax.constant_schedule(peak),
      "linear": lambda: optax.linear_schedule(peak, end, rest),
      "cosine": lambda: optax.cosine_decay_schedule(peak, rest, alpha=end / peak if peak else 0.0),
      "rsqrt": lambda: lambda step: peak * (1 + step / max(warmup, 1)) ** -0.5,
  }[kind]()
  if not warmup:
    return after
  return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup])


def depends_on_num_steps(config: Mapping[str, Any]) -> bool:
  """Returns whether a `schedule` gives other rates for another number of steps, which also bounds the warm-up."""
  if names := players(config):
    return any(depends_on_num_steps(config[name]) for name in names)
  return (config.get("schedule", "constant") in ("linear", "cosine") or bool(config.get("warmup_steps"))
          or bool(config.get("warmup_fraction")))


def optimizer(config: Mapping[str, Any], num_steps: int, name: str = "optimizer",
              ) -> optax.GradientTransformation | dict[str, optax.GradientTransformation]:
  """Returns clipping by the global norm, then the optimizer with the schedule; of several players, one for each.

  `muon` (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) moves the matrices of stacked layers by their
  orthogonalised momentum, scaled so that AdamW's rates fit (Liu et al. 2025, arXiv:2502.16982, equation 4); all else
  it leaves to AdamW with Nesterov's momentum, at `adam_fraction` of the rate. Parameters with a name among `constant`
  keep the rate that they have after the warm-up.
  """
  if names := players(config):
    return {player: optimizer(config[player], num_steps, f"{name}.{player}") for player in names}
  transform = _transform(config, schedule(config, num_steps, name), name)
  if kept := config.get("constant", ()):
    steady = _transform(config, schedule({**config, "schedule": "constant"}, num_steps), name)
    transform = optax.partition({"steady": steady, "falling": transform}, lambda params: _steady(params, kept, name))
  clip_norm = config.get("clip_norm", 0.0)
  return optax.chain(optax.clip_by_global_norm(clip_norm), transform) if clip_norm else transform


def _transform(config: Mapping[str, Any], rate: optax.Schedule, where: str) -> optax.GradientTransformation:
  """The optimizer that the config names, with a rate."""
  name = config.get("name", "adam")
  check_options(config, NEUTRAL, where)
  betas = {k: config[k] for k in _ADAM if config.get(k) is not None}
  decay, fraction, momentum = (config.get(key) for key in ("weight_decay", "adam_fraction", "momentum"))
  decay, fraction = decay or 0.0, 1.0 if fraction is None else fraction
  transform = {
      "adam": lambda: optax.adam(rate, **betas),
      "adamw": lambda: optax.adamw(rate, weight_decay=decay, mask=_decays, **betas),
      "lamb": lambda: optax.chain(optax.scale_by_adam(**{"eps": 1e-6, **betas}),
                                  optax.add_decayed_weights(decay, _decays), _layerwise_trust_ratio(),
                                  optax.scale_by_learning_rate(rate)),
      "lars": lambda: optax.lars(rate, decay, _decays, trust_ratio_mask=_decays,
                                 momentum=0.9 if momentum is None else momentum),
      "sgd": lambda: optax.sgd(rate, momentum=momentum),
      "adagrad": lambda: optax.adagrad(rate),
      "rmsprop": lambda: optax.rmsprop(rate),
      "muon": lambda: optax.contrib.muon(
          rate, weight_decay=decay, weight_decay_mask=_decays, consistent_rms=0.2, adam_weight_decay=decay,
          muon_weight_dimension_numbers=_matrices, adam_learning_rate=lambda step: fraction * rate(step),
          **{f"adam_{key}": value for key, value in betas.items() if key != "eps"}),
  }[name]()
  if decay and name == "sgd":
    transform = optax.chain(optax.add_decayed_weights(decay, _decays), transform)
  return transform


def check_options(config: Mapping[str, Any], keys: Collection[str], where: str = "optimizer") -> None:
  """Raises for options that the optimizer does not take.

  Args:
    config: Options of the optimizer; of several players everything is checked.
    keys: Options to check; others may be left over from a preset with another optimizer.
    where: The optimizer's name in error messages.
  """
  if names := players(config):
    for player in names:
      check_options(config[player], config[player], f"{where}.{player}")
    return
  name = config.get("name", "adam")
  check_choice(f"{where}.name", name, OPTIMIZERS)
  own = {key for options in OPTIONS.values() for key in options} - set(OPTIONS[name])
  for key in keys:
    if key in own and config.get(key) is not None and config[key] not in NEUTRAL.get(key, ()):
      able = ", ".join(other for other, options in OPTIONS.items() if key in options)
      raise InputError(f"{where}.{key}={config[key]}: {name} does not take it; {able} do")


def _check(config: Mapping[str, Any], name: str) -> None:
  """Raises for unknown options and for values out of their ranges."""
  if unknown := set(config) - set(KEYS):
    close = nearest(sorted(unknown)[0], KEYS)
    raise InputError(f"{name}: unknown {', '.join(sorted(unknown))}; {close}known: {', '.join(KEYS)}")
  for key, (low, high) in _RANGES.items():
    value = config.get(key)
    if value is not None and not low <= value <= high:
      raise InputError(f"{name}.{key}={value}: must be from {low} to {high}")


def _steady(params: PyTree, kept: Sequence[str], where: str) -> PyTree:
  """`steady` for each array below a name of `kept`, `falling` for the others."""
  names = {name for path, _ in jax.tree_util.tree_leaves_with_path(params) for name in _name(path)}
  for name in kept:
    check_choice(f"{where}.constant", name, sorted(names))
  return jax.tree_util.tree_map_with_path(
      lambda path, _: "falling" if set(kept).isdisjoint(_name(path)) else "steady", params)


def _name(path: Any) -> tuple[str, ...]:
  return tuple(str(getattr(key, "key", getattr(key, "name", key))) for key in path)


def _decays(params: PyTree) -> PyTree:
  """Weights decay; biases and the scales of a normalization do not (Devlin et al. 2019; You et al. 2020)."""
  return jax.tree_util.tree_map_with_path(lambda path, _: _name(path)[-1] not in ("bias", "scale"), params)


def _matrices(params: PyTree) -> PyTree:
  """Describes kernels of stacked layers (`nets/transformer.py`) as matrices: which axes are summed over and which are
  results; other axes number the matrices. None: no matrix of a stack."""

  def axes(path, x):
    name = _name(path)
    if "layers" not in name or name[-1] != "kernel":
      return None
    reduced, kept = {"qkv": (1, (3, 4)), "out": ((1, 2), 3)}.get(name[-2], (1, 2))
    return optax.contrib.MuonDimensionNumbers(reduced, kept)

  return jax.tree_util.tree_map_with_path(axes, params)


def _layerwise_trust_ratio() -> optax.GradientTransformation:
  """LAMB's |w| / |update| (You et al. 2020, arXiv:1904.00962), of each layer where `layers` are stacked."""

  def scale(path, update, param):
    axes = tuple(range(1 if "layers" in _name(path) else 0, update.ndim))
    norm = lambda x: jnp.sqrt(jnp.sum(jnp.square(x), axes, keepdims=True))
    sizes = norm(param), norm(update)
    return update * jnp.where((sizes[0] > 0) & (sizes[1] > 0), sizes[0] / jnp.where(sizes[1] > 0, sizes[1], 1), 1)

  return optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(scale, updates, params))
