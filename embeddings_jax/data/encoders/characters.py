"""Encoder of words as characters, for models that read how words are spelled and predict which they are (ELMo)."""
import functools
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from embeddings_jax.data.encoders.base import Batch, TextEncoder, check_size, part_of
from embeddings_jax.data.files.names import format_names, read_names
from embeddings_jax.data.words import composed, word_pattern
from embeddings_jax.errors import InputError

# Characters: 0 is no word, 1 + b the byte b of UTF-8, then the marks.
NUM_CHARACTERS = 262
BEGIN_SENTENCE, END_SENTENCE, BEGIN_WORD, END_WORD, PADDING = range(257, 262)
MARKS = ("<S>", "</S>", "<UNK>")  # The first words of a vocabulary.
BEGIN, END, UNKNOWN = range(3)
_ASCII_WORD = re.compile(r"\w+(?:'\w+)*|[^\w\s]")


def split_words_and_marks(text: str) -> list[str]:
  """Splits a text into words, with combining marks and apostrophes inside them, and single other characters.

  The text is brought into normalization form NFC. White space and stray joiners are dropped.
  """
  return _ASCII_WORD.findall(text) if text.isascii() else _unicode_word().findall(composed(text))


@functools.cache
def _unicode_word() -> re.Pattern[str]:
  return re.compile(word_pattern(r"\w", "'\u2019") + r"|[^\w\s\u200c\u200d]")


def spelled(words: Sequence[str], max_characters: int) -> np.ndarray:
  """uint16 `[num_words, max_characters]`: each word's bytes between marks, cut and padded; `MARKS` have their own."""
  codes = np.full((len(words), max_characters), PADDING, np.uint16)
  codes[:, 0] = BEGIN_WORD
  for row, word in zip(codes, words):
    data = word.encode("utf-8", "replace")[:max_characters - 2]
    row[1:len(data) + 1] = np.frombuffer(data, np.uint8)
    row[1:len(data) + 1] += 1
    row[len(data) + 1] = END_WORD
  return codes


def mark(character: int, max_characters: int) -> np.ndarray:
  """Returns how a mark is spelled: uint16 `[max_characters]`."""
  return np.array([BEGIN_WORD, character, END_WORD] + [PADDING] * (max_characters - 3), np.uint16)


class CharacterEncoder(TextEncoder):
  """Sentences -> `characters` uint16 `[n, length, max_characters]`, 0 on padding, `tokens` int32 `[n, length]`, which
  words of the vocabulary they are (`<UNK>` what it has not, -1 padding), and `mask`.

  A sentence is a text, or a list of words; it is read between the marks `<S>` and `</S>`, and cut so that it has no
  more than `max_length` words with them. The length of a batch is `max_length` or that over 2, 4 or 8.
  """

  kind = "characters"
  embedded_at_once = 1 << 14  # Characters: convolutions over them make many times as many numbers.
  encoded_at_once = 1 << 12
  num_widths = 4

  def __init__(self, words: Sequence[str], max_characters: int, max_length: int):
    check_size("max_characters", max_characters, 4, 1 << 12)
    check_size("max_length", max_length, 3, 1 << 16)
    if tuple(words[:len(MARKS)]) != MARKS:
      raise InputError(f"the vocabulary must begin with {', '.join(MARKS)}")
    self.words = list(words)
    self.index = {word: i for i, word in enumerate(self.words) if i >= len(MARKS)}
    self.max_characters, self.max_length = max_characters, max_length
    self.num_truncated = 0  # Sentences that have been cut.

  def for_task(self, max_length: int) -> "CharacterEncoder":
    """Returns the encoder for a task, which cuts sentences at `max_length` words."""
    return CharacterEncoder(self.words, self.max_characters, max_length)

  def options(self) -> dict[str, Any]:
    return {"max_characters": self.max_characters, "max_length": self.max_length}

  def files(self) -> dict[str, bytes]:
    return {"vocabulary.txt": format_names(self.words).encode()}

  @classmethod
  def from_files(cls, options: Mapping[str, Any], folder: epath.Path) -> "CharacterEncoder":
    return cls(read_names(folder / "vocabulary.txt"), **options)

  @property
  def facts(self) -> dict[str, Any]:
    """`special_ids` are words that nobody predicts."""
    return {"vocab_size": len(self.words), "special_ids": [BEGIN]}

  def encode(self, items: Sequence[str | Sequence[str]]) -> Batch:
    if not len(items):
      raise InputError("no items to encode: the input is empty")
    sentences = [split_words_and_marks(item) if isinstance(item, str) else list(item) for item in items]
    num_cut = sum(len(words) > self.max_length - 2 for words in sentences)
    if num_cut and not self.num_truncated:
      logging.warning("%d of %d texts have more than %d words and are cut there; later ones are not reported",
                      num_cut, len(items), self.max_length - 2)
    self.num_truncated += num_cut
    sentences = [words[:self.max_length - 2] for words in sentences]
    shape = len(items), self.bucket(2 + max(map(len, sentences)))
    characters = np.zeros((*shape, self.max_characters), np.uint16)
    tokens = np.full(shape, -1, np.int32)
    for row, words in enumerate(sentences):
      size = len(words)
      characters[row, 0] = mark(BEGIN_SENTENCE, self.max_characters)
      characters[row, 1:size + 1] = spelled(words, self.max_characters)
      characters[row, size + 1] = mark(END_SENTENCE, self.max_characters)
      tokens[row, :size + 2] = [BEGIN, *(self.index.get(word, UNKNOWN) for word in words), END]
    return {"characters": characters, "tokens": tokens, "mask": np.ones(len(items), np.float32)}

  def encode_words(self, sentences: Sequence[Sequence[str]]) -> Batch:
    """As `encode`, and `word_starts` int32 `[n, num_words]`: the place of each word; -1 where it was cut off."""
    batch = self.encode([list(words) for words in sentences])
    starts = np.arange(1, 1 + max(1, *map(len, sentences), 1))
    lengths = np.array([min(len(words), self.max_length - 2) for words in sentences])
    return batch | {"word_starts": np.where(starts <= lengths[:, None], starts, -1).astype(np.int32)}

  def bucket(self, length: int) -> int:
    return part_of(self.max_length, length)

  def lengths(self, batch: Batch) -> np.ndarray:
    return (batch["tokens"] >= 0).sum(-1)
