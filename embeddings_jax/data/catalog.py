"""Datasets by name: files, checksums, licenses, origins, and how they are read.

A name is looked up in `datasets/`, then as `tfds:<name>[/config][:split]`, then as a path or a glob of the user's own
files, or as `FILE.py:FUNCTION`, which yields documents.
"""
import difflib
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from embeddings_jax import extensions
from embeddings_jax.data import formats, own
from embeddings_jax.data.cache import cache_root, digest
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.datasets.base import Entry, Place
from embeddings_jax.data.files.dialects import RECOGNIZED
from embeddings_jax.data.images import check_options
from embeddings_jax.errors import InputError


class Available(NamedTuple):
  name: str
  kind: str
  where: str
  description: str
  license: str


def load(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
    errors: str = "strict",
    missing: str = "",
    allow_code: bool = False,
    documents: str = "line",
    field: str = "",
    table: formats.TableOptions = RECOGNIZED,
    rate: int = 0,
    **image_options: Any,
) -> Dataset:
  """Loads a dataset.

  Args:
    name: A name of the catalog (`available()`), `tfds:<name>[/config][:split]`, a path or glob, or
      `FILE.py:FUNCTION`.
    data_dir: folder of the catalog's files; default `$EMBEDDINGS_DATA`.
    cache_dir: folder of what is derived; default `$EMBEDDINGS_CACHE`, then `~/.cache/embeddings_jax`.
    errors: `strict` refuses text that is not UTF-8, `replace` puts replacement characters.
    missing: what to do with rows that lack a value: `error`, `drop` (leave them out) or `marginalize` (keep them,
      with NaN); by default the tables of the catalog are without such rows, and files that have some are refused.
    allow_code: Whether `FILE.py:FUNCTION` may run; only for a name that the user has given himself.
    documents: End of a document of the user's plain text: `line`, `blank` (line) or `auto`; see `own.load_path`.
    field: Field of JSON objects with the text; see `read_json_documents`.
    table: Columns and marks of the user's tables; see `TableOptions`.
    rate: Samples per second that the user's sound is resampled to; 0: as it is.
    **image_options: Options for image files: `image_size`, `channels` and `bad`; see `images.decoded`.

  Raises:
    InputError: an unknown name, a missing, damaged or empty file.
  """
  name = str(name)
  cache_dir = cache_root(cache_dir)
  check_options(**image_options)
  if documents not in own.DOCUMENTS:
    raise InputError(f"documents={documents}: must be one of {', '.join(own.DOCUMENTS)}")
  if entry := entries().get(name):
    files = {file: formats.checked_file(data_dir, file, checksum) for file, checksum in entry.files.items()}
    return entry.load(name, Place(files, cache_dir, errors, digest(name, dict(entry.files), errors),
                                  missing, image_options))
  if name.startswith("tfds:"):
    from embeddings_jax.data.tfds import load_tfds  # TFDS takes a while to import.

    return load_tfds(name, data_dir=data_dir, cache_dir=cache_dir, **image_options)
  if re.search(r"\.py:\w+$", name):
    if not allow_code:
      raise InputError(f"{name}: is code, which a recorded config cannot run; if you trust it, give data={name}")
    return own.load_function(name, cache_dir)
  if os.path.exists(os.path.expanduser(name)) or re.search(r"[/\\*?\[]|\.\w{1,5}$", name):
    return own.load_path(name, cache_dir, errors, missing, documents, field, table, rate, **image_options)
  near = difflib.get_close_matches(name.lower(), entries(), n=1, cutoff=0.4)
  hint = f"did you mean {near[0]!r}? " if near else ""
  raise InputError(f"data={name}: unknown dataset; {hint}catalog.available() lists them; files are given by their "
                   "path")


def available(data_dir: str | os.PathLike | None = None) -> list[Available]:
  """The catalog, each entry with where it is: `embedded`, the data directory, or which file is missing."""
  data_dir = data_dir or os.environ.get("EMBEDDINGS_DATA")
  listed = []
  for name, entry in entries().items():
    missing = [file for file in entry.files if not data_dir or not (Path(data_dir).expanduser() / file).is_file()]
    where = "embedded" if not entry.files else f"missing: {missing[0]}" if missing else str(data_dir)
    listed.append(Available(name, entry.kind, where, entry.description, entry.license))
  return listed


def entries() -> dict[str, Entry]:
  """Returns the entries of the catalog by name: those of `datasets/`, and of the folders that were added."""
  tables = [module.DATASETS for module in extensions.modules("datasets") if hasattr(module, "DATASETS")]
  return {name: entry for table in reversed(tables) for name, entry in table.items()}
