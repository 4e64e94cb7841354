"""The user's own data: text files and globs, tables of sentences or of numbers, .npy rows, .npz matrices, lda-c, wav,
idx, pictures, folders of them."""
import glob
import importlib.util
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from embeddings_jax.data import formats
from embeddings_jax.data.bags import load_lda_c
from embeddings_jax.data.cache import digest
from embeddings_jax.data.dataset import Dataset, content_digest, from_texts, text_dataset, without_gaps
from embeddings_jax.data.documents import Document, read_documents
from embeddings_jax.data.images import SUFFIXES, by_folders, decoded
from embeddings_jax.data.matrix import load_matrix
from embeddings_jax.data.task_files import holds_sentences, read_sentences
from embeddings_jax.data.task_sets import task_dataset
from embeddings_jax.types import InputError

_IDX = re.compile(r"(\.idx|idx\d-ubyte)(\.gz|\.xz|\.bz2|\.zst)?$")
_TEXT = re.compile(r"\.(txt|text)(\.gz|\.xz|\.bz2|\.zst)?$")
_ROWS = (".npy", ".csv", ".tsv", ".csv.gz", ".tsv.gz", ".csv.xz", ".tsv.xz", ".csv.zst", ".tsv.zst")


def load_path(path: str, cache_dir: Path, errors: str = "strict", missing: str = "", **pictures: Any) -> Dataset:
  """A data set from a file, a folder or a glob; what it holds follows from the files' names, and of tables also from
  their first lines (`task_files.holds_sentences`). `pictures` are options of `images.decoded`."""
  files = list_files(path)
  if any(file_kind(file) != "unknown" for file in files):  # A readme or licence beside the data is not data.
    files = [file for file in files if file_kind(file) != "unknown"]
  found = sorted({file_kind(file) for file in files})
  if len(found) > 1:
    raise InputError(f"{path}: holds files of several kinds ({', '.join(found)}); choose one by a glob like *.txt")
  tables = [file for file in files if found == ["rows"] and not file.name.lower().endswith(".npy")
            and holds_sentences(file, errors)]
  if tables:
    if len(tables) < len(files):
      other = next(file for file in files if file not in tables)
      raise InputError(f"{path}: {tables[0].name} holds sentences, {other.name} numbers; choose one by a glob")
    return _sentences(path, files, errors)
  if found == ["rows"]:
    return _rows(path, files, missing or "error")
  if found == ["images"]:
    return _pictures(path, files, cache_dir, pictures)
  reader = {"idx": _idx, "audio": _clips, "matrix": load_matrix, "bags": load_lda_c}.get(found[0])
  if reader:
    return reader(path, files)

  def documents() -> Iterator[Document]:
    for file in files:
      yield from read_documents(file, errors)

  for file in files:
    if not file.stat().st_size:
      raise InputError(f"{file}: is empty")
    with formats.opened(file) as handle:
      if found == ["unknown"] and b"\0" in handle.read(1024):
        raise InputError(f"{file}: is not text, and its name is none of .txt, .csv, .tsv, .npy, .wav, .idx, "
                         ".jpg")
  key = digest("own", [formats.sha256(file) for file in files], errors)
  return text_dataset(path, key, documents, cache_dir, by_content=True)


def load_function(name: str, cache_dir: Path) -> Dataset:
  """Text from `FILE.py:FUNCTION`: a function of the user's without arguments that yields documents, strings."""
  file, _, function = name.rpartition(":")
  if not Path(file).expanduser().is_file():
    raise InputError(f"{name}: there is no file {file}")
  spec = importlib.util.spec_from_file_location("data", Path(file).expanduser())
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not callable(getattr(module, function, None)):
    raise InputError(f"{name}: {file} defines no function {function}")
  return from_texts(getattr(module, function)(), name, cache_dir)


def list_files(path: str) -> list[Path]:
  """The files of a path, a folder (with its subfolders, hidden files left out) or a glob, sorted."""
  place = Path(path).expanduser()
  if place.is_dir():
    files = [file for file in place.rglob("*") if not any(p.startswith(".") for p in file.relative_to(place).parts)]
  elif place.exists():
    return [place]
  else:
    files = [Path(file) for file in glob.glob(str(place), recursive=True)]
  files = sorted(file for file in files if file.is_file())
  if not files:
    raise InputError(f"{path}: {'the folder has no files' if place.is_dir() else 'no such file'}")
  return files


def file_kind(file: Path) -> str:
  """`rows`, `matrix`, `bags`, `idx`, `audio`, `images`, `text` or `unknown`, by the name; what is all unknown is
  text."""
  name = file.name.lower()
  if name.endswith(_ROWS):
    return "rows"
  if name.endswith(".npz"):
    return "matrix"
  if name.endswith((".dat", ".ldac")):
    return "bags"
  if _IDX.search(name):
    return "idx"
  if name.endswith((".wav", ".wave")):
    return "audio"
  if name.endswith(SUFFIXES):
    return "images"
  return "text" if _TEXT.search(name) else "unknown"


