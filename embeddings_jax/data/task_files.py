"""Labeled text in the forms that people keep it in: GLUE's and SNLI's tables, SQuAD's JSON, CoNLL columns, CoNLL-U,
SWAG's choices. A line that makes no sense is named by file and number.

An example is an item, its target and where it stands:

| kind | item | target |
|---|---|---|
| `text` | str | class (str) or score (float) |
| `pairs` | (str, str) | class or score, or None |
| `triples` | (str, str, str): an anchor, what is like it and what is not | None |
| `choices` | ((str, str), ...): the context with each ending | number of the right one (int) |
| `questions` | (question, context) | ((first character, text), ...): the answers; () where there is none |
| `words` | (word, ...) | (tag, ...) |
"""
import itertools
import logging
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from embeddings_jax.data import formats
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.files.conllu import conllu_sentences
from embeddings_jax.data.files.dialects import separator_of
from embeddings_jax.data.files.json import json_field, parse_json
from embeddings_jax.types import InputError

# Columns that tables are known by, in the order in which they are looked for.
PAIRS = (("sentence1", "sentence2"), ("question1", "question2"), ("question", "sentence"), ("premise", "hypothesis"),
          ("#1 string", "#2 string"), ("text1", "text2"), ("anchor", "positive"), ("sent0", "sent1"))
TRIPLES = (("anchor", "positive", "negative"), ("sent0", "sent1", "hard_neg"),
           ("premise", "entailment", "contradiction"))
TEXT = ("sentence", "text", "review")
LABELS = ("gold_label", "label", "is_duplicate", "quality", "class")
SCORES = ("score", "similarity")
_WORDS = re.compile(r"\.(conll|conll03|bio|iob|iob2|ner|annotated|txt|train|dev|testa|testb|test)$")
_LINE_BREAK = re.compile(r"\s*[\r\n]\s*")
_DOCUMENT = "-DOCSTART-"
_TARGETS = {"choices": "choice", "questions": "answers", "words": "tags"}  # Names of the targets, as labels.


class Example(NamedTuple):
  item: Any
  target: Any
  place: str


def task_dataset(name: str, kind: str, parts: Mapping[str, Sequence[Example]], fingerprint: str) -> Dataset:
  """A dataset of examples; `names` are the places they were read from.

  Its one label is `label` (str), `score` (float64), `choice` (int), `answers` (tuples) or `tags` (tuples of str);
  examples whose targets are None have none.
  """
  examples = [example for listed in parts.values() for example in listed]
  if not examples:
    raise InputError(f"{name}: is empty, it has no example")
  label = _TARGETS.get(kind) or ("score" if isinstance(examples[0].target, float) else "label")
  targets = np.empty(len(examples), object)
  targets[:] = [example.target for example in examples]
  if label in ("label", "score", "choice"):
    targets = targets.astype({"label": str, "score": np.float64, "choice": np.int32}[label])
  ends = np.cumsum([len(listed) for listed in parts.values()])
  split = {part: np.arange(end - len(listed), end) for (part, listed), end in zip(parts.items(), ends) if listed}
  labels = {} if examples[0].target is None else {label: targets}
  return Dataset(name, kind, [example.item for example in examples], names=[example.place for example in examples],
                 labels=labels, split=split, fingerprint=fingerprint)


def read_examples(path: str | os.PathLike, errors: str = "strict") -> tuple[str, list[Example]]:
  """The kind and the examples of a file; its form follows from its name: `.tsv .json .conllu .conll .txt .csv`.

  A table without labels, as GLUE's test parts are, gives no example and is reported.

  Raises:
    InputError: another name, an empty file, or a line that makes no sense.
  """
  name = re.sub(r"\.(gz|xz|bz2|zst)$", "", Path(path).name.lower())
  if name.endswith(".tsv") or (name.endswith(".txt") and _has_header(path, errors)):
    kind, examples = read_table(path, errors)
  elif name.endswith(".json"):
    kind, examples = "questions", read_squad(path)
  elif name.endswith(".csv"):
    kind, examples = "choices", list(read_choices(path, errors))
  elif name.endswith(".conllu"):
    kind, examples = "words", list(read_conllu(path, errors))
  elif _WORDS.search(name):
    kind, examples = "words", list(read_conll(path, errors))
  else:
    raise InputError(f"{path}: is no task by its name; .tsv (sentences or pairs with labels), .json (SQuAD), .csv "
                     "(SWAG), .conll or .txt (a token and its tag a line) and .conllu are")
  if examples == []:
    raise InputError(f"{path}: is empty, it has no example")
  return kind, examples or []


