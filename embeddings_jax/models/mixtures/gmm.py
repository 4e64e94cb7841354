"""Gaussian mixture by expectation maximization (Dempster, Laird & Rubin 1977).

Maximizes the log likelihood of the rows x_n under p(x) = sum_k pi_k N(x; mu_k, Sigma_k) by turns:

  E step:  r_nk = pi_k N(x_n; mu_k, Sigma_k) / sum_j pi_j N(x_n; mu_j, Sigma_j), in log space
  M step:  N_k = sum_n r_nk;  pi_k = N_k / N;  mu_k = sum_n r_nk x_n / N_k;
           Sigma_k = sum_n r_nk (x_n - mu_k)(x_n - mu_k)' / N_k, with the new mu_k

Both minimize F(q, theta) = E_q[log q(z) - log p(x, z | theta)], the one over q = r, the other over theta. As
log p(x | theta) = -F(q, theta) + KL(q || p(z | x, theta)), and the KL is 0 after the E step, the log likelihood never
falls (Neal & Hinton 1998; `ops/free_energy.py`).

| symbol       | code                | shape                                                                 |
| ------------ | ------------------- | --------------------------------------------------------------------- |
| pi           | `weights`           | [k]                                                                   |
| mu           | `center + offsets`  | [d], [k, d]                                                           |
| Sigma        | `covariances`       | full [k, d, d]; tied [d, d]; diagonal [k, d]; spherical [k]           |
| r            | `embed`             | [n, k]                                                                |

One update is one batch, in one of three ways:
- exact EM on the whole set (`steps_per_epoch=1` and a source whose batch is the whole set);
- exact EM accumulated over the `steps_per_epoch` batches of an epoch, for sets beyond the memory;
- `stepwise=True` (Cappe & Moulines 2009): an M step after every batch, with the running averages
  s <- (1 - eta_t) s + eta_t s_batch and eta_t = (t + 2)^-power.

A batch may say more of its rows than `x`: `weight`, how often a row counts (any number from 0 up); `label`, its
component where that is observed, else -1 (with all of them, one M step is the closed-form supervised fit, and the log
likelihood is that of x and z). With `missing=True` an entry of `x` that is NaN was not observed: the E step
integrates it out, exactly, and the M step gets its expected moments (Ghahramani & Jordan 1994).

Float32. Rows are shifted by `center`, the mean of the first batch, and means are kept as offsets from it, so that
data far from 0 loses nothing. Sums of squares are taken around the current mean,
S_k = sum_n r_nk (x_n - mu_k)(x_n - mu_k)', and moved to the new one, Sigma_k = S_k / N_k - delta_k delta_k',
delta_k = mu_k^new - mu_k: the same M step, but it subtracts no two large numbers. A covariance that rounding has left
indefinite (many features, few rows) gets 1e-4 of its diagonal on top.

Singular covariances are bounded by `reg_covar`, which is added to the diagonal wherever a covariance is used (as in
scikit-learn; the state holds the bare one; where it matters the M step is no longer the exact maximum, so that the
likelihood may fall a little, as theirs does). A component without rows keeps its place and shape with a weight of
almost nothing. The metrics `empty` (components with less than one row's weight) and `collapsed` (those of which some
direction has only `reg_covar` for a variance) count both kinds. K is found by sweeping it: metrics `bic` and `aic`.

Split: row | nothing | the row (its density).

Expected: scikit-learn's log likelihood of every iteration from the same start, to float error, for all covariances
(tests/models/mixtures/test_gmm.py). Command: `python -m experiments.run --model=gmm`.
"""
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from embeddings_jax.ops.batches import takes
from embeddings_jax.ops.centers import given_start, row_weight, squared_distances, starting_centers
from embeddings_jax.ops.chunks import sum_over_chunks
from embeddings_jax.ops.covariances import (
    FORMS,
    HIGHEST,
    LOG_2PI,
    cholesky,
    mixture_density,
    mixture_log_joint,
    over_rows,
)
from embeddings_jax.ops.restarts import restarts
from embeddings_jax.ops.sharding import platform
from embeddings_jax.types import Fact, InputError, Model

