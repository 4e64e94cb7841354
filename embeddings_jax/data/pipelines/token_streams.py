"""Running text as parallel streams of subword tokens: a row of a batch continues the same row of the last one."""
from collections.abc import Mapping
from typing import Any

import numpy as np

from embeddings_jax.data import reading, stand_ins, tokenized
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.sources import RESIDENT_BYTES, window_source
from embeddings_jax.types import InputError, Prepared, Source

ACCEPTS = ("text",)
READ = reading.text
UNIT = "stretches of tokens"
FACTS = tokenized.FACTS


def token_streams(dataset: Dataset, *, batch_size: int, seed: int, encoder: Any = None, cache_dir: str | None = None,
                  tokenizer: str = "", model: str = "bpe", vocab_size: int = 4000, lowercase: bool = True,
                  max_length: int = 128, window_length: int = 0) -> Prepared:
  """Makes batches of `tokens` `[batch_size, window_length + 1]` and `begins` `[batch_size]`; see `stream_source`.

  Held-out documents are in windows of `window_length` tokens, as those of `subword_windows`.

  Args:
    dataset: Text.
    batch_size: Streams.
    seed: Not used: the text is read in order.
    encoder: Pretrained encoder, whose tokenizer is used.
    cache_dir: Directory of derived data.
    tokenizer, model, vocab_size, lowercase: Options of the tokenizer; see `subword_pairs`.
    max_length: Tokens of an item that is embedded.
    window_length: Tokens through which gradients flow; 0: `max_length`.
  """
  del seed
  corpus = tokenized.tokenize(dataset, unit="document", what="streams", encoder=encoder, tokenizer=tokenizer,
                              model=model, vocab_size=vocab_size, lowercase=lowercase, max_length=max_length,
                              cache_dir=cache_dir)
  length = window_length or max_length
  splits = {"train": stream_source(corpus.train.tokens, length, batch_size, facts=corpus.facts)}
  if corpus.validation:
    splits["validation"] = window_source(corpus.validation.tokens, length, batch_size, order="sequential",
                                         remainder="pad")
  return Prepared(splits, corpus.encoder, corpus.dataset, splits["train"].facts)


def stream_source(stream: np.ndarray, length: int, batch_size: int, *,
                  facts: Mapping[str, Any] | None = None) -> Source:
  """Batches of `tokens` int32 `[batch_size, length + 1]` and of `begins` float32 `[batch_size]`.

  The stream is cut into `batch_size` equal parts, of which a few tokens at the end are left out. Row b of step t has
  the tokens `t * length` to `(t + 1) * length` of part b, both included, so that it begins with the last token of row
  b of step t - 1. `begins` is 1 in the first step of an epoch.

  Raises:
    InputError: The stream is too short.
  """
  if length < 1 or batch_size < 1:
    raise InputError(f"window_length={length}, batch_size={batch_size}: must be at least 1")
  part = len(stream) // batch_size
  steps = (part - 1) // length
  if steps < 1:
    raise InputError(f"batch_size={batch_size}: parts the text of {len(stream)} tokens into streams of {part}, and a "
                     f"window needs {length + 1}; use fewer streams or a shorter window_length")
  starts = np.arange(batch_size, dtype=np.int64) * part
  inside = np.arange(length + 1)
  resident = stream.nbytes <= RESIDENT_BYTES and len(stream) < 1 << 31

  def feed_at(step: int, rows: slice = slice(None)) -> dict[str, np.ndarray]:
    first = starts[rows] + step % steps * length
    begins = np.full(len(first), step % steps == 0, np.float32)
    if resident:
      return {"start": first.astype(np.int32), "begins": begins}
    return {"tokens": np.asarray(stream[first[:, None] + inside], np.int32), "begins": begins}

  def assemble(table, feed):
    batch = {"begins": feed["begins"]}
    if resident:
      return {"tokens": table["stream"][feed["start"][:, None] + inside.astype(np.int32)], **batch}
    return {"tokens": feed["tokens"], **batch}

  facts = {"num_rows": batch_size * steps, "steps_per_epoch": steps, **(facts or {})}
  table = {"stream": np.asarray(stream, np.int32)} if resident else {}
  return Source(facts, batch_size, feed_at, assemble, table, may_pad=False)


def stand_in(item: stand_ins.Item, *, batch_size: int, model: str = "bpe", vocab_size: int = 4000,
             max_length: int = 128, window_length: int = 0, **_: Any) -> stand_ins.StandIn:
  """Returns facts and batch shapes; see `stand_ins`."""
  prepared = stand_ins.stand_in(stand_ins.subword_facts(model, vocab_size), batch_size,
                                tokens=(np.int32, (window_length or max_length) + 1), begins=(np.float32,))
  return prepared._replace(batch={key: value for key, value in prepared.batch.items() if key != "mask"})
