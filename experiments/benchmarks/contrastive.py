"""Contrastive losses: time and memory of InfoNCE in chunks, and what its bound says about known information."""
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags
from flax import linen as nn

from embeddings_jax.figures import sweeps
from embeddings_jax.ops import mutual_information as mi
from embeddings_jax.ops.contrastive import info_nce
from embeddings_jax.ops.similarity import l2_normalize
from experiments.spread import mean_and_std

FLAGS = flags.FLAGS


def contrastive(num: int = 8192, large: int = 32_768, dim: int = 256, chunk_size: int = 256) -> dict:
  """Seconds of InfoNCE with its gradient among 8,192 unit vectors of 256, dense and in chunks of 256 queries.

  They take turns. And what the compiler sets aside for 32,768 of them besides arguments and results; these are not
  run.
  """
  sizes = {"dense": 0, "chunked": chunk_size}
  step = {name: jax.jit(jax.value_and_grad(
      lambda q, k, size=size: info_nce(q, k, temperature=0.05, chunk_size=size).loss, (0, 1)))
          for name, size in sizes.items()}
  queries, keys = l2_normalize(jax.random.normal(jax.random.key(FLAGS.seed), (2, num, dim)))
  outputs = {name: jax.block_until_ready(step[name](queries, keys)) for name in step}  # Compiled, and warm.
  turns = []
  for _ in range(FLAGS.repeats):
    seconds = {}
    for name in step:
      start = time.perf_counter()
      jax.block_until_ready(step[name](queries, keys))
      seconds[name] = time.perf_counter() - start
    turns.append(seconds)
  ratio = statistics.median(turn["chunked"] / turn["dense"] for turn in turns)
  median = {name: statistics.median(turn[name] for turn in turns) for name in step}
  shape = jax.ShapeDtypeStruct((large, dim), jnp.float32)
  megabytes = {name: step[name].lower(shape, shape).compile().memory_analysis().temp_size_in_bytes / 1e6
               for name in step}
  differences = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max() / jnp.abs(b).max()), outputs["chunked"],
                             outputs["dense"])
  difference = max(jax.tree.leaves(differences))
  return {
      "summary": f"chunks take {ratio:.2f} of the dense loss's time with gradient at {num:,} x {dim} (median of "
                 f"{FLAGS.repeats} turns), and at {large:,} {megabytes['chunked']:,.0f} MB of temporaries instead of "
                 f"{megabytes['dense']:,.0f}; equal to {difference:.0e}",
      "ratio": round(ratio, 3), "seconds": {name: round(value, 3) for name, value in median.items()},
      "megabytes": {name: round(value, 1) for name, value in megabytes.items()}, "max_difference": difference,
      "num": num, "large": large, "dim": dim, "chunk_size": chunk_size,
      "all": [{name: round(value, 3) for name, value in turn.items()} for turn in turns],
  }


class _Critic(nn.Module):
  """s(x_j, c_i), [n, n]: the inner products of what two small networks make of samples and contexts."""

  @nn.compact
  def __call__(self, x, c):
    tower = lambda: nn.Sequential([nn.Dense(128), nn.relu, nn.Dense(128), nn.relu, nn.Dense(32)])
    return tower()(c) @ tower()(x).T


def mutual_information(
    truths: tuple[float, ...] = (0.5, 1, 2, 3, 4, 5, 6, 8), sizes: tuple[int, ...] = (8, 32, 128, 512),
    compared: int = 128, dim: int = 4, num_steps: int = 3000,
) -> dict:
  """Lower bounds of the mutual information of correlated Gaussians of 4 dimensions, whose value is known.

  Critics are trained by each bound on fresh pairs, N at a time, by Adam; then come means over 100 fresh batches of
  their bounds, and of those of the best critic. NWJ and Donsker-Varadhan (MINE) at N = 128 alone.
  """
  bounds = {"info_nce": mi.info_nce_bound, "nwj": mi.nwj_bound, "donsker_varadhan": mi.donsker_varadhan_bound}
  critic = _Critic()
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(2e-3, num_steps)))

  def trained(name, num):
    @jax.jit
    def run(truth, rng):
      correlation = jnp.sqrt(1 - jnp.exp(-2 * truth / dim))
      draw = lambda rng: mi.gaussian_pairs(rng, num, dim, correlation)
      loss = lambda params, rng: -bounds[name](critic.apply(params, *draw(rng)))

      def step(carry, rng):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, rng), state, params)
        return (optax.apply_updates(params, updates), state), None

      first, learn, fresh = jax.random.split(rng, 3)
      params = critic.init(first, *draw(first))
      (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(learn, num_steps))
      fresh = jax.random.split(fresh, 100)
      best = lambda rng: bounds[name](mi.gaussian_log_ratio(*draw(rng), correlation) + (name == "nwj"))
      return jax.lax.map(lambda rng: -loss(params, rng), fresh), jax.lax.map(best, fresh)

    return run

  rows = []
  for name, num in [("info_nce", num) for num in sizes] + [("nwj", compared), ("donsker_varadhan", compared)]:
    run = trained(name, num)
    for truth in truths:
      start = time.perf_counter()
      values, best = (np.asarray(x) for x in run(truth, jax.random.key(FLAGS.seed)))
      row = {"bound": name, "num": num, "truth": truth}
      for key, estimates in (("trained", values), ("best", best)):
        row[key], row[f"{key}_std"] = (round(value, 4) for value in mean_and_std(estimates.tolist()))
      rows.append(row | {"seconds": round(time.perf_counter() - start, 1)})
  if FLAGS.figure:
    sweeps.draw_information_bounds(FLAGS.figure, rows)

  def of(name, truth):
    return next(row["trained"] for row in rows if (row["bound"], row["num"], row["truth"]) == (name, compared, truth))

  said = {truth: ", ".join(f"{label} {of(name, truth):.2f}" for name, label in (
      ("info_nce", "InfoNCE"), ("nwj", "NWJ"), ("donsker_varadhan", "MINE"))) for truth in (1, truths[-1])}
  return {
      "summary": f"trained critics, N = {compared}: {said[1]} of 1 nat, {said[truths[-1]]} of {truths[-1]:g} "
                 f"(log N = {np.log(compared):.2f})",
      "dim": dim, "steps": num_steps, "rows": rows,
  }