COVARIANCES = tuple(FORMS)
# Floats of the largest array of an E step: what a CPU's cache holds, or enough to keep an accelerator busy.
CHUNK_FLOATS = {"cpu": 1 << 19}
ACCELERATOR_CHUNK_FLOATS = 1 << 27


class Statistics(NamedTuple):
  """Sums over rows, the moments around the current means."""

  count: Float[Array, " k"]
  first: Float[Array, "k d"]  # sum r (x - mu)
  second: Float[Array, "..."]  # sum r (x - mu)(x - mu)', shaped as the covariances are
  log_likelihood: Float[Array, ""]
  num_rows: Float[Array, ""]  # Their weight.


class GMMState(NamedTuple):
  """Parameters, the sums of the epoch under way, and what tells when to stop."""

  step: Int[Array, ""]
  center: Float[Array, " d"]
  weights: Float[Array, " k"]
  offsets: Float[Array, "k d"]  # mu - center
  covariances: Float[Array, "..."]
  statistics: Statistics
  log_likelihood: Float[Array, ""]  # Mean per row of the last pass, nats.
  converged: Int[Array, ""]


@takes(x=2)
def gmm(
    *,
    num_components: int,
    covariance: str = "full",
    init: str = "kmeans++",
    weights: Any = None,
    means: Fact[Any] = None,
    covariances: Any = None,
    num_init: int = 1,
    missing: Fact[bool] = False,
    num_labels: Fact[int] = 0,
    steps_per_epoch: Fact[int] = 1,
    stepwise: bool = False,
    power: float = 0.7,
    reg_covar: float = 1e-6,
    tol: float = 1e-6,
    chunk_size: int = 0,
) -> Model:
  """A Gaussian mixture.

  Args:
    num_components: k.
    covariance: `full`, `tied` (one for all components), `diagonal` or `spherical` (one variance each).
    init: `kmeans++` or `random` rows of the first batch as means, moved to the mean of the rows that are nearest to
      each, with the pooled covariance; components that have labels start at the mean of theirs.
    weights, means, covariances: arrays to start from instead; without `means` the others are not looked at.
    num_init: starts, trained together; the one with the best log likelihood (of an epoch; stepwise: a batch) is kept.
    missing: entries of `x` may be NaN, which costs a Cholesky factor for every row and component.
    num_labels: labels there are (the data's fact); they are 0 to `num_labels - 1`.
    steps_per_epoch: batches of an epoch; exact EM makes its M step after the last of them.
    stepwise: make an M step after every batch instead.
    power: Exponent of the decay of the stepwise rate, in (0.5, 1].
    reg_covar: added to the diagonal of the covariances, in units of the data squared.
    tol: converged when the mean log likelihood of an epoch changes by less than this, relative
      to max(1, its size). 0 never converges; stepwise EM, whose likelihoods are of batches, does not either.
    chunk_size: rows of one E step on one device, which needs some `3 chunk_size k d` floats (with `missing`,
      `5 chunk_size k d^2`); 0: chosen to be fast.

  Returns:
    A `Model`. Batches hold `x` [n, d] float32 and may hold `mask`, `weight` and `label` (int32) [n]. `embed` gives
    responsibilities [n, k], whatever the labels. Outputs: `log_likelihood` [n], `log_joint` [n, k] (log p(x, z = k)),
    `loss`, `aic` and `bic` of a batch, `sample` [num, d], `components`.
  """
  if num_components < 1:
    raise InputError(f"num_components={num_components}: must be at least 1")
  if covariance not in COVARIANCES:
    raise InputError(f"covariance={covariance!r}: must be one of {', '.join(COVARIANCES)}")
  if reg_covar < 0:
    raise InputError(f"reg_covar={reg_covar}: must not be negative")
  if stepwise and not 0.5 < power <= 1:
    raise InputError(f"power={power}: stepwise EM converges for powers in (0.5, 1]")
  if num_labels > num_components:
    raise InputError(f"num_components={num_components}: the data has {num_labels} labels, each is a component")

  form = FORMS[covariance]

  def first_state(rng, batch):
    return _first_state(form, rng, batch, num_components, init, weights, means, covariances, missing)

  def e_step(state, density, batch):
    k, dim = num_components, state.center.shape[0]
    rows = {"x": batch["x"], "weight": row_weight(batch)}
    if "label" in batch:
      rows["label"] = batch["label"]
    per_row = num_init * k * dim * (5 * dim if missing else 1)
    floats = CHUNK_FLOATS.get(platform(), ACCELERATOR_CHUNK_FLOATS)
    size = chunk_size or max(128, floats // per_row // 128 * 128)
    one_chunk = functools.partial(_chunk_statistics, form, missing, reg_covar)
    return sum_over_chunks(one_chunk, (state, density), rows, size, rows_last=True)

  def update(state, batch, rng):
    del rng  # EM is deterministic.
    density = mixture_density(form, state.weights, state.offsets, state.covariances, reg_covar)
    statistics = e_step(state, density, batch)
    rows = jnp.maximum(statistics.num_rows, 1e-30)
    log_likelihood = statistics.log_likelihood / rows
    new = (_stepwise_update(form, state, statistics, power) if stepwise
           else _exact_update(form, state, statistics, steps_per_epoch, tol))
    new = jax.tree.map(lambda old, new: jnp.where(state.converged > 0, old, new), state, new)
    in_pass = rows if stepwise else rows * steps_per_epoch  # Nearly: the last batch may be short.
    metrics = {"loss": -log_likelihood, "log_likelihood": log_likelihood,
               **_criteria(form, log_likelihood, in_pass, *state.offsets.shape),
               "smallest_weight": new.weights.min(),
               "empty": (new.weights * in_pass < 1).sum().astype(jnp.float32),
               "collapsed": jnp.broadcast_to(density.least < 2 * reg_covar, (num_components,)).sum().astype(
                   jnp.float32),
               "converged": new.converged}
    return new, metrics

  def log_joint(state, batch):
    moments = _missing_moments if missing else _moments
    density = mixture_density(form, state.weights, state.offsets, state.covariances, reg_covar)
    return moments(form, reg_covar, state, density, (batch["x"] - state.center).T)[0].T

  def log_likelihood(state, batch):
    return jax.nn.logsumexp(log_joint(state, batch), axis=1)

  def embed(state, batch):
    return jax.nn.softmax(log_joint(state, batch), axis=1)

  def mean_log_likelihood(state, batch):
    weight = row_weight(batch)
    return (log_likelihood(state, batch) * weight).sum() / weight.sum()

  def loss(state, batch):
    return -mean_log_likelihood(state, batch)

  def criterion(name):
    return lambda state, batch: _criteria(
        form, mean_log_likelihood(state, batch), row_weight(batch).sum(), *state.offsets.shape)[name]

  def full_covariances(state):
    k, dim = state.offsets.shape
    return form.expand(state.covariances, k, dim) + reg_covar * jnp.eye(dim)

  def sample(state, rng, num, batch=None):
    del batch
    pick, noise = jax.random.split(rng)
    component = jax.random.categorical(pick, jnp.log(state.weights), shape=(num,))
    factors = cholesky(full_covariances(state))
    normal = jax.random.normal(noise, (num, state.center.shape[0]))
    return state.center + state.offsets[component] + jnp.einsum("nde,ne->nd", factors[component], normal)

  def components(state):
    return {"weights": state.weights, "means": state.center + state.offsets, "covariances": full_covariances(state)}

  model = Model(first_state, update, embed, {
      "loss": loss, "log_likelihood": log_likelihood, "log_joint": log_joint, "aic": criterion("aic"),
      "bic": criterion("bic"), "sample": sample, "components": components})
  return restarts(model, num_init, lambda states: states.log_likelihood)


def _first_state(form, rng, batch, k, init, weights, means, covariances, missing):
  """Returns the start: means by `init` or given, the pooled covariance for every component."""
  weight = row_weight(batch)
  x, dim = batch["x"], batch["x"].shape[1]
  seen = ~jnp.isnan(x) if missing else jnp.ones_like(x, bool)
  number = jnp.maximum((seen * weight[:, None]).sum(0), 1e-30)
  # Twice: what rounding leaves of the first sum, which may be of large numbers, is in the second.
  center = jnp.zeros(dim)
  for _ in range(2):
    center += (jnp.where(seen, x - center, 0) * weight[:, None]).sum(0) / number
  x = jnp.where(seen, x - center, 0)
  initial_means = None if means is None else given_start("means", means, (k, dim)) - center
  centers = starting_centers(rng, init, x, weight, k, batch.get("label")) if initial_means is None else initial_means
  nearest = squared_distances(x.T, centers).argmin(0)
  if "label" in batch:
    nearest = jnp.where(_observed(batch["label"], k), batch["label"], nearest)
  count = jnp.zeros(k).at[nearest].add(weight)
  offset = x - centers[nearest]
  if initial_means is None:  # One M step on the nearest center.
    shift = jnp.zeros((k, dim)).at[nearest].add(offset * weight[:, None]) / jnp.maximum(count, 1e-30)[:, None]
    centers, offset = centers + shift, offset - shift[nearest]
  # All start from the pooled covariance, so that a center with few rows does not start as a spike.
  pooled = jnp.matmul((offset * weight[:, None]).T, offset, precision=HIGHEST) / weight.sum()
  start_weights = (count + 1) / (weight.sum() + k)
  start_covariances = form.keep(jnp.broadcast_to(pooled, (k, dim, dim)), jnp.full(k, 1 / k))
  if initial_means is not None and weights is not None:
    start_weights = given_start("weights", weights, (k,))
  if initial_means is not None and covariances is not None:
    start_covariances = given_start("covariances", covariances, start_covariances.shape)
  return GMMState(
      step=jnp.zeros((), jnp.int32), center=center, weights=start_weights, offsets=centers,
      covariances=start_covariances,
      statistics=Statistics(jnp.zeros(k), jnp.zeros((k, dim)), jnp.zeros_like(start_covariances), jnp.zeros(()),
                            jnp.zeros(())),
      log_likelihood=jnp.float32(-jnp.inf),
      converged=jnp.zeros((), jnp.int32),
  )


def _observed(label, k):
  return (label >= 0) & (label < k)


def _criteria(form, log_likelihood, rows, k, dim):
  """Returns Akaike's and Schwarz's criteria, in nats of all rows; lower is better."""
  num_parameters = k - 1 + k * dim + form.num_parameters(k, dim)
  return {"aic": 2 * num_parameters - 2 * log_likelihood * rows,
          "bic": num_parameters * jnp.log(rows) - 2 * log_likelihood * rows}


def _chunk_statistics(form, missing, reg_covar, params, chunk):
  """Returns the E step's sums over a chunk of rows, `x` [d, n]."""
  state, density = params
  log_joint, moments = (_missing_moments if missing else _moments)(
      form, reg_covar, state, density, chunk["x"] - state.center[:, None])
  if "label" in chunk:
    k = len(state.weights)
    other = _observed(chunk["label"], k) & (chunk["label"] != jnp.arange(k)[:, None])
    log_joint = jnp.where(other, -1e30, log_joint)
  top = log_joint.max(0)
  scaled = jnp.exp(log_joint - top)
  total = scaled.sum(0)
  first, second = moments(resp := scaled * (chunk["weight"] / total))
  return Statistics(resp.sum(1), first, second, ((top + jnp.log(total)) * chunk["weight"]).sum(),
                    chunk["weight"].sum())


def _moments(form, reg_covar, state, density, xt):
  """Returns log joint densities [k, n] of shifted rows [d, n], and a function of responsibilities [k, n] to moments.

  Sums over rows are products of matrices, with all the components in one.
  """
  del reg_covar  # It is in the density.

  def moments(resp):
    offset = xt[None] - state.offsets[:, :, None]
    weighted = resp[:, None] * offset
    first = over_rows(weighted)
    return first, form.second_moment(weighted, offset, first, state.offsets, xt)

  return mixture_log_joint(form, density, xt), moments


def _missing_moments(form, reg_covar, state, density, xt):
  """Returns the same where some entries are NaN, by the conditional Gaussian of what is missing given the rest.

  With o a row's observed entries and C a covariance: log N(x_o; mu_o, C_oo), x - mu completed to
  C_.o C_oo^-1 (x - mu)_o, and the conditional covariance C - C_.o C_oo^-1 C_o. in the second moment.
  """
  del density
  k, dim = state.offsets.shape
  x = xt.T
  seen = ~jnp.isnan(x)
  full = form.expand(state.covariances, k, dim) + reg_covar * jnp.eye(dim)
  both = seen[:, None, :, None] & seen[:, None, None, :]
  factor = jnp.linalg.cholesky(jnp.where(both, full, jnp.eye(dim)))  # [n, k, d, d]; what is missing factors out.
  offset = jnp.where(seen[:, None], x[:, None] - state.offsets, 0)
  half = jax.scipy.linalg.solve_triangular(factor, jnp.concatenate(
      [offset[..., None], jnp.where(seen[:, None, :, None], full, 0)], -1), lower=True)
  whitened, half = half[..., 0], half[..., 1:]
  log_joint = (jnp.log(state.weights) - jnp.log(jnp.diagonal(factor, axis1=2, axis2=3)).sum(-1)
               - 0.5 * (whitened ** 2).sum(-1) - 0.5 * LOG_2PI * seen.sum(1, keepdims=True)).T

  def moments(resp):
    expected = jnp.einsum("nkfd,nkf->nkd", half, whitened, precision=HIGHEST)
    completed = jnp.where(seen[:, None], offset, expected)
    unseen = ~seen[:, None, :, None] & ~seen[:, None, None, :]
    conditional = jnp.where(unseen, full - jnp.einsum("nkfd,nkfe->nkde", half, half, precision=HIGHEST), 0)
    first = jnp.einsum("kn,nkd->kd", resp, completed, precision=HIGHEST)
    second = (jnp.einsum("kn,nkd,nke->kde", resp, completed, completed, precision=HIGHEST)
              + jnp.einsum("kn,nkde->kde", resp, conditional, precision=HIGHEST))
    return first, form.keep(second, jnp.ones(k))

  return log_joint, moments


def _exact_update(form, state, statistics, steps_per_epoch, tol):
  """Adds a batch's statistics, and makes the M step after the last batch of an epoch."""
  total = jax.tree.map(jnp.add, state.statistics, statistics)
  last = (state.step + 1) % steps_per_epoch == 0
  log_likelihood = total.log_likelihood / jnp.maximum(total.num_rows, 1e-30)
  change = jnp.abs(log_likelihood - state.log_likelihood)
  converged = change < tol * jnp.maximum(1, jnp.abs(log_likelihood))
  after_pass = _m_step(form, state, total)._replace(
      step=state.step + 1, statistics=jax.tree.map(jnp.zeros_like, total), log_likelihood=log_likelihood,
      converged=converged.astype(jnp.int32))
  within_pass = state._replace(step=state.step + 1, statistics=total)
  return jax.tree.map(lambda a, b: jnp.where(last, a, b), after_pass, within_pass)


def _stepwise_update(form, state, batch_sums, power):
  """Makes an M step on running averages of the statistics, which are the parameters themselves."""
  rate = (state.step + 2.0) ** -power
  rows = jnp.maximum(batch_sums.num_rows, 1e-30)
  mixed = Statistics(
      count=(1 - rate) * state.weights + rate * batch_sums.count / rows,
      first=rate * batch_sums.first / rows,  # The old average is 0: it is taken around the means.
      second=(1 - rate) * form.scale(state.weights, state.covariances) + rate * batch_sums.second / rows,
      log_likelihood=batch_sums.log_likelihood, num_rows=jnp.ones(()))
  return _m_step(form, state, mixed)._replace(step=state.step + 1, log_likelihood=batch_sums.log_likelihood / rows)


def _m_step(form, state, total):
  """Returns the state with the parameters that maximize the expected log likelihood."""
  # A component without rows keeps its place and shape with a weight of (almost) nothing.
  empty = total.count < 1e-8 * total.num_rows
  count = jnp.where(empty, 1, total.count)
  delta = jnp.where(empty[:, None], 0, total.first / count[:, None])
  everything = jnp.maximum(total.count.sum(), 1e-30)
  share = total.count / everything
  second = form.average(total.second, count, everything) - form.keep(delta[:, :, None] * delta[:, None], share)
  second = form.where(empty, state.covariances, form.repair(second))
  weights = jnp.maximum(share, 1e-30)
  return state._replace(weights=weights / weights.sum(), offsets=state.offsets + delta, covariances=second)
