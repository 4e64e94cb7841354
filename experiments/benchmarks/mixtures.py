"""Gaussian mixtures beside scikit-learn, and of files larger than memory."""
import os
import statistics
import tempfile
import time
import warnings

import jax
import numpy as np
from absl import flags
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from embeddings_jax.data.sources import array_source
from embeddings_jax.models.mixtures.gmm import gmm as make
from embeddings_jax.runs import build, presets
from embeddings_jax.train.loop import train
from experiments.benchmarks.memory import anonymous

FLAGS = flags.FLAGS


def gmm() -> dict:
  """Seconds of an iteration of exact EM, ours in float32 and scikit-learn's in float64 (and float32), by turns.

  All start alike: rows as means, unit covariances. Scikit-learn's iteration is the difference of two fits.
  """
  warnings.simplefilter("ignore", ConvergenceWarning)
  k, dim = FLAGS.components, FLAGS.features
  x = mixture_rows(np.random.default_rng(FLAGS.seed), FLAGS.rows)
  unit = {"full": np.tile(np.eye(dim), (k, 1, 1)), "tied": np.eye(dim), "diagonal": np.ones((k, dim)),
          "spherical": np.ones(k)}[FLAGS.covariance]
  weights, means, reg, more = np.full(k, 1 / k), x[:k], 1e-6, 4

  model = make(num_components=k, covariance=FLAGS.covariance, reg_covar=reg, tol=0, weights=weights, means=means,
               covariances=unit)
  batch = {"x": jax.numpy.asarray(x)}
  start = jax.jit(model.init)(jax.random.key(0), batch)
  update = jax.jit(model.update)
  jax.block_until_ready(update(start, batch, None))

  def ours() -> tuple[float, float]:
    state = jax.block_until_ready(update(start, batch, None))[0]
    begun = time.perf_counter()
    for _ in range(more):
      state, metrics = update(state, batch, None)
    jax.block_until_ready(state)
    return (time.perf_counter() - begun) / more, float(metrics["log_likelihood"])

  def theirs(rows) -> tuple[float, float]:
    def fit(iterations):
      begun = time.perf_counter()
      fitted = GaussianMixture(
          k, covariance_type=FLAGS.covariance.replace("diagonal", "diag"), reg_covar=reg, tol=0,
          max_iter=iterations, weights_init=weights.astype(rows.dtype), means_init=means.astype(rows.dtype),
          precisions_init=unit.astype(rows.dtype)).fit(rows)
      return time.perf_counter() - begun, fitted.lower_bound_
    seconds, _ = fit(1)
    longer, log_likelihood = fit(1 + more)
    return (longer - seconds) / more, log_likelihood

  exact = x.astype(np.float64)
  turns = [(ours(), theirs(exact), theirs(x)) for _ in range(FLAGS.repeats)]
  seconds = [[round(who[0], 4) for who in turn] for turn in turns]
  ratios = [[round(turn[i] / turn[0], 2) for turn in seconds] for i in (1, 2)]
  log_likelihood, expected = turns[0][0][1], turns[0][1][1]
  difference = abs(log_likelihood - expected) / max(1, abs(expected))
  return {
      "summary": f"{statistics.median(ratios[0]):.1f} times as fast an iteration as scikit-learn in float64, "
                 f"{statistics.median(ratios[1]):.1f} times as in float32 (median of {FLAGS.repeats} turns), "
                 f"log likelihood within {difference:.0e}",
      "rows": FLAGS.rows, "features": dim, "components": k, "covariance": FLAGS.covariance,
      "seconds": {name: [turn[i] for turn in seconds] for i, name in enumerate(("ours", "float64", "float32"))},
      "ratios": ratios[0], "ratios_float32": ratios[1], "log_likelihood": log_likelihood,
      "log_likelihood_float64": expected, "relative_difference": difference,
  }


