"""Guarded reading of JSON: encoding, depth and types are checked, and every error names the file."""
import json
import os
from typing import Any

from etils import epath

from embeddings_jax.types import InputError

_NAMES = {dict: "an object", list: "a list", str: "a string", int: "an integer", float: "a number", bool: "a boolean"}
_REQUIRED = object()


def parse_json(data: bytes | str, where: object, kind: type = dict) -> Any:
  """Parses JSON from a file that nobody has checked.

  Args:
    data: The text, or its UTF-8 bytes; a byte order mark is skipped.
    where: Name of the file (and line) for error messages.
    kind: Required type of the value; `object` accepts any.

  Raises:
    InputError: Not UTF-8, not JSON, nested too deeply, or a value of another type.
  """
  try:
    value = json.loads(data.decode("utf-8-sig") if isinstance(data, bytes) else data.removeprefix("\ufeff"))
  except UnicodeDecodeError as error:
    raise InputError(f"{where}: not UTF-8 at byte {error.start}") from error
  except RecursionError as error:
    raise InputError(f"{where}: JSON nested too deeply") from error
  except ValueError as error:
    raise InputError(f"{where}: not JSON ({error})") from error
  if not isinstance(value, kind):
    raise InputError(f"{where}: holds {_described(value)}, expected {_NAMES[kind]}")
  return value


def read_json(path: str | os.PathLike, kind: type = dict) -> Any:
  """Reads a JSON file; see `parse_json`.

  Raises:
    InputError: The file cannot be read, or as in `parse_json`.
  """
  try:
    data = epath.Path(path).read_bytes()
  except FileNotFoundError as error:
    raise InputError(f"{path}: no such file") from error
  except OSError as error:
    raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
  return parse_json(data, path, kind)


def json_field(record: dict[str, Any], name: str, kind: type, where: object, default: Any = _REQUIRED) -> Any:
  """Returns a field of a JSON object after checking its type.

  Args:
    record: The object.
    name: Key of the field.
    kind: Required type; `float` accepts integers, `int` refuses booleans.
    where: Name of the file for error messages.
    default: Value of an absent or null field; without it the field is required.

  Raises:
    InputError: The field is absent and required, or has another type.
  """
  value = record.get(name)
  if value is None:
    if default is _REQUIRED:
      raise InputError(f"{where}: has no field {name!r}")
    return default
  accepted = (int, float) if kind is float else kind
  if not isinstance(value, accepted) or (isinstance(value, bool) and kind in (int, float)):
    raise InputError(f"{where}: field {name!r} holds {_described(value)}, expected {_NAMES[kind]}")
  return value


def _described(value: Any) -> str:
  if value is None:
    return "null"
  return _NAMES.get(type(value), type(value).__name__)
