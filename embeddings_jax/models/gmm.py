"""Gaussian mixture by expectation maximisation (Dempster, Laird & Rubin 1977).

Maximises the log likelihood of the rows x_n under p(x) = sum_k pi_k N(x; mu_k, Sigma_k) by turns:

  E step:  r_nk = pi_k N(x_n; mu_k, Sigma_k) / sum_j pi_j N(x_n; mu_j, Sigma_j), in log space
  M step:  N_k = sum_n r_nk;  pi_k = N_k / N;  mu_k = sum_n r_nk x_n / N_k;
           Sigma_k = sum_n r_nk (x_n - mu_k)(x_n - mu_k)' / N_k

| symbol       | code            | shape     |
| ------------ | --------------- | --------- |
| pi           | `weights`       | [k]       |
| mu           | `means`         | [k, d]    |
| Sigma        | `covariances`   | [k, d, d] |
| r            | `embed`         | [n, k]    |

One update is one batch, in one of three ways:
- exact EM on the whole set (`steps_per_epoch=1` and a source whose batch is the whole set);
- exact EM accumulated over the `steps_per_epoch` batches of a pass, for sets beyond the memory;
- `stepwise=True` (Cappe & Moulines 2009): an M step after every batch, with the running averages
  s <- (1 - eta_t) s + eta_t s_batch and eta_t = (t + 2)^-power.

Deviations: sums of squares are taken around the current mean, S_k = sum_n r_nk (x_n - mu_k)(x_n - mu_k)',
and moved to the new one, Sigma_k = S_k / N_k - delta_k delta_k', delta_k = mu_k^new - mu_k. That is the
same M step, but in float32 it does not subtract two large numbers when the data is far from 0.
`floor` is added to the diagonal wherever a covariance is used; the state holds the bare one.

Expected: scikit-learn's log likelihood of every iteration from the same start, to float error
(tests/models/test_gmm.py). Command: `python -m experiments.run --model=gmm`.
"""
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from embeddings_jax.ops.chunks import sum_over_chunks
from embeddings_jax.types import Batch, InputError, Model

LOG_2PI = 1.8378770664093453


class Statistics(NamedTuple):
  """Sums over rows, the moments around the current means."""

  count: Float[Array, "k"]
  first: Float[Array, "k d"]  # sum r (x - mu)
  second: Float[Array, "k d d"]  # sum r (x - mu)(x - mu)'
  log_likelihood: Float[Array, ""]
  num_rows: Float[Array, ""]


class GMMState(NamedTuple):
  """Parameters, the sums of the pass under way, and what tells when to stop."""

  step: Int[Array, ""]
  weights: Float[Array, "k"]
  means: Float[Array, "k d"]
  covariances: Float[Array, "k d d"]
  statistics: Statistics
  log_likelihood: Float[Array, ""]  # Mean per row of the last pass, nats.
  converged: Int[Array, ""]


