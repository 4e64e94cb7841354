"""The user's own data: text files and globs, tables of sentences or of numbers, .npy rows, .npz matrices, lda-c, wav,
idx, images, folders of them."""
import fnmatch
import glob
import importlib.util
import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embeddings_jax.data import formats, voc
from embeddings_jax.data.audio import resampled
from embeddings_jax.data.bags import load_lda_c
from embeddings_jax.data.cache import digest
from embeddings_jax.data.dataset import Dataset, content_digest, from_texts, without_gaps
from embeddings_jax.data.file_kinds import file_kind
from embeddings_jax.data.files.archives import archived_images
from embeddings_jax.data.files.arrays import first_not_finite, lossless
from embeddings_jax.data.files.arrow import read_arrow_table, without_descriptions
from embeddings_jax.data.files.dialects import RECOGNIZED, check_options
from embeddings_jax.data.files.row_buffer import joined
from embeddings_jax.data.images import by_folders, decoded
from embeddings_jax.data.matrix import load_matrix
from embeddings_jax.data.own_text import DOCUMENTS as DOCUMENTS
from embeddings_jax.data.own_text import load_pairs, load_plain, load_records, table_kind
from embeddings_jax.data.threads import map_in_order
from embeddings_jax.types import InputError


def load_path(path: str, cache_dir: Path, errors: str = "strict", missing: str = "", documents: str = "line",
              field: str = "", table: formats.TableOptions = RECOGNIZED, rate: int = 0,
              **image_options: Any) -> Dataset:
  """Loads a file, a folder or a glob.

  What the files hold follows from their names, and of tables also from their first lines
  (`own_text.table_kind`).

  Args:
    path: The file, the folder with its subfolders, or the glob.
    cache_dir: Folder of derived data.
    errors: `strict` refuses text that is not UTF-8, `replace` puts replacement characters.
    missing: What to do with rows that lack a value; see `without_gaps`.
    documents: Of plain text: each `line` is a document, or each `file`; or a `blank` line ends one, whose lines are
      its sentences, unless most documents are one line; `auto` is `blank` where a blank line stands between others,
      else `line`.
    field: Field of JSON objects, or column of a table, with the text; see `documents_of`.
    table: Options of tables of numbers; see `TableOptions`.
    rate: Samples per second that sound is resampled to; 0: as it is.
    **image_options: Options of `images.decoded`.

  Raises:
    InputError: No such file, files of several kinds, or a format that is not read.
  """
  if voc.is_voc(path):
    return voc.load_voc(path)
  files = without_descriptions(list_files(path))
  others = [file for file in files if file_kind(file) == "unknown"]
  if 0 < len(others) < len(files):  # A readme or license beside the data is not data.
    logging.warning("%s: %d of %d files are left out, whose names tell nothing that is read, as %s", path,
                    len(others), len(files), others[0].name)
    files = [file for file in files if file_kind(file) != "unknown"]
  kinds = sorted({file_kind(file) for file in files})
  if len(kinds) > 1:
    raise InputError(f"{path}: holds files of several kinds ({', '.join(kinds)}); choose one by a glob like *.txt")
  kind = kinds[0]
  check_options(table)
  if kind in ("rows", "arrow"):
    held = table_kind(path, files, errors, field)
    if held == "documents" or held == "sentences" and kind == "arrow":
      return load_records(path, files, cache_dir, errors, field)
    if held == "sentences":
      return load_pairs(path, files, errors)
    return _rows(path, files, missing or "error", errors, table, cache_dir)
  if kind in ("images", "archive"):
    return (_pictures if kind == "images" else _archived)(path, files, cache_dir, image_options)
  if kind == "audio":
    return _clips(path, files, rate)
  reader = {"idx": _idx, "matrix": load_matrix, "bags": load_lda_c}.get(kind)
  if reader:
    return reader(path, files)
  if kind == "json":
    return load_records(path, files, cache_dir, errors, field)
  return load_plain(path, files, cache_dir, errors, documents)


def load_function(name: str, cache_dir: Path) -> Dataset:
  """Runs `FILE.py:FUNCTION`, a function of the user's without arguments that yields documents, strings.

  The file is executed: callers pass a name only if the user gave it himself, see `catalog.load`.
  """
  file, _, function = name.rpartition(":")
  if not Path(file).expanduser().is_file():
    raise InputError(f"{name}: there is no file {file}")
  if Path(file).suffix != ".py":
    raise InputError(f"{name}: {file} is not a .py file; code is given as FILE.py:FUNCTION")
  spec = importlib.util.spec_from_file_location("data", Path(file).expanduser())
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not callable(getattr(module, function, None)):
    raise InputError(f"{name}: {file} defines no function {function}")
  return from_texts(getattr(module, function)(), name, cache_dir)


