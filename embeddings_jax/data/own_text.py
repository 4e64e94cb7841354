"""The user's own texts: plain text, JSON, tables with a column of texts, Arrow files, HTML; folders for classes."""
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from embeddings_jax.data import formats, records
from embeddings_jax.data.cache import digest
from embeddings_jax.data.dataset import Dataset, text_dataset
from embeddings_jax.data.documents import Document, count_blocks, has_marks, read_documents
from embeddings_jax.data.file_kinds import check_text, file_kind
from embeddings_jax.data.files.html import read_html
from embeddings_jax.data.images import PARTS, by_folders
from embeddings_jax.data.task_files import holds_sentences, read_sentences, task_dataset
from embeddings_jax.errors import InputError

_VERSION = 2  # Of cached text: raise it when the same files would give other documents.
DOCUMENTS = ("line", "blank", "file", "auto")


def load_plain(path: str, files: Sequence[Path], cache_dir: Path, errors: str, documents: str) -> Dataset:
  """Loads files of plain text, or pages of HTML, each a document.

  Files in folders `[train|test/]CLASS/` give their documents the label `class`, and the dataset a split.

  Args:
    path: Name of the dataset: the path that lists the files.
    files: The files, all of one kind.
    cache_dir: Folder of derived data.
    errors: `strict` or `replace`; see `formats.text_lines`.
    documents: End of a document; see `own.load_path`.
  """
  pages = file_kind(files[0]) == "html"
  for file in files:
    if not file.stat().st_size:
      raise InputError(f"{file}: is empty")
    if not pages:
      check_text(file)
  blank = sentences = False
  labels = folder_labels(path, files)
  marks = not pages and bool(documents != "line" or labels) and any(has_marks(file, errors) for file in files)
  if documents in ("blank", "auto") and not marks and not pages:
    counts = [count_blocks(file, errors) for file in files]
    blank = documents == "blank" or any(num_blocks > 1 for _, num_blocks in counts)
    # Where most blocks are one line, a line is a paragraph, of several sentences.
    sentences = blank and sum(num_lines for num_lines, _ in counts) >= 1.5 * sum(number for _, number in counts)
  labels = {} if marks else labels
  whole = documents == "file" and not marks and not pages

  def read() -> Iterator[Document]:
    for file in files:
      for document in _documents(file, errors, blank, whole):
        name = document.name or (labels[file]["name"] if labels else file.name if whole or pages else "")
        yield document._replace(name=name, labels=labels.get(file, {}).get("labels", {}))

  ways = [*(["blank"] if blank else []), *(["file"] if whole else []), *(["html"] if pages else [])]
  if labels:
    ways.append([entry["labels"] for entry in labels.values()])
  key = digest("own", _VERSION, [formats.sha256(file) for file in files], errors, *ways)
  dataset = text_dataset(path, key, read, cache_dir, by_content=True)._replace(lines=sentences)
  classes = sorted({entry["labels"]["class"] for entry in labels.values()} if labels else ())
  if classes:
    unit = "each file is one" if whole or pages else "each line is one, by documents=file each file"
    dataset = dataset._replace(note=f"{path}: {len(dataset.items):,} documents, {unit}; the label 'class' is their "
                                    f"folder ({', '.join(classes[:10])})")
  return dataset


def load_records(path: str, files: Sequence[Path], cache_dir: Path, errors: str, field: str) -> Dataset:
  """Loads files of records, all of one kind: documents with their labels, or pairs and triples of sentences.

  Arrow files in a folder `train`, `test`, `validation`, ..., or with names `train-*`, ..., as Hugging Face `datasets`
  lays them out, give the split.

  Args:
    path: Name of the dataset: the path that lists the files.
    files: The files.
    cache_dir: Folder of derived data.
    errors: `strict` or `replace`; see `formats.text_lines`.
    field: Name of the field with the text; "": recognized, or a pair of sentences.
  """
  if not field and records.holds_pairs(files[0], errors):
    return load_pairs(path, files, errors)
  parts = _parts(files)

  def read() -> Iterator[Document]:
    for file in files:
      for document in records.read_record_documents(file, field, errors):
        split = {"split": parts[file]} if parts else {}
        yield document._replace(labels={**document.labels, **split})

  key = digest("json", _VERSION, [formats.sha256(file) for file in files], errors, field, *([list(parts.values())]
                                                                                           if parts else []))
  return text_dataset(path, key, read, cache_dir, by_content=True)


