"""The loop: absolute steps, metrics one dispatch late, evaluation, convergence, failures, signals."""
import os
import signal
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax.data.sources import array_source
from embeddings_jax.models.mixtures.gmm import gmm
from embeddings_jax.train import loop as loop_lib
from embeddings_jax.train import signals as signals_lib
from embeddings_jax.train.checkpoints import Checkpoints
from embeddings_jax.train.loop import NonFiniteLoss, Stopped, train
from embeddings_jax.train.signals import Interrupted, Signals
from embeddings_jax.types import InputError, Model


class SumState(NamedTuple):
  total: jax.Array
  noise: jax.Array
  step: jax.Array


def summing_model(bad_at=None, converged_at=None):
  """Adds up what it sees; the noise depends on every rng that it was given."""
  def init(rng, batch):
    return SumState(jnp.zeros(()), jax.random.normal(rng), jnp.zeros((), jnp.int32))

  def update(state, batch, rng):
    total = state.total + (batch["x"] * batch["mask"]).sum()
    new = SumState(total, 0.9 * state.noise + jax.random.normal(rng), state.step + 1)
    metrics = {"loss": jnp.where(new.step == (bad_at or -1), jnp.nan, new.step.astype(jnp.float32))}
    if converged_at is not None:
      done = state.step >= converged_at
      new = jax.tree.map(lambda a, b: jnp.where(done, a, b), state, new)
      metrics["converged"] = (new.step >= converged_at).astype(jnp.float32)
    return new, metrics

  return Model(init, update, lambda state, batch: batch["x"][:, None])


def numbers(**options):
  return array_source({"x": np.arange(12, dtype=np.float32)}, 4, seed=5, **options)


def test_every_row_is_seen_once_a_pass(mesh_of):
  state = train(summing_model(), numbers(), steps=6, mesh=mesh_of())
  assert float(state.total) == 2 * np.arange(12).sum()
  assert int(state.step) == 6


@pytest.mark.parametrize("resident", [True, False])
def test_dispatches_change_nothing_but_speed(mesh_of, resident):
  runs = [train(summing_model(), numbers(resident=resident), steps=11, steps_per_dispatch=k, mesh=mesh_of())
          for k in (1, 4, 11)]
  for state in runs[1:]:
    chex.assert_trees_all_equal(runs[0], state)


def test_update_is_traced_once_for_all_trainings_of_a_model(mesh_of):
  model = summing_model()
  chex.clear_trace_counter()  # It knows functions by their source.
  model = model._replace(update=chex.assert_max_traces(model.update, n=1))
  source = numbers()
  for steps in (18, 20):  # The last dispatch of 18 is shorter.
    train(model, source, steps=steps, steps_per_dispatch=5, mesh=mesh_of())


def test_logs_and_evaluations_are_due_by_the_absolute_step(mesh_of):
  written, evaluated = [], []
  train(summing_model(), numbers(), steps=20, steps_per_dispatch=4, log_every=6, eval_every=10, mesh=mesh_of(),
        write=lambda step, record: written.append((step, record)),
        evaluate=lambda state, step: evaluated.append((step, int(state.step))) or {"score": 1.0})
  losses = [(step, record["loss"]) for step, record in written if "loss" in record]
  # Means since the last record, within the dispatch: of 5 and 6, of 9 to 12, of 17 and 18.
  assert losses == [(6, 5.5), (12, 10.5), (18, 17.5)]
  assert evaluated == [(12, 12)]  # The last step is evaluated by whoever called the loop.


def test_where_the_best_is_kept_what_is_evaluated_is_saved_and_the_last_step_too(mesh_of, tmp_path):
  checkpoints = Checkpoints(str(tmp_path / "c"), keep=1, best_metric="score")
  score = {8: 0.3, 12: 0.9, 16: 0.4, 18: 0.5}
  train(summing_model(), numbers(), steps=18, steps_per_dispatch=4, eval_every=6, mesh=mesh_of(),
        checkpoints=checkpoints, evaluate=lambda state, step: {"score": score[step]})
  assert (checkpoints.latest(), checkpoints.best()) == (18, 12)
  checkpoints.close()


