"""Sentences of CoNLL-U files: ten columns between tabs, a word a line, a blank line behind each sentence."""
import re
from collections.abc import Iterable, Iterator

from embeddings_jax.data.files.streams import quoted
from embeddings_jax.errors import InputError


def conllu_sentences(lines: Iterable[str], where: str) -> Iterator[list[tuple[int, list[str]]]]:
  """Yields the words of each sentence as `(number of the line, cells)`.

  Comments are left out, and so are spans of several tokens and empty nodes: the parts that they stand for are there.

  Args:
    lines: Lines without their ends.
    where: Name of the file for error messages.

  Raises:
    InputError: A line has another number of columns, or an id that is no number.
  """
  words: list[tuple[int, list[str]]] = []
  for number, line in enumerate(lines, 1):
    if not line.strip():
      if words:
        yield words
      words = []
      continue
    if line.startswith("#"):
      continue
    cells = line.split("\t")
    if len(cells) != 10:
      raise InputError(f"{where}: line {number} has {len(cells)} columns, CoNLL-U has 10")
    if cells[0].isdecimal():
      words.append((number, cells))
    elif not re.fullmatch(r"\d+[-.]\d+", cells[0]):
      raise InputError(f"{where}: line {number}: the id {quoted(cells[0])} is no number")
  if words:
    yield words