def load_pairs(path: str, files: Sequence[Path], errors: str) -> Dataset:
  """Loads files of pairs or triples of sentences, which must hold the same."""
  tables = file_kind(files[0]) == "rows"
  parts = {str(file): (read_sentences if tables else records.read_record_examples)(file, errors) for file in files}
  what = {file: f"{'scored ' if listed and isinstance(listed[0].target, float) else ''}"
                f"{'labeled ' if listed and isinstance(listed[0].target, str) else ''}{kind}"
          for file, (kind, listed) in parts.items()}
  first = next(iter(what))
  for file, held in what.items():
    if held != what[first]:
      raise InputError(f"{file}: holds {held}, {first} holds {what[first]}; choose one by a glob")
  key = digest("sentences", [formats.sha256(file) for file in files], errors)
  task = task_dataset(path, parts[first][0], {file: listed for file, (_, listed) in parts.items()}, key)
  names = _parts(files)
  split = {part: np.concatenate([task.split[str(file)] for file in files if names[file] == part])
           for part in dict.fromkeys(names.values())}
  return task._replace(split=split)


def table_kind(path: str, files: Sequence[Path], errors: str, field: str) -> str:
  """Returns `sentences`, `documents` or `rows` (of numbers): what tables of one path hold.

  Raises:
    InputError: They hold different things.
  """
  kinds = {}
  for file in files:
    if file.name.lower().endswith(".npy"):
      kinds[file] = "numbers"
    elif records.holds_documents(file, field, errors):
      kinds[file] = "documents"
    elif file_kind(file) == "rows" and holds_sentences(file, errors) or (
        file_kind(file) == "arrow" and records.holds_pairs(file, errors)):
      kinds[file] = "sentences"
    else:
      kinds[file] = "numbers"
  first = min(files, key=lambda file: (kinds[file] == "numbers", str(file)))
  for file in files:
    if kinds[file] != kinds[first]:
      raise InputError(f"{path}: {first.name} holds {kinds[first]}, {file.name} {kinds[file]}; choose one by a glob")
  return kinds[first]


def read_texts(files: Sequence[Path], errors: str = "strict", keep_empty: bool = True) -> tuple[list[str], list[str]]:
  """Reads every text of files: a line of plain text, a page, or a record.

  Args:
    files: The files.
    errors: `strict` or `replace`; see `formats.text_lines`.
    keep_empty: Whether blank lines and empty fields are texts.

  Returns:
    The texts, and where they stand: `file:line`, the id or title of a record, or the title of a page.
  """
  texts, places = [], []
  for file in files:
    kind = file_kind(file)
    if kind == "html":
      title, text = read_html(file, errors)
      listed = [Document(text, title or file.name)]
    elif kind in ("json", "arrow") or kind == "rows" and records.holds_documents(file, errors=errors):
      listed = [document._replace(name=document.name or f"{file.name}:{i}") for i, document in enumerate(
          records.read_record_documents(file, errors=errors, keep_empty=keep_empty), 1)]
    else:
      check_text(file)
      listed = [Document(line, f"{file.name}:{number}") for number, line in enumerate(
          formats.read_lines(file, errors), 1) if keep_empty or line.strip()]
    texts += [document.text for document in listed]
    places += [document.name for document in listed]
  return texts, places


def folder_labels(path: str, files: Sequence[Path]) -> dict[Path, dict]:
  """Returns the labels and the name of each file of folders that stand for classes, or nothing.

  See `images.by_folders`, of which a layout that is no set of classes is no error here.
  """
  root = Path(path).expanduser()
  if not root.is_dir() or len({file.parent for file in files}) < 2:
    return {}
  names = [file.relative_to(root).as_posix() for file in files]
  if any("/" not in name for name in names):
    return {}
  try:
    labeled = by_folders(Dataset(path, "text", names, names=names))
  except InputError:
    return {}
  if "class" not in labeled.labels:
    return {}
  part = {int(i): name for name, rows in labeled.split.items() for i in rows}
  return {file: {"name": names[i], "labels": {"class": str(labeled.labels["class"][i]),
                                              **({"split": part[i]} if part else {})}}
          for i, file in enumerate(files)}


def _parts(files: Sequence[Path]) -> dict[Path, str]:
  """Returns the parts of Arrow files by their folders or names, or nothing where one is in none."""
  if file_kind(files[0]) != "arrow":
    return {}
  begin = {file: re.split(r"[-_.]", file.name.lower())[0] for file in files}
  parts = {file: PARTS.get(file.parent.name.lower()) or PARTS.get(begin[file], "") for file in files}
  return parts if all(parts.values()) and set(parts.values()) != {"train"} else {}


def _documents(file: Path, errors: str, blank: bool, whole: bool) -> Iterator[Document]:
  if file_kind(file) == "html":
    title, text = read_html(file, errors)
    yield Document(text, title)
  elif whole:
    text = "\n".join(formats.read_lines(file, errors)).strip("\n")
    if not text.strip():
      raise InputError(f"{file}: is empty, it has no text")
    yield Document(text)
  else:
    yield from read_documents(file, errors, blank)
