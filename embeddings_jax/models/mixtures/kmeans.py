"""k-means (Lloyd 1982): the hard limit of a Gaussian mixture.

Minimizes the inertia sum_n w_n min_k |x_n - mu_k|^2 by turns:

  assignment:  z_n = argmin_k |x_n - mu_k|^2
  update:      mu_k = the mean of the rows with z_n = k, weighted by w_n

A spherical mixture with equal weights whose variance goes to 0 makes the same turns: its responsibilities become 0
or 1.

| symbol       | code                | shape       |
| ------------ | ------------------- | ----------- |
| mu           | `center + offsets`  | [d], [k, d] |
| z, one-hot   | `embed`             | [n, k]      |

As for `gmm`, one update is one batch: the whole set; or one of the `steps_per_epoch` of an epoch, at whose end the
centers move; or, with `stepwise=True`, centers move after every batch, as running averages with the rate
(t + 2)^-power (the mini-batches of Sculley 2010, with the rates of Cappe & Moulines 2009). A batch may hold `weight`
beside `x`. Rows are shifted by the mean of the first batch, and distances are sums of squared differences, so that
float32 is safe.

A center without rows stays where it is, and the metric `empty` counts those (scikit-learn moves them to the farthest
rows). Expected: scikit-learn's centers and inertia from the same start (tests/models/mixtures/test_kmeans.py).
Command: `python -m experiments.run --model=kmeans`.

Split: row | the number of its cluster | the row.
"""
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from embeddings_jax.ops.batches import takes
from embeddings_jax.ops.centers import given_start, row_weight, squared_distances, starting_centers
from embeddings_jax.ops.chunks import sum_over_chunks
from embeddings_jax.ops.restarts import restarts
from embeddings_jax.types import Fact, InputError, Model

# Floats of the distances of a chunk of rows: what a CPU's cache holds.
CHUNK_FLOATS = 1 << 18


class Sums(NamedTuple):
  """Over rows, around the current centers."""

  count: Float[Array, " k"]
  first: Float[Array, "k d"]
  inertia: Float[Array, ""]
  num_rows: Float[Array, ""]  # Their weight.


class KMeansState(NamedTuple):
  step: Int[Array, ""]
  center: Float[Array, " d"]
  offsets: Float[Array, "k d"]  # mu - center
  share: Float[Array, " k"]  # Part of the rows that each center has.
  sums: Sums  # Of the pass under way.
  inertia: Float[Array, ""]  # Mean per row of the last pass.
  converged: Int[Array, ""]