def read_table(path: str | os.PathLike, errors: str = "strict") -> tuple[str, list[Example] | None]:
  """Sentences or pairs with a class or a score, a line each, columns parted by tabs; quotes are literal.

  With a header, by its names: `sentence`, or a pair (`sentence1 sentence2`, `question1 question2`, `question
  sentence`, `premise hypothesis`, `#1 String #2 String`), and `gold_label`, `label`, `is_duplicate`, `Quality` (a
  class) or `score` (a number), as GLUE and SNLI have them. Without one: sentence, label; or sentence, sentence,
  label; or CoLA's four columns, source, label, mark, sentence. Lines whose label is `-` (no agreement) are left out
  and counted; a file without the column of labels gives None.
  """
  rows = _table_rows(path, errors)
  first = next(rows, (0, [""]))
  texts, target, score = _columns(first[1])
  if texts is None:
    rows = itertools.chain([first], rows)
    width = len(first[1])
    layouts = {2: ((0,), 1), 3: ((0, 1), 2), 4: ((3,), 1)}
    if width not in layouts:
      raise InputError(f"{path}: line 1 has {width} columns and no header that is known; should be sentence, label; "
                       "or sentence, sentence, label; or a header like GLUE's")
    texts, target = layouts[width]
  elif target is None:
    logging.warning("%s: has no column of labels, and is left out", path)
    return "pairs" if len(texts) == 2 else "text", None
  return "pairs" if len(texts) == 2 else "text", read_cells(path, rows, texts, target, score)


def holds_sentences(path: str | os.PathLike, errors: str = "strict") -> bool:
  """Returns whether a .tsv or .csv file has pairs or triples of sentences and not rows of numbers.

  By its header; or, of a .tsv, as it has two or three columns and neither of the first two cells of its second line
  (of its first, where that is all) is a number.
  """
  rows = list(itertools.islice(_table_rows(path, errors), 2))
  if not rows:
    return False
  header, last = rows[0][1], rows[-1][1]
  if len(text_columns(header)[0] or ()) > 1:
    return True
  return ".tsv" in Path(path).suffixes and len(last) in (2, 3) and not any(map(formats.is_number, last[:2]))


def read_sentences(path: str | os.PathLike, errors: str = "strict") -> tuple[str, list[Example]]:
  """Pairs or triples of sentences, one per line. A .tsv has columns parted by tabs, quotes are literal; of a .csv, by
  commas, with quotes around what has some.

  With a header, by its names: `anchor positive negative`, `sent0 sent1 hard_neg`, `premise entailment contradiction`,
  or the pairs that `read_table` knows, with or without a label or score. Without one: two columns are a pair; three
  are a triple, or, where the third cell of the first line is a number, a pair and its score.
  """
  rows = _table_rows(path, errors)
  first = next(rows, (0, []))
  texts, target, score = text_columns(first[1])
  if texts is None or len(texts) < 2:
    rows = itertools.chain([first], rows)
    width = len(first[1])
    if width not in (2, 3):
      raise InputError(f"{path}: line {first[0]} has {width} columns and no header that is known; should be a pair, "
                       "a pair and its score, or a triple of sentences")
    score = width == 3 and formats.is_number(first[1][2])
    texts, target = ((0, 1), 2) if score else (tuple(range(width)), None)
  return "pairs" if len(texts) == 2 else "triples", read_cells(path, rows, texts, target, score)


