"""Tables in .csv and .tsv files: cells with line breaks, headers, names of rows, and numbers without loss."""
import array
import csv
import itertools
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from embeddings_jax.data.files.arrays import first_not_finite, lossless
from embeddings_jax.data.files.streams import quoted, summary, text_lines
from embeddings_jax.types import InputError

GAPS = ("", "na", "nan", "null", "?")  # Cells without a value, in lower case.
_ROW_NAMES = ("", "rownames", "row.names", "row_names", "row names", "unnamed: 0")
_COUNTERS = ("index", "id", "row", "no", "nr", "#")  # Names of a column that may only count the rows.
_HEAD = 50  # Rows that decide on a header.
_END = "\0end of the table"


class Table(NamedTuple):
  """A table of numbers.

  Attributes:
    rows: float32 `[num_rows, num_columns]` if that holds every value exactly, else float64.
    columns: Names of the columns from the header, or None.
    names: Names of the rows, or None.
    integers: Column -> int64 (or str, beyond 64 bits) `[num_rows]`: whole numbers that float64 cannot hold.
    notes: What was recognized: a header of numbers, a column with the names of the rows.
    labels: Columns of words by name, str `[num_rows]`.
  """

  rows: np.ndarray
  columns: list[str] | None = None
  names: list[str] | None = None
  integers: Mapping[int, np.ndarray] = {}
  notes: Sequence[str] = ()
  labels: Mapping[str, np.ndarray] = {}


