"""Training of subword tokenizers.

Trained ids are reproducible: the same texts give the same file, whatever the machine and the number of threads.
"""
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from embeddings_jax.data.cache import cache_root, cached, digest
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.documents import is_validation
from embeddings_jax.data.encoders.subwords import END
from embeddings_jax.data.files.tokenizer import SPECIAL, parse_tokenizer, wordpiece
from embeddings_jax.errors import InputError

VERSION = 1  # Of tokenizers that are cached: raise it when the same text would give another one.
MODELS = ("wordpiece", "bpe")
MAX_ALPHABET = 1000  # Characters of a WordPiece vocabulary, as in other libraries, unless the text needs more.


def trained_tokenizer(dataset: Dataset, *, model: str = "wordpiece", vocab_size: int, lowercase: bool = True,
                      cache_dir: str | os.PathLike | None = None) -> Tokenizer:
  """The tokenizer of a text dataset, trained without its held-out documents, cached by its fingerprint.

  Args:
    dataset: Text.
    model: `wordpiece` as BERT's or `bpe`, over bytes, as GPT-2's.
    vocab_size: tokens in all, as far as the text has so many.
    lowercase: Whether `wordpiece` folds case.
    cache_dir: default `$EMBEDDINGS_CACHE`, then `~/.cache/embeddings_jax`.
  """
  if model not in MODELS:
    raise InputError(f"model={model}: must be one of {', '.join(MODELS)}")
  key = digest("tokenizer", VERSION, dataset.fingerprint, model, vocab_size, lowercase)

  def build(path: Path) -> None:
    texts = _Texts(dataset)
    if model == "wordpiece":
      tokenizer = train_wordpiece(texts, vocab_size, lowercase)
    else:
      tokenizer = train_bpe(texts, vocab_size)
    path.write_text(tokenizer.to_str())

  target = cache_root(cache_dir) / f"tokenizer-{key[:32]}.json"
  path = cached(target, build)
  try:
    return parse_tokenizer(path.read_bytes(), path)
  except InputError as error:
    logging.warning("%s; it is trained again", error)
    path.unlink()
    path = cached(target, build)
    return parse_tokenizer(path.read_bytes(), path)


class _Texts:
  """The documents of a dataset that are not held out, any number of times."""

  def __init__(self, dataset: Dataset):
    self.dataset = dataset

  def __iter__(self) -> Iterator[str]:
    items = self.dataset.items
    texts = (items[i] for i in self.dataset.split["train"]) if "train" in self.dataset.split else iter(items)
    return (text for text in texts if not is_validation(text))


def train_wordpiece(texts: Iterable[str], vocab_size: int, lowercase: bool = True) -> Tokenizer:
  """Trains a WordPiece vocabulary: `SPECIAL`, the alphabet, its `##` forms, then merged pieces.

  The library assigns ids of `##` forms in an arbitrary order unless they are special tokens during training; the
  result does not have them as special tokens.

  Args:
    texts: Read twice.
    vocab_size: Number of tokens.
    lowercase: Fold case and remove accents.

  Raises:
    InputError: No text, or `vocab_size` is too small for its characters.
  """
  normalizer = normalizers.BertNormalizer(lowercase=lowercase)
  raw = np.zeros(0x110000, np.int64)  # Of each code point.
  for slab in slabs(texts):
    raw += np.bincount(np.frombuffer("".join(slab).encode("utf-32-le", "replace"), np.uint32), minlength=len(raw))
  counts: Counter[str] = Counter()
  words: set[str] = set()  # Chinese characters: each is a word, so that it needs no `##` form.
  for code in np.flatnonzero(raw).tolist():
    normalized = normalizer.normalize_str(chr(code))
    for character in normalized:
      if not character.isspace():
        counts[character] += int(raw[code])
        if normalized == f" {character} ":
          words.add(character)
  if not counts:
    raise InputError("no text to train a tokenizer on")
  alphabet, words = _alphabet(counts, words, vocab_size)
  tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
  tokenizer.normalizer = normalizer
  tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  first = [*SPECIAL, *alphabet, *("##" + character for character in alphabet if character not in words)]
  tokenizer.train_from_iterator(iter(texts), trainers.WordPieceTrainer(
      vocab_size=vocab_size, special_tokens=first, initial_alphabet=alphabet, limit_alphabet=len(alphabet),
      show_progress=False))
  ids = tokenizer.get_vocab()
  return wordpiece(sorted(ids, key=ids.get), lowercase)


def _alphabet(counts: Mapping[str, int], words: set[str], vocab_size: int) -> tuple[list[str], set[str]]:
  """Selects the characters of a WordPiece vocabulary.

  These are the `vocab_size` / 4, at most `MAX_ALPHABET`, most frequent ones. Where they cover less than 95 % of the
  text, as in Chinese, they are as many as cover 99.95 %, at the cost of merged pieces.

  Args:
    counts: Occurrences of each character.
    words: Characters that are words by themselves.
    vocab_size: Number of tokens.

  Returns:
    The sorted alphabet, and those of its characters that need no `##` form.
  """
  ordered = sorted(counts, key=lambda character: (-counts[character], character))
  covered = np.cumsum([counts[character] for character in ordered]) / sum(counts.values())
  size = min(MAX_ALPHABET, vocab_size // 4)
  if size >= 1 and covered[min(size, len(covered)) - 1] >= 0.95:
    return sorted(ordered[:size]), set()
  tokens = len(SPECIAL) + np.cumsum([1 if character in words else 2 for character in ordered])
  size = min(int(np.searchsorted(covered, 0.9995)) + 1, int(np.searchsorted(tokens, vocab_size, side="right")))
  least = min(int(np.searchsorted(covered, 0.95)), len(ordered) - 1)
  if size <= least:
    raise InputError(f"vocab_size={vocab_size}: too small for the characters of the text; at least {tokens[least]}")
  return sorted(ordered[:size]), words.intersection(ordered[:size])


def slabs(texts: Iterable[str], size: int = 1 << 22) -> Iterator[list[str]]:
  """Consecutive texts together, of `size` characters or more, but for the last."""
  slab: list[str] = []
  total = 0
  for text in texts:
    slab.append(text)
    total += len(text)
    if total >= size:
      yield slab
      slab, total = [], 0
  if slab:
    yield slab


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
  """Byte pairs (Radford et al. 2019): the end of a text, 256 bytes, then what pairs of tokens are joined to.

  Raises:
    InputError: `vocab_size` is below 257.
  """
  if vocab_size < 257:
    raise InputError(f"vocab_size={vocab_size}: too small for 256 bytes and {END}; at least 257")
  tokenizer = Tokenizer(models.BPE())
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = decoders.ByteLevel()
  tokenizer.train_from_iterator(iter(texts), trainers.BpeTrainer(
      vocab_size=vocab_size, special_tokens=[END], initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
      show_progress=False))
  return tokenizer
