"""The error that users see as one line, and checks that raise it. Imports nothing, so that commands start at once."""
import difflib
from collections.abc import Sequence

PROGRESS = "embeddings_jax.progress"  # Name of the logger of how far long readings are.


class InputError(ValueError):
  """Something the user gave is wrong; the message is one line that says what, where and what to do."""


def check_choice(what: str, value: str, choices: Sequence[str]) -> None:
  """Raises an `InputError` that names the nearest choice unless `value` is one of them."""
  if value not in choices:
    raise InputError(f"{what}={value}: unknown; {nearest(value, choices)}one of {', '.join(choices)}")


def nearest(value: str, choices: Sequence[str]) -> str:
  """Returns `did you mean ...? `, or nothing where no choice is similar."""
  close = difflib.get_close_matches(value, choices, n=1)
  return f"did you mean {close[0]}? " if close else ""
