"""Consecutive sentences of documents, as a pure function of (seed, step)."""
from collections.abc import Mapping
from typing import Any

import numpy as np

from embeddings_jax.data.sentences import TokenTexts
from embeddings_jax.data.sources import row_order
from embeddings_jax.types import InputError, Source


def sentence_windows(
    texts: TokenTexts,
    batch_size: int,
    *,
    num_sentences: int,
    max_length: int,
    seed: int = 0,
    order: str = "shuffled",
    remainder: str = "drop",
    facts: Mapping[str, Any] | None = None,
) -> Source:
  """Batches of `tokens` int32 `[batch_size, num_sentences, max_length]` and `mask`.

  A document is divided into windows of `num_sentences`. A last one that is shorter, of two sentences or more, is
  filled up with sentences without a token; a single sentence at the end is in no window. Where the order is shuffled,
  a full window is moved forwards by 0 to `num_sentences` - 1 sentences, drawn anew for every step, as far as the
  document goes on, so that any sentence may come first.

  Args:
    texts: tokenized documents.
    batch_size: windows of the global batch.
    num_sentences: Sentences of a window.
    max_length: tokens that are kept of a sentence; -1 is past its end.
    seed, order, remainder: as for `array_source`.
    facts: what to add to `num_rows`, `steps_per_epoch`, `padding_fraction` (of the elements of `tokens`) and
      `cut_fraction` (of the tokens of the windows), both of windows that are not moved.

  Raises:
    InputError: no document has two sentences.
  """
  if num_sentences < 2 or max_length < 1:
    raise InputError(f"num_sentences={num_sentences}, max_length={max_length}: must be at least 2 and 1")
  sizes = np.diff(texts.documents)
  number = np.maximum(-(-(sizes - 1) // num_sentences), 0)  # All but one sentence decide: it alone is no window.
  document = np.repeat(np.arange(len(sizes)), number)
  position = np.arange(len(document)) - np.repeat(np.cumsum(number) - number, number)
  starts = texts.documents[document] + position * num_sentences
  ends = texts.documents[document + 1]
  if not len(starts):
    raise InputError("no document has two sentences or more, so that none can be predicted")
  index_at, steps_per_epoch = row_order(len(starts), batch_size, seed, order, remainder)
  inside = np.arange(num_sentences)

  def bounds(first: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First token and number of tokens of each sentence, [windows, num_sentences]."""
    sentence = first[:, None] + inside
    known = sentence < end[:, None]
    sentence = np.where(known, sentence, 0)
    begin = texts.sentences[sentence]
    return begin, np.where(known, texts.sentences[sentence + 1] - begin, 0)

  def feed_at(step: int, rows: slice = slice(None)) -> dict[str, np.ndarray]:
    index = index_at(step, rows)
    first, end = starts[index["row"]], ends[index["row"]]
    if order == "shuffled":
      noise = np.random.Generator(np.random.Philox(key=[seed, 3], counter=[0, 0, 0, step]))
      moved = noise.integers(0, num_sentences, batch_size)[rows]
      first = np.maximum(first, np.minimum(first + moved, end - num_sentences))
    begin, length = bounds(first, end)
    position = np.arange(max_length)
    tokens = np.asarray(texts.tokens).take(begin[..., None] + position, mode="clip").astype(np.int32)
    return {"tokens": np.where(position < length[..., None], tokens, -1), "mask": index["mask"]}

  _, lengths = bounds(starts, ends)
  kept = np.minimum(lengths, max_length).sum()
  facts = {"num_rows": len(starts), "steps_per_epoch": steps_per_epoch,
           "padding_fraction": round(1 - float(kept) / (lengths.size * max_length), 4),
           "cut_fraction": round(1 - float(kept) / max(1, int(lengths.sum())), 4), **(facts or {})}
  return Source(facts, batch_size, feed_at, lambda _, feed: dict(feed))
