"""Several losses over one encoder network: proxy tasks mixed, also with a task that has labels.

  L = sum_i w_i L_i(encoder, head_i),   w_i > 0                                          (nats, where the parts are)

Part i is another model, as `bert` or `sequence_autoencoder`, whose encoder is shared: all parts see the same batch,
each with randomness of its own, and one optimizer moves the encoder and all heads by the sum of the gradients. With
`finetune` among the parts batches are of a task, `{"inputs", "targets"}`, and the other parts read the inputs.

  symbol   name                shape
  w        losses              name of a model -> weight
  encoder  `params/encoder`    of the network
  head     `params/NAME`       a part's parameters beside the encoder

`embed` is the pooled vector of the encoder; `predict` is finetune's. Deviation: what a part keeps beside its
parameters (`extra`) stays as it began, so that schedules of a part's own and BatchNorm have no place here.

Split: text, some of it labeled | that of each of its losses | that of each of its losses.

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


@takes(tokens=2, segments=2, inputs=None, targets=None)
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
      params[name], extra[name] = own, state.extra
    return params, extra

  def state_of(params, extra, name):
    whole = {"encoder": params["encoder"], **params[name]}
    return GradientState(jnp.zeros((), jnp.int32), whole, extra[name], (), whole)

  def loss_fn(params, extra, batch, rng):
    losses_of_parts = {}
    for (name, part), key in zip(sorted(parts.items()), jax.random.split(rng, len(parts))):
      losses_of_parts[name] = part.outputs["training_loss"](state_of(params, extra, name), rows_of(name, batch), key)
    return weighted(losses_of_parts), ({f"{name}_loss": value for name, value in losses_of_parts.items()}, extra)

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
    hidden = encoder.apply({"params": params["encoder"]}, rows, method=reading(encoder, pooling))
    return pool(hidden, rows["tokens"] >= 0, pooling).astype(jnp.float32)

  outputs = {"loss": held_out, "hidden": lambda params, extra, batch: encoder.apply(
      {"params": params["encoder"]}, inputs_of(batch), method="layers")}
  if any("measures" in part.outputs for part in parts.values()):
    outputs["measures"] = measures
  if supervised:
    name = supervised[0]
    outputs["predict"] = lambda params, extra, batch: parts[name].outputs["predict"](
        state_of(params, extra, name), batch)
  return gradient_model(init_params, loss_fn, embed_fn, optimizer or optax.adam(1e-4), accumulate=accumulate,
                        ema_decay=ema_decay, outputs=outputs, rules=RULES)
