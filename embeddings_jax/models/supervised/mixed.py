"""Several losses over one encoder network: proxy tasks mixed, also with a task that has labels.

  L = sum_i w_i L_i(encoder, head_i),   w_i > 0                                          (nats, where the parts are)

Part i is another model, as `bert`, `sequence_autoencoder` or `rotation`, whose encoder is shared: all parts see the
same batch, each with randomness of its own, and one optimizer moves the encoder and all heads by the sum of the
gradients. With `finetune` among the parts batches are of a task, `{"inputs", "targets"}`, and the others read the
inputs. A trunk with BatchNorm has the running statistics of one part's batches, those of `finetune` if it is there:
those of rotated images or of tiles are others.

  symbol   name                shape
  w        losses              name of a model -> weight
  encoder  `params/encoder`    of the network
  head     `params/NAME`       a part's parameters beside the encoder

`embed` is the pooled vector of the encoder; `predict` is finetune's. Deviation: what a part does after its update, as
moving a target network, is left out.

Split: text or images, some labeled | that of each of its losses | that of each of its losses.

Expected: `embeddings_jax/configs/mixed.py`.
"""
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from embeddings_jax.gradient import GradientState, gradient_model
from embeddings_jax.nets.transformer import RULES
from embeddings_jax.ops.batches import inputs_of, takes
from embeddings_jax.ops.pooling import check_pooling, pool, reading
from embeddings_jax.types import InputError, Model


@takes(tokens=2, segments=2, image=4, inputs=None, targets=None)
def mixed(
    *,
    encoder: nn.Module,
    parts: Mapping[str, Model],
    losses: Mapping[str, float],
    options: Mapping[str, Mapping[str, Any]] = {},
    pooling: str = "mean",
    optimizer: optax.GradientTransformation | None = None,
    accumulate: int = 1,
    ema_decay: float | None = None,
) -> Model:
  """A weighted sum of losses over one encoder.

  Args:
    encoder: The shared network; has the methods `features` and `layers`, as `TextEncoder`.
    parts: Name -> model whose parameters of that network lie under `params/encoder`.
    losses: Name of a part -> its weight, above 0.
    options: Name of a part -> its arguments beside the encoder's; used where the parts are built.
    pooling: Pooling of `embed`; see `ops/pooling.py`.
    optimizer: By default Adam with a learning rate of 1e-4.
    accumulate, ema_decay: See `gradient_model`; not for parts whose loss couples the examples of a batch.
  """
  check_pooling(pooling)
  if not losses or set(losses) != set(parts):
    raise InputError(f"losses={dict(losses)}: must weigh each of the parts {', '.join(parts) or '(none)'}")
  for name, weight in losses.items():
    if not weight > 0:
      raise InputError(f"losses.{name}={weight}: must be above 0; leave the part out instead")
  for name in options:
    if name not in losses:
      raise InputError(f"options.{name}: there is no such part among losses={', '.join(losses)}")
  supervised = [name for name, part in parts.items() if "predict" in part.outputs]
  owner = supervised[0] if supervised else min(parts)  # Its batches move the trunk's running statistics.

  def rows_of(name, batch):
    """A part's batch: that of the task, or its inputs."""
    if name in supervised or "inputs" not in batch:
      return batch
    return {**inputs_of(batch), **({"mask": batch["mask"]} if "mask" in batch else {})}

  def init_params(rng, batch):
    params, extra = {}, {}
    for (name, part), key in zip(sorted(parts.items()), jax.random.split(rng, len(parts))):
      state = part.init(key, rows_of(name, batch))
      if "encoder" not in state.params:
        raise InputError(f"losses: {name} has no encoder network to share; take models of an encoder, as bert")
      own = dict(state.params)
      trunk = own.pop("encoder")
      shapes = [jax.tree.map(jnp.shape, tree) for tree in (trunk, params.setdefault("encoder", trunk))]
      if shapes[0] != shapes[1]:
        raise InputError(f"losses: the encoder of {name} has another shape than that of the parts before it")
      params[name] = own
      extra[name], statistics = without_trunk(state.extra)
      if statistics is not None:
        extra["batch_stats"] = {"encoder": statistics}
    return params, extra

  def state_of(params, extra, name):
    whole = {"encoder": params["encoder"], **params[name]}
    own = extra[name]
    if "batch_stats" in extra:
      own = {**own, "batch_stats": {**own.get("batch_stats", {}), **extra["batch_stats"]}}
    return GradientState(jnp.zeros((), jnp.int32), whole, own, (), whole)

  def loss_fn(params, extra, batch, rng):
    values, moved = {}, {}
    for (name, part), key in zip(sorted(parts.items()), jax.random.split(rng, len(parts))):
      values[name], own = part.outputs["training_step"](state_of(params, extra, name), rows_of(name, batch), key)
      moved[name], statistics = without_trunk(own)
      if statistics is not None and name == owner:
        moved["batch_stats"] = {"encoder": statistics}
    return weighted(values), ({f"{name}_loss": value for name, value in values.items()}, moved)

  def weighted(values):
    return jnp.stack([jnp.float32(losses[name]) * value for name, value in values.items()]).sum()

  def held_out(params, extra, batch):
    return weighted({name: part.outputs["loss"](state_of(params, extra, name), rows_of(name, batch))
                     for name, part in parts.items()})

  def measures(params, extra, batch):
    return {f"{name}_{key}": value for name, part in parts.items() if "measures" in part.outputs
            for key, value in part.outputs["measures"](state_of(params, extra, name), rows_of(name, batch)).items()}

  def embed_fn(params, extra, batch):
    rows = inputs_of(batch)
    hidden, valid = (apply_encoder(params, extra, rows, method) for method in (reading(encoder, pooling), "valid"))
    return pool(hidden, valid, pooling).astype(jnp.float32)

  def apply_encoder(params, extra, rows, method):
    return encoder.apply({"params": params["encoder"], **{
        name: value["encoder"] for name, value in extra.items() if name == "batch_stats"}}, rows, method=method)

  outputs = {"hidden": lambda params, extra, batch: apply_encoder(params, extra, inputs_of(batch), "layers")}
  if all("loss" in part.outputs for part in parts.values()):
    outputs["loss"] = held_out
  if any("measures" in part.outputs for part in parts.values()):
    outputs["measures"] = measures
  if supervised:
    name = supervised[0]
    outputs["predict"] = lambda params, extra, batch: parts[name].outputs["predict"](
        state_of(params, extra, name), batch)
  return gradient_model(init_params, loss_fn, embed_fn, optimizer or optax.adam(1e-4), accumulate=accumulate,
                        ema_decay=ema_decay, outputs=outputs, rules=RULES)


def without_trunk(extra: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
  """Returns the `extra` of a part without the running statistics of the trunk, and these, None if it has none."""
  statistics = dict(extra.get("batch_stats", {}))
  trunk = statistics.pop("encoder", None)
  own = {name: value for name, value in extra.items() if name != "batch_stats"}
  return own | ({"batch_stats": statistics} if statistics else {}), trunk
