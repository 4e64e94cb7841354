"""Words with several senses, each in sentences: ten embedded ones for two senses of "bank", or a file of a user."""
import os
import re
from pathlib import Path
from typing import NamedTuple

from embeddings_jax.data import formats
from embeddings_jax.types import InputError

_WORDS = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
_BANK = {
    "money": (
        "She opened an account at the bank last week .", "The bank raised its interest rates on loans .",
        "He works as a clerk in a bank in London .", "The central bank printed more money during the war .",
        "They borrowed the money from a bank to buy a house .", "Robbers stole two million dollars from the bank .",
        "The bank refused to lend the company any more .", "My salary is paid into the bank every month .",
        "A large bank failed in the financial crisis .", "The state founded a national bank to issue notes ."),
    "river": (
        "We sat on the bank of the river and watched the boats .", "The path follows the south bank of the stream .",
        "Trees grow along the bank above the water .", "The town lies on the left bank of the Rhine .",
        "He pulled the boat up on the muddy bank .", "Floods washed away the bank of the creek .",
        "Fishermen stood on the bank with their nets .", "The army camped on the eastern bank of the Danube .",
        "A heron waited at the bank of the lake .", "Reeds cover the bank where the river is slow ."),
}


class Occurrence(NamedTuple):
  """A word in a sentence.

  Attributes:
    word: The word, in lower case.
    sense: Name of its sense.
    words: The sentence's words and marks.
    place: Where the word stands in it.
  """

  word: str
  sense: str
  words: list[str]
  place: int


def load(name: str, data_dir: str | os.PathLike | None = None) -> list[Occurrence]:
  """Returns the embedded sentences for `bank`, or those of a file: lines of a word, a sense and a sentence with tabs
  between.

  Raises:
    InputError: A line has not three fields, a sentence lacks its word, a word has one sense, or a sense one sentence.
  """
  del data_dir
  if name == "bank":
    return [_occurrence("bank", sense, text, name) for sense, texts in _BANK.items() for text in texts]
  path, occurrences = Path(name), []
  for number, line in enumerate(formats.read_lines(path), 1):
    fields = [field.strip() for field in line.split("\t")]
    if not any(fields):
      continue
    if len(fields) != 3 or not all(fields):
      raise InputError(f"{path}: line {number}: should be a word, a sense and a sentence with tabs between, not "
                       f"{formats.quoted(line.strip())}")
    occurrences.append(_occurrence(*fields, f"{path}: line {number}"))
  if not occurrences:
    raise InputError(f"{path}: is empty, it has no sentence")
  for word in dict.fromkeys(item.word for item in occurrences):
    senses = [item.sense for item in occurrences if item.word == word]
    few = [sense for sense in dict.fromkeys(senses) if senses.count(sense) < 2]
    if len(set(senses)) < 2 or few:
      raise InputError(f"{path}: {word!r} needs two senses or more with two sentences or more each; it has "
                       + ", ".join(f"{senses.count(sense)} of {sense!r}" for sense in dict.fromkeys(senses)))
  return occurrences


def _occurrence(word: str, sense: str, text: str, where: str) -> Occurrence:
  words, lowered = _WORDS.findall(text), word.lower()
  place = next((i for i, form in enumerate(words) if form.lower() == lowered), None)
  if place is None:
    raise InputError(f"{where}: the sentence {formats.quoted(text)} lacks the word {word!r}")
  return Occurrence(lowered, sense, words, place)