def csv_rows(path: str | os.PathLike, errors: str = "strict",
             delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
  """Yields the records of a table as `(number of the first line, cells)`.

  Cells may be of any length; line breaks in quotes stay. Records without any character are left out.

  Raises:
    InputError: The file cannot be read, or a quotation mark is never closed.
  """
  reader = csv.reader(itertools.chain(text_lines(path, errors), [_END]), delimiter=delimiter)
  line = 0
  while True:
    # The limit belongs to the process, not to the reader.
    limit = csv.field_size_limit(sys.maxsize)
    try:
      cells = next(reader)
    except csv.Error as error:
      raise InputError(f"{path}: line {line + 1}: {summary(error)}") from error
    finally:
      csv.field_size_limit(limit)
    if cells == [_END]:
      return
    # The last line is part of a cell only within quotes.
    if cells and cells[-1].endswith(_END):
      raise InputError(f"{path}: line {line + 1}: a quotation mark is never closed")
    if any(cells):
      yield line + 1, cells
    line = reader.line_num


def read_csv(path: str | os.PathLike, gaps: bool = False, errors: str = "strict") -> Table:
  """Reads a .csv or .tsv file of numbers.

  The first line is a header if it has words only, or counts 0, 1, 2, ... as pandas numbers columns. The first column
  holds the names of the rows if its header is empty, `rownames` or alike, if the header is one cell shorter than the
  rows, as R writes tables, if all its cells are different words below a header, or if it is called `index` or `id`
  and counts the rows. Words that stand for numbers or truth values, as `5%`, `1,000` or `True`, are no names. Other
  columns below a header whose cells are words are labels.

  Args:
    path: The file, perhaps compressed.
    gaps: Cells that are empty, NA, NaN, null or ? are missing values, NaN.
    errors: `strict` or `replace`; see `text_lines`.

  Raises:
    InputError: An unreadable file, a line of another width, a cell that is no number, or no row.
  """
  records = _records(path, errors)
  head = list(itertools.islice(records, _HEAD))
  columns, named, width, notes = _layout(head)
  words = _word_columns(head, columns, named)
  numeric = [i for i in range(int(named), width or (len(head[0][1]) if head else 0)) if i not in words]
  texts: dict[int, list[str]] = {i: [] for i in words}
  values, lines, names = array.array("d"), array.array("q"), []
  for line, cells in itertools.chain(head[columns is not None:], records):
    width = width or len(cells)
    if len(cells) != width:
      raise InputError(f"{path}: line {line} has {len(cells)} columns, the lines before have {width}")
    if named:
      names.append(cells[0].strip())
    for i, column in texts.items():
      column.append(cells[i].strip())
    values.extend(_numbers(path, line, cells, numeric, gaps))
    lines.append(line)
  if not lines:
    raise InputError(f"{path}: is empty, it has no row of numbers")
  rows = lossless(np.frombuffer(values).reshape(len(lines), -1))
  bad = first_not_finite(rows, gaps)
  if bad:
    row, column = bad
    raise InputError(f"{path}: line {lines[row]}, column {numeric[column] + 1}: {_shown(rows[bad])} is not a finite "
                     "number")
  integers = _integers(path, errors, rows, numeric)
  labels: dict[str, np.ndarray] = {}
  if columns is not None and words:
    titles = ["", *columns] if named else columns
    labels = {titles[i]: np.array(column) for i, column in texts.items()}
    notes = [*notes, *(f"the column {quoted(name)} holds words and is a label" for name in labels)]
    columns = [titles[i] for i in numeric]
  if columns and not named and len(columns) > 1 and columns[0].lower() in _COUNTERS and _counts_rows(rows[:, 0]):
    notes = [*notes, f"the column {quoted(columns[0])} counts the rows and is left out"]
    names, named = [str(int(value)) for value in rows[:, 0]], True
    rows, columns = np.ascontiguousarray(rows[:, 1:]), columns[1:]
    integers = {column - 1: value for column, value in integers.items() if column}
  return Table(rows, columns, names if named else None, integers, notes, labels)


def _word_columns(head: Sequence[tuple[int, list[str]]], columns: Sequence[str] | None, named: bool) -> list[int]:
  """Returns the columns below a header whose first cells are words, beside others with numbers."""
  rest = [cells for _, cells in head[1:]]
  if not columns or len(rest) < 2 or len({len(cells) for cells in rest}) > 1:
    return []
  words = [i for i in range(int(named), len(rest[0])) if all(_is_name(cells[i].strip().lower()) for cells in rest)]
  return words if len(words) < len(rest[0]) - named else []


def is_number(cell: str) -> bool:
  """Returns whether a cell of a table reads as a number, nan and inf included."""
  try:
    float(cell)
  except ValueError:
    return False
  return "_" not in cell  # Python's own literals may have them.


def _layout(head: Sequence[tuple[int, list[str]]]) -> tuple[list[str] | None, bool, int, list[str]]:
  """Names of the columns, whether a first column names the rows, cells of a row (0: any), and what to tell of it."""
  if not head:
    return None, False, 0, []
  (line, first), rest = head[0], [cells for _, cells in head[1:]]
  shorter = len(first) > 1 and bool(rest) and all(len(cells) == len(first) + 1 for cells in rest)
  # Beside a column without a name the others may be numbered.
  unnamed = len(first) > 1 and not shorter and first[0].strip().lower() in _ROW_NAMES
  counted = _counts(first[unnamed:], rest, sure=unnamed or shorter)
  if not counted and any(map(is_number, first)):
    return None, False, 0, []
  words = len(first) > 1 and bool(rest) and not shorter and all(
      _is_name(cells[0].strip().lower()) and is_number(cells[-1]) for cells in rest)
  words = words and len({cells[0] for cells in rest}) == len(rest)  # Else they are classes.
  named = shorter or unnamed or words
  notes = []
  if counted:
    notes.append(f"line {line} ({_listed(first)}) is a header")
  if named:
    title = "" if shorter or not first[0].strip() else f" {quoted(first[0].strip())}"
    notes.append(f"the first column{title} holds the names of the rows")
  columns = [cell.strip() for cell in first[named and not shorter:]]
  return columns, named, len(first) + shorter, notes


def _is_name(cell: str) -> bool:
  """Returns whether a cell in lower case is a word, and none that stands for a number or a truth value."""
  return (cell not in (*GAPS, "true", "false", "yes", "no") and not is_number(cell)
          and not re.fullmatch(r"[-+$€£¥]*\d[\d.,'\s]*[%$€£¥]?", cell))


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


def _numbers(path: str | os.PathLike, line: int, cells: Sequence[str], columns: Sequence[int],
             gaps: bool) -> Iterable[float]:
  """Returns the numbers in some columns of a line."""
  values = [cells[i] for i in columns]
  if gaps:
    values = ["nan" if cell.strip().lower() in GAPS else cell for cell in values]
  try:
    numbers = list(map(float, values))
    if "_" not in "".join(values):
      return numbers
  except ValueError:
    pass
  at = next(i for i, cell in enumerate(values) if not is_number(cell))
  what = f"{quoted(values[at])} is not a number" if values[at].strip() else "the value is missing"
  raise InputError(f"{path}: line {line}, column {columns[at] + 1}: {what}")


def _records(path: str | os.PathLike, errors: str) -> Iterator[tuple[int, list[str]]]:
  """Records that are not blank."""
  for line, cells in csv_rows(path, errors, "\t" if ".tsv" in Path(path).suffixes else ","):
    if any(cell.strip() for cell in cells):
      yield line, cells


def _integers(path: str | os.PathLike, errors: str, rows: np.ndarray,
              positions: Sequence[int]) -> dict[int, np.ndarray]:
  """Columns of whole numbers beyond 2**53, read again as integers."""
  with np.errstate(invalid="ignore"):
    columns = [i for i in range(rows.shape[1]) if (np.abs(rows[:, i]) >= 2.0**53).any()
               and (rows[:, i] == np.rint(rows[:, i])).all()]
  if not columns:
    return {}
  texts = {i: [] for i in columns}
  for _, cells in _records(path, errors):
    for i in columns:
      texts[i].append(cells[positions[i]].strip() if positions[i] < len(cells) else "")
  whole = {}
  for i, cells in texts.items():
    cells = cells[len(cells) - len(rows):]
    if all(cell.lstrip("+-").isdecimal() and len(cell) < 4000 for cell in cells):
      numbers = [int(cell) for cell in cells]
      fits = all(-2**63 <= number < 2**63 for number in numbers)
      whole[i] = np.array(numbers, np.int64) if fits else np.array([str(number) for number in numbers])
  return whole


def _counts_rows(values: np.ndarray) -> bool:
  return len(values) > 2 and values[0] in (0, 1) and bool((np.diff(values) == 1).all())


def _listed(cells: Sequence[str]) -> str:
  shown = ", ".join(cell.strip()[:20] for cell in cells[:4])
  return shown if len(cells) <= 4 else f"{shown}, ..."


def _shown(value: float) -> str:
  with np.errstate(over="ignore"):
    return str(np.float32(value))
