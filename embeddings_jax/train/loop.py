"""The training loop: it knows the `Model` tuple and a `Source`, and nothing of what is learnt."""
import collections
import contextlib
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from embeddings_jax.ops.sharding import DATA_AXES, constrain
from embeddings_jax.train import mesh as mesh_lib
from embeddings_jax.train.checkpoints import Checkpoints
from embeddings_jax.train.padding import Padding
from embeddings_jax.train.prefetch import prefetch
from embeddings_jax.train.profiler import Profiler
from embeddings_jax.train.signals import Signals, Timer, exit_code
from embeddings_jax.types import Model, PyTree, Source

MUST_BE_FINITE = ("loss", "gradient_norm")


class NonFiniteLoss(RuntimeError):
  """The loss or the gradient became infinite or NaN; the last checkpoint precedes it."""


class Stopped(RuntimeError):
  """A signal asked the run to stop; its state is saved where there are checkpoints."""

  def __init__(self, step: int, signal_name: str, saved: bool):
    done = f"saved at step {step}; the same command resumes from there" if saved else f"stopped at step {step}"
    super().__init__(f"{signal_name} received: {done}")
    self.step = step
    self.exit_code = exit_code(signal_name)


def train(
    model: Model,
    source: Source,
    *,
    steps: int,
    seed: int = 0,
    mesh: jax.sharding.Mesh | None = None,
    steps_per_dispatch: int = 1,
    checkpoints: Checkpoints | None = None,
    save_every: int = 0,
    save_minutes: float = 0.0,
    evaluate: Callable[[PyTree, int], Mapping[str, float]] | None = None,
    eval_every: int = 0,
    write: Callable[[int, Mapping[str, float]], None] | None = None,
    log_every: int = 100,
    progress: Callable[[int, Mapping[str, float]], None] | None = None,
    signals: Signals | None = None,
    started: Callable[[int], None] | None = None,
    initial: Callable[[PyTree], PyTree] | None = None,
    report: Callable[[str], None] = lambda line: None,
    profiler: Profiler | None = None,
) -> PyTree:
  """Trains a model up to an absolute step, from its newest sound checkpoint if there is one.

  The step alone decides on the batch, the randomness and where a dispatch ends, so that a resumed
  run is the uninterrupted one, bit for bit on the same mesh.

  Args:
    model: any `Model`.
    source: its training data.
    steps: updates in all. A model whose metrics say `converged` ends one dispatch after it did.
    seed: Random seed of the initialization and of all noise in `update`.
    mesh: see `make_mesh`; by default all devices, along `data`.
    steps_per_dispatch: updates that one compiled program makes, which small models need to be fast.
      An evaluation or a save that is due "every n steps" happens at the end of the dispatch that
      reaches or passes a multiple of n.
    checkpoints: where to save, and to resume from. The last step is always saved. Where they keep the best, whatever
      is evaluated is saved, and the last step is evaluated too.
    save_every, eval_every, log_every: in steps; 0 is never.
    save_minutes: Wall time after which a checkpoint is due too; 0 is never.
    evaluate: `(state, step) -> metrics`.
    write: `(step, record)`, with the means over the steps since the last record, as far as they
      belong to the dispatch; so records depend on the absolute step alone.
    progress: the same over a whole dispatch, for people; called after every one.
    signals: asks the loop to stop; after the last step too, once that is saved.
    started: told the step that the run resumes from, before the first dispatch.
    initial: `state -> state`, applied to a fresh state, not to a restored one: puts pretrained parameters in, as
      NumPy arrays of the same shapes.
    report: Receives lines about the layout.
    profiler: Profiles some of the steps.

  Returns:
    The state after the last step, sharded.

  Raises:
    NonFiniteLoss: with the step at which it happened.
    Stopped: a signal came; the state is saved.
  """
  began = time.perf_counter()
  mesh = mesh_lib.make_mesh() if mesh is None else mesh
  if source.whole:
    source = mesh_lib.padded(source, mesh_lib.num_data_shards(mesh))
  mesh_lib.check_batch_size(mesh, source.batch_size)
  mesh_lib.check_model_axis(mesh, model.rules)
  with jax.set_mesh(mesh), contextlib.ExitStack() as stack:
    replicated = NamedSharding(mesh, P())
    feeder = mesh_lib.Feeder(mesh, source.batch_size)
    resident = mesh_lib.put(source.resident, NamedSharding(mesh, P(DATA_AXES)) if source.whole else replicated)

    def feeds_of(span):
      feeds = [feeder.read(source, step) for step in range(*span)]
      return feeder(feeds + [feeds[-1]] * (steps_per_dispatch - len(feeds)))

    make_state, many_updates = programs(model, source)
    seed_bits = np.uint32(seed)
    first_feeds = feeder([feeder.read(source, 0)])
    abstract = jax.eval_shape(make_state, seed_bits, resident, first_feeds)
    padding = Padding(abstract, mesh, model.rules)
    layout = padding.layout
    if note := mesh_lib.replication_note(padding.stored, mesh, model.rules):
      report(note)
    dispatch = jax.jit(padding.around(many_updates), donate_argnums=0, out_shardings=(layout, replicated))

    restored = checkpoints.restore(padding.stored, layout, sizes=padding.sizes) if checkpoints else None
    if restored:
      state, step, converged_at = restored
    else:
      state = jax.jit(padding.of(make_state), out_shardings=layout)(seed_bits, resident, first_feeds)
      if initial:
        state = padding.grown(mesh_lib.placed(initial(padding.cut(state)), padding.whole_layout))
      step, converged_at = 0, None
    del first_feeds
    if started:
      started(step)
    if signals:
      stack.enter_context(signals.deferred())

    unread: collections.deque[Any] = collections.deque()  # Dispatches whose metrics were not fetched yet.

    def read_metrics(keep: int) -> None:
      """Fetches all but the newest `keep` dispatches, checks them and passes them on."""
      nonlocal converged_at
      while len(unread) > keep:
        start, stop, metrics = unread.popleft()
        metrics = {name: np.asarray(value)[:stop - start] for name, value in metrics.items()}
        _check_finite(metrics, start, checkpoints)
        if converged_at is None and metrics.get("converged", np.zeros(1))[-1] > 0:
          converged_at = stop
        rates = clock.rates(stop)
        if progress:
          progress(stop, _means(metrics, 0, stop - start) | rates)
        if write and log_every:
          first = start
          for step in range((start // log_every + 1) * log_every, stop + 1, log_every):
            write(step, _means(metrics, first - start, step - start) | rates)
            first = step

    def save() -> None:
      if checkpoints:
        read_metrics(keep=0)  # Nothing is saved before it is known to be finite.
        checkpoints.save(step, state, converged_at, scores, padding.sizes)

    clock, timer = _Clock(began, source.batch_size), Timer(save_minutes)
    saved_at = step if restored else None
    keeps_best = checkpoints is not None and checkpoints.keeps_best
    scores: Mapping[str, float] = {}
    spans = _spans(step, steps, steps_per_dispatch)
    # There is nothing to read ahead where every batch is the whole set.
    fed: Any = ((span, {}) for span in spans) if source.whole else prefetch(spans, feeds_of)
    try:
      while converged_at is None or step <= converged_at:
        waiting = time.perf_counter()
        start_stop, feeds = next(fed, (None, None))
        if start_stop is None:
          break
        clock.waited += time.perf_counter() - waiting
        start, step = start_stop
        if profiler:
          profiler.before(step)
        numbers = np.arange(start, start + steps_per_dispatch, dtype=np.int32)
        state, metrics = dispatch(state, seed_bits, numbers, np.int32(step - start), resident, feeds)
        unread.append((start, step, metrics))
        if profiler:
          profiler.after(step, metrics)
        read_metrics(keep=1)  # One dispatch late: the device never waits for the host.

        scores = {}
        if evaluate and (_due(eval_every, start, step) if step < steps else keeps_best):
          read_metrics(keep=0)
          with clock.paused():
            scores = evaluate(padding.cut(state), step)
          if write:
            write(step, scores)
        signal_name = signals.received() if signals else None
        if signal_name or _due(save_every, start, step) or (scores and keeps_best) or timer.is_up():
          with clock.saving():
            save()
          timer.restart()
          saved_at = step
        if signal_name and step < steps:
          if checkpoints:
            checkpoints.wait()
          raise Stopped(step, signal_name, saved=bool(checkpoints))
    finally:
      fed.close()
      if profiler:
        profiler.close()
    read_metrics(keep=0)
    if checkpoints:
      if saved_at != step:
        save()
      checkpoints.wait()
    if signals and checkpoints and (signal_name := signals.received()):
      raise Stopped(step, signal_name, saved=True)
    return padding.cut(state)


def programs(model: Model, source: Source) -> tuple[Callable, Callable]:
  """Returns the programs that the loop compiles: `(seed, resident, feeds) -> state`, and many updates in one
  dispatch,
  `(state, seed, numbers, count, resident, feeds) -> (state, metrics)`, of the first `count` of k steps `numbers`
  [k], so that one program serves the shorter dispatches too; metrics are [k]."""
  return _programs(model.init, model.update, source.assemble, tuple(source.shared))


@functools.lru_cache(maxsize=2)  # So that the next training of a model in this process finds it traced and compiled.
def _programs(init: Callable, update: Callable, assemble: Callable,
              shared: tuple[str, ...]) -> tuple[Callable, Callable]:
  def batch_of(resident, feed):
    batch = assemble(resident, feed)
    return {name: constrain(value, P() if name in shared else P(DATA_AXES)) for name, value in batch.items()}

  def make_state(seed, resident, feeds):
    rng = jax.random.split(jax.random.key(seed))[0]
    return init(rng, batch_of(resident, jax.tree.map(lambda x: x[0], feeds)))

  def many_updates(state, seed, numbers, count, resident, feeds):
    root = jax.random.split(jax.random.key(seed))[1]

    @jax.jit  # Traced once.
    def one_update(state, number, feed):
      return update(state, batch_of(resident, feed), jax.random.fold_in(root, number))

    def step_at(i):
      return jax.tree.map(lambda x: x[i], (numbers, feeds))

    if len(numbers) == 1:  # Outside of a loop XLA's CPU convolutions are three times as fast.
      state, metrics = one_update(state, *step_at(0))
      return state, jax.tree.map(lambda x: x[None], metrics)

    def body(i, carry):
      state, metrics = carry
      state, new = one_update(state, *step_at(i))
      return state, jax.tree.map(lambda all, one: all.at[i].set(one), metrics, new)

    shapes = jax.eval_shape(one_update, state, *step_at(0))[1]
    metrics = jax.tree.map(lambda x: jnp.zeros((len(numbers), *x.shape), x.dtype), shapes)
    return jax.lax.fori_loop(0, count, body, (state, metrics))

  return make_state, many_updates


def _spans(step: int, steps: int, size: int):
  """`(start, stop)` of every dispatch; they end at multiples of `size`, wherever the run began."""
  while step < steps:
    stop = min((step // size + 1) * size, steps)
    yield step, stop
    step = stop


def _means(metrics: Mapping[str, np.ndarray], first: int, last: int) -> dict[str, float]:
  """Means over some of a dispatch's updates; in one piece, for small models make thousands of them a second."""
  table = np.stack([value[first:last] for value in metrics.values()])
  return dict(zip(metrics, table.mean(1, dtype=np.float64).tolist()))


def _due(every: int, start: int, stop: int) -> bool:
  return bool(every) and start // every != stop // every


def _check_finite(metrics: Mapping[str, np.ndarray], start: int, checkpoints: Checkpoints | None) -> None:
  for name in MUST_BE_FINITE:
    bad = np.flatnonzero(~np.isfinite(metrics.get(name, np.zeros(1))))
    if len(bad):
      if checkpoints:
        checkpoints.wait()  # The last good one may still be on its way.
      kept = f"; the last good checkpoint is step {checkpoints.latest()}" if checkpoints else ""
      raise NonFiniteLoss(f"{name} is {metrics[name][bad[0]]} in update {start + bad[0] + 1}: look at the batches of "
                          f"steps {max(start + bad[0] - 1, 0)} to {start + bad[0]}, and at the learning rate{kept}")


class _Clock:
  """Rates since the run (re)started, without the time of evaluations and of compiling; and `goodput`, the share of
  all of this process's time in which it made steps: not compiling, restoring, evaluating, saving or waiting for data.
  """

  def __init__(self, began: float, batch_size: int):
    self.waited = 0.0
    self._batch_size, self._whole_began = batch_size, began
    self._first: int | None = None
    self._began = self._lost = 0.0

  def rates(self, stop: int) -> dict[str, float]:
    now = time.perf_counter()
    if self._first is None:  # The first dispatch compiles.
      self._first, self._began, self.waited = stop, now, 0.0
      self._lost = now - self._whole_began
      return {}
    seconds = max(now - self._began, 1e-9)
    rate = (stop - self._first) / seconds
    whole = max(now - self._whole_began, 1e-9)
    return {"steps_per_second": rate, "examples_per_second": rate * self._batch_size,
            "data_wait_fraction": self.waited / seconds,
            "goodput": max(0.0, 1 - (self._lost + self.waited) / whole)}

  @contextlib.contextmanager
  def paused(self):
    """Counts the block for nothing but the whole time."""
    start = time.perf_counter()
    try:
      yield
    finally:
      seconds = time.perf_counter() - start
      self._began += seconds
      self._lost += seconds

  @contextlib.contextmanager
  def saving(self):
    """Counts the block as lost time; it is part of what the rates are of."""
    start = time.perf_counter()
    try:
      yield
    finally:
      self._lost += time.perf_counter() - start
