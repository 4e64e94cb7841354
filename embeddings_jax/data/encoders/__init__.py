"""Encoders: items (rows, images, words, texts, clips, nodes) to batches, one module per kind of items.

A module is named after its class's `kind`; see `base.py` for the interface.
"""
import inspect
import os

from etils import epath

from embeddings_jax import extensions
from embeddings_jax.data.encoders.base import Encoder
from embeddings_jax.data.files.json import json_field, read_json
from embeddings_jax.errors import InputError, check_choice


def find(kind: str) -> type[Encoder]:
  """Returns the class of a kind of encoders.

  Raises:
    InputError: There is no such kind.
  """
  module = extensions.find("encoders", kind)
  for value in vars(module).values() if module else ():
    if isinstance(value, type) and issubclass(value, Encoder) and vars(value).get("kind") == kind:
      return value
  check_choice("encoder", kind, [name for name in extensions.names("encoders") if name != "base"])
  raise InputError(f"encoder={kind}: unknown")


def load_encoder(folder: str | os.PathLike) -> Encoder:
  """Loads the encoder saved in a folder.

  Raises:
    InputError: No encoder, a damaged one, or one of an unknown kind.
  """
  folder = epath.Path(folder)
  path = folder / "preprocess.json"
  if not path.exists():
    raise InputError(f"{folder}: is no encoder, preprocess.json is missing; give the folder `encoder` of a run")
  options = read_json(path)
  kind = json_field(options, "kind", str, path)
  try:
    cls = find(kind)
  except InputError as error:
    raise InputError(f"{path}: {error}") from error
  known = inspect.signature(cls.__init__).parameters
  options = {key: value for key, value in options.items() if key != "kind"}
  if unknown := sorted(set(options) - set(known)):
    raise InputError(f"{path}: {kind} has no option {unknown[0][:60]!r}")
  try:
    return cls.from_files(options, folder)
  except (OSError, ArithmeticError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise InputError(f"{folder}: damaged encoder ({' '.join(str(error).split())[:300]})") from error
