"""Words as characters, for models that read how words are spelled and predict which they are (ELMo)."""
import functools
import itertools
import json
import logging
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from embeddings_jax.data.cache import cache_root, cached, digest
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.documents import is_validation
from embeddings_jax.data.encoders import ENCODERS, Batch, TextEncoder, check_size, part_of
from embeddings_jax.data.files.names import format_names, read_names
from embeddings_jax.data.sentences import PARTS, split_lines, split_sentences
from embeddings_jax.data.sources import window_source
from embeddings_jax.data.subwords import slabs
from embeddings_jax.data.words import composed, word_pattern
from embeddings_jax.types import InputError, Source

VERSION = 2  # Of what is cached: raise it when the same text would give other words.
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
  found = np.full((len(words), max_characters), PADDING, np.uint16)
  found[:, 0] = BEGIN_WORD
  for row, word in zip(found, words):
    data = word.encode("utf-8", "replace")[:max_characters - 2]
    row[1:len(data) + 1] = np.frombuffer(data, np.uint8)
    row[1:len(data) + 1] += 1
    row[len(data) + 1] = END_WORD
  return found


def _mark(character: int, max_characters: int) -> np.ndarray:
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
      characters[row, 0] = _mark(BEGIN_SENTENCE, self.max_characters)
      characters[row, 1:size + 1] = spelled(words, self.max_characters)
      characters[row, size + 1] = _mark(END_SENTENCE, self.max_characters)
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


ENCODERS[CharacterEncoder.kind] = CharacterEncoder


class SpelledTexts(NamedTuple):
  """A corpus as words.

  Attributes:
    encoder: of the most frequent words.
    train, validation: int32 `[num_tokens]`, memory-mapped: which word of all there are stands where, sentences
      between `BEGIN` and `END`; of the training documents, and of those held out (None where there is none).
    characters: uint16 `[num_words + 1, max_characters]`, how all of them are spelled; the last row is 0.
    facts: the encoder's, and `counts` of its words in training (`UNKNOWN`: of all others; `BEGIN`: 0),
      `num_raw_words`, `num_documents`, `num_words` (all there are).
    fingerprint: SHA-256 (hex) of what determines it.
  """

  encoder: CharacterEncoder
  train: np.ndarray
  validation: np.ndarray | None
  characters: np.ndarray
  facts: dict[str, Any]
  fingerprint: str


def spell_documents(dataset: Dataset, *, vocab_size: int, max_characters: int, max_length: int,
                    cache_dir: str | os.PathLike | None = None) -> SpelledTexts:
  """The words of a text data set's training part, cached by its fingerprint.

  Args:
    dataset: a `Dataset` of kind `text`.
    vocab_size: words that can be predicted, the most frequent ones and the `MARKS`.
    max_characters: of a word, with two marks.
    max_length: of the encoder.
    cache_dir: default `$EMBEDDINGS_CACHE`, then `~/.cache/embeddings_jax`.

  Raises:
    InputError: not text, there is none, or `vocab_size` leaves no room for a word.
  """
  if dataset.kind != "text":
    raise InputError(f"{dataset.name}: holds {dataset.kind}, words can only be read from text")
  if vocab_size <= len(MARKS):
    raise InputError(f"vocab_size={vocab_size}: too small, {len(MARKS)} are marks")
  key = digest("characters", VERSION, dataset.fingerprint, *(["lines"] if dataset.lines else []))
  path = cached(cache_root(cache_dir) / f"characters-{key[:32]}", lambda folder: _build(folder, dataset))
  words = (path / "words.txt").read_bytes().decode().split("\n")[:-1]
  meta = json.loads((path / "meta.json").read_text())
  # The encoder refuses what it cannot do, before all words are spelled.
  encoder = CharacterEncoder(words[:min(vocab_size, meta["num_seen"])], max_characters, max_length)
  table = np.concatenate([spelled(words, max_characters), np.zeros((1, max_characters), np.uint16)])
  table[[BEGIN, END]] = [_mark(mark, max_characters) for mark in (BEGIN_SENTENCE, END_SENTENCE)]
  train, validation = (np.memmap(path / f"{name}.bin", np.int32, "r") if meta["num_tokens"][name] else None
                       for name in PARTS)
  counts = np.bincount(train, minlength=len(words))
  size = len(encoder.words)
  counts[UNKNOWN], counts[BEGIN] = counts[size:].sum(), 0
  facts = encoder.facts | {"counts": counts[:size], "num_raw_words": meta["num_raw_words"],
                           "num_documents": meta["num_documents"], "num_words": len(words)}
  return SpelledTexts(encoder, train, validation, table, facts, digest(key, vocab_size, max_characters))


def character_source(stream: np.ndarray, characters: np.ndarray, vocab_size: int, length: int, batch_size: int,
                     **options: Any) -> Source:
  """Windows of running words: `characters` uint16 `[batch_size, length, max_characters]`, `tokens` int32
  `[batch_size, length]` (what is past the vocabulary is `UNKNOWN`, -1 past the end) and `mask`.

  Args:
    stream, characters: of `SpelledTexts`.
    vocab_size: words that can be predicted.
    length: words of a window, with the marks.
    batch_size, **options: as for `window_source`.
  """
  windows = window_source(stream, length, batch_size, **options)

  def spell(table: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    words = batch["tokens"]
    unknown = words >= vocab_size
    # Row -1 of the table is that of no word.
    return {"characters": table[words], "tokens": words * ~unknown + unknown * np.int32(UNKNOWN),
            "mask": batch["mask"]}

  if windows.resident:
    return windows._replace(
        resident={**windows.resident, "characters": characters},
        assemble=lambda resident, feed: spell(resident["characters"], windows.assemble(resident, feed)))
  return windows._replace(feed_at=lambda step, rows=slice(None): spell(characters, windows.feed_at(step, rows)))


def _build(folder: Path, dataset: Dataset) -> None:
  """One pass gives words provisional ids in the order of their first sight; then they are renamed by frequency."""
  folder.mkdir()
  chosen = dataset.split.get("train")
  texts = iter(dataset.items) if chosen is None else (dataset.items[i] for i in chosen)
  # No word of the text looks like a mark: words have no brackets.
  ids = defaultdict(itertools.count(len(MARKS)).__next__, {mark: i for i, mark in enumerate(MARKS)})
  split = split_lines if dataset.lines else split_sentences
  counts = np.zeros(0, np.int64)
  num_tokens, num_documents = dict.fromkeys(PARTS, 0), 0
  files = {name: open(folder / f"{name}.tmp", "wb") for name in PARTS}
  for slab in slabs(texts):
    for name in PARTS:
      documents = [text for text in slab if is_validation(text) == (name == "validation")]
      words = [word for text in documents for sentence in split(text)
               for word in (MARKS[BEGIN], *split_words_and_marks(sentence), MARKS[END])]
      found = np.fromiter(map(ids.__getitem__, words), np.int32, len(words))
      found.tofile(files[name])
      num_tokens[name] += len(found)
      if name == "train":
        num_documents += len(documents)
        counts = np.pad(counts, (0, len(ids) - len(counts))) + np.bincount(found, minlength=len(ids))
  for file in files.values():
    file.close()
  if not num_tokens["train"]:
    raise InputError(f"{dataset.name}: has no text to train on")
  counts = np.pad(counts, (0, len(ids) - len(counts))).tolist()
  words = list(ids)
  order = [*range(len(MARKS)), *sorted(range(len(MARKS), len(words)), key=lambda i: (-counts[i], words[i]))]
  names = np.empty(len(order), np.int32)
  names[order] = np.arange(len(order))
  for name in PARTS:
    with open(folder / f"{name}.tmp", "rb") as old, open(folder / f"{name}.bin", "wb") as new:
      while len(found := np.fromfile(old, np.int32, 1 << 22)):
        names[found].tofile(new)
    (folder / f"{name}.tmp").unlink()
  (folder / "words.txt").write_bytes("".join(f"{words[i]}\n" for i in order).encode("utf-8", "replace"))
  meta = {"num_tokens": num_tokens, "num_documents": num_documents,
          "num_raw_words": sum(counts[len(MARKS):]), "num_seen": len(MARKS) + sum(n > 0 for n in counts[len(MARKS):])}
  (folder / "meta.json").write_text(json.dumps(meta))
