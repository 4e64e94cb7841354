"""The training loop against its own compiled updates."""
import statistics
import time

import jax
import numpy as np
from absl import flags
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from embeddings_jax.runs import build, presets
from embeddings_jax.train import loop as loop_lib
from embeddings_jax.train import mesh as mesh_lib

FLAGS = flags.FLAGS


def loop() -> dict:
  """Steps per second of `train` over those of its compiled dispatch, called on data that lies ready.

  Ours includes drawing and placing the batches, fetching and checking the metrics, and a call of
  `write` for every log; the dispatch alone is the ceiling.
  """
  config = presets.load_config(FLAGS.model, FLAGS.preset)
  if "tol" in config.model:
    config.model.tol = 0.0  # A model that converged would end the run.
  mesh = mesh_lib.make_mesh()
  data = build.prepare(config, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir)
  source, size = data.splits["train"], config.steps_per_dispatch
  model = build.make_model(config, source.facts, 100_000)

  with jax.set_mesh(mesh):
    make_state, many_updates = loop_lib.programs(model, source)
    feeder = mesh_lib.Feeder(mesh, source.batch_size)
    resident = mesh_lib.put(source.resident, NamedSharding(mesh, P()))
    seed, numbers, whole = np.uint32(0), np.arange(size, dtype=np.int32), np.int32(size)
    feeds = feeder([source.feed_at(step) for step in range(size)])
    state = jax.jit(make_state)(seed, resident, feeds)
    dispatch = jax.jit(many_updates, donate_argnums=0)
    state, metrics = jax.block_until_ready(dispatch(state, seed, numbers, whole, resident, feeds))
    start = time.perf_counter()
    state, metrics = jax.block_until_ready(dispatch(state, seed, numbers, whole, resident, feeds))
    count = max(4, int(FLAGS.seconds / (time.perf_counter() - start)))

    def bare() -> float:
      nonlocal state
      start = time.perf_counter()
      for _ in range(count):
        state, metrics = dispatch(state, seed, numbers, whole, resident, feeds)
      jax.block_until_ready((state, metrics))
      return count * size / (time.perf_counter() - start)

    def ours() -> float:
      began = []  # When the first dispatch, which compiles, was done.
      trained = loop_lib.train(model, source, steps=(count + 1) * size, mesh=mesh, steps_per_dispatch=size,
                               log_every=config.log_every, write=lambda step, record: None,
                               progress=lambda step, record: began or began.append(time.perf_counter()))
      jax.block_until_ready(trained)
      return count * size / (time.perf_counter() - began[0])

    turns = [(ours(), bare()) for _ in range(FLAGS.repeats)]
  ratio = statistics.median(rate / ceiling for rate, ceiling in turns)
  return {
      "summary": f"{ratio:.3f} of the bare dispatch's steps per second (median of {FLAGS.repeats} turns)",
      "steps_per_dispatch": size,
      "ratios": [round(rate / ceiling, 3) for rate, ceiling in turns],
      "ours_steps_per_second": round(statistics.median(rate for rate, _ in turns), 2),
      "bare_steps_per_second": round(statistics.median(ceiling for _, ceiling in turns), 2),
  }
