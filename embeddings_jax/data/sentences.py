"""Documents to running tokens with the bounds of sentences and documents, on the disk, memory-mapped."""
import functools
import hashlib
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from embeddings_jax.data.cache import cache_root, cached, digest
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.documents import is_validation
from embeddings_jax.data.encoders.subwords import SubwordEncoder
from embeddings_jax.data.tokenizer_training import slabs
from embeddings_jax.data.words import combining_marks
from embeddings_jax.types import InputError

VERSION = 2  # Of what is cached: raise it when the same text would give other tokens.
UNITS = ("sentence", "line", "paragraph", "document")
PARTS = ("train", "validation")

_TITLES = "".join(rf"(?<!\b{title}\.)" for title in ("Mr", "Mrs", "Ms", "Dr", "St", "Prof", "Gen", "Jr", "vs", "No"))
# What opens a sentence: a capital, a digit or a letter without case, perhaps behind a quotation mark or bracket.
_OPENS = r"""(?=["'“‘«(\[]*[^\W_a-zß-öø-ÿ])"""


@functools.cache
def _break() -> re.Pattern[str]:
  # One letter before a full stop is an initial, unless a letter or a combining mark stands before it.
  initial = rf"(?<!(?<![\w{combining_marks()}])[^\W\d_]\.)"
  return re.compile(
      rf"""(?<=[.!?।॥؟۔]){initial}{_TITLES}\s+{_OPENS}|(?<=[.!?।॥؟۔]["'”’»)\]])\s+{_OPENS}|(?<=[。！？])"""
      # A line that goes on with a small letter is one that was wrapped.
      r"|\s*\n(?:\s*\n\s*|\s*(?![a-zß-öø-ÿ\s]))")


def split_sentences(text: str) -> list[str]:
  """Splits a text into sentences, without white space around them.

  A sentence ends at . ! ? or । ॥ ؟ ۔, perhaps in a quotation or bracket, before white space and a capital, a digit or
  a letter without case, but not after one letter (as in `J. Smith` and `U.S. Army`) or a title (`Mr. Smith`); at
  。！？; at an empty line; and at the end of a line, unless the next one begins with a small letter.
  """
  return [sentence for piece in _break().split(text) if (sentence := piece.strip())]


def split_lines(text: str) -> list[str]:
  """Splits a text into its lines, without blank ones and white space around them."""
  return [line for line in map(str.strip, text.split("\n")) if line]


def split_paragraphs(text: str) -> list[str]:
  """Splits a text at blank lines, without blank paragraphs and white space around them."""
  return [paragraph for part in re.split(r"\n\s*\n", text) if (paragraph := part.strip())]


class TokenTexts(NamedTuple):
  """Tokenized documents.

  Attributes:
    tokens: uint16 or int32 `[num_tokens]`, memory-mapped: all documents without special tokens.
    sentences: int64 `[num_sentences + 1]`, the first token of every sentence, and where the last one ends.
    documents: int64 `[num_documents + 1]`, the first sentence of every document, and where the last one ends.
  """

  tokens: np.ndarray
  sentences: np.ndarray
  documents: np.ndarray


class Corpus(NamedTuple):
  """A tokenized dataset.

  Attributes:
    train, validation: its documents, and those held out (`documents.is_validation`); None where there is none.
    num_raw_words: what stands between white space in the training documents.
    fingerprint: SHA-256 (hex) of what determines the tokens.
  """

  train: TokenTexts
  validation: TokenTexts | None
  num_raw_words: int
  fingerprint: str


def tokenize_documents(dataset: Dataset, encoder: SubwordEncoder, *, unit: str = "sentence",
                       cache_dir: str | os.PathLike | None = None) -> Corpus:
  """Token ids of a text dataset's training part, cached by its fingerprint and the tokenizer.

  Args:
    dataset: a `Dataset` of kind `text`.
    encoder: has the tokenizer. What looks like a special token in the text is ordinary text.
    unit: `sentence`: each is tokenized by itself (`split_sentences`); `line`, `paragraph`: so is each line or
      paragraph, which counts as a sentence;
      `document`: the text is tokenized as it is, with the token `end_id` behind it, and counts as one sentence.
    cache_dir: default `$EMBEDDINGS_CACHE`, then `~/.cache/embeddings_jax`.

  Raises:
    InputError: not text, there is none, or the tokenizer has no token for the end of a document.
  """
  if dataset.kind != "text":
    raise InputError(f"{dataset.name}: holds {dataset.kind}, subwords can only be read from text")
  if unit not in UNITS:
    raise InputError(f"unit={unit!r}: must be one of {', '.join(UNITS)}")
  end = encoder.facts.get("end_id") if unit == "document" else None
  if unit == "document" and end is None:
    raise InputError("the tokenizer has no token for the end of a text: <|endoftext|>, </s> or [SEP]")
  chosen = dataset.split.get("train")
  part = "" if chosen is None else hashlib.sha256(np.asarray(chosen, np.int64).tobytes()).hexdigest()
  file = hashlib.sha256(encoder.files()["tokenizer.json"]).hexdigest()
  key = digest("subwords", VERSION, dataset.fingerprint, part, file, unit)
  path = cached(cache_root(cache_dir) / f"subwords-{key[:32]}",
                lambda folder: _build(folder, dataset, chosen, encoder, end,
                                      _SPLITS.get(unit, split_lines)))
  meta = json.loads((path / "meta.json").read_text())
  train, validation = (_read(path / name, meta["dtype"]) for name in PARTS)
  return Corpus(train, validation, meta["num_raw_words"], key)


