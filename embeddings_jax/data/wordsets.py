"""Lists of words that people have judged: pairs by similarity, analogies, synonyms and categories."""
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
  """Pairs of words and their score, greater = more alike. Scales differ between sets: compare ranks."""
  if name not in WORD_SIMILARITY:
    raise InputError(f"word similarity {name!r}: unknown; there are {', '.join(WORD_SIMILARITY)}")
  path = _checked(WORD_SIMILARITY[name], data_dir)
  pairs = (line.split() for line in formats.read_lines(path) if line.strip())
  return [(first, second, float(score)) for first, second, score in pairs]


def analogies(name: str = "google", data_dir: str | os.PathLike | None = None) -> dict[str, list[tuple[str, ...]]]:
  """Section -> questions `(a, b, c, d)`: a is to b as c is to d. Sections `gram...` are the syntactic ones.

  `name` is `google` or the path of a file of the same form: lines `: section`, and lines of four words.
  """
  path = _checked(_ANALOGIES, data_dir) if name == "google" else Path(name)
  sections: dict[str, list[tuple[str, ...]]] = {}
  for number, line in enumerate(formats.read_lines(path), 1):
    words = tuple(line.split())
    if line.startswith(":"):
      questions = sections.setdefault(line[1:].strip(), [])
    elif len(words) == 4 and sections:
      questions.append(words)
    elif words:
      raise InputError(f"{path}: line {number}: {formats.quoted(line.strip())} should be four words, below a line "
                       "`: section`")
  if not any(sections.values()):
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