def gmm_memory() -> dict:
  """Exact EM of `gmm`'s `paper` preset over a file of `--rows` rows, by `--epochs` passes, and its resident memory.

  RssAnon is what the process needs; pages of the mapped file are the system's to drop. Then the same on the first
  rows of the file, of which the last batch is a short one, against exact EM with all of them in memory.
  """
  config = presets.load_config("gmm", "paper")
  config.model.num_components, config.model.covariance, config.data.order = (
      FLAGS.components, FLAGS.covariance, "sequential")
  config.model.tol = 0.0
  rng, piece = np.random.default_rng(FLAGS.seed), 500_000
  with tempfile.TemporaryDirectory(dir=FLAGS.cache_dir) as folder:
    path = os.path.join(folder, "rows.npy")
    table = np.lib.format.open_memmap(path, "w+", np.float32, (FLAGS.rows, FLAGS.features))
    for first in range(0, FLAGS.rows, piece):
      table[first:first + piece] = mixture_rows(rng, min(piece, FLAGS.rows - first))
    table.flush()
    del table
    config.data.name = path
    data = build.prepare(config, data_dir=None, cache_dir=FLAGS.cache_dir)
    facts = data.facts
    steps = FLAGS.epochs * facts["steps_per_epoch"]
    memory, begun, times = [anonymous()], time.perf_counter(), []

    def look(step, record):
      memory.append(anonymous())
      times.append(time.perf_counter())

    state = jax.block_until_ready(train(
        build.make_model(config, facts, steps), data.splits["train"], steps=steps, progress=look))
    seconds, largest = time.perf_counter() - begun, max(memory)
    # Without the first dispatches, which compile.
    rate = config.batch_size * (len(times) - 1 - len(times) // 4) / max(times[-1] - times[len(times) // 4], 1e-9)
    some = np.load(path, mmap_mode="r")[:min(FLAGS.rows, 5 * config.batch_size // 2 + 7)]
    source = array_source({"x": some}, config.batch_size, order="sequential", remainder="pad", resident=False)
    epochs, per_pass = 3, source.facts["steps_per_epoch"]
    parts = train(build.make_model(config, source.facts, epochs), source, steps=epochs * per_pass)
    whole_source = array_source({"x": np.array(some)})
    whole_model = build.make_model(config, whole_source.facts, epochs)
    whole = train(build.make_model(config, source.facts, 0), source, steps=0)  # The same start.
    update = jax.jit(whole_model.update)
    for _ in range(epochs):
      whole, _ = update(whole, whole_source.batch_at(0), None)
  differences = {name: float(np.linalg.norm(getattr(parts, name) - getattr(whole, name))
                             / np.linalg.norm(getattr(whole, name)))
                 for name in ("log_likelihood", "weights", "offsets", "covariances")}
  return {
      "summary": f"{FLAGS.rows:,} rows x {FLAGS.features} of a file of "
                 f"{FLAGS.rows * FLAGS.features * 4 / 2**30:.1f} GiB, {FLAGS.components} components: RssAnon at most "
                 f"{largest:.0f} MiB, {rate / 1e6:.2f} M rows a second; "
                 f"the same as in memory to {max(differences.values()):.0e}",
      "rows": FLAGS.rows, "features": FLAGS.features, "components": FLAGS.components, "covariance": FLAGS.covariance,
      "batch_size": config.batch_size, "passes": FLAGS.epochs, "log_likelihood": float(state.log_likelihood),
      "anonymous_mib": round(largest, 1), "anonymous_mib_before": round(memory[0], 1),
      "seconds": round(seconds, 1), "rows_per_second": round(rate), "subset_rows": len(some),
      "relative_differences": differences,
  }


def mixture_rows(rng, size: int):
  """Rows of a mixture of Gaussians whose ranges overlap, float32; the means are the same for every call."""
  means = 1.5 * np.random.default_rng(1).normal(size=(FLAGS.components, FLAGS.features)).astype(np.float32)
  return means[rng.integers(FLAGS.components, size=size)] + rng.standard_normal((size, FLAGS.features), np.float32)
