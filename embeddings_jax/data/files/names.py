"""Lists of names, one a line: words of a vocabulary, titles of documents.

Lines end in a line feed alone: a name may hold U+2028 or another character at which `str.splitlines` would split.
"""
import os
from collections.abc import Iterable

from etils import epath

from embeddings_jax.types import InputError


def format_names(names: Iterable[object]) -> str:
  """Returns the text of a list; a line feed or carriage return within a name becomes a space."""
  return "".join(str(name).replace("\r\n", " ").replace("\n", " ").replace("\r", " ") + "\n" for name in names)


def read_names(path: str | os.PathLike, errors: str = "strict") -> list[str]:
  """Reads a list; a byte order mark and carriage returns at the ends of lines are dropped.

  Args:
    path: UTF-8 text.
    errors: `strict` refuses text that is not UTF-8, `replace` puts replacement characters.

  Raises:
    InputError: The file cannot be read or is not UTF-8.
  """
  try:
    text = epath.Path(path).read_bytes().decode("utf-8-sig", errors)
  except UnicodeDecodeError as error:
    raise InputError(f"{path}: not UTF-8 at byte {error.start}; errors=replace goes on") from error
  except OSError as error:
    raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
  return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []
