"""Lists of words that people have judged: pairs by similarity, analogies, synonyms and categories."""
import math
import os
from pathlib import Path
from typing import NamedTuple

from embeddings_jax.data import formats
from embeddings_jax.types import InputError


class _File(NamedTuple):
  path: str
  checksum: str
  paper: str


WORD_SIMILARITY = {
    "ws353": _File("word-similarity/EN-WS-353-ALL.txt",
                   "ce12919b240af45bdf46d243601eaca2b6212b159b5e7e9b435ee7ee40c5619c", "Finkelstein et al. 2001"),
    "ws353-sim": _File("word-similarity/EN-WS-353-SIM.txt",
                       "f1da938998863c94e53f72f984a5c6e215f0b46c323aae8f0f4930703a339107", "Agirre et al. 2009"),
    "ws353-rel": _File("word-similarity/EN-WS-353-REL.txt",
                       "66a7c88100624d0a391605ff61ce84e11d11ee620d51ec0298da49592838f8fa", "Agirre et al. 2009"),
    "simlex999": _File("word-similarity/EN-SIMLEX-999.txt",
                       "405394ffb7d25f6d0e3c041f87c9f27d29dc6b047506769953e85c4523b11685", "Hill et al. 2015"),
    "men": _File("word-similarity/EN-MEN-TR-3k.txt",
                 "888b13580faa362c7b11da0a670258cf1b1eb4bf0ecbcd418918729a3bd3f43a", "Bruni et al. 2014"),
    "mturk287": _File("word-similarity/EN-MTurk-287.txt",
                      "a9ae3a9decb75a9700fe0cf18b048c1344774d9f40e0196baf8e34d4cd9d1ce5", "Radinsky et al. 2011"),
    "rg65": _File("word-similarity/EN-RG-65.txt",
                  "c243f3a91c3f5d8cf67f21a67f6fb80bde8b6bb060851a6a48e6f2d68ec98c9f", "Rubenstein & Goodenough 1965"),
    "mc30": _File("word-similarity/EN-MC-30.txt",
                  "33ee05911496ff83d95cac351d0746c6f63b9181b605cb7d307f4daa8864511b", "Miller & Charles 1991"),
}
_SCORES = ("score", "similarity", "rating", "human (mean)", "simlex999")  # Names of columns.
_ANALOGIES = _File("word-analogy/questions-words.txt",
                   "8c29b3332afc46f3fb8be04cb5297bf96f39aa7131272dff57869b4485b22a36", "Mikolov et al. 2013")
CATEGORIZATION = {
    "ap": _File("word-categorization/ap.csv",
                "0efdcdf298946620f4d3db17743483b45ac09169c3ef943761d52ff9a0de8974", "Almuhareb & Poesio 2006"),
    "bless": _File("word-categorization/bless.csv",
                   "cf14ae0c0feeb78a7d85e0a3ca725ab5f573677ceaa950b7417db749a7012cc3", "Baroni & Lenci 2011"),
    "essli-2008": _File("word-categorization/essli-2008.csv",
                        "b41a8437ea6165bb3f96751f1fb51b4be5a200c02cf28ae7ca7b42ddc631c320", "ESSLLI workshop 2008"),
}


def word_similarity(name: str, data_dir: str | os.PathLike | None = None) -> list[tuple[str, str, float]]:
  """Returns pairs of words and their score, greater = more alike. Scales differ between sets: compare ranks.

  Args:
    name: One of `WORD_SIMILARITY`, or the path of a file of the user's with a pair a line: two words and a number,
      separated by tabs, by commas, or by white space. The first line may be a header; if it names a column `score`,
      `similarity`, `rating`, `human (mean)` or `simlex999`, that is the score, else the third column. Lines that
      begin with # are skipped.
    data_dir: Directory of the published lists.

  Raises:
    InputError: No such list or file, a line that is no pair with a score, or no pair.
  """
  if name not in WORD_SIMILARITY and not Path(name).is_file():
    raise InputError(f"word similarity {name!r}: unknown; there are {', '.join(WORD_SIMILARITY)}, and files")
  path = _checked(WORD_SIMILARITY[name], data_dir) if name in WORD_SIMILARITY else Path(name)
  pairs, score = [], 2
  lines = ((number, line.strip()) for number, line in enumerate(formats.read_lines(path), 1))
  lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
  for i, (number, line) in enumerate(lines):
    fields = [field.strip() for field in line.split("\t" if "\t" in line else "," if "," in line else None)]
    names = [field.lower() for field in fields]
    if not i and len(fields) > 2 and not any(map(formats.is_number, fields)):
      score = next((names.index(known) for known in _SCORES if known in names), 2)
      continue
    if len(fields) <= score or not all(fields[:2]) or not formats.is_number(fields[score]) or not math.isfinite(
        float(fields[score])):
      raise InputError(f"{path}: line {number}: {formats.quoted(line)} should be two words and their score")
    pairs.append((fields[0], fields[1], float(fields[score])))
  if not pairs:
    raise InputError(f"{path}: is empty, it has no pair of words")
  return pairs


