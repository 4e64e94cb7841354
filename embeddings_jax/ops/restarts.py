"""Several starts of one model as one compiled run."""
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from embeddings_jax.types import InputError, Model, PyTree


class Restarts(NamedTuple):
  states: PyTree  # Every leaf has a leading axis, one entry a start.


def restarts(model: Model, num: int, score: Callable[[PyTree], Float[Array, " num"]], *,
             in_turn: bool = False) -> Model:
  """Trains several copies of a model that differ in the key of `init`, on the same batches.

  Args:
    model: Any model whose metrics have `converged`.
    num: Number of copies; 1 returns the model itself.
    score: Scores of the states, [num]; the copy with the highest gives the embedding, the outputs and the metrics,
      and the output `best_start` is its number. The run has converged when all copies have.
    in_turn: Update the copies one after another instead of as one batch of operations; for sparse products, which
      XLA does not batch.
  """
  if num < 1:
    raise InputError(f"num_init={num}: must be at least 1")
  if num == 1:
    return model

  def best_start(state):
    return jnp.argmax(score(state.states))

  def best(state):
    index = best_start(state)
    return jax.tree.map(lambda x: x[index], state.states)

  def init(rng, batch):
    return Restarts(jax.vmap(model.init, (0, None))(jax.random.split(rng, num), batch))

  def update(state, batch, rng):
    if in_turn:
      states, metrics = jax.lax.map(lambda one: model.update(one, batch, rng), state.states)
    else:
      states, metrics = jax.vmap(model.update, (0, None, None))(state.states, batch, rng)
    index = best_start(Restarts(states))
    chosen = {name: value[index] for name, value in metrics.items()}
    return Restarts(states), {**chosen, "converged": metrics["converged"].min()}

  def of_the_best(fn):
    return lambda state, *arguments, **named: fn(best(state), *arguments, **named)

  outputs = {name: of_the_best(fn) for name, fn in model.outputs.items()}
  # The axis of the starts is replicated.
  rules = tuple((expression, PartitionSpec(None, *spec)) for expression, spec in model.rules)
  return Model(init, update, lambda state, batch: model.embed(best(state), batch),
               outputs | {"best_start": best_start}, rules)