@takes(x=2)
def kmeans(
    *,
    num_components: int,
    init: str = "kmeans++",
    means: Fact[Any] = None,
    num_init: int = 1,
    steps_per_epoch: Fact[int] = 1,
    stepwise: bool = False,
    power: float = 0.7,
    tol: float = 1e-6,
    chunk_size: int = 0,
) -> Model:
  """k-means.

  Args:
    num_components: k.
    init: `kmeans++` or `random` rows of the first batch.
    means: [k, d] to start from instead.
    num_init: starts, trained together; the one with the smallest inertia is kept.
    steps_per_epoch: batches of an epoch; the centers move after the last of them.
    stepwise: move them after every batch instead.
    power: Exponent of the decay of the stepwise rate, in (0.5, 1].
    tol: converged when the inertia of an epoch changes by no more than this part of it; 0: when it is the same.
      Stepwise never converges.
    chunk_size: rows assigned at once on one device; 0: chosen to be fast.

  Returns:
    A `Model`. Batches hold `x` [n, d] float32 and may hold `mask` and `weight` [n]. `embed` gives one-hot assignments
    [n, k], as a mixture gives responsibilities. Outputs: `distances` [n, k] (squared), `loss` (the mean inertia),
    `components`.
  """
  if num_components < 1:
    raise InputError(f"num_components={num_components}: must be at least 1")
  if stepwise and not 0.5 < power <= 1:
    raise InputError(f"power={power}: stepwise k-means converges for powers in (0.5, 1]")

  def first_state(rng, batch):
    x, weight, dim = batch["x"], row_weight(batch), batch["x"].shape[1]
    center = weight @ x / weight.sum()
    center += weight @ (x - center) / weight.sum()  # What rounding left of a sum of large numbers.
    if means is None:
      offsets = starting_centers(rng, init, x - center, weight, num_components)
    else:
      offsets = given_start("means", means, (num_components, dim)) - center
    return KMeansState(
        step=jnp.zeros((), jnp.int32), center=center, offsets=offsets,
        share=jnp.full(num_components, 1 / num_components, jnp.float32),
        sums=Sums(jnp.zeros(num_components), jnp.zeros_like(offsets), jnp.zeros(()), jnp.zeros(())),
        inertia=jnp.float32(jnp.inf), converged=jnp.zeros((), jnp.int32))

  def update(state, batch, rng):
    del rng  # There is nothing random here.
    sums = _assign(state, batch)
    inertia = sums.inertia / jnp.maximum(sums.num_rows, 1e-30)
    new = _stepwise_update(state, sums) if stepwise else _exact_update(state, sums)
    new = jax.tree.map(lambda old, new: jnp.where(state.converged > 0, old, new), state, new)
    return new, {"loss": inertia, "inertia": sums.inertia, "smallest_share": new.share.min(),
                 "empty": (new.share < 1e-8).sum().astype(jnp.float32), "converged": new.converged}

  def _assign(state, batch):
    def one_chunk(params, chunk):
      offsets, center = params
      xt = (chunk["x"] - center).T
      distance = squared_distances(xt, offsets)
      member = (distance.argmin(0) == jnp.arange(num_components)[:, None]) * chunk["weight"]
      count = member.sum(1)
      around = jnp.matmul(member, xt.T, precision=jax.lax.Precision.HIGHEST)
      return Sums(count, around - count[:, None] * offsets, (distance.min(0) * chunk["weight"]).sum(),
                  chunk["weight"].sum())

    size = chunk_size or max(128, CHUNK_FLOATS // (num_init * num_components) // 128 * 128)
    return sum_over_chunks(one_chunk, (state.offsets, state.center), {"x": batch["x"], "weight": row_weight(batch)},
                           size)

  def _exact_update(state, sums):
    total = jax.tree.map(jnp.add, state.sums, sums)
    last = (state.step + 1) % steps_per_epoch == 0
    inertia = total.inertia / jnp.maximum(total.num_rows, 1e-30)
    converged = jnp.abs(inertia - state.inertia) <= tol * inertia
    after_pass = state._replace(
        step=state.step + 1, offsets=state.offsets + total.first / _at_least_one_row(total.count),
        share=total.count / jnp.maximum(total.num_rows, 1e-30), sums=jax.tree.map(jnp.zeros_like, total),
        inertia=inertia, converged=converged.astype(jnp.int32))
    within_pass = state._replace(step=state.step + 1, sums=total)
    return jax.tree.map(lambda a, b: jnp.where(last, a, b), after_pass, within_pass)

  def _stepwise_update(state, sums):
    rate = (state.step + 2.0) ** -power
    rows = jnp.maximum(sums.num_rows, 1e-30)
    share = (1 - rate) * state.share + rate * sums.count / rows
    return state._replace(step=state.step + 1, share=share, inertia=sums.inertia / rows,
                          offsets=state.offsets + rate * sums.first / rows / _at_least_one_row(share))

  def distances(state, batch):
    return squared_distances((batch["x"] - state.center).T, state.offsets).T

  def embed(state, batch):
    return jax.nn.one_hot(distances(state, batch).argmin(1), num_components)

  def loss(state, batch):
    weight = row_weight(batch)
    return (distances(state, batch).min(1) * weight).sum() / weight.sum()

  def components(state):
    return {"weights": state.share, "means": state.center + state.offsets}

  model = Model(first_state, update, embed, {"distances": distances, "loss": loss, "components": components})
  return restarts(model, num_init, lambda states: -states.inertia)


def _at_least_one_row(count: Float[Array, " k"]) -> Float[Array, "k 1"]:
  """To divide by: a center without rows has no sum either, and stays."""
  return jnp.where(count > 0, count, 1)[:, None]
