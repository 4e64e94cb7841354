"""Documents in JSON Lines (an object per line) and in JSON (one list of objects)."""
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from embeddings_jax.data.documents import Document
from embeddings_jax.data.files.json import parse_json
from embeddings_jax.data.files.streams import opened, quoted, read_lines
from embeddings_jax.errors import InputError

FIELDS = ("text", "content", "body", "sentence")  # Names by which the text is recognized.
NAMES, LABELS = ("id", "title"), ("label", "class", "category")


def documents_of(records: Iterable[tuple[str, Mapping[str, Any]]], path: str | os.PathLike, field: str = "",
                 keep_empty: bool = False) -> Iterator[Document]:
  """Yields the documents of records.

  A field `id` or `title` names a document, `label`, `class` or `category` is its label.

  Args:
    records: Places, for errors, and names with their values.
    path: The file.
    field: Field with the text; "": the first of `FIELDS`, or the only string.
    keep_empty: Also yield documents without text.

  Raises:
    InputError: A record without the field, or none at all.
  """
  empty = True
  for where, record in records:
    empty = False
    field = field or _text_field(record, where)
    if not isinstance(record.get(field), str):
      known = listed(sorted(record))
      raise InputError(f"{where}: has no text in the field {quoted(field)}; it has {known}; name one by field")
    text = record[field].strip()
    if text or keep_empty:
      labels = {name: str(record[name]) for name in LABELS if isinstance(record.get(name), (str, int))}
      name = next((str(record[name]) for name in NAMES if isinstance(record.get(name), (str, int))), "")
      yield Document(text, name, labels)
  if empty:
    raise InputError(f"{path}: is empty, it has no text")


def read_json_records(path: str | os.PathLike, errors: str = "strict") -> Iterator[tuple[str, Mapping[str, Any]]]:
  """Yields the objects of a file with their places, for errors.

  Args:
    path: The file; a list of objects if it begins with `[`, else an object per line. May be compressed.
    errors: `strict` refuses text that is not UTF-8, `replace` puts replacement characters.

  Raises:
    InputError: No JSON, or no objects; line or item are named.
  """
  with opened(path) as file:
    beginning = file.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip()
    if beginning.startswith(b"["):
      file.seek(0)
      for i, record in enumerate(parse_json(file.read(), path, list)):
        if not isinstance(record, dict):
          raise InputError(f"{path}: item {i} (from 0) is no object, and has no field with a text")
        yield f"{path}: item {i} (from 0)", record
      return
  for number, line in enumerate(read_lines(path, errors), 1):
    if line.strip():
      where = f"{path}: line {number}"
      yield where, parse_json(line, where)


def listed(names: Sequence[str]) -> str:
  """Returns the first names of fields, shortened, for an error of one line."""
  return ", ".join(name[:40] for name in names[:20])


def _text_field(record: Mapping[str, Any], where: str) -> str:
  """Returns the field of a record that holds its text."""
  strings = [name for name, value in record.items() if isinstance(value, str)]
  chosen = next((name for name in FIELDS if name in strings), strings[0] if len(strings) == 1 else "")
  if not chosen:
    raise InputError(f"{where}: which field is the text? name one of {listed(strings) or 'its'} by field"
                     if strings else f"{where}: has no field with a text")
  return chosen