def list_files(path: str) -> list[Path]:
  """Lists the files of a path, of a folder with its subfolders, or of a glob, sorted.

  Links are followed. A folder that is reached a second time is named in a warning and left out, and so are links to
  nowhere. Hidden files and folders are left out.

  Raises:
    InputError: There are none, or a folder cannot be read.
  """
  location = Path(path).expanduser()
  if location.is_dir():
    files = list(_walked(location))
  elif location.exists():
    return [location]
  else:
    files = list(_matching(location))
  files = sorted(file for file in files if file.is_file())
  if not files:
    raise InputError(f"{path}: {'the folder has no files' if location.is_dir() else 'no such file'}")
  return files


def _walked(root: Path) -> Iterator[Path]:
  """Yields what is below a folder; folders that are no links come first, so that files keep their own names."""
  seen, waiting, links = {}, [root], []
  while waiting or links:
    folder = waiting.pop() if waiting else links.pop(0)
    try:
      status = folder.stat()
      identity = status.st_dev, status.st_ino
      if identity in seen:
        logging.warning("%s: is %s, which was read already, and is left out", folder, seen[identity])
        continue
      seen[identity] = folder
      entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
      for entry in entries:
        if entry.name.startswith("."):
          continue
        if entry.is_dir():
          (links if entry.is_symlink() else waiting).append(Path(entry.path))
        elif not entry.is_file() and entry.is_symlink():
          logging.warning("%s: is a link to nowhere, and is left out", entry.path)
        else:
          yield Path(entry.path)
    except OSError as error:
      raise InputError(f"{folder}: cannot be read ({error.strerror})") from error


def _matching(pattern: Path) -> Iterator[Path]:
  """Yields the files of a glob. With `**` folders are walked as `_walked` does, for links may lead in circles."""
  if "**" not in pattern.parts:
    yield from map(Path, glob.glob(str(pattern)))
    return
  first = pattern.parts.index("**")
  for root in glob.glob(str(Path(*pattern.parts[:first]))):
    yield from (file for file in _walked(Path(root)) if _fits(file.relative_to(root).parts, pattern.parts[first:]))


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
  """Returns whether the folders and name of a file match those of a glob; `**` is any number of folders."""
  if not pattern:
    return not parts
  if pattern[0] == "**":
    return any(_fits(parts[i:], pattern[1:]) for i in range(len(parts) + 1))
  return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def read_rows(file: Path, gaps: bool = False, errors: str = "strict",
              options: formats.TableOptions = RECOGNIZED, spill: Path | None = None) -> formats.Table:
  """Reads a table of numbers; with `gaps`, values may be missing (NaN). See `read_csv`."""
  if file_kind(file) == "arrow":
    return read_arrow_table(file, gaps, options, spill)
  if file.name.lower().endswith(".npy"):
    return formats.Table(formats.read_rows(file, gaps))
  return formats.read_csv(file, gaps, errors, options, spill)


def read_idx_pairs(
    files: Sequence[Path],
) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray], tuple[int, ...]]:
  """Images `[n, height * width]` in [0, 1], their labels, split and shape, from files named as MNIST's are."""
  images = [file for file in files if "labels" not in file.name]
  images.sort(key=lambda file: (not file.name.startswith("train"), file.name))
  if not images:
    raise InputError(f"{files[0]}: holds labels only, there is no idx file with images beside it")
  by_name = {_stem(file): file for file in files}
  rows, labels, split, start = [], [], {}, 0
  for file in images:
    values = formats.read_idx(file)
    flat = values.reshape(len(values), -1)
    rows.append(flat / np.float32(255) if values.dtype == np.uint8 else lossless(flat))
    bad = first_not_finite(rows[-1])
    if bad:
      raise InputError(f"{file}: image {bad[0]}, value {bad[1]} (from 0): {rows[-1][bad]} is not a finite number")
    partner = by_name.get(_stem(file).replace("images", "labels"))
    if partner and partner != file:
      classes = formats.read_idx(partner)
      if classes.dtype.kind not in "iu":
        raise InputError(f"{partner}: holds {classes.dtype}, labels are whole numbers")
      labels.append(classes.astype(np.int64))
      if labels[-1].shape != (len(values),):
        raise InputError(f"{partner}: has {list(labels[-1].shape)} labels for {len(values)} images of {file.name}")
    part = {"train": "train", "t10k": "test", "test": "test"}.get(file.name.split("-")[0])
    if part:
      split[part] = np.arange(start, start + len(values))
    start += len(values)
  if len({part.shape[1] for part in rows}) > 1:
    raise InputError(f"{images[0].parent}: the idx files have images of several sizes; choose one with a glob")
  complete = len(labels) == len(images)
  labels = {"class": np.concatenate(labels)} if complete else {}
  return np.concatenate(rows), labels, {} if set(split) == {"train"} else split, values.shape[1:]


