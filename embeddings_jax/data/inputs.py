"""What the user wants embedded: a file, read as the items of a run's encoder."""
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embeddings_jax.data import formats, own
from embeddings_jax.types import InputError


def read_items(path: str, encoder_kind: str, errors: str = "strict", gaps: bool = False,
               columns: Sequence[str] | None = None) -> list[Any]:
  """Items of a file for an encoder, in order; each becomes one row of the result.

  Args:
    path: `rows`: .csv, .tsv or .npy; `images`: .npy (uint8 [n, height, width, channels]), a picture file, a folder or
      glob of them; `words`, `bags`, `bytes`, `subwords` and `characters`: text, an item a line (a blank line is an
      empty item, so that rows stay aligned with lines); `waveforms`: a wav, a folder or glob of them, or a text file
      with the path of one a line, relative to that file.
    encoder_kind: `Encoder.kind`.
    errors: as for `catalog.load`.
    gaps: rows may lack values.
    columns: Names of the features. A table with a header gives them in this order, whatever its own is; it may have
      further columns.
  """
  path = str(path)
  if encoder_kind in ("words", "bags", "bytes", "subwords", "characters"):
    files = own.list_files(path)
    for file in files:
      own.check_text(file)
    items = [line for file in files for line in formats.read_lines(file, errors)]
    if not any(items):
      raise InputError(f"{path}: is empty, it has no text")
    return items
  if encoder_kind == "rows":
    file = _one_file(path)
    table = own.read_rows(file, gaps, errors)
    if not columns or not table.columns or list(columns) == list(table.columns):
      return list(table.rows)
    missing = [name for name in columns if name not in table.columns]
    if missing or len(set(table.columns)) < len(table.columns):
      what = f"has no column {formats.quoted(missing[0])}" if missing else "has two columns of one name"
      raise InputError(f"{file}: {what}; the run's columns are {', '.join(columns)[:200]}")
    return list(table.rows[:, [table.columns.index(name) for name in columns]])
  if encoder_kind == "images":
    files = own.list_files(path)
    if files[0].suffix == ".npy":
      pictures = formats.load_npy(files[0])
      if pictures.ndim < 2 or pictures.dtype.kind not in "fiub":
        raise InputError(f"{files[0]}: holds {pictures.dtype} {list(pictures.shape)}, should be uint8 [n, height, "
                         "width, channels]")
      return list(pictures)
    pictures = [file for file in files if own.file_kind(file) == "images"]
    return [str(file) for file in pictures or files]  # A readme beside pictures is none.
  if encoder_kind == "waveforms":
    files = own.list_files(path)
    if len(files) == 1 and own.file_kind(files[0]) in ("text", "unknown"):
      lines = [line.strip() for line in formats.read_lines(files[0], errors)]
      clips = [files[0].parent / line for line in lines if line]
    else:
      clips = [file for file in files if own.file_kind(file) == "audio"]
    if not clips:
      raise InputError(f"{path}: has no wav file, nor a list of them")
    return [str(clip) for clip in clips]
  raise InputError(f"{path}: nothing is known of the encoder {encoder_kind!r}")


def _one_file(path: str) -> Path:
  files = own.list_files(path)
  if len(files) > 1:
    raise InputError(f"{path}: {len(files)} files, give one")
  return files[0]
