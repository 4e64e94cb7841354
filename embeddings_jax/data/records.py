"""Records of JSON, tables and Arrow files as documents, or as pairs and triples of sentences."""
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from embeddings_jax.data import formats
from embeddings_jax.data.documents import Document
from embeddings_jax.data.file_kinds import file_kind
from embeddings_jax.data.files import arrow
from embeddings_jax.data.files.dialects import separator_of
from embeddings_jax.data.files.json_lines import FIELDS, documents_of, listed, read_json_records
from embeddings_jax.data.task_files import TEXT, Example, read_cells, text_columns
from embeddings_jax.errors import InputError

Record = tuple[str, Mapping[str, Any]]


def read_records(file: Path, errors: str = "strict") -> Iterator[Record]:
  """Yields the records of a .json, .jsonl, .csv, .tsv, .parquet or .arrow file with their places."""
  kind = file_kind(file)
  if kind == "json":
    yield from read_json_records(file, errors)
  elif kind == "arrow":
    yield from arrow.read_arrow_records(file)
  else:
    rows = _rows(file, errors)
    _, header = next(rows, (0, []))
    names = [cell.strip() for cell in header]
    for line, cells in rows:
      if len(cells) != len(names):
        raise InputError(f"{file}: line {line} has {len(cells)} columns, the header has {len(names)}")
      yield f"{file}: line {line}", dict(zip(names, cells))


def holds_documents(file: Path, field: str = "", errors: str = "strict") -> bool:
  """Returns whether a table has a column of texts: the one that `field` names, or one that is known by its name."""
  if file_kind(file) == "arrow":
    names = arrow.column_names(file)
    known = [name for name in names if name == field or not field and name.lower() in (*FIELDS, *TEXT)]
    return any(arrow.is_text(file, name) for name in known)
  rows = _rows(file, errors)
  header = [cell.strip() for cell in next(rows, (0, []))[1]]
  if field:
    return field in header
  column = next((i for i, name in enumerate(header) if name.lower() in (*FIELDS, *TEXT)), None)
  _, cells = next(rows, (0, []))
  return column is not None and len(cells) == len(header) and not formats.is_number(cells[column])


def read_record_documents(file: Path, field: str = "", errors: str = "strict",
                          keep_empty: bool = False) -> Iterator[Document]:
  """Yields the documents of a file; see `documents_of`."""
  if not field and file_kind(file) != "json":
    names = arrow.column_names(file) if file_kind(file) == "arrow" else list(next(read_records(file, errors),
                                                                                  ("", {}))[1])
    field = next((name for known in (*FIELDS, *TEXT) for name in names if name.lower() == known), "")
  yield from documents_of(read_records(file, errors), file, field, keep_empty)


def holds_pairs(file: Path, errors: str = "strict") -> bool:
  """Returns whether the first record has a pair or triple of sentences, by names that `task_files` knows."""
  texts, _, _ = text_columns(list(next(read_records(file, errors), ("", {}))[1]))
  return len(texts or ()) > 1


def read_record_examples(file: Path, errors: str = "strict") -> tuple[str, list[Example]]:
  """Returns the kind and the examples of records with sentences, pairs or triples, and perhaps labels or scores.

  Raises:
    InputError: The first record has no field that is known, another lacks it, or it holds no text.
  """
  records = list(read_records(file, errors))
  if not records:
    raise InputError(f"{file}: is empty, it has no example")
  names = list(records[0][1])
  texts, target, score = text_columns(names)
  if texts is None:
    raise InputError(f"{records[0][0]}: has no sentences; name them sentence1 and sentence2, or text, with label or "
                     f"score beside them; it has {listed(names)}")
  kind = {1: "text", 2: "pairs"}.get(len(texts), "triples")
  columns = [*texts, *([] if target is None else [target])]
  rows = _cells(records, [names[i] for i in columns])
  return kind, read_cells(file, rows, tuple(range(len(texts))), None if target is None else len(texts), score)


def _rows(file: Path, errors: str) -> Iterator[tuple[int, list[str]]]:
  """Yields numbers and cells of the lines of a table of texts; of a .tsv quotes are literal, as in `read_table`."""
  separator = separator_of(file, errors)
  if separator == "\t" and ".tsv" in file.suffixes:
    return ((number, line.split("\t")) for number, line in enumerate(formats.read_lines(file, errors), 1)
            if line.strip())
  return formats.csv_rows(file, errors, separator)


def _cells(records: Iterable[Record], names: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
  for where, record in records:
    cells = []
    for name in names:
      value = record.get(name)
      if not isinstance(value, (str, int, float)):
        raise InputError(f"{where}: has no text or number in the field {formats.quoted(name)}")
      cells.append(" ".join(str(value).split()))
    yield where, cells


def is_list(file: Path) -> bool:
  """Returns whether a file of JSON holds a list."""
  with formats.opened(file) as handle:
    return handle.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
