"""Tables in .csv and .tsv files: cells with line breaks, headers, names of rows, and numbers without loss."""
import array
import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from embeddings_jax.data.files.arrays import as_float32, first_not_finite
from embeddings_jax.data.files.dialects import (
    GAPS,
    RECOGNIZED,
    Dialect,
    TableOptions,
    csv_rows,
    is_number,
    numbers,
    plain,
    recognize,
)
from embeddings_jax.data.files.row_buffer import Progress, RowBuffer
from embeddings_jax.data.files.streams import quoted
from embeddings_jax.errors import InputError, nearest

_ROW_NAMES = ("", "rownames", "row.names", "row_names", "row names", "unnamed: 0")
_COUNTERS = ("index", "id", "row", "no", "nr", "#")  # Names of a column that may only count the rows.
_HEAD = 50  # Rows that decide on a header.
_BLOCK = 1 << 21  # Numbers that are kept in a list of bytes before they go to the buffer.


class Table(NamedTuple):
  """A table of numbers.

  Attributes:
    rows: float32 `[num_rows, num_columns]` if that holds every value exactly, else float64.
    columns: Names of the columns from the header, or None.
    names: Names of the rows, or None.
    integers: Column -> int64 (or str, beyond 64 bits) `[num_rows]`: whole numbers that float64 cannot hold.
    notes: What was recognized: a header of numbers, a column with the names of the rows.
    labels: Columns of words by name (without a header, by number), str `[num_rows]`.
  """

  rows: np.ndarray
  columns: list[str] | None = None
  names: list[str] | None = None
  integers: Mapping[int, np.ndarray] = {}
  notes: Sequence[str] = ()
  labels: Mapping[str, np.ndarray] = {}


class Words:
  """A column of words; equal ones are kept once."""

  def __init__(self) -> None:
    self._index: dict[str, int] = {}
    self._places = array.array("l")

  def append(self, word: str) -> None:
    self._places.append(self._index.setdefault(word, len(self._index)))

  def array(self) -> np.ndarray:
    """Returns the words, str `[num_rows]`."""
    return np.array(list(self._index) or [""])[np.frombuffer(self._places, np.dtype("l"))]


class _Layout(NamedTuple):
  """Columns of a table.

  Attributes:
    columns: Names of the columns behind that of the names of rows, or None.
    named: Whether the first column holds the names of the rows.
    width: Cells of a row; 0: not known.
    notes: What was recognized.
  """

  columns: list[str] | None
  named: bool
  width: int
  notes: list[str]

  @property
  def titles(self) -> list[str]:
    """Returns a name for every cell of a row: without a header, its number."""
    if self.columns is None:
      return [str(i) for i in range(self.width)]
    return ["", *self.columns] if self.named else list(self.columns)


def read_csv(path: str | os.PathLike, gaps: bool = False, errors: str = "strict",
             options: TableOptions = RECOGNIZED, spill: str | os.PathLike | None = None) -> Table:
  """Reads a .csv or .tsv file of numbers.

  The first line is a header if it has words only, or counts 0, 1, 2, ... as pandas numbers columns. The first column
  holds the names of the rows if its header is empty, `rownames` or alike, if the header is one cell shorter than the
  rows, as R writes tables, if all its cells are different words, or if it is called `index` or `id` and counts the
  rows. Words that stand for numbers or truth values, as `5%`, `1,000` or `True`, are no names. Other columns whose
  cells are words are labels.

  Args:
    path: The file, perhaps compressed.
    gaps: Cells that are empty, NA, NaN, null or ? are missing values, NaN.
    errors: `strict` or `replace`; see `text_lines`.
    options: Columns to read and marks that are not recognized; see `TableOptions`.
    spill: Folder of rows that memory should not hold; see `RowBuffer`.

  Raises:
    InputError: An unreadable file, a line of another width, a cell that is no number, or no row.
  """
  dialect = recognize(path, errors, options)
  records = _records(path, errors, dialect)
  head = list(itertools.islice(records, _HEAD))
  view = [(line, [plain(cell, dialect.decimal) for cell in cells]) for line, cells in head]
  layout = _layout(view, options.header or ("yes" if head and _is_header(head[0][1], options.wanted) else ""),
                   [*options.words, *options.columns, *options.wanted])
  words, numeric = _columns(path, head, layout, options, dialect)
  texts = {i: Words() for i in words}
  values, lines, names, width = array.array("d"), array.array("q"), [], layout.width
  buffer, progress = RowBuffer(spill), Progress(path, "rows")
  for line, cells in itertools.chain(head[layout.columns is not None:], records):
    width = width or len(cells)
    if len(cells) != width:
      raise InputError(f"{path}: line {line} has {len(cells)} columns, the lines before have {width}")
    if layout.named:
      names.append(cells[0].strip())
    for i, column in texts.items():
      column.append(cells[i].strip())
    values.extend(numbers(path, line, cells, numeric, gaps, dialect.decimal))
    lines.append(line)
    if len(values) >= _BLOCK:
      _flush(path, buffer, values, lines, numeric, gaps)
      values, lines = array.array("d"), array.array("q")
      progress.show(buffer.num_rows)
  _flush(path, buffer, values, lines, numeric, gaps)
  if not buffer.num_rows:
    raise InputError(f"{path}: is empty, it has no row of numbers")
  rows = buffer.finish()
  integers = _integers(path, errors, dialect, rows, numeric)
  notes, titles, columns, named = [*layout.notes, *dialect.notes], layout.titles, layout.columns, layout.named
  labels = {titles[i]: column.array() for i, column in texts.items()}
  notes += [f"the column {quoted(name) if columns else name + ' (from 0)'} holds words and is a label"
            for name in labels]
  if columns is not None or options.columns:
    columns = [titles[i] for i in numeric]
  if columns and not named and len(columns) > 1 and columns[0].lower() in _COUNTERS and _counts_rows(rows[:, 0]):
    notes += [f"the column {quoted(columns[0])} counts the rows and is left out"]
    names, named = [str(int(value)) for value in rows[:, 0]], True
    rows, columns = rows[:, 1:], columns[1:]
    rows = rows if isinstance(rows, np.memmap) else np.ascontiguousarray(rows)
    integers = {column - 1: value for column, value in integers.items() if column}
  return Table(rows, columns, names if named else None, integers, notes, labels)