def read_cells(path: str | os.PathLike, rows: Iterable[tuple[int | str, list[str]]], texts: tuple[int, ...],
               target: int | None, score: bool) -> list[Example]:
  """Returns lines of a table, by number, or records, by place, as examples; `texts` and `target` are columns."""
  examples, undecided = [], 0
  needed = 1 + max(*texts, -1 if target is None else target)
  for number, cells in rows:
    where = number if isinstance(number, str) else f"{path}: line {number}"
    if len(cells) < needed:
      raise InputError(f"{where} has {len(cells)} columns, needs {needed}")
    item, label = tuple(cells[i].strip() for i in texts), None
    if target is not None:
      label = cells[target].strip()
      if label == "-":
        undecided += 1
        continue
      if not label:
        raise InputError(f"{where}: the label is missing")
      label = _number(label, where) if score else label
    examples.append(Example(item if len(item) > 1 else item[0], label, where))
  if undecided:
    logging.warning("%s: %d lines have no label (-) and are left out", path, undecided)
  return examples


def _table_rows(path: str | os.PathLike, errors: str) -> Iterator[tuple[int, list[str]]]:
  """Numbers and cells of the lines that are not blank."""
  if ".csv" not in Path(path).suffixes:
    yield from ((i, line.split("\t")) for i, line in enumerate(formats.read_lines(path, errors), 1) if line.strip())
    return
  # A sentence has no line breaks: everything that lists sentences gives each a line.
  for line, cells in formats.csv_rows(path, errors, separator_of(path, errors)):
    yield line, [_LINE_BREAK.sub(" ", cell) for cell in cells]


def text_columns(header: Sequence[str]) -> tuple[tuple[int, ...] | None, int | None, bool]:
  """Returns the columns of a header with texts, a pair or a triple, and that of the label; see `_columns`."""
  names = [cell.strip().lower() for cell in header]
  triple = next((triple for triple in TRIPLES if set(triple) <= set(names)), None)
  return (tuple(map(names.index, triple)), None, False) if triple else _columns(header)


def _columns(header: Sequence[str]) -> tuple[tuple[int, ...] | None, int | None, bool]:
  """Columns of the texts and of the label, and whether that is a score; (None, None, False) for no header."""
  index = {cell.strip().lower(): i for i, cell in reversed(list(enumerate(header)))}
  pair = next((pair for pair in PAIRS if set(pair) <= index.keys()), None)
  text = next((name for name in TEXT if name in index), None)
  if not pair and not text:
    return None, None, False
  label = next((name for name in (*LABELS, *SCORES) if name in index), None)
  texts = tuple(index[name] for name in pair or (text,))
  return texts, None if label is None else index[label], label in SCORES


def _has_header(path: str | os.PathLike, errors: str) -> bool:
  first = next(formats.read_lines(path, errors), "")
  return "\t" in first and _columns(first.split("\t"))[0] is not None


def _number(cell: str, where: str) -> float:
  value = float(cell) if formats.is_number(cell) else math.nan
  if not abs(value) < 3e38:  # Models compute in float32.
    raise InputError(f"{where}: the score {formats.quoted(cell)} is not a finite number")
  return value


def read_squad(path: str | os.PathLike) -> list[Example]:
  """Reads questions in the form of SQuAD 1.1 and 2.0; `place` names the question's id.

  Raises:
    InputError: The file cannot be read, has another form, or an answer is not where it says.
  """
  with formats.opened(path) as file:
    content = parse_json(file.read(), path)
  examples = []
  for article in _objects(content, "data", path):
    for paragraph in _objects(article, "paragraphs", path):
      context = json_field(paragraph, "context", str, path)
      for question in _objects(paragraph, "qas", path):
        name = question.get("id", len(examples))
        where = f"{path}: question {name if isinstance(name, int) else formats.quoted(name).strip(chr(39))}"
        answers = []
        for answer in [] if question.get("is_impossible") is True else _objects(question, "answers", where):
          start, text = json_field(answer, "answer_start", int, where), json_field(answer, "text", str, where)
          if not text or start < 0 or context[start:start + len(text)] != text:
            raise InputError(f"{where}: the answer {formats.quoted(text)} is not at character {start} of its context")
          answers.append((start, text))
        item = json_field(question, "question", str, where).strip(), context
        examples.append(Example(item, tuple(answers), where))
  return examples