def test_resumed_equals_uninterrupted_and_more_steps_continue(mesh_of, tmp_path):
  whole = train(summing_model(), numbers(), steps=17, steps_per_dispatch=3, mesh=mesh_of())
  started = []
  for steps in (4, 10, 17):
    checkpoints = Checkpoints(str(tmp_path / "c"))
    state = train(summing_model(), numbers(), steps=steps, steps_per_dispatch=3, mesh=mesh_of(),
                  checkpoints=checkpoints, save_every=3, started=started.append)
    checkpoints.close()
  assert started == [0, 4, 10]
  chex.assert_trees_all_equal(whole, state)


def test_a_finished_run_is_left_as_it_is(mesh_of, tmp_path):
  for _ in range(2):
    checkpoints = Checkpoints(str(tmp_path / "c"))
    state = train(summing_model(), numbers(), steps=5, mesh=mesh_of(), checkpoints=checkpoints)
    checkpoints.close()
  assert int(state.step) == 5


@pytest.mark.parametrize("save_every", [0, 1, 3])
def test_convergence_ends_one_dispatch_later(mesh_of, tmp_path, save_every):
  checkpoints = Checkpoints(str(tmp_path / "c"), keep=100)
  shown = []
  state = train(summing_model(converged_at=5), numbers(), steps=50, steps_per_dispatch=3, mesh=mesh_of(),
                checkpoints=checkpoints, save_every=save_every, progress=lambda step, record: shown.append(step))
  assert int(state.step) == 5
  assert shown == [3, 6, 9] and checkpoints.latest() == 9
  checkpoints.close()


def test_convergence_is_remembered_by_checkpoints(mesh_of, tmp_path):
  """Interrupted right after the dispatch that converged, the run ends where it would have ended."""
  import shutil
  checkpoints = Checkpoints(str(tmp_path / "c"), keep=100)
  train(summing_model(converged_at=5), numbers(), steps=50, steps_per_dispatch=3, mesh=mesh_of(),
        checkpoints=checkpoints, save_every=3)
  checkpoints.close()
  shutil.rmtree(tmp_path / "c" / "9")
  checkpoints = Checkpoints(str(tmp_path / "c"), keep=100)
  train(summing_model(converged_at=5), numbers(), steps=50, steps_per_dispatch=3, mesh=mesh_of(),
        checkpoints=checkpoints, save_every=3)
  assert checkpoints.latest() == 9
  checkpoints.close()


def test_non_finite_loss_names_the_update_and_keeps_the_last_good_checkpoint(mesh_of, tmp_path):
  checkpoints = Checkpoints(str(tmp_path / "c"))
  with pytest.raises(NonFiniteLoss, match=r"loss is nan in update 8: .*steps 6 to 7.*last good checkpoint is step 6"):
    train(summing_model(bad_at=8), numbers(), steps=20, steps_per_dispatch=3, save_every=3, mesh=mesh_of(),
          checkpoints=checkpoints)
  checkpoints.close()


