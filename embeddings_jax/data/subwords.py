"""Subwords: texts and pairs of texts to token ids, by a `tokenizers.Tokenizer`, and its training.

Trained ids are reproducible: the same texts give the same file, whatever the machine and the number of threads.
"""
import itertools
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from embeddings_jax.data.cache import cache_root, cached, digest
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.documents import is_validation
from embeddings_jax.data.encoders import ENCODERS, Batch, TextEncoder, check_size, part_of
from embeddings_jax.data.files.tokenizer import SPECIAL, guarded, parse_tokenizer, wordpiece
from embeddings_jax.types import InputError

VERSION = 1  # Of tokenizers that are cached: raise it when the same text would give another one.
END = "<|endoftext|>"
MODELS = ("wordpiece", "bpe")
# What the token of a role is called, the first that there is.
ROLES = {"mask": ("[MASK]", "<mask>"), "cls": ("[CLS]", "<s>"), "sep": ("[SEP]", "</s>"), "pad": ("[PAD]", "<pad>"),
         "unk": ("[UNK]", "<unk>"), "end": (END, "</s>", "[SEP]")}
MAX_ALPHABET = 1000  # Characters of a WordPiece vocabulary, as in other libraries, unless the text needs more.
_HEAD = 16  # Characters per token that are read of a long text, at first.


class _Piece(NamedTuple):
  """A part of the template that special tokens and texts are put together by."""

  text: int | None  # Which of the item's texts; None: a special token.
  token: int  # That token's id.
  segment: int