def _rows(path: str, files: Sequence[Path], missing: str, errors: str, options: formats.TableOptions,
          cache_dir: Path) -> Dataset:
  tables = [read_rows(file, missing != "error", errors, options, cache_dir) for file in files]
  first = tables[0]
  for file, table in zip(files, tables):
    if table.rows.shape[1] != first.rows.shape[1]:
      raise InputError(f"{file}: has {table.rows.shape[1]} columns, {files[0]} has {first.rows.shape[1]}")
    if table.columns != first.columns and None not in (table.columns, first.columns):
      logging.warning("%s: has columns %s, %s has %s; they are joined by their order", file,
                      _named(table.columns), files[0], _named(first.columns))
  rows, names, integers = first.rows, first.names, first.integers
  if len(tables) > 1:
    rows = joined([table.rows for table in tables], cache_dir)
    names = None
    if all(table.names is not None for table in tables):
      names = [name for table in tables for name in table.names]
    # Where one file needs more than a float holds, the whole numbers of the others are exact.
    integers = {i: np.concatenate([_whole(table, i) for table in tables]) for i in sorted(
        {i for table in tables for i in table.integers}) if all(
            i in table.integers or (table.rows[:, i] == np.rint(table.rows[:, i])).all() for table in tables)}
  columns = f" ({_named(first.columns)})" if first.columns else ""
  note = f"{path}: {len(rows)} rows of {rows.shape[1]} columns{columns}"
  notes = dict.fromkeys(note for table in tables for note in table.notes)
  labels = {name: np.concatenate([table.labels[name] for table in tables]) for name in first.labels
            if all(name in table.labels for table in tables)}
  dataset = Dataset(path, "rows", rows, names=names, columns=first.columns, labels=labels,
                    fingerprint=content_digest([rows, *labels.values()]), integers=integers,
                    note="; ".join([note, *notes]))
  return dataset if missing == "error" else without_gaps(dataset, missing)


def _whole(table: formats.Table, column: int) -> np.ndarray:
  return table.integers.get(column, table.rows[:, column].astype(np.int64))


def _named(columns: Sequence[str], most: int = 20) -> str:
  shown = ", ".join(name[:40] for name in columns[:most])
  return shown if len(columns) <= most else f"{shown}, ..."


def _idx(path: str, files: Sequence[Path]) -> Dataset:
  rows, labels, split, image_shape = read_idx_pairs(files)
  return Dataset(path, "rows", rows, labels=labels, split=split, fingerprint=content_digest([rows, *labels.values()]),
                 image_shape=image_shape if len(image_shape) == 2 else None)


def _clips(path: str, files: Sequence[Path], rate: int) -> Dataset:
  clips, rates = zip(*(formats.read_sound(file) for file in files))
  for file, other in zip(files, rates):
    if other != rates[0] and not rate:
      raise InputError(f"{file}: has {other} samples per second, {files[0]} has {rates[0]}; convert them to one "
                       f"rate, as by rate={rates[0]}")
  if rate and set(rates) != {rate}:
    logging.warning("%s: %d of %d clips are resampled to %d samples per second", path,
                    sum(other != rate for other in rates), len(rates), rate)
    clips, rates = [resampled(clip, other, rate) for clip, other in zip(clips, rates)], [rate]
  names = [str(file) for file in files]
  folders = np.array([file.parent.name for file in files])
  labels = {"folder": folders} if len(set(folders)) > 1 else {}
  return Dataset(path, "audio", list(clips), rates[0], names, labels=labels,
                 fingerprint=content_digest([*clips, np.array(rates[0])]))


def _pictures(path: str, files: Sequence[Path], cache_dir: Path, options: dict[str, Any]) -> Dataset:
  # Names begin below the folder that was given, or below the last one of a glob that is no pattern.
  root = Path(path).expanduser()
  while glob.has_magic(str(root)) and not root.exists() or root.is_file():
    root = root.parent
  named = [(file.relative_to(root).as_posix(), file) for file in files]
  sums = list(map_in_order(formats.sha256, files))
  key = digest("images", [[name, value] for (name, _), value in zip(named, sums)])
  return by_folders(decoded(path, key, named, cache_dir, **options))


def _archived(path: str, files: Sequence[Path], cache_dir: Path, options: dict[str, Any]) -> Dataset:
  if len(files) > 1:
    raise InputError(f"{path}: {len(files)} archives; give one, or unpack them and give the folder")
  key = digest("archive", formats.sha256(files[0]))
  with archived_images(files[0]) as members:
    return by_folders(decoded(path, key, members, cache_dir, **options))


def _stem(file: Path) -> str:
  """The name without its compression and the number of axes, by which images find their labels."""
  return re.sub(r"([-.]idx\d-ubyte)?(\.gz|\.xz|\.bz2|\.zst)?$", "", file.name)