def chosen_columns(where: object, titles: Sequence[str], names: Sequence[str]) -> list[int]:
  """Returns the places of columns that are given by their names, or by their numbers from 0.

  Raises:
    InputError: There is no such column.
  """
  places = []
  for name in names:
    if name in titles:
      places.append(list(titles).index(name))
    elif name.isdecimal() and name.isascii() and len(name) < 10 and int(name) < len(titles):
      places.append(int(name))
    else:
      known = ", ".join(title[:40] for title in titles[:20] if title)
      raise InputError(f"{where}: has no column {quoted(name)}; {nearest(name, list(titles))}it has {known}")
  return places


def _columns(path: str | os.PathLike, head: Sequence[tuple[int, list[str]]], layout: _Layout, options: TableOptions,
             dialect: Dialect) -> tuple[list[int], list[int]]:
  """Returns the columns of words and those of numbers."""
  rest = [[plain(cell, dialect.decimal) for cell in cells] for _, cells in head[layout.columns is not None:]]
  width = layout.width or (len(rest[0]) if rest else 0)
  titles = layout.titles or [str(i) for i in range(width)]
  words = _word_columns(rest, layout)
  if options.words and rest and all(len(cells) == len(rest[0]) for cells in rest):
    for i in chosen_columns(path, titles, options.words):
      cells = [cells[i].strip() for cells in rest]
      if i not in words and not all(is_number(cell) or cell.lower() in GAPS for cell in cells):
        words.append(i)
  if options.wanted and set(options.wanted) <= set(titles) and len(set(titles)) == len(titles):
    numeric = [titles.index(name) for name in options.wanted]
    return [i for i in words if i not in numeric], numeric
  if not options.columns:
    return words, [i for i in range(int(layout.named), width) if i not in words]
  numeric = chosen_columns(path, titles, options.columns)
  named = chosen_columns(path, titles, options.words)
  for i in numeric:
    if i in words:
      raise InputError(f"{path}: the column {quoted(titles[i])} holds words; columns are those of numbers, a label "
                       f"is named by label={titles[i]}")
  words = [i for i in words if i not in numeric]
  return words, list(dict.fromkeys([*numeric, *(i for i in named if i not in words)]))


def _is_header(cells: Sequence[str], wanted: Sequence[str]) -> bool:
  """Returns whether cells hold the names of all wanted columns, which are not their numbers."""
  numbers_of = all(name.isdecimal() and int(name) < len(cells) for name in wanted)
  return bool(wanted) and not numbers_of and set(wanted) <= {cell.strip() for cell in cells}


def _word_columns(rest: Sequence[Sequence[str]], layout: _Layout) -> list[int]:
  """Returns the columns whose first cells are words, beside others with numbers."""
  if len(rest) < 2 or len({len(cells) for cells in rest}) > 1:
    return []
  words = [i for i in range(int(layout.named), len(rest[0]))
           if all(_is_name(cells[i].strip().lower()) for cells in rest)]
  return words if len(words) < len(rest[0]) - layout.named else []


def _flush(path: str | os.PathLike, buffer: RowBuffer, values: array.array, lines: array.array,
           numeric: Sequence[int], gaps: bool) -> None:
  """Moves numbers to the buffer.

  Raises:
    InputError: One is not finite.
  """
  if not lines:
    return
  rows = np.frombuffer(values).reshape(len(lines), -1)
  bad = first_not_finite(rows, gaps) if rows.shape[1] else None
  if bad:
    row, column = bad
    raise InputError(f"{path}: line {lines[row]}, column {numeric[column] + 1}: {as_float32(rows[bad])} is not a "
                     "finite number")
  buffer.add(rows)