def read_rows(file: Path, gaps: bool = False) -> tuple[np.ndarray, list[str] | None]:
  """Rows of a .csv, .tsv or .npy file and the names of the columns; with `gaps`, values may be missing (NaN)."""
  return (formats.read_npy(file, gaps), None) if file.name.lower().endswith(".npy") else formats.read_csv(file, gaps)


def read_idx_pairs(
    files: Sequence[Path],
) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray], tuple[int, ...]]:
  """Images `[n, height * width]` in [0, 1], their labels, split and shape, from files named as MNIST's are."""
  images = [file for file in files if "labels" not in file.name]
  images.sort(key=lambda file: (not file.name.startswith("train"), file.name))
  if not images:
    raise InputError(f"{files[0]}: holds labels only, there is no idx file with images beside it")
  by_name = {_stem(file): file for file in files}
  rows, labels, split, place = [], [], {}, 0
  for file in images:
    values = formats.read_idx(file)
    scale = 255 if values.dtype == np.uint8 else 1
    rows.append((values.reshape(len(values), -1) / np.float32(scale)).astype(np.float32))
    partner = by_name.get(_stem(file).replace("images", "labels"))
    if partner and partner != file:
      labels.append(formats.read_idx(partner).astype(np.int64))
      if labels[-1].shape != (len(values),):
        raise InputError(f"{partner}: has {list(labels[-1].shape)} labels for {len(values)} images of {file.name}")
    part = {"train": "train", "t10k": "test", "test": "test"}.get(file.name.split("-")[0])
    if part:
      split[part] = np.arange(place, place + len(values))
    place += len(values)
  if len({part.shape[1] for part in rows}) > 1:
    raise InputError(f"{images[0].parent}: the idx files have images of several sizes; choose one with a glob")
  complete = len(labels) == len(images)
  labels = {"class": np.concatenate(labels)} if complete else {}
  return np.concatenate(rows), labels, {} if set(split) == {"train"} else split, values.shape[1:]


def _rows(path: str, files: Sequence[Path], missing: str) -> Dataset:
  tables = [read_rows(file, gaps=missing != "error") for file in files]
  rows, columns = tables[0]
  for file, (other, _) in zip(files, tables):
    if other.shape[1] != rows.shape[1]:
      raise InputError(f"{file}: has {other.shape[1]} columns, {files[0]} has {rows.shape[1]}")
  if len(tables) > 1:
    rows = np.concatenate([table for table, _ in tables])
  dataset = Dataset(path, "rows", rows, columns=columns, fingerprint=content_digest([rows]))
  return dataset if missing == "error" else without_gaps(dataset, missing)


def _sentences(path: str, files: Sequence[Path], errors: str) -> Dataset:
  parts = {str(file): read_sentences(file, errors) for file in files}
  what = {file: f"{'scored ' if listed and isinstance(listed[0].target, float) else ''}"
                f"{'labelled ' if listed and isinstance(listed[0].target, str) else ''}{kind}"
          for file, (kind, listed) in parts.items()}
  first = next(iter(what))
  for file, held in what.items():
    if held != what[first]:
      raise InputError(f"{file}: holds {held}, {first} holds {what[first]}; choose one by a glob")
  key = digest("sentences", [formats.sha256(file) for file in files], errors)
  found = task_dataset(path, parts[first][0], {file: listed for file, (_, listed) in parts.items()}, key)
  return found._replace(split={})


def _idx(path: str, files: Sequence[Path]) -> Dataset:
  rows, labels, split, picture = read_idx_pairs(files)
  return Dataset(path, "rows", rows, labels=labels, split=split, fingerprint=content_digest([rows, *labels.values()]),
                 picture=picture if len(picture) == 2 else None)


def _clips(path: str, files: Sequence[Path]) -> Dataset:
  clips, rates = zip(*(formats.read_wav(file) for file in files))
  for file, rate in zip(files, rates):
    if rate != rates[0]:
      raise InputError(f"{file}: has {rate} samples per second, {files[0]} has {rates[0]}; convert them to one rate")
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
  with ThreadPoolExecutor() as pool:
    sums = list(pool.map(formats.sha256, files))
  key = digest("pictures", [[name, value] for (name, _), value in zip(named, sums)])
  return by_folders(decoded(path, key, named, cache_dir, **options))


def _stem(file: Path) -> str:
  """The name without its compression and the number of axes, by which images find their labels."""
  return re.sub(r"([-.]idx\d-ubyte)?(\.gz|\.xz|\.bz2|\.zst)?$", "", file.name)