class SubwordEncoder(TextEncoder):
  """Texts, or pairs of them -> `tokens` int32 `[n, length]`, padded with -1, `segments` int32 `[n, length]`, `mask`.

  The file `tokenizer.json` says how a text is cut up and which special tokens stand around it, as `[CLS] a [SEP]` or
  `[CLS] a [SEP] b [SEP]` for BERT. What is longer than `max_length` with them is cut off at the end, of a pair the
  longer text first. The length of a batch is `max_length` or that over 2, 4 or 8.
  """

  kind = "subwords"
  embedded_at_once = 1 << 11  # Tokens and their segments: batches that fit a processor's cache.
  encoded_at_once = 1 << 14
  num_widths = 4

  def __init__(self, tokenizer: Tokenizer, max_length: int):
    # A copy, since it is changed here; a tokenizer that was read may write what cannot be read again.
    self.tokenizer = guarded(lambda: Tokenizer.from_str(tokenizer.to_str()), "tokenizer.json")
    self.tokenizer.no_padding()
    self.tokenizer.no_truncation()
    check_size("max_length", max_length, 1, 1 << 20)  # Rows are padded to an eighth of it at least.
    self.max_length = max_length
    self.vocabulary = self.tokenizer.get_vocab(with_added_tokens=True)
    self._file = self.tokenizer.to_str().encode()
    self._templates = guarded(lambda: (_template(self.tokenizer, "a"), _template(self.tokenizer, "a", "a")),
                              "tokenizer.json")
    if max_length < 2 + len(self._templates[1]):
      raise InputError(f"max_length={max_length}: leaves no room for two texts beside the special tokens")
    self.num_truncated = 0  # Items that have been cut.

  def for_task(self, max_length: int) -> "SubwordEncoder":
    """Returns the encoder for a task, which cuts texts at `max_length` tokens.

    One without a token that stands for the text (GPT's) gets its `end_id` behind each text: the delimiter and the
    extract token of Radford et al. 2018, section 3.3.
    """
    facts, tokenizer = self.facts, Tokenizer.from_str(self.tokenizer.to_str())
    if "cls_id" not in facts and "end_id" in facts:
      end = tokenizer.id_to_token(facts["end_id"])
      tokenizer.post_processor = processors.TemplateProcessing(
          single=["$A:0", f"{end}:0"], pair=["$A:0", f"{end}:0", "$B:0", f"{end}:0"],
          special_tokens=[(end, facts["end_id"])])
    return SubwordEncoder(tokenizer, max_length)

  def options(self) -> dict[str, Any]:
    return {"max_length": self.max_length}

  def files(self) -> dict[str, bytes]:
    return {"tokenizer.json": self._file}

  @classmethod
  def from_files(cls, options: Mapping[str, Any], folder: epath.Path) -> "SubwordEncoder":
    return cls(parse_tokenizer((folder / "tokenizer.json").read_bytes(), folder / "tokenizer.json"), **options)

  @property
  def facts(self) -> dict[str, Any]:
    """`vocab_size`, `special_ids`, `num_segments` and, where there is such a token, `mask_id`, `cls_id`, `sep_id`,
    `pad_id`, `unk_id` and `end_id` (what follows a text)."""
    roles = {f"{role}_id": next((self.vocabulary[name] for name in names if name in self.vocabulary), None)
             for role, names in ROLES.items()}
    added = {i for i, token in self.tokenizer.get_added_tokens_decoder().items() if token.special}
    named = {self.vocabulary[name] for names in ROLES.values() for name in names if name in self.vocabulary}
    return {"vocab_size": max(self.vocabulary.values()) + 1, "special_ids": sorted(added | named),
            "num_segments": 1 + max(piece.segment for piece in self._templates[1]),
            **{role: i for role, i in roles.items() if i is not None}}

  @property
  def continues(self) -> np.ndarray | None:
    """Which tokens continue a word, bool `[vocab_size]`: `##x` of WordPiece, of others what has no space before it;
    None where neither is to be seen."""
    model = json.loads(self._file)["model"]
    prefix, found = model.get("continuing_subword_prefix"), np.zeros(self.facts["vocab_size"], bool)
    firsts = {token[:1] for token in self.vocabulary}
    opening = next((mark for mark in ("\u0120", "\u2581") if mark in firsts), None)  # Of byte pairs, of unigrams.
    if not (model["type"] == "WordPiece" and prefix) and not opening:
      return None
    for token, i in self.vocabulary.items():
      found[i] = token.startswith(prefix) if model["type"] == "WordPiece" else token[:1] != opening
    found[self.facts["special_ids"]] = False
    return found

  def encode(self, items: Sequence[str | Sequence[str]], offsets: bool = False) -> Batch:
    """A batch of texts or pairs of texts.

    Args:
      items: strings, or pairs of strings.
      offsets: add `offsets` int32 `[n, length, 2]`, the first character of each token in its text and the one behind
        its last, and `text` int32 `[n, length]`, which of the item's texts it is of; all -1 for special tokens and
        padding.

    Raises:
      InputError: no items, or one that is no text.
    """
    if not len(items):
      raise InputError("no items to encode: the input is empty")
    pairs = [tuple(item) if isinstance(item, (tuple, list)) else (item,) for item in items]
    for i, pair in enumerate(pairs):
      if not 1 <= len(pair) <= 2 or not all(isinstance(text, str) for text in pair):
        raise InputError(f"item {i}: is {str(pair)[:40]}, should be a text or a pair of texts")
    encodings = iter(self._encodings([text for pair in pairs for text in pair], offsets))
    found = [tuple(itertools.islice(encodings, len(pair))) for pair in pairs]
    plans, num_cut = [], 0
    for parts in found:
      template = self._templates[len(parts) - 1]
      room = self.max_length - (len(template) - len(parts))
      lengths = tuple(len(part.ids) for part in parts)
      kept = _kept(lengths, room)
      num_cut += kept != lengths
      plans.append((template, kept))
    self._count(num_cut, len(items))
    longest = max(len(template) - len(kept) + sum(kept) for template, kept in plans)
    shape = (len(items), self.bucket(longest))
    batch = {"tokens": np.full(shape, -1, np.int32), "segments": np.zeros(shape, np.int32)}
    if offsets:
      batch |= {"offsets": np.full((*shape, 2), -1, np.int32), "text": np.full(shape, -1, np.int32)}
    for row, (parts, (template, kept)) in enumerate(zip(found, plans)):
      place = 0
      for text, token, segment in template:
        size = 1 if text is None else kept[text]
        where = (row, slice(place, place + size))
        batch["tokens"][where] = token if text is None else parts[text].ids[:size]
        if segment:
          batch["segments"][where] = segment
        if offsets and text is not None and size:
          batch["offsets"][where] = parts[text].offsets[:size]
          batch["text"][where] = text
        place += size
    return batch | {"mask": np.ones(len(items), np.float32)}

  def encode_words(self, sentences: Sequence[Sequence[str]]) -> Batch:
    """Sentences that are already cut into words, as for tagging.

    Returns:
      What `encode` does, and `word_starts` int32 `[n, num_words]`: the place of each word's first token; -1 where the
      sentence was cut before, where the word has no token, and on padding.
    """
    texts = [" ".join(words) for words in sentences]
    batch = self.encode(texts, offsets=True)
    starts = np.full((len(texts), max(1, *map(len, sentences)) if len(texts) > 1 else max(1, len(sentences[0]))),
                     -1, np.int32)
    for row, words in enumerate(sentences):
      ends = np.cumsum([len(word) + 1 for word in words], dtype=int) - 1  # The character behind each word.
      mine = np.flatnonzero(batch["text"][row] >= 0)
      first, last = batch["offsets"][row, mine].T
      # A token may begin with the space before its word.
      place = np.searchsorted(last, ends - [len(word) for word in words], side="right") if words else ends
      for word, (p, end) in enumerate(zip(place, ends)):
        if p < len(mine) and first[p] < end:
          starts[row, word] = mine[p]
    del batch["offsets"], batch["text"]
    return batch | {"word_starts": starts}

  def token_ids(self, text: str) -> np.ndarray:
    """All tokens of a text, without special ones around it: int32 `[num_tokens]`."""
    (encoding,) = self._encoded([text], False)
    return np.array(encoding.ids, np.int32)

  def decode(self, tokens: Iterable[int]) -> str:
    """The text of token ids; special tokens and padding are left out."""
    return self.tokenizer.decode([int(i) for i in tokens if i >= 0])

  def bucket(self, length: int) -> int:
    return part_of(self.max_length, length)

  def lengths(self, batch: Batch) -> np.ndarray:
    return (batch["tokens"] >= 0).sum(-1)

  def _encodings(self, texts: Sequence[str], offsets: bool) -> list[Any]:
    """Encodings of texts. Of very long ones as much as has more tokens than can be used."""
    heads = [_head(text, _HEAD * self.max_length) for text in texts]
    found = self._encoded(heads, offsets)
    short = [i for i, (head, text) in enumerate(zip(heads, texts))
             if len(head) < len(text) and len(found[i].ids) <= self.max_length]
    for i, encoding in zip(short, self._encoded([texts[i] for i in short], offsets) if short else ()):
      found[i] = encoding
    return found

  def _encoded(self, texts: Sequence[str], offsets: bool) -> list[Any]:
    encode = self.tokenizer.encode_batch if offsets else self.tokenizer.encode_batch_fast

    def encoded() -> list[Any]:
      try:
        return encode(texts, add_special_tokens=False)
      except (UnicodeError, TypeError):  # Lone surrogates have no UTF-8.
        return encode([text.encode("utf-8", "replace").decode() for text in texts], add_special_tokens=False)

    return guarded(encoded, "tokenizer.json")

  def _count(self, num_cut: int, num_items: int) -> None:
    if num_cut and not self.num_truncated:
      logging.warning("%d of %d texts have more than %d tokens and are cut there; later ones are not reported",
                      num_cut, num_items, self.max_length)
    self.num_truncated += num_cut


