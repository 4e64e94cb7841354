"""Encoder of texts and pairs of texts as token ids, by a `tokenizers.Tokenizer`."""
import itertools
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from tokenizers import Tokenizer, processors

from embeddings_jax.data.encoders.base import Batch, TextEncoder, check_size, part_of
from embeddings_jax.data.files.tokenizer import guarded, parse_tokenizer
from embeddings_jax.errors import InputError

END = "<|endoftext|>"
# What the token of a role is called, the first that there is.
ROLES = {"mask": ("[MASK]", "<mask>"), "cls": ("[CLS]", "<s>"), "sep": ("[SEP]", "</s>"), "pad": ("[PAD]", "<pad>"),
         "unk": ("[UNK]", "<unk>"), "end": (END, "</s>", "[SEP]")}
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
    prefix, flags = model.get("continuing_subword_prefix"), np.zeros(self.facts["vocab_size"], bool)
    firsts = {token[:1] for token in self.vocabulary}
    opening = next((mark for mark in ("\u0120", "\u2581") if mark in firsts), None)  # Of byte pairs, of unigrams.
    if not (model["type"] == "WordPiece" and prefix) and not opening:
      return None
    for token, i in self.vocabulary.items():
      flags[i] = token.startswith(prefix) if model["type"] == "WordPiece" else token[:1] != opening
    flags[self.facts["special_ids"]] = False
    return flags

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
    encoded = [tuple(itertools.islice(encodings, len(pair))) for pair in pairs]
    plans, num_cut = [], 0
    for parts in encoded:
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
    for row, (parts, (template, kept)) in enumerate(zip(encoded, plans)):
      position = 0
      for text, token, segment in template:
        size = 1 if text is None else kept[text]
        where = (row, slice(position, position + size))
        batch["tokens"][where] = token if text is None else parts[text].ids[:size]
        if segment:
          batch["segments"][where] = segment
        if offsets and text is not None and size:
          batch["offsets"][where] = parts[text].offsets[:size]
          batch["text"][where] = text
        position += size
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
      columns = np.flatnonzero(batch["text"][row] >= 0)
      first, last = batch["offsets"][row, columns].T
      # A token may begin with the space before its word.
      positions = np.searchsorted(last, ends - [len(word) for word in words], side="right") if words else ends
      for word, (p, end) in enumerate(zip(positions, ends)):
        if p < len(columns) and first[p] < end:
          starts[row, word] = columns[p]
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
    encodings = self._encoded(heads, offsets)
    short = [i for i, (head, text) in enumerate(zip(heads, texts))
             if len(head) < len(text) and len(encodings[i].ids) <= self.max_length]
    for i, encoding in zip(short, self._encoded([texts[i] for i in short], offsets) if short else ()):
      encodings[i] = encoding
    return encodings

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


def without_special(encoder: SubwordEncoder) -> SubwordEncoder:
  """The encoder that puts no special tokens around texts."""
  tokenizer = Tokenizer.from_str(encoder.tokenizer.to_str())
  tokenizer.post_processor = processors.TemplateProcessing(single="$A:0", pair="$A:0 $B:0", special_tokens=[])
  return SubwordEncoder(tokenizer, encoder.max_length)


def _template(tokenizer: Tokenizer, *texts: str) -> list[_Piece]:
  """Returns the order of special tokens and texts, read off from an example for any post-processor."""
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
