"""Corpora as spelled words, for models that read characters and predict words (ELMo)."""
import itertools
import json
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from embeddings_jax.data.cache import cache_root, cached, digest
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.documents import is_validation
from embeddings_jax.data.encoders.characters import (
    BEGIN,
    BEGIN_SENTENCE,
    END,
    END_SENTENCE,
    MARKS,
    UNKNOWN,
    CharacterEncoder,
    mark,
    spelled,
    split_words_and_marks,
)
from embeddings_jax.data.sentences import PARTS, split_lines, split_sentences
from embeddings_jax.data.sources import window_source
from embeddings_jax.data.tokenizer_training import slabs
from embeddings_jax.types import InputError, Source

VERSION = 2  # Of what is cached: raise it when the same text would give other words.


class SpelledTexts(NamedTuple):
  """A corpus as words.

  Attributes:
    encoder: Encoder of the most frequent words.
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
  """The words of a text dataset's training part, cached by its fingerprint.

  Args:
    dataset: a `Dataset` of kind `text`.
    vocab_size: words that can be predicted, the most frequent ones and the `MARKS`.
    max_characters: Number of characters of a word, with two marks.
    max_length: Largest number of words of an encoded item.
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
  table[[BEGIN, END]] = [mark(character, max_characters) for character in (BEGIN_SENTENCE, END_SENTENCE)]
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
    stream, characters: Arrays of `SpelledTexts`.
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
      indices = np.fromiter(map(ids.__getitem__, words), np.int32, len(words))
      indices.tofile(files[name])
      num_tokens[name] += len(indices)
      if name == "train":
        num_documents += len(documents)
        counts = np.pad(counts, (0, len(ids) - len(counts))) + np.bincount(indices, minlength=len(ids))
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
      while len(indices := np.fromfile(old, np.int32, 1 << 22)):
        names[indices].tofile(new)
    (folder / f"{name}.tmp").unlink()
  (folder / "words.txt").write_bytes("".join(f"{words[i]}\n" for i in order).encode("utf-8", "replace"))
  meta = {"num_tokens": num_tokens, "num_documents": num_documents,
          "num_raw_words": sum(counts[len(MARKS):]), "num_seen": len(MARKS) + sum(n > 0 for n in counts[len(MARKS):])}
  (folder / "meta.json").write_text(json.dumps(meta))
