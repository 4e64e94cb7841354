"""Passages of documents, `[CLS] passage [SEP]`, as a pure function of (seed, step)."""
from collections.abc import Mapping
from typing import Any

import numpy as np

from embeddings_jax.data.sentences import TokenTexts
from embeddings_jax.data.sources import row_order
from embeddings_jax.types import InputError, Source


def passage_source(
    texts: TokenTexts,
    batch_size: int,
    *,
    cls_id: int,
    sep_id: int,
    max_length: int,
    window: bool = False,
    min_tokens: int = 1,
    number: int = 0,
    seed: int = 0,
    order: str = "shuffled",
    remainder: str = "drop",
    facts: Mapping[str, Any] | None = None,
) -> Source:
  """Batches of `tokens` int32 `[batch_size, max_length]` and `mask`; -1 is past the end.

  Args:
    texts: Tokenized documents, whose sentences are the passages, or their paragraphs, or they themselves.
    batch_size: Passages of the global batch.
    cls_id, sep_id: Tokens around a passage.
    max_length: Tokens of a row, with these two; what is longer is cut off, or, with `window`, the next passage.
    window: Whether a passage goes on until the row is full.
    min_tokens: Shorter passages are left out.
    number: Passages that are drawn with `seed`; 0, or more than there are: all.
    seed, order, remainder: As for `array_source`.
    facts: What to add to `num_rows`, `steps_per_epoch` and `padding_fraction`.

  Raises:
    InputError: No passage is long enough.
  """
  room = max_length - 2
  if room < 1 or min_tokens < 1:
    raise InputError(f"max_length={max_length}, min_tokens={min_tokens}: must be at least 3 and 1")
  starts, lengths = texts.sentences[:-1], np.diff(texts.sentences)
  if window:
    pieces = -(-lengths // room)
    place = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    lengths = np.minimum(np.repeat(lengths, pieces) - place * room, room)
    starts = np.repeat(starts, pieces) + place * room
  chosen = np.flatnonzero(lengths >= min_tokens)
  if not len(chosen):
    raise InputError(f"no passage has min_tokens={min_tokens} tokens or more; the longest of {len(lengths)} has "
                     f"{lengths.max(initial=0)}")
  if 0 < number < len(chosen):
    chosen = np.sort(np.random.default_rng([seed, 3]).choice(chosen, number, replace=False))
  starts, lengths = starts[chosen], np.minimum(lengths[chosen], room)
  index_at, steps_per_epoch = row_order(len(starts), batch_size, seed, order, remainder)

  def feed_at(step: int, rows: slice = slice(None)) -> dict[str, np.ndarray]:
    index = index_at(step, rows)
    first, length = starts[index["row"]], lengths[index["row"]]
    place = np.arange(room)
    tokens_of_rows = np.asarray(texts.tokens).take(first[:, None] + place, mode="clip").astype(np.int32)
    tokens = np.full((len(first), max_length), -1, np.int32)
    tokens[:, 0] = cls_id
    tokens[:, 1:-1] = np.where(place < length[:, None], tokens_of_rows, -1)
    tokens[np.arange(len(first)), length + 1] = sep_id
    return {"tokens": tokens, "mask": index["mask"]}

  padding = 1 - float((lengths + 2).mean()) / max_length
  facts = {"num_rows": len(starts), "num_features": max_length, "steps_per_epoch": steps_per_epoch,
           "padding_fraction": round(padding, 4), **(facts or {})}
  return Source(facts, batch_size, feed_at, lambda _, feed: dict(feed))
