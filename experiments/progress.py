"""Progress for people: a bar on a terminal, plain lines elsewhere."""
import sys
import time
from collections.abc import Mapping

SECONDS_BETWEEN_LINES = 10.0


class Progress:
  """Shows step, loss, rate and remaining time; of other work than training the share that is done."""

  def __init__(self, steps: int, unit: str = "steps"):
    self._steps, self._unit, self._bar, self._task = steps, unit, None, None
    self._shown = time.perf_counter()

  def _start(self) -> None:
    """Not before there is something to show: what is found in the cache draws no bar."""
    from rich import progress

    self._bar = progress.Progress(
        progress.BarColumn(), progress.MofNCompleteColumn(), progress.TextColumn("{task.description}"),
        progress.TimeRemainingColumn())
    self._task = self._bar.add_task("", total=self._steps)
    self._bar.start()

  def show(self, step: int, record: Mapping[str, float]) -> None:
    rate = record.get("steps_per_second", 0.0)
    text = f"loss {record['loss']:.4g}  {rate:.3g} steps/s" if record else f"{self._unit} {step / self._steps:.0%}"
    if not self._bar and sys.stdout.isatty():
      self._start()
    if self._bar:
      self._bar.update(self._task, completed=step, description=text)
      return
    now = time.perf_counter()
    if now - self._shown < SECONDS_BETWEEN_LINES:
      return
    self._shown = now
    left = f"  {(self._steps - step) / rate:.0f} s left" if rate else ""
    print(f"step {step}/{self._steps}  {text}{left}" if record else text, flush=True)

  def close(self) -> None:
    if self._bar:
      self._bar.stop()


class Preparation:
  """Shows the progress of preparing data: called with a unit, and the done and total numbers of it."""

  def __init__(self):
    self._unit, self._shown = "", None

  def __call__(self, unit: str, done: int, total: int) -> None:
    if unit != self._unit:
      self.close()
      self._unit, self._shown = unit, Progress(total, unit)
    self._shown.show(done, {})

  def close(self) -> None:
    if self._shown:
      self._shown.close()
    self._unit, self._shown = "", None


class Training:
  """Shows the progress of a training: called with the step, the steps in all, and metrics."""

  def __init__(self):
    self._shown = None

  def __call__(self, step: int, steps: int, record: Mapping[str, float]) -> None:
    if not self._shown:
      self._shown = Progress(steps)
    self._shown.show(step, record)

  def close(self) -> None:
    if self._shown:
      self._shown.close()