def gmm(
    *,
    num_components: int,
    steps_per_epoch: int = 1,
    stepwise: bool = False,
    power: float = 0.7,
    floor: float = 1e-6,
    tolerance: float = 1e-6,
    chunk_size: int = 16384,
) -> Model:
  """A Gaussian mixture with full covariances.

  Args:
    num_components: k.
    steps_per_epoch: batches of a pass; exact EM makes its M step after the last of them.
    stepwise: make an M step after every batch instead.
    power: of the decay of the stepwise rate, in (0.5, 1].
    floor: added to the diagonal of the covariances, in units of the data squared.
    tolerance: converged when the mean log likelihood of a pass changes by less than this, relative
      to max(1, its size). 0 never converges; stepwise EM, whose likelihoods are of batches, does not either.
    chunk_size: rows of one E step on one device: bounds the memory at `chunk_size * k * d` floats.

  Returns:
    A `Model`. Batches hold `x` [n, d] float32 and `mask` [n]. `embed` gives responsibilities [n, k].
    Outputs: `log_likelihood` [n], `loss`, `sample` (as many rows as the batch has), `components`.
  """
  if num_components < 1:
    raise InputError(f"num_components={num_components}: must be at least 1")
  if floor < 0:
    raise InputError(f"floor={floor}: must not be negative")
  if stepwise and not 0.5 < power <= 1:
    raise InputError(f"power={power}: stepwise EM converges for powers in (0.5, 1]")

  def init(rng, batch):
    x, mask = batch["x"], _mask(batch)
    means = _kmeans_plus_plus(rng, x, mask, num_components)
    # One M step on the nearest centre; all start from the pooled covariance, so that a centre
    # with few rows does not start as a spike.
    nearest = jnp.argmin(_squared_distances(x, means), axis=1)
    resp = jax.nn.one_hot(nearest, num_components) * mask[:, None]
    count = resp.sum(0)
    offset = x - means[nearest]
    shift = resp.T @ offset / jnp.maximum(count, 1)[:, None]
    centred = (offset - shift[nearest]) * mask[:, None]
    pooled = centred.T @ centred / mask.sum()
    weights = (count + 1) / (mask.sum() + num_components)
    return GMMState(
        step=jnp.zeros((), jnp.int32),
        weights=weights,
        means=means + shift,
        covariances=jnp.broadcast_to(pooled, (num_components,) + pooled.shape),
        statistics=_no_statistics(num_components, x.shape[1]),
        log_likelihood=jnp.float32(-jnp.inf),
        converged=jnp.zeros((), jnp.int32),
    )

  def update(state, batch, rng):
    del rng  # EM is deterministic.
    statistics = _e_step(state, batch)
    log_likelihood = statistics.log_likelihood / jnp.maximum(statistics.num_rows, 1)
    new = _stepwise_update(state, statistics) if stepwise else _exact_update(state, statistics)
    new = jax.tree.map(lambda old, new: jnp.where(state.converged > 0, old, new), state, new)
    metrics = {"loss": -log_likelihood, "log_likelihood": log_likelihood,
               "smallest_weight": new.weights.min(), "converged": new.converged}
    return new, metrics

  def _e_step(state, batch):
    def one_chunk(params, chunk):
      (means, whitening, log_scale), x, mask = params, chunk["x"], chunk["mask"]
      offset, log_joint = _log_joint(x, means, whitening, log_scale)
      log_likelihood = jax.nn.logsumexp(log_joint, axis=1)
      resp = jnp.exp(log_joint - log_likelihood[:, None]) * mask[:, None]
      return Statistics(
          count=resp.sum(0),
          first=jnp.einsum("nk,knd->kd", resp, offset),
          second=jnp.einsum("knd,kne->kde", offset * resp.T[:, :, None], offset),
          log_likelihood=(log_likelihood * mask).sum(),
          num_rows=mask.sum())

    return sum_over_chunks(one_chunk, (state.means, *_density(state)),
                           {"x": batch["x"], "mask": _mask(batch)}, chunk_size)

  def _density(state):
    """What the log density needs: inverse Cholesky factors [k, d, d] and log scales [k]."""
    dim = state.means.shape[1]
    cholesky = jnp.linalg.cholesky(state.covariances + floor * jnp.eye(dim))
    whitening = jax.vmap(lambda factor: jax.scipy.linalg.solve_triangular(factor, jnp.eye(dim), lower=True))(cholesky)
    log_determinant = jnp.log(jnp.diagonal(cholesky, axis1=1, axis2=2)).sum(1)
    return whitening, jnp.log(state.weights) - log_determinant - 0.5 * dim * LOG_2PI

  def _exact_update(state, statistics):
    total = jax.tree.map(jnp.add, state.statistics, statistics)
    last = (state.step + 1) % steps_per_epoch == 0
    log_likelihood = total.log_likelihood / jnp.maximum(total.num_rows, 1)
    change = jnp.abs(log_likelihood - state.log_likelihood)
    converged = change < tolerance * jnp.maximum(1, jnp.abs(log_likelihood))
    weights, means, covariances = _m_step(state, total)
    after_pass = GMMState(state.step + 1, weights, means, covariances, jax.tree.map(jnp.zeros_like, total),
                          log_likelihood, converged.astype(jnp.int32))
    within_pass = state._replace(step=state.step + 1, statistics=total)
    return jax.tree.map(lambda a, b: jnp.where(last, a, b), after_pass, within_pass)

  def _stepwise_update(state, batch_sums):
    """The parameters are themselves the running averages of the statistics."""
    rate = (state.step + 2.0) ** -power
    rows = jnp.maximum(batch_sums.num_rows, 1)
    mixed = Statistics(
        count=(1 - rate) * state.weights + rate * batch_sums.count / rows,
        first=rate * batch_sums.first / rows,  # The old average is 0: it is taken around the means.
        second=(1 - rate) * state.weights[:, None, None] * state.covariances + rate * batch_sums.second / rows,
        log_likelihood=batch_sums.log_likelihood, num_rows=jnp.ones(()))
    weights, means, covariances = _m_step(state, mixed)
    return state._replace(step=state.step + 1, weights=weights, means=means, covariances=covariances,
                          log_likelihood=batch_sums.log_likelihood / rows)

  def _m_step(state, total):
    # A component without rows keeps its shape with a weight of (almost) nothing.
    empty = total.count < 1e-8 * jnp.maximum(total.num_rows, 1)
    count = jnp.where(empty, 1, total.count)[:, None]
    delta = jnp.where(empty[:, None], 0, total.first / count)
    second = total.second / count[:, :, None] - delta[:, :, None] * delta[:, None, :]
    second = 0.5 * (second + second.swapaxes(1, 2))
    covariances = jnp.where(empty[:, None, None], state.covariances, second)
    weights = jnp.maximum(total.count / total.count.sum(), 1e-30)
    return weights / weights.sum(), state.means + delta, covariances

  def log_likelihood(state, batch, rng=None):
    _, log_joint = _log_joint(batch["x"], state.means, *_density(state))
    return jax.nn.logsumexp(log_joint, axis=1)

  def embed(state, batch):
    _, log_joint = _log_joint(batch["x"], state.means, *_density(state))
    return jax.nn.softmax(log_joint, axis=1)

  def loss(state, batch, rng=None):
    mask = _mask(batch)
    return -(log_likelihood(state, batch) * mask).sum() / mask.sum()

  def sample(state, batch, rng):
    pick, noise = jax.random.split(rng)
    component = jax.random.categorical(pick, jnp.log(state.weights), shape=batch["x"].shape[:1])
    cholesky = jnp.linalg.cholesky(state.covariances + floor * jnp.eye(state.means.shape[1]))
    normal = jax.random.normal(noise, batch["x"].shape)
    return state.means[component] + jnp.einsum("nde,ne->nd", cholesky[component], normal)

  def components(state, batch=None, rng=None):
    covariances = state.covariances + floor * jnp.eye(state.means.shape[1])
    return {"weights": state.weights, "means": state.means, "covariances": covariances}

  return Model(init, update, embed, {"loss": loss, "log_likelihood": log_likelihood, "sample": sample,
                                     "components": components})


