"""BERT's pairs of segments, as a pure function of (seed, step).

Devlin et al. 2019, "BERT", arXiv:1810.04805, section 3.1 and appendix A.2, and the rules of its reference code: a
document's sentences are taken in order until the target length is reached; the first of them, a random number, are A;
half of the time the others are B, else B is what begins at a random sentence of another document, and the others are
taken again for the next pair. A chunk of one sentence has no next and gets a random B. What is too long is cut token
by token from the front or the back of the longer segment, a fair coin each.

Deviation: the reference draws once a document whether its sequences are short, here it is drawn for every pair, so
that `short_fraction` is the share of short sequences.
"""
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from embeddings_jax.data.sentences import TokenTexts
from embeddings_jax.types import InputError, Source

NUM_SPECIAL = 3  # [CLS] A [SEP] B [SEP]


class Pairs(NamedTuple):
  """Where the segments of pairs lie in the running tokens.

  Attributes:
    a, b: int64 `[num_pairs]`, the first token of each segment.
    a_length, b_length: int32 `[num_pairs]`, tokens of each, at least 1.
    is_next: int32 `[num_pairs]`, 1 where B follows A in the text.
  """

  a: np.ndarray
  a_length: np.ndarray
  b: np.ndarray
  b_length: np.ndarray
  is_next: np.ndarray