@pytest.mark.parametrize("number,code", [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_signals_save_and_stop(mesh_of, tmp_path, number, code):
  checkpoints = Checkpoints(str(tmp_path / "c"))

  def send(step, record):
    if step == 4:
      os.kill(os.getpid(), number)

  with Signals() as signals, pytest.raises(Stopped, match="received: saved at step") as stopped:
    train(summing_model(), numbers(), steps=50, steps_per_dispatch=2, mesh=mesh_of(), checkpoints=checkpoints,
          progress=send, signals=signals)
  assert stopped.value.exit_code == code
  assert checkpoints.latest() == stopped.value.step == 6
  checkpoints.close()
  assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_signal_in_the_last_save_stops_the_run_before_its_evaluation(mesh_of, tmp_path, monkeypatch):
  checkpoints = Checkpoints(str(tmp_path / "c"))
  wait = checkpoints.wait
  monkeypatch.setattr(checkpoints, "wait", lambda: (os.kill(os.getpid(), signal.SIGTERM), wait()))
  with Signals() as signals, pytest.raises(Stopped, match="SIGTERM received: saved at step 6") as stopped:
    train(summing_model(), numbers(), steps=6, mesh=mesh_of(), checkpoints=checkpoints, signals=signals)
  checkpoints.close()
  assert stopped.value.exit_code == 75 and checkpoints.newest_sound() == 6


@pytest.mark.parametrize("number,code", [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_outside_of_the_loop_a_signal_interrupts_at_once(number, code):
  with Signals(), pytest.raises(Interrupted, match=f"{number.name} received: stopped") as stopped:
    os.kill(os.getpid(), number)
  assert stopped.value.exit_code == code


def test_a_signal_that_comes_too_late_for_the_loop_is_not_lost():
  reached = []
  with Signals() as signals, pytest.raises(Interrupted):
    with signals.deferred():
      os.kill(os.getpid(), signal.SIGUSR1)
      reached.append("end of the block")
    reached.append("next statement")
  assert reached == ["end of the block"]


def test_a_second_ctrl_c_interrupts_at_once():
  reached = []
  with Signals() as signals, pytest.raises(Interrupted), signals.deferred():
    os.kill(os.getpid(), signal.SIGINT)
    reached.append("first")
    os.kill(os.getpid(), signal.SIGINT)
    reached.append("second")
  assert reached == ["first"]


def test_a_failing_source_is_raised_where_its_batch_is_due(mesh_of):
  source = numbers(resident=False)

  def feed_at(step, rows=slice(None)):
    if step == 3:
      raise InputError("row 3 is broken")
    return source.feed_at(step, rows)

  shown = []
  with pytest.raises(InputError, match="row 3 is broken"):
    train(summing_model(), source._replace(feed_at=feed_at), steps=9, mesh=mesh_of(),
          progress=lambda step, record: shown.append(step))
  assert shown == [1, 2]


def test_a_batch_that_the_mesh_does_not_divide_is_refused(mesh_of):
  with pytest.raises(InputError, match="batch_size=4: must be a multiple of the 8 data shards"):
    train(summing_model(), numbers(), steps=1, mesh=mesh_of("data:8"))


def test_the_library_in_ten_lines(mesh_of):
  x = np.concatenate([np.random.default_rng(0).normal(c, 1, (100, 2)) for c in (0, 10)]).astype(np.float32)
  model = gmm(num_components=2)
  state = train(model, array_source({"x": x}), steps=50, mesh=mesh_of())
  resp = model.embed(state, {"x": x})
  assert (np.asarray(resp)[:100].argmax(1) == np.asarray(resp)[0].argmax()).all()


def test_a_timer_counts_minutes_of_the_clock(monkeypatch):
  now = [100.0]
  monkeypatch.setattr(signals_lib.time, "monotonic", lambda: now[0])
  timer, never = signals_lib.Timer(0.5), signals_lib.Timer(0)
  seen = []
  for now[0] in (129.9, 130.0, 131.0):
    seen.append(timer.is_up())
  timer.restart()
  now[0] = 160.9
  assert seen == [False, True, True] and not timer.is_up() and not never.is_up()


def test_goodput_is_the_share_of_time_in_steps(monkeypatch):
  """In 100 seconds 10 went before the first dispatch was done, 20 to an evaluation, 5 to a save and 5 to waiting."""
  now = [0.0]
  monkeypatch.setattr(loop_lib.time, "perf_counter", lambda: now[0])
  clock = loop_lib._Clock(0.0, 4)
  now[0] = 10.0
  assert clock.rates(1) == {}
  with clock.paused():
    now[0] = 30.0
  with clock.saving():
    now[0] = 35.0
  clock.waited += 5
  now[0] = 100.0
  rates = clock.rates(15)
  assert rates["goodput"] == pytest.approx(0.6)
  assert rates["steps_per_second"] == pytest.approx(14 / 70)  # Saves are part of it, evaluations are not.
