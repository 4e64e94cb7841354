"""Words of documents in their order, whole documents in each block."""
import numpy as np

from embeddings_jax.data.bags import dealt
from embeddings_jax.data.sources import RESIDENT_BYTES, array_source, row_order
from embeddings_jax.data.text import Tokens
from embeddings_jax.types import InputError, Source

_SLAB = 1 << 22  # Tokens that are looked through at a time.


def document_source(tokens: Tokens, batch_size: int, *, blocks: int = 64, seed: int = 0,
                    resident: bool | None = None) -> Source:
  """Running words in blocks of documents: the leading axis of a batch is blocks, which data shards share out.

  Documents are dealt out as by `data/bags.py: bag_source`. A batch has, for a block of R documents and T words,

  | name | shape | |
  |---|---|---|
  | `tokens` | int32 [batch_size, T] | the words of one document after the other; -1: padding, at the end |
  | `row` | int32 [batch_size, T] | a word's document, its place in the block; -1: padding |
  | `document` | int32 [batch_size, R] | a document's number in the text; -1: padding, at the end |
  | `mask` | float32 [batch_size] | |

  Args:
    tokens: Text with a boundary behind each document.
    batch_size: Blocks of a batch, in another order in every epoch.
    blocks: Number of blocks, a multiple of `batch_size`.
    seed: Random seed of ties in the dealing and of the order of the blocks.
    resident: Keep the blocks on the device; by default where they are small. Otherwise they are read as they come.

  Returns:
    A `Source` with the text's facts, `documents_per_block`, `num_empty`, and `padding`, the share of padding.
  """
  if blocks < 1 or batch_size < 1 or blocks % batch_size:
    raise InputError(f"blocks={blocks}: must be at least 1, and a multiple of batch_size={batch_size}")
  stream = tokens.tokens
  ends = np.concatenate([start + np.flatnonzero(np.asarray(stream[start:start + _SLAB]) < 0)
                         for start in range(0, len(stream), _SLAB)] + [np.array([len(stream)])])
  starts = np.append(0, ends[:-1] + 1)
  lengths = ends - starts
  documents, capacity = dealt(lengths, blocks, seed)
  facts = tokens.facts | {
      "num_rows": len(lengths), "documents_per_block": documents.shape[1], "num_empty": int((lengths == 0).sum()),
      "padding": 1 - int(lengths.sum()) / (blocks * capacity)}

  def block_at(block: int) -> dict[str, np.ndarray]:
    valid = documents[block][documents[block] >= 0]
    words = np.full((2, capacity), -1, np.int32)
    if len(valid):
      listed = np.concatenate([stream[starts[i]:ends[i]] for i in valid])
      words[:, :len(listed)] = listed, np.repeat(np.arange(len(valid)), lengths[valid])
    return {"tokens": words[0], "row": words[1], "document": documents[block].astype(np.int32)}

  def read(numbers) -> dict[str, np.ndarray]:
    parts = [block_at(i) for i in numbers]
    return {name: np.stack([part[name] for part in parts]) for name in parts[0]}

  if 8 * blocks * capacity <= RESIDENT_BYTES if resident is None else resident:
    return array_source(read(range(blocks)), batch_size, seed=seed, facts=facts)._replace(may_pad=False)
  index_at, facts["steps_per_epoch"] = row_order(blocks, batch_size, seed, "shuffled", "drop")

  def feed_at(step, rows=slice(None)):
    index = index_at(step, rows)
    return read(index["row"]) | {"mask": index["mask"]}

  return Source(facts, batch_size, feed_at, lambda _, feed: dict(feed))
