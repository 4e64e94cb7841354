"""The one place that turns a loss and an optax optimizer into a `Model`."""
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from embeddings_jax.ops import reduction
from embeddings_jax.ops.batches import row_mask
from embeddings_jax.ops.sharding import DATA_AXES, constrain
from embeddings_jax.types import Array, InputError, Model, PyTree, Rule


class GradientState(NamedTuple):
  """State of every model that learns by gradients.

  Attributes:
    step: [] int32, updates made.
    params: what the optimizer moves.
    extra: what the loss itself moves (BatchNorm statistics, queues, target networks).
    opt_state: the optimizer's.
    average: exponential moving average of `params`; () where none is kept.
  """

  step: Array
  params: PyTree
  extra: PyTree
  opt_state: PyTree
  average: PyTree


class CoupledLoss(NamedTuple):
  """A loss that couples the examples of a batch through their representations alone, so that it can be accumulated.

  Attributes:
    represent: `(params, extra, batch, rng) -> tree of arrays`, leading axis = the batch's rows. A row must depend on
      no other (no BatchNorm), or parts of the batch would have other representations.
    loss: `(params, extra, representations, batch) -> (loss, (metrics, extra))`.
  """

  represent: Callable[[PyTree, PyTree, Any, Array], PyTree]
  loss: Callable[[PyTree, PyTree, PyTree, Any], tuple[Array, tuple[Mapping[str, Array], PyTree]]]

  def __call__(self, params, extra, batch, rng):
    return self.loss(params, extra, self.represent(params, extra, batch, rng), batch)