def analogies(name: str = "google", data_dir: str | os.PathLike | None = None) -> dict[str, list[tuple[str, ...]]]:
  """Returns section -> questions `(a, b, c, d)`: a is to b as c is to d. Sections `gram...` are the syntactic ones.

  Args:
    name: `google`, or the path of a file of the user's: lines of four words, below lines `: section` or without any,
      or those of Microsoft Research (Mikolov, Yih & Zweig 2013): `NAME.questions` with three words a line, beside
      which `NAME.answers` has a tag and the fourth, as `JJ_JJR rougher`; its sections are `gram` and the tags.
    data_dir: Directory of the published list.

  Raises:
    InputError: No such file, a line that is no question, or no question.
  """
  path = _checked(_ANALOGIES, data_dir) if name == "google" else Path(name)
  if path.suffix == ".questions":
    return _tagged_analogies(path)
  sections: dict[str, list[tuple[str, ...]]] = {}
  questions: list[tuple[str, ...]] = []
  for number, line in enumerate(formats.read_lines(path), 1):
    words = tuple(line.split())
    if line.startswith(":"):
      questions = sections.setdefault(line[1:].strip(), [])
    elif len(words) == 4:
      if not sections:
        sections["all"] = questions
      questions.append(words)
    elif words:
      raise InputError(f"{path}: line {number}: {formats.quoted(line.strip())} should be four words, or a line "
                       "`: section`")
  if not any(sections.values()):
    raise InputError(f"{path}: is empty, it has no question")
  return sections


def _tagged_analogies(path: Path) -> dict[str, list[tuple[str, ...]]]:
  """Returns the questions of `NAME.questions` with `NAME.answers`."""
  answers = path.with_suffix(".answers")
  if not answers.is_file():
    raise InputError(f"{path}: {answers.name} is missing beside it, with a tag and the fourth word of each question")
  triples, replies = ([line.split() for line in formats.read_lines(file)] for file in (path, answers))
  triples, replies = ([words for words in listed if words] for listed in (triples, replies))
  if len(triples) != len(replies):
    raise InputError(f"{path}: has {len(triples)} questions for the {len(replies)} lines of {answers.name}")
  sections: dict[str, list[tuple[str, ...]]] = {}
  for number, (words, answer) in enumerate(zip(triples, replies), 1):
    if len(words) != 3 or len(answer) != 2:
      raise InputError(f"{path}: line {number}: should be three words, and a tag and a word in {answers.name}")
    sections.setdefault(f"gram {answer[0]}", []).append((*words, answer[1]))
  if not sections:
    raise InputError(f"{path}: is empty, it has no question")
  return sections


def synonyms(path: str | os.PathLike) -> list[tuple[str, list[str], str]]:
  """Questions `(word, candidates, answer)` of a file of the user's, one a line.

  A line is the word, its candidates and, again, the one that is right: `rug sofa ottoman carpet hallway carpet`. The
  fields stand between tabs, so that they may hold spaces; a line without a tab is divided at white space. Blank lines
  are skipped.
  """
  questions = []
  for number, line in enumerate(formats.read_lines(path), 1):
    fields = [field.strip() for field in line.strip().split("\t" if "\t" in line.strip() else None)]
    if not any(fields):
      continue
    word, candidates, answer = fields[0], fields[1:-1], fields[-1]
    if len(candidates) < 2 or answer not in candidates or len(set(candidates)) < len(candidates):
      raise InputError(f"{path}: line {number}: should be a word, two or more different candidates, and the "
                       f"one of them that is right, not {formats.quoted(line.strip())}")
    questions.append((word, candidates, answer))
  if not questions:
    raise InputError(f"{path}: is empty, it has no question")
  return questions


def categorization(name: str, data_dir: str | os.PathLike | None = None) -> list[tuple[str, str]]:
  """Words and their category."""
  if name not in CATEGORIZATION:
    raise InputError(f"categorization {name!r}: unknown; there are {', '.join(CATEGORIZATION)}")
  (_, header), *rows = formats.csv_rows(_checked(CATEGORIZATION[name], data_dir))
  lines = [dict(zip(header, cells)) for _, cells in rows]
  # The empty words of `ap` and `bless` stand for their categories; without them there are the 402 and 200 of the
  # papers.
  return [(line["word"], line["category"]) for line in lines if line["word"]]


def _checked(file: _File, data_dir: str | os.PathLike | None) -> Path:
  return formats.checked_file(data_dir, file.path, file.checksum)
