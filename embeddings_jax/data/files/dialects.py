"""Separators and decimal marks of tables, recognized from their first records, and the numbers in their cells."""
import csv
import itertools
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from embeddings_jax.data.files.streams import quoted, summary, text_lines
from embeddings_jax.errors import InputError, check_choice

SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|"}
DECIMALS = {"point": ".", "comma": ","}
HEADERS = ("", "yes", "no")
GAPS = ("", "na", "nan", "null", "?")  # Cells without a value, in lower case.
_HEAD = 50  # Records that decide,
_HEAD_LINES = 1000  # within so many lines: a quotation mark that is left open would reach to the end.
_END = "\0end of the table"
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+")


class TableOptions(NamedTuple):
  """Options of reading a table.

  Attributes:
    columns: Names of the columns of numbers to read, or their numbers from 0; (): all.
    words: Names of columns that may hold words, which become labels.
    header: Whether the first line holds the names of the columns, `yes` or `no`; "": recognized.
    separator: `comma`, `semicolon`, `tab` or `bar` between cells; "": recognized.
    decimal: Decimal mark, `point` or `comma`; "": recognized.
    wanted: Names of the columns to read, in order, from a table that has them all; (): all.
  """

  columns: Sequence[str] = ()
  words: Sequence[str] = ()
  header: str = ""
  separator: str = ""
  decimal: str = ""
  wanted: Sequence[str] = ()


RECOGNIZED = TableOptions()


class Dialect(NamedTuple):
  """Separator and decimal mark of a table, as characters, and what to tell of them."""

  separator: str
  decimal: str
  notes: Sequence[str] = ()


def check_options(options: TableOptions) -> None:
  """Raises an `InputError` for an option that has no meaning."""
  check_choice("header", options.header, HEADERS)
  if options.separator:
    check_choice("separator", options.separator, list(SEPARATORS))
  if options.decimal:
    check_choice("decimal", options.decimal, list(DECIMALS))
  if options.separator == options.decimal == "comma":
    raise InputError("separator=comma: cannot be the decimal mark as well; give another separator or decimal=point")


def csv_rows(path: str | os.PathLike, errors: str = "strict", delimiter: str = ",",
             most: int | None = None) -> Iterator[tuple[int, list[str]]]:
  """Yields the records of a table as `(number of the first line, cells)`.

  Cells may be of any length; line breaks in quotes stay. Records without any character are left out.

  Args:
    path: The file, perhaps compressed.
    errors: `strict` or `replace`; see `text_lines`.
    delimiter: Character between cells.
    most: Lines to read; None: all.

  Raises:
    InputError: The file cannot be read, or a quotation mark is never closed.
  """
  reader = csv.reader(itertools.chain(itertools.islice(text_lines(path, errors), most), [_END]), delimiter=delimiter)
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


def separator_of(path: str | os.PathLike, errors: str = "strict", separator: str = "") -> str:
  """Returns the character between the cells of a table.

  A .tsv has tabs and any other table commas, unless another separator alone cuts the first records into equally many
  cells, or into more numbers.

  Args:
    path: The file, perhaps compressed.
    errors: `strict` or `replace`; see `text_lines`.
    separator: One of `SEPARATORS`; "": recognized.
  """
  if separator:
    return SEPARATORS[separator]
  usual = "\t" if ".tsv" in Path(path).suffixes else ","
  choices = [usual, *(mark for mark in (",", ";", "\t") if mark != usual)]
  return max(choices, key=lambda mark: _merit(_head(path, errors, mark), mark))  # The first of equals.