def gradient_model(
    init_params: Callable[[Array, Any], tuple[PyTree, PyTree]],
    loss_fn: CoupledLoss | Callable[..., tuple[Array, tuple[Mapping[str, Array], PyTree]]],
    embed_fn: Callable[[PyTree, PyTree, Any], Array],
    optimizer: optax.GradientTransformation,
    *,
    coupled: bool = False,
    accumulate: int = 1,
    ema_decay: float | None = None,
    after_update: Callable[[GradientState], GradientState] | None = None,
    outputs: Mapping[str, Callable] | None = None,
    rules: Sequence[Rule] = (),
) -> Model:
  """A `Model` whose update is one optimizer step on the mean loss of the batch.

  Args:
    init_params: `(rng, batch) -> (params, extra)`; `extra` is `{}` where there is none.
    loss_fn: `(params, extra, batch, rng) -> (loss, (metrics, extra))`, means over valid examples; or a
      `CoupledLoss`.
    embed_fn: `(params, extra, batch) -> [num_examples, dim]`.
    optimizer: its updates are added to the parameters.
    coupled: the loss of an example depends on the others of its batch (in-batch negatives), so
      that a mean over parts of the batch would be another loss.
    accumulate: parts that the batch is split into to save memory, each with a key of its own for its randomness. A
      `CoupledLoss` is accumulated exactly: the loss sees the representations of the whole batch. Where `coupled`
      alone is given it is refused: a silently different objective is worse than none.
    ema_decay: if given, `embed` and `outputs` see the moving average of the parameters.
    after_update: `state -> state`, for what follows the optimizer (target networks).
    outputs: Name -> function whose arguments are those of `types.OUTPUTS`, with `(params, extra)` for `state`;
      `training_loss` and `training_step` are added.
    rules: sharding rules of the state.
  """
  if accumulate < 1:
    raise InputError(f"accumulate={accumulate}: must be at least 1")
  if coupled and accumulate > 1 and not isinstance(loss_fn, CoupledLoss):
    raise InputError(f"accumulate={accumulate}: this loss couples the examples of a batch, and the sum over "
                     "parts of it is another loss; use a smaller batch or more devices")
  plain_loss: Any = loss_fn
  grad_fn = jax.value_and_grad(plain_loss, has_aux=True)

  @jax.jit  # As one program; by itself, each of its operations would be compiled on its own.
  def init(rng, batch):
    params, extra = init_params(rng, batch)
    # The average must not share buffers with the parameters: both are donated.
    average = jax.tree.map(jnp.array, params) if ema_decay is not None else ()
    return GradientState(jnp.zeros((), jnp.int32), params, extra, optimizer.init(params), average)

  def parts_of(rows):
    """`[n, ...] -> [accumulate, n / accumulate, ...]`."""
    for rows_of in jax.tree.leaves(rows):
      if len(rows_of) % accumulate:
        raise InputError(f"accumulate={accumulate}: does not divide the {len(rows_of)} rows of a batch")
    # Strided parts: every part has rows of every data shard, and no row changes its device.
    parts = jax.tree.map(lambda x: jnp.moveaxis(x.reshape((-1, accumulate) + x.shape[1:]), 1, 0), rows)
    return constrain(parts, jax.sharding.PartitionSpec(None, DATA_AXES))

  def accumulated(params, extra, batch, rng):
    """Mean over parts weighted by their valid rows, so that padding counts for nothing."""
    parts = parts_of(batch)
    weights = parts_of(row_mask(batch)).sum(1)
    weights = weights / jnp.maximum(weights.sum(), 1)

    def one(extra, part):
      index, weight, part = part
      (loss, (metrics, extra)), grads = grad_fn(params, extra, part, jax.random.fold_in(rng, index))
      return extra, jax.tree.map(lambda x: weight * x, (loss, metrics, grads))

    def body(carry, part):
      extra, new = one(carry[0], part)
      return (extra, jax.tree.map(jnp.add, carry[1], new)), None

    parts = (jnp.arange(accumulate), weights, parts)
    first = jax.tree.map(lambda x: x[0], parts)
    # Zeros to begin with, not the first part: the program would hold the memory of two parts.
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(one, extra, first)[1])
    (extra, (loss, metrics, grads)), _ = jax.lax.scan(body, (extra, zeros), parts)
    return (loss, (metrics, extra)), grads

  def cached(params, extra, batch, rng):
    """Gradient cache (Gao et al. 2021, arXiv:2101.06983): the representations part by part, the loss's gradient with
    respect to them, and then part by part again, with the same keys, that with respect to the parameters. Held are
    all representations, and what one part needs between its forward and its backward pass."""
    parts = jnp.arange(accumulate), parts_of(batch)

    def represent(params, index, part):
      return loss_fn.represent(params, extra, part, jax.random.fold_in(rng, index))

    def joined(x):
      x = jnp.moveaxis(x, 0, 1)
      return x.reshape((-1, *x.shape[2:]))

    rows = jax.tree.map(joined, jax.lax.map(lambda part: represent(params, *part), parts))
    value, (direct, slopes) = jax.value_and_grad(loss_fn.loss, (0, 2), has_aux=True)(params, extra, rows, batch)

    def body(grads, part):
      *part, slope = part
      of_part, = jax.vjp(lambda params: represent(params, *part), params)[1](slope)
      return jax.tree.map(jnp.add, grads, of_part), None

    return value, jax.lax.scan(body, direct, (*parts, parts_of(slopes)))[0]

  def update(state, batch, rng):
    gradient = grad_fn if accumulate == 1 else cached if isinstance(loss_fn, CoupledLoss) else accumulated
    gradient = reduction.by_shard(gradient, sums=not coupled and not isinstance(loss_fn, CoupledLoss))
    (loss, (metrics, extra)), grads = gradient(state.params, state.extra, batch, rng)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    average = state.average
    if ema_decay is not None:
      average = jax.tree.map(lambda old, new: ema_decay * old + (1 - ema_decay) * new, average, params)
    state = GradientState(state.step + 1, params, extra, opt_state, average)
    if after_update is not None:
      state = after_update(state)
    return state, {"loss": loss, "gradient_norm": optax.tree.norm(grads), **metrics}

  def evaluated(state):
    return state.params if ema_decay is None else state.average

  def embed(state, batch):
    return embed_fn(evaluated(state), state.extra, batch)

  def on_state(fn):
    return lambda state, *arguments, **named: fn(evaluated(state), state.extra, *arguments, **named)

  def training_step(*arguments):
    loss, (_, extra) = loss_fn(*arguments)
    return loss, extra

  named_outputs = {"training_loss": lambda *arguments: loss_fn(*arguments)[0], "training_step": training_step,
                   **(outputs or {})}
  return Model(init, update, embed, {name: on_state(fn) for name, fn in named_outputs.items()}, rules)