def sentence_rows(texts: TokenTexts, *, max_length: int, cls_id: int, sep_id: int, number: int = 0,
                  min_tokens: int = 1, seed: int = 0) -> np.ndarray:
  """Single sentences `[CLS] sentence [SEP]`: int32 `[num_sentences, max_length]`, padded with -1, cut off at the end.

  Args:
    texts: tokenized documents.
    max_length: tokens of a row, with the two special ones.
    cls_id, sep_id: the special tokens.
    number: as many sentences, drawn with `seed`, in the order of the text; 0, or more than there are: all.
    min_tokens: shorter sentences (headings, numbers) are left out.

  Raises:
    InputError: fewer than two sentences are long enough.
  """
  if max_length < 3:
    raise InputError(f"max_length={max_length}: [CLS] sentence [SEP] needs at least 3")
  lengths = np.diff(texts.sentences)
  chosen = np.flatnonzero(lengths >= max(min_tokens, 1))
  if len(chosen) < 2:
    raise InputError(f"{len(chosen)} sentences have {min_tokens} tokens or more; contrast needs two at least")
  if 0 < number < len(chosen):
    chosen = np.sort(np.random.default_rng([seed, 3]).choice(chosen, number, replace=False))
  kept = np.minimum(lengths[chosen], max_length - 2)
  rows = np.full((len(chosen), max_length), -1, np.int32)
  rows[:, 0] = cls_id
  position = np.arange(max_length - 2)
  inside = position < kept[:, None]
  index = texts.sentences[chosen][:, None] + position
  rows[:, 1:-1][inside] = texts.tokens[index[inside]]
  rows[np.arange(len(chosen)), kept + 1] = sep_id
  return rows


_SPLITS = {"sentence": split_sentences, "line": split_lines, "paragraph": split_paragraphs}


def _read(folder: Path, dtype: str) -> TokenTexts | None:
  sentences, documents = np.load(folder / "sentences.npy"), np.load(folder / "documents.npy")
  if len(documents) == 1:
    return None
  return TokenTexts(np.memmap(folder / "tokens.bin", dtype, "r"), sentences, documents)


def _build(folder: Path, dataset: Dataset, chosen: Sequence[int] | None, encoder: SubwordEncoder,
           end: int | None, split: Callable[[str], list[str]]) -> None:
  """One pass over the documents, some megabytes at a time."""
  folder.mkdir()
  tokenizer = Tokenizer.from_str(encoder.tokenizer.to_str())
  tokenizer.encode_special_tokens = True
  dtype = "uint16" if encoder.facts["vocab_size"] <= 1 << 16 else "int32"
  lengths = {name: [np.zeros(1, np.int64)] for name in PARTS}  # Of sentences, in tokens.
  sizes = {name: [np.zeros(1, np.int64)] for name in PARTS}  # Of documents, in sentences.
  num_raw_words = 0
  for name in PARTS:
    (folder / name).mkdir()
  files = {name: open(folder / name / "tokens.bin", "wb") for name in PARTS}
  texts = iter(dataset.items) if chosen is None else (dataset.items[i] for i in chosen)
  for slab in slabs(texts):
    parts = {name: [text for text in slab if is_validation(text) == (name == "validation")] for name in PARTS}
    num_raw_words += sum(len(text.split()) for text in parts["train"])
    for name, documents in parts.items():
      units = [[text] if end is not None else split(text) for text in documents]
      ids = [encoding.ids for encoding in _encode(tokenizer, list(itertools.chain.from_iterable(units)))]
      if end is not None:
        ids = [[*document, end] for document in ids if document]
      counts = np.fromiter(map(len, ids), np.int64, len(ids))
      np.fromiter(itertools.chain.from_iterable(ids), dtype, counts.sum()).tofile(files[name])
      if end is not None:
        size = np.ones(len(ids), np.int64)
      else:  # Sentences without a token, and then documents without a sentence, are none.
        owner = np.repeat(np.arange(len(units)), [len(unit) for unit in units])
        size = np.bincount(owner[counts > 0], minlength=len(units))
        counts, size = counts[counts > 0], size[size > 0]
      lengths[name].append(counts)
      sizes[name].append(size)
  for name in PARTS:
    files[name].close()
    np.save(folder / name / "sentences.npy", np.cumsum(np.concatenate(lengths[name])))
    np.save(folder / name / "documents.npy", np.cumsum(np.concatenate(sizes[name])))
  if sum(map(len, sizes["train"])) == 1:
    raise InputError(f"{dataset.name}: has no text to train on")
  (folder / "meta.json").write_text(json.dumps({"dtype": dtype, "num_raw_words": num_raw_words}))


def _encode(tokenizer: Tokenizer, texts: list[str]) -> Iterator[Any]:
  # In parts, so that few of the library's objects exist at a time.
  for first in range(0, len(texts), 4096):
    yield from tokenizer.encode_batch_fast(texts[first:first + 4096], add_special_tokens=False)