def _layout(head: Sequence[tuple[int, list[str]]], header: str = "", selected: Sequence[str] = ()) -> _Layout:
  """Returns the layout that the first records tell; columns that are `selected` are not the names of rows."""
  if not head:
    return _Layout(None, False, 0, [])
  (line, first), rest = head[0], [cells for _, cells in head[1:]]
  shorter = header != "no" and len(first) > 1 and bool(rest) and all(len(cells) == len(first) + 1 for cells in rest)
  # Beside a column without a name the others may be numbered.
  unnamed = len(first) > 1 and not shorter and first[0].strip().lower() in _ROW_NAMES
  counted = not header and _counts(first[unnamed:], rest, sure=unnamed or shorter)
  if header == "no" or not header and not counted and any(map(is_number, first)):
    named = len(rest) > 1 and "0" not in selected and _names_rows([first, *rest])
    return _Layout(None, named, len(first), ["the first column holds the names of the rows"] if named else [])
  named = shorter or unnamed or first[0].strip() not in selected and _names_rows(rest)
  notes = []
  if counted:
    notes.append(f"line {line} ({_listed(first)}) is a header")
  if named:
    title = "" if shorter or not first[0].strip() else f" {quoted(first[0].strip())}"
    notes.append(f"the first column{title} holds the names of the rows")
  columns = [cell.strip() for cell in first[named and not shorter:]]
  return _Layout(columns, named, len(first) + shorter, notes)


def _names_rows(rest: Sequence[Sequence[str]]) -> bool:
  """Returns whether the first cells of rows of numbers are different words; equal ones are classes."""
  words = bool(rest) and all(len(cells) > 1 and _is_name(cells[0].strip().lower()) and is_number(cells[-1])
                             for cells in rest)
  return words and len({cells[0] for cells in rest}) == len(rest)


def _is_name(cell: str) -> bool:
  """Returns whether a cell in lower case is a word, and none that stands for a number or a truth value."""
  return (cell not in (*GAPS, "true", "false", "yes", "no") and not is_number(cell)
          and not re.fullmatch(r"[-+$€£¥]*\d[\d.,'_\s]*[%$€£¥]?", cell))


def _counts(cells: Sequence[str], rest: Sequence[Sequence[str]], sure: bool) -> bool:
  """Returns whether cells number columns: consecutive whole numbers that are unlikely to be a row of the table."""
  cells = [cell.strip() for cell in cells]
  if not cells or not rest or not all(cell.isdecimal() and cell.isascii() and len(cell) < 10 for cell in cells):
    return False
  begin = int(cells[0])
  if [int(cell) for cell in cells] != list(range(begin, begin + len(cells))):
    return False
  if not begin and len(cells) > 2 or begin in (0, 1) and sure:
    return True
  # Years, say, or two columns: a row of whole numbers among rows without any.
  fractions = all(not cell.strip().lstrip("-").isdecimal() for row in rest for cell in row)
  return fractions and (len(cells) > 2 or len(cells) == 2 and len(rest) >= 10)


def _records(path: str | os.PathLike, errors: str, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
  """Records that are not blank."""
  for line, cells in csv_rows(path, errors, dialect.separator):
    if any(cell.strip() for cell in cells):
      yield line, cells


def _integers(path: str | os.PathLike, errors: str, dialect: Dialect, rows: np.ndarray,
              positions: Sequence[int]) -> dict[int, np.ndarray]:
  """Columns of whole numbers beyond 2**53, read again as integers."""
  with np.errstate(invalid="ignore"):
    columns = [i for i in range(rows.shape[1]) if (np.abs(rows[:, i]) >= 2.0**53).any()
               and (rows[:, i] == np.rint(rows[:, i])).all()]
  if not columns:
    return {}
  texts = {i: [] for i in columns}
  for _, cells in _records(path, errors, dialect):
    for i in columns:
      texts[i].append(cells[positions[i]].strip() if positions[i] < len(cells) else "")
  whole = {}
  for i, cells in texts.items():
    cells = cells[len(cells) - len(rows):]
    if all(cell.lstrip("+-").isdecimal() and len(cell) < 4000 for cell in cells):
      exact = [int(cell) for cell in cells]
      fits = all(-2**63 <= number < 2**63 for number in exact)
      whole[i] = np.array(exact, np.int64) if fits else np.array([str(number) for number in exact])
  return whole


def _counts_rows(values: np.ndarray) -> bool:
  return len(values) > 2 and values[0] in (0, 1) and bool((np.diff(values) == 1).all())


def _listed(cells: Sequence[str]) -> str:
  shown = ", ".join(cell.strip()[:20] for cell in cells[:4])
  return shown if len(cells) <= 4 else f"{shown}, ..."
