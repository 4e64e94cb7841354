"""Builds optax schedules and optimizers from a config."""
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from embeddings_jax.types import InputError, PyTree
from experiments.command import check_choice

SCHEDULES = ("constant", "linear", "cosine", "rsqrt")
OPTIMIZERS = ("adam", "adamw", "sgd", "lamb", "lars", "adagrad", "rmsprop", "muon")
KEYS = ("name", "learning_rate", "schedule", "warmup_steps", "warmup_fraction", "end_fraction", "clip_norm",
        "weight_decay", "momentum", "b1", "b2", "eps", "adam_fraction", "constant")


def schedule(config: Mapping[str, Any], num_steps: int) -> optax.Schedule:
  """A learning rate over `num_steps`: linear warm-up, then `schedule` down to `end_fraction` of the peak."""
  unknown = set(config) - set(KEYS)
  if unknown:
    raise InputError(f"--config.optimizer: unknown {', '.join(sorted(unknown))}; known: {', '.join(KEYS)}")
  kind, peak = config.get("schedule", "constant"), config["learning_rate"]
  check_choice("--config.optimizer.schedule", kind, SCHEDULES)
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
  """Returns whether `schedule` gives other rates for another number of steps, which also bounds the warm-up."""
  return (config.get("schedule", "constant") in ("linear", "cosine") or bool(config.get("warmup_steps"))
          or bool(config.get("warmup_fraction")))


def optimizer(config: Mapping[str, Any], num_steps: int) -> optax.GradientTransformation:
  """Clipping by the global norm, then the optimizer with the schedule.

  `muon` (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) moves the matrices of stacked layers by their
  orthogonalised momentum, scaled so that AdamW's rates fit (Liu et al. 2025, arXiv:2502.16982, equation 4); all else
  it leaves to AdamW with Nesterov's momentum, at `adam_fraction` of the rate. Parameters with a name among `constant`
  keep the rate that they have after the warm-up.
  """
  transform = _transform(config, schedule(config, num_steps))
  if kept := config.get("constant", ()):
    steady = _transform(config, schedule({**config, "schedule": "constant"}, num_steps))
    transform = optax.partition({"steady": steady, "falling": transform}, lambda params: _steady(params, kept))
  clip_norm = config.get("clip_norm", 0.0)
  return optax.chain(optax.clip_by_global_norm(clip_norm), transform) if clip_norm else transform


def _transform(config: Mapping[str, Any], rate: optax.Schedule) -> optax.GradientTransformation:
  """The optimizer that the config names, with a rate."""
  name = config.get("name", "adam")
  check_choice("--config.optimizer.name", name, OPTIMIZERS)
  betas = {k: config[k] for k in ("b1", "b2", "eps") if k in config}
  decay = config.get("weight_decay", 0.0)
  if decay and name not in ("adamw", "lamb", "lars", "muon", "sgd"):
    raise InputError(f"--config.optimizer.weight_decay={decay}: {name} has none; use adamw, lamb, lars, muon or sgd")
  fraction = config.get("adam_fraction", 1.0)
  if fraction != 1 and name != "muon":
    raise InputError(f"--config.optimizer.adam_fraction={fraction}: {name} leaves nothing to AdamW; muon does")
  transform = {
      "adam": lambda: optax.adam(rate, **betas),
      "adamw": lambda: optax.adamw(rate, weight_decay=decay, mask=_decays, **betas),
      "lamb": lambda: optax.chain(optax.scale_by_adam(**{"eps": 1e-6, **betas}),
                                  optax.add_decayed_weights(decay, _decays), _layerwise_trust_ratio(),
                                  optax.scale_by_learning_rate(rate)),
      "lars": lambda: optax.lars(rate, decay, _decays, trust_ratio_mask=_decays,
                                 momentum=config.get("momentum", 0.9)),
      "sgd": lambda: optax.sgd(rate, momentum=config.get("momentum")),
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


def _steady(params: PyTree, kept: Sequence[str]) -> PyTree:
  """`steady` for each array below a name of `kept`, `falling` for the others."""
  names = {name for path, _ in jax.tree_util.tree_leaves_with_path(params) for name in _name(path)}
  for name in kept:
    check_choice("--config.optimizer.constant", name, sorted(names))
  return jax.tree_util.tree_map_with_path(
      lambda path, _: "falling" if set(kept).isdisjoint(_name(path)) else "steady", params)


def _name(path: Any) -> tuple[str, ...]:
  return tuple(str(getattr(key, "key", getattr(key, "name", key))) for key in path)


def _decays(params: PyTree) -> PyTree:
  """Weights decay; biases and the scales of a normalisation do not (Devlin et al. 2019; You et al. 2020)."""
  return jax.tree_util.tree_map_with_path(lambda path, _: _name(path)[-1] not in ("bias", "scale"), params)


def _matrices(params: PyTree) -> PyTree:
  """How the kernels of stacked layers (`nets/transformer.py`) are matrices: which axes are summed over and which are
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