def sentence_pairs(
    texts: TokenTexts,
    batch_size: int,
    *,
    max_length: int,
    cls_id: int,
    sep_id: int,
    short_fraction: float = 0.1,
    seed: int = 0,
    order: str = "shuffled",
    num_pairs: int = 0,
    facts: Mapping[str, Any] | None = None,
) -> Source:
  """Batches of `tokens` int32 `[batch_size, max_length]` padded with -1, `segments`, `is_next` and `mask`.

  Args:
    texts: tokenized documents, at least two.
    batch_size: rows of the global batch.
    max_length: tokens of a row, with the three special ones.
    cls_id, sep_id: the special tokens.
    short_fraction: share of the pairs with a random, shorter target length.
    seed: Random seed of the pairs, which are drawn anew for every epoch, and of their order.
    order: `shuffled`; or `sequential`, for evaluation: the same pairs in every epoch, in the order of the text, and
      the last batch filled up with rows of `mask` 0.
    num_pairs: With `sequential`: number of pairs, from several drawings if necessary; 0: those of one.
    facts: what to add to `num_rows`, `steps_per_epoch`, `padding_fraction` and `next_fraction`, all of the first
      pass. A shuffled pass leaves out a few pairs, so that all passes have equally many steps.

  Raises:
    InputError: one document only, too short a length, or more rows in a batch than there are pairs.
  """
  num_documents = len(texts.documents) - 1
  if num_documents < 2:
    raise InputError("sentence pairs need two documents or more: with one there is no other to take a random next "
                     "sentence from")
  if max_length < NUM_SPECIAL + 2:
    raise InputError(f"max_length={max_length}: [CLS] A [SEP] B [SEP] needs at least {NUM_SPECIAL + 2}")
  if order not in ("shuffled", "sequential"):
    raise InputError(f"order={order!r}: must be 'shuffled' or 'sequential'")
  if not 0 <= short_fraction <= 1:
    raise InputError(f"short_fraction={short_fraction}: must be between 0 and 1")
  if batch_size < 1:
    raise InputError(f"batch_size={batch_size}: must be at least 1")
  room = max_length - NUM_SPECIAL

  @functools.lru_cache(maxsize=2)  # A dispatch may straddle two passes.
  def pairs_of(epoch: int) -> Pairs:
    rng = np.random.Generator(np.random.Philox(key=[seed, 2], counter=[0, 0, 0, epoch]))
    pairs = draw_pairs(texts, room, short_fraction, rng)
    if order == "shuffled":
      mixed = rng.permutation(len(pairs.a))
      pairs = Pairs(*(column[mixed] for column in pairs))
    return pairs

  first = pairs_of(0)
  if order == "sequential":
    drawn = [first]
    while sum(len(pairs.a) for pairs in drawn) < num_pairs:
      drawn.append(pairs_of(len(drawn)))
    first = Pairs(*(np.concatenate(columns)[:num_pairs or None] for columns in zip(*drawn)))
  num_rows = len(first.a)
  if order == "sequential":
    steps_per_epoch = -(-num_rows // batch_size)
  else:
    if batch_size > num_rows:
      raise InputError(f"batch_size={batch_size} exceeds the {num_rows} sentence pairs of the text")
    # Passes differ in length by some square root of it; where one is shorter still, the last rows have mask 0.
    steps_per_epoch = max(1, int(num_rows - 3 * num_rows ** 0.5) // batch_size)

  def feed_at(step: int, rows: slice = slice(None)) -> dict[str, np.ndarray]:
    epoch, index = divmod(step, steps_per_epoch)
    pairs = first if order == "sequential" else pairs_of(epoch)
    row = index * batch_size + np.arange(batch_size)[rows]
    valid = row < len(pairs.a)
    chosen = Pairs(*(column[np.where(valid, row, 0)] for column in pairs))
    return {**_assembled(texts.tokens, chosen, max_length, cls_id, sep_id), "mask": valid.astype(np.float32)}

  lengths = first.a_length + first.b_length + NUM_SPECIAL
  facts = {"num_rows": num_rows, "steps_per_epoch": steps_per_epoch,
           "padding_fraction": round(1 - float(lengths.mean()) / max_length, 4),
           "next_fraction": round(float(first.is_next.mean()), 4), **(facts or {})}
  return Source(facts, batch_size, feed_at, lambda _, feed: dict(feed))


def draw_pairs(texts: TokenTexts, room: int, short_fraction: float, rng: np.random.Generator) -> Pairs:
  """The pairs of one epoch, in the order of the text.

  All documents advance by one pair at a time, so that there are as many NumPy calls as the longest has pairs.

  Args:
    texts: tokenized documents.
    room: tokens of a pair, at most.
    short_fraction: share of pairs whose target length is uniform in 2 ... `room` instead.
    rng: all randomness.
  """
  sentences, documents = texts.sentences, texts.documents
  num_documents = len(documents) - 1
  document, at = np.arange(num_documents), documents[:-1].copy()
  pairs = []
  while len(document):
    ends, size = documents[document + 1], len(document)
    target = np.where(rng.random(size) < short_fraction, rng.integers(2, room, size, endpoint=True), room)
    end = np.minimum(np.searchsorted(sentences, sentences[at] + target), ends)
    middle = at + 1 + (rng.random(size) * (end - at - 1)).astype(np.int64)
    middle = np.where(end - at > 1, middle, end)  # One sentence: it is A.
    is_next = (end - at > 1) & (rng.random(size) >= 0.5)
    other = rng.integers(0, num_documents - 1, size)
    other += other >= document
    start = documents[other] + (rng.random(size) * (documents[other + 1] - documents[other])).astype(np.int64)
    num_tokens = np.maximum(target - (sentences[middle] - sentences[at]), 1)
    stop = np.minimum(np.searchsorted(sentences, sentences[start] + num_tokens), documents[other + 1])
    b, b_end = np.where(is_next, middle, start), np.where(is_next, end, stop)
    pairs.append((at, middle, b, b_end, is_next))
    at = np.where(is_next, end, middle)
    going = at < ends
    document, at = document[going], at[going]
  a, a_end, b, b_end, is_next = (np.concatenate(column) for column in zip(*pairs))
  reading = np.argsort(a)
  a, a_end, b, b_end = (sentences[column[reading]] for column in (a, a_end, b, b_end))
  return Pairs(*_cut(a, a_end - a, b, b_end - b, room, rng), is_next[reading].astype(np.int32))


def _cut(a, a_length, b, b_length, room, rng):
  """Segments without what is too long: tokens go from the longer one (B of equals), at the front or at the back."""
  excess = np.maximum(a_length + b_length - room, 0)
  difference = a_length - b_length
  first = np.minimum(excess, np.abs(difference))  # Tokens by which the longer one is brought down.
  rest = excess - first
  a_cut = np.where(difference > 0, first, 0) + rest // 2
  b_cut = excess - a_cut
  a_front, b_front = rng.binomial(a_cut, 0.5), rng.binomial(b_cut, 0.5)
  return (a + a_front, (a_length - a_cut).astype(np.int32), b + b_front, (b_length - b_cut).astype(np.int32))


def _assembled(tokens: np.ndarray, pairs: Pairs, length: int, cls_id: int, sep_id: int) -> dict[str, np.ndarray]:
  """Rows of tokens and segments, by one gather from the running tokens."""
  position = np.arange(length, dtype=np.int32)
  a_end = pairs.a_length[:, None] + 1  # The place of the first [SEP], and of the second.
  b_end = a_end + pairs.b_length[:, None] + 1
  in_b = position > a_end
  # Elsewhere any token may be read: it is overwritten.
  index = np.where(in_b, (pairs.b - pairs.a_length - 2)[:, None], (pairs.a - 1)[:, None]) + position
  row = np.asarray(tokens).take(index, mode="clip").astype(np.int32)
  row[:, 0] = cls_id
  np.put_along_axis(row, a_end, sep_id, 1)
  np.put_along_axis(row, b_end, sep_id, 1)
  beyond = position > b_end
  row[beyond] = -1
  return {"tokens": row, "segments": (in_b & ~beyond).astype(np.int32), "is_next": pairs.is_next}