ENCODERS[SubwordEncoder.kind] = SubwordEncoder


def without_special(encoder: SubwordEncoder) -> SubwordEncoder:
  """The encoder that puts no special tokens around texts."""
  tokenizer = Tokenizer.from_str(encoder.tokenizer.to_str())
  tokenizer.post_processor = processors.TemplateProcessing(single="$A:0", pair="$A:0 $B:0", special_tokens=[])
  return SubwordEncoder(tokenizer, encoder.max_length)


def trained_tokenizer(dataset: Dataset, *, model: str = "wordpiece", vocab_size: int, lowercase: bool = True,
                      cache_dir: str | os.PathLike | None = None) -> Tokenizer:
  """The tokenizer of a text data set, trained without its held-out documents, cached by its fingerprint.

  Args:
    dataset: of kind `text`.
    model: `wordpiece` as BERT's or `bpe`, over bytes, as GPT-2's.
    vocab_size: tokens in all, as far as the text has so many.
    lowercase: of `wordpiece`.
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
  """The documents of a data set that are not held out, any number of times."""

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


def _template(tokenizer: Tokenizer, *texts: str) -> list[_Piece]:
  """How special tokens and texts follow each other: read off from an example, whatever the post-processor is."""
  encoding = tokenizer.encode(*texts)
  pieces: list[_Piece] = []
  for token, segment, text in zip(encoding.ids, encoding.type_ids, encoding.sequence_ids):
    if text is None:
      pieces.append(_Piece(None, token, segment))
    elif not pieces or pieces[-1].text != text:
      pieces.append(_Piece(text, -1, segment))
  if all(piece.text is not None for piece in pieces):  # What puts nothing between texts does not tell them apart.
    pieces = [piece._replace(segment=0) for piece in pieces]
  if {piece.text for piece in pieces if piece.text is not None} != set(range(len(texts))):
    raise InputError(f"the tokenizer makes no token of the text {texts[0]!r}; is its vocabulary complete?")
  return pieces


def _kept(lengths: tuple[int, ...], room: int) -> tuple[int, ...]:
  """Tokens that are kept of one or two texts: the longer one is cut first, then both by turns."""
  if sum(lengths) <= room:
    return lengths
  if len(lengths) == 1:
    return (room,)
  short, half = min(lengths), room // 2
  less, more = (short, room - short) if short <= half else (half, room - half)
  return (more, less) if lengths[0] > lengths[1] else (less, more)


def _head(text: str, size: int) -> str:
  """The first characters of a text, up to white space."""
  if len(text) <= size:
    return text
  return text[:size].rsplit(None, 1)[0]