def recognize(path: str | os.PathLike, errors: str = "strict", options: TableOptions = RECOGNIZED) -> Dialect:
  """Returns the dialect of a table of numbers; see `separator_of`.

  Numbers have decimal commas where a separator other than the comma leaves cells like `1,5` and none like `1.5`.

  Raises:
    InputError: The file cannot be read, or `1,000` may be 1 or a thousand.
  """
  separator = separator_of(path, errors, options.separator)
  usual = "\t" if ".tsv" in Path(path).suffixes else ","
  notes = [] if separator == usual or options.separator else [
      f"cells are separated by {next(name for name, mark in SEPARATORS.items() if mark == separator)}s"]
  if options.decimal or separator == ",":
    return Dialect(separator, DECIMALS[options.decimal or "point"], notes)
  cells = [cell.strip() for record in _head(path, errors, separator) for cell in record]
  commas = [cell for cell in cells if "," in cell and is_number(cell.replace(",", ".", 1))]
  if not commas or any("." in cell and is_number(cell) for cell in cells):
    return Dialect(separator, ".", notes)
  if all(_THOUSANDS.fullmatch(cell) for cell in commas):
    raise InputError(f"{path}: {quoted(commas[0])} may have a decimal comma or one between thousands; say "
                     "decimal=comma, or write such numbers without commas")
  return Dialect(separator, ",", [*notes, "numbers have decimal commas"])


def plain(cell: str, decimal: str) -> str:
  """Returns a cell with a decimal point in place of another mark, where it is a number then."""
  if decimal == "," and "," in cell and is_number(changed := cell.replace(",", ".")):
    return changed
  return cell


def is_number(cell: str) -> bool:
  """Returns whether a cell of a table reads as a number in ASCII digits, nan and inf included."""
  try:
    float(cell)
  except ValueError:
    return False
  return "_" not in cell and cell.strip().isascii()  # Python's own literals may have others.


def numbers(path: str | os.PathLike, line: int, cells: Sequence[str], columns: Sequence[int], gaps: bool,
            decimal: str = ".") -> Iterable[float]:
  """Returns the numbers in some columns of a line.

  Raises:
    InputError: A cell is no number.
  """
  values = [cells[i] for i in columns]
  if gaps:
    values = ["nan" if cell.strip().lower() in GAPS else cell for cell in values]
  joined = "".join(values)
  mixed = decimal == "," and "." in joined
  if decimal == ",":
    values = [cell.replace(",", ".") for cell in values]
  try:
    parsed = list(map(float, values))
    if not mixed and "_" not in joined and (joined.isascii() or all(map(is_number, values))):
      return parsed
  except ValueError:
    pass
  at = next(i for i, cell in enumerate(values) if not is_number(cell) or mixed and "." in cells[columns[i]])
  cell = cells[columns[at]]
  what = f"{quoted(cell)} is not a number" if cell.strip() else "the value is missing"
  if cell.strip() and mixed and "." in cell:
    what += ", others have decimal commas"
  elif cell.strip() and not cell.isascii() and not _fails(cell):
    what += " in ASCII digits"
  raise InputError(f"{path}: line {line}, column {columns[at] + 1}: {what}")


def _fails(cell: str) -> bool:
  try:
    float(cell)
  except ValueError:
    return True
  return False


def _head(path: str | os.PathLike, errors: str, separator: str) -> list[list[str]]:
  """Returns the first records as a separator cuts them, or none where quotation marks do not fit it."""
  head = []
  try:
    for _, cells in itertools.islice(csv_rows(path, errors, separator, _HEAD_LINES), _HEAD):
      if any(cell.strip() for cell in cells):
        head.append(cells)
  except InputError:
    if not head and separator != ",":
      return []
  return head


def _merit(head: Sequence[Sequence[str]], separator: str) -> tuple[bool, float]:
  """Returns whether records have equally many cells, several, and the fraction of cells that are numbers."""
  widths = {len(cells) for cells in head[1:]} or {len(cells) for cells in head}
  # The line of names may be one cell shorter, as R writes tables.
  alike = bool(head) and len(widths) == 1 and max(widths) > 1 and max(widths) - len(head[0]) in (0, 1)
  if not alike:
    return False, 0
  decimal = "." if separator == "," else ","
  cells = [cell for record in head for cell in record]
  return True, sum(is_number(plain(cell, decimal)) for cell in cells) / len(cells)
