"""Index of the rows of embeddings: for each row of `embeddings.npy` a line that says which item it is.

A table with tabs and a header: `row`; `item`, its number in the dataset (another one where the rows are a sample);
`name` (file, title, id or line); each label; `text`, the first words of a text.
"""
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from embeddings_jax.data.files.atomic import replacing
from embeddings_jax.data.files.streams import read_lines
from embeddings_jax.errors import InputError

NAME = "rows.tsv"
_SHOWN = 100  # Characters of a text.


def of_dataset(dataset: Any) -> dict[str, Sequence[Any]]:
  """Returns the columns of the index of a dataset, which may be a sample of another."""
  number = len(dataset.items)
  columns: dict[str, Sequence[Any]] = {"row": range(number),
                                       "item": range(number) if dataset.rows is None else dataset.rows}
  if dataset.names is not None and any(map(bool, dataset.names)):
    columns["name"] = dataset.names
  columns |= {label: values for label, values in dataset.labels.items() if np.ndim(values) == 1}
  if number and isinstance(first := dataset.items[0], (str, tuple)) and (
      isinstance(first, str) or all(isinstance(part, str) for part in first)):
    columns["text"] = _Texts(dataset.items)
  return columns


def of_items(items: Sequence[Any], places: Sequence[str]) -> dict[str, Sequence[Any]]:
  """Returns the columns of the index of items that were read from a file."""
  texts = {"text": _Texts(items)} if len(items) and isinstance(items[0], str) and list(items[:1]) != list(
      places[:1]) else {}
  return {"row": range(len(items)), "name": places, **texts}


def write(path: str | os.PathLike, columns: Mapping[str, Sequence[Any]]) -> None:
  """Writes an index."""
  with replacing(epath.Path(path)) as file:
    file.write(("\t".join(map(_cell, columns)) + "\n").encode())
    for cells in zip(*columns.values()):
      file.write(("\t".join(map(_cell, cells)) + "\n").encode("utf-8", "replace"))


def read(path: str | os.PathLike) -> dict[str, list[str]]:
  """Reads an index as name -> values.

  Raises:
    InputError: It cannot be read, or a line has more or fewer cells than the header.
  """
  lines = read_lines(path)
  names = next(lines, "").split("\t")
  columns: dict[str, list[str]] = {name: [] for name in names}
  for number, line in enumerate(lines, 2):
    cells = line.split("\t")
    if len(cells) != len(names):
      raise InputError(f"{path}: line {number} has {len(cells)} columns, the header has {len(names)}; evaluate the "
                       "run again to write it")
    for name, cell in zip(columns, cells):
      columns[name].append(cell)
  return columns


def titles(columns: Mapping[str, Sequence[str]]) -> list[str]:
  """Returns a name for every row: its own or its number, and the first words of a text."""
  numbers = columns.get("item", columns.get("row", ()))
  names = [name or f"document {number}" for name, number in zip(columns.get("name", [""] * len(numbers)), numbers)]
  return [f"{name}: {text}" for name, text in zip(names, columns["text"])] if "text" in columns else names


class _Texts(Sequence):
  """First words of texts, or of pairs of texts, read as they are asked for."""

  def __init__(self, items: Sequence[Any]):
    self._items = items

  def __len__(self) -> int:
    return len(self._items)

  def __getitem__(self, index):
    item = self._items[index]
    return first_words(item if isinstance(item, str) else " | ".join(item))

  def __iter__(self) -> Iterator[str]:
    return (self[i] for i in range(len(self)))


def first_words(text: str, length: int = _SHOWN) -> str:
  """Returns the beginning of a text on one line, cut between words where that is possible."""
  shown = " ".join(text[:8 * length].split())
  if len(shown) <= length:
    return shown
  return (shown[:length].rpartition(" ")[0] or shown[:length]) + " ..."


def _cell(value: Any) -> str:
  return " ".join(str(value).replace("\r", "\n").replace("\t", "\n").split("\n"))