def _objects(record: dict[str, Any], name: str, where: object) -> list[dict[str, Any]]:
  """Returns a field that is a list of JSON objects."""
  values = json_field(record, name, list, where)
  if not all(isinstance(value, dict) for value in values):
    raise InputError(f"{where}: not in the form of SQuAD, field {name!r} must be a list of objects")
  return values


def read_choices(path: str | os.PathLike, errors: str = "strict") -> Iterator[Example]:
  """SWAG's table: `sent1` and `sent2` (or `ctx`, or `startphrase`: the context with the beginning of the ending),
  `ending0`, `ending1`, ..., `label`. The second text of a choice is `sent2` with the ending."""
  rows = _table_rows(path, errors)
  _, first = next(rows, (0, []))
  header = [cell.strip().lower() for cell in first]
  index = {name: i for i, name in enumerate(header)}
  endings = [index[name] for name in sorted((n for n in header if re.fullmatch(r"ending_?\d{1,3}", n)),
                                            key=lambda n: int(re.sub(r"\D", "", n)))]
  context = next((name for name in ("sent1", "ctx", "context", "startphrase") if name in index), None)
  start = next((name for name in ("sent2", "startphrase") if name in index and name != context), None)
  if context is None or len(endings) < 2 or "label" not in index:
    raise InputError(f"{path}: line 1: should be a header with sent1, sent2 (or ctx), ending0, ending1 ... and label")
  for line, cells in rows:
    where = f"{path}: line {line}"
    if len(cells) != len(header):
      raise InputError(f"{where} has {len(cells)} columns, the header has {len(header)}")
    label = cells[index["label"]].strip()
    if not (label.isdecimal() and len(label) < 10 and int(label) < len(endings)):
      raise InputError(f"{where}: the label {formats.quoted(label)} is no number from 0 to {len(endings) - 1}")
    begun = cells[index[start]].strip() if start else ""
    choices = tuple((cells[index[context]].strip(), f"{begun} {cells[i].strip()}".strip()) for i in endings)
    yield Example(choices, int(label), where)


def read_conll(path: str | os.PathLike, errors: str = "strict") -> Iterator[Example]:
  """Sentences with a blank line between them: a token a line, its tag in the last column; white space parts columns.

  Lines that open with -DOCSTART- are left out. `place` names the sentence's first line.
  """
  words, tags, begun, width = [], [], 0, None
  for number, line in enumerate(formats.read_lines(path, errors), 1):
    cells = line.split("\t") if "\t" in line else line.split()
    if not line.strip() or cells[0] == _DOCUMENT:
      if words:
        yield Example(tuple(words), tuple(tags), f"{path}: line {begun}")
        words, tags = [], []
      continue
    width = width or len(cells)
    if len(cells) != width or width < 2 or not all((cells[0].strip(), cells[-1].strip())):
      raise InputError(f"{path}: line {number}: {formats.quoted(line)} should be a token and its tag"
                       + (f", in {width} columns like the lines before" if width > 1 else ""))
    if not words:
      begun = number
    words.append(cells[0].strip())
    tags.append(cells[-1].strip())
  if words:
    yield Example(tuple(words), tuple(tags), f"{path}: line {begun}")


def read_conllu(path: str | os.PathLike, errors: str = "strict") -> Iterator[Example]:
  """Sentences of CoNLL-U: words and their universal part of speech; see `files/conllu.py`."""
  for words in conllu_sentences(formats.read_lines(path, errors), str(path)):
    yield Example(tuple(cells[1] for _, cells in words), tuple(cells[3] for _, cells in words),
                  f"{path}: line {words[0][0]}")
