"""Commands: `python -m experiments.NAME`."""
import os
import signal
import sys
import threading


def report(kind, error, trace):
  """Reports what ends a process; Ctrl-C during the imports of a command, which take seconds, has no traceback."""
  if issubclass(kind, KeyboardInterrupt):
    print("error: interrupted", file=sys.stderr)
  else:
    sys.__excepthook__(kind, error, trace)


def redeliver(unraisable) -> None:
  """Sends a signal again whose exception fell into a callback that cannot raise, as of the garbage collector.

  Args:
    unraisable: Argument of `sys.unraisablehook`, which this function becomes.
  """
  if not isinstance(unraisable.exc_value, KeyboardInterrupt):
    sys.__unraisablehook__(unraisable)
    return
  number = getattr(unraisable.exc_value, "number", signal.SIGINT)
  timer = threading.Timer(0.05, os.kill, (os.getpid(), number))  # When the callback has ended.
  timer.daemon = True
  timer.start()


if sys.argv[:1] == ["-m"]:  # `python -m` looks for the command; nobody else's hooks are replaced.
  sys.excepthook, sys.unraisablehook = report, redeliver