def _mask(batch: Batch) -> Float[Array, "n"]:
  return batch.get("mask", jnp.ones(batch["x"].shape[0]))


def _no_statistics(k: int, d: int) -> Statistics:
  return Statistics(jnp.zeros(k), jnp.zeros((k, d)), jnp.zeros((k, d, d)), jnp.zeros(()), jnp.zeros(()))


def _log_joint(x, means, whitening, log_scale):
  """Offsets x - mu [k, n, d] and log pi_k N(x_n; mu_k, Sigma_k) [n, k]."""
  offset = x[None] - means[:, None]
  whitened = jnp.einsum("knd,ked->kne", offset, whitening)
  return offset, log_scale - 0.5 * (whitened ** 2).sum(-1).T


def _squared_distances(x: Float[Array, "n d"], centres: Float[Array, "k d"]) -> Float[Array, "n k"]:
  return jax.lax.map(lambda centre: ((x - centre) ** 2).sum(1), centres).T


def _kmeans_plus_plus(rng: Array, x: Float[Array, "n d"], mask: Float[Array, "n"], k: int) -> Float[Array, "k d"]:
  """Rows as centres, each with a probability in proportion to its squared distance from those before
  (Arthur & Vassilvitskii 2007)."""

  def draw(rng, score):
    # Rows that coincide with all others have a score of 0: any valid row will do then.
    score = jnp.where((score * mask).sum() > 0, score * mask, mask)
    return x[jax.random.categorical(rng, jnp.log(score))]

  def body(index, carry):
    centres, nearest = carry
    centre = draw(jax.random.fold_in(rng, index), nearest)
    return centres.at[index].set(centre), jnp.minimum(nearest, ((x - centre) ** 2).sum(1))

  first = draw(jax.random.fold_in(rng, 0), jnp.ones(x.shape[0]))
  centres = jnp.zeros((k, x.shape[1])).at[0].set(first)
  return jax.lax.fori_loop(1, k, body, (centres, ((x - first) ** 2).sum(1)))[0]
