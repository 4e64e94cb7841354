"""Sources: data as a pure function of (seed, step), whatever the number of hosts or devices."""
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from embeddings_jax.types import InputError, Source

RESIDENT_BYTES = 1 << 30  # Sets up to this size go to the device once.
MOST_DRAWN = 1 << 24  # Rows whose order is drawn as a whole.
ROUNDS = 6  # Of the cipher that orders more of them.


def array_source(
    arrays: Mapping[str, Any],
    batch_size: int | None = None,
    *,
    chosen: np.ndarray | None = None,
    seed: int = 0,
    order: str = "shuffled",
    remainder: str = "drop",
    facts: Mapping[str, Any] | None = None,
    resident: bool | None = None,
) -> Source:
  """Rows of arrays that share their leading axis; memory-mapped arrays are read batch by batch.

  Args:
    arrays: name -> `[num_rows, ...]`, or a dict of such arrays, as the `inputs` and `targets` of supervised models.
    batch_size: rows of the global batch; None makes the whole set the one batch of every step.
    chosen: Rows that belong to the source; by default all. Of memory-mapped arrays only those of a batch are read.
    seed: Random seed of the shuffled order, which is drawn anew for every epoch.
    order: `shuffled` or `sequential`.
    remainder: `drop` the last, partial batch of an epoch, or `pad` it: then each pass has every row
      once, and `mask` is 0 on the padding.
    facts: what to add to `num_rows`, `num_features` and `steps_per_epoch`.
    resident: keep the arrays on the device; by default where they are small.
  """
  arrays, nested = _flat(arrays)
  num_rows = _common_length(arrays)
  if chosen is not None:
    share = len(chosen) / num_rows
    if batch_size is None or resident or sum(v.nbytes for v in arrays.values()) * share <= RESIDENT_BYTES:
      arrays, chosen = {name: value[chosen] for name, value in arrays.items()}, None
    num_rows = len(arrays[next(iter(arrays))]) if chosen is None else len(chosen)
  image = next((value for name, value in arrays.items() if name.split("/")[-1] == "image"), None)
  if image is not None and image.dtype.kind == "f" and not (image.min() >= 0 and image.max() <= 1):
    raise InputError(f"image: floats from {image.min():g} to {image.max():g}; expected 0 to 1 (or uint8 from 0 to "
                     "255)")
  facts = {"num_rows": num_rows, **(facts or {})}
  for value in arrays.values():
    if value.ndim == 2:
      facts.setdefault("num_features", value.shape[1])
  if batch_size is None:
    whole = {k: np.asarray(v) for k, v in arrays.items()} | {"mask": np.ones(num_rows, np.float32)}
    return Source(facts | {"steps_per_epoch": 1}, num_rows, lambda step, rows=slice(None): {},
                  lambda resident, _: nested(resident), whole, whole=True)

  if resident is None:
    resident = chosen is None and sum(v.nbytes for v in arrays.values()) <= RESIDENT_BYTES
  index_at, steps_per_epoch = row_order(num_rows, batch_size, seed, order, remainder)

  def gather(table, index):
    row = index["row"] if chosen is None else chosen[index["row"]]
    return {k: v[row] for k, v in table.items()} | {"mask": index["mask"]}

  facts["steps_per_epoch"] = steps_per_epoch
  if resident:
    return Source(facts, batch_size, index_at, lambda table, index: nested(gather(table, index)), dict(arrays))
  return Source(facts, batch_size, lambda step, rows=slice(None): gather(arrays, index_at(step, rows)),
                lambda _, feed: nested(feed))


def _flat(arrays: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], Callable[[Mapping[str, Any]], dict[str, Any]]]:
  """Returns arrays by names such as `inputs/tokens`, and the function that nests them again."""
  paths = {}

  def collect(tree, path):
    for name, value in tree.items():
      if isinstance(value, Mapping):
        collect(value, (*path, name))
      else:
        paths["/".join((*path, name))] = (*path, name), value

  def nested(flat):
    tree: dict[str, Any] = {}
    for name, value in flat.items():
      *above, last = paths[name][0] if name in paths else (name,)
      node = tree
      for key in above:
        node = node.setdefault(key, {})
      node[last] = value
    return tree

  collect(arrays, ())
  return {name: value for name, (_, value) in paths.items()}, nested


def window_source(
    stream: np.ndarray,
    length: int,
    batch_size: int,
    *,
    name: str = "tokens",
    starts: Sequence[int] | None = None,
    beside: Mapping[str, np.ndarray] | None = None,
    jitter: int = 0,
    pad: int = -1,
    seed: int = 0,
    order: str = "shuffled",
    remainder: str = "drop",
    facts: Mapping[str, Any] | None = None,
    resident: bool | None = None,
) -> Source:
  """Windows `[batch_size, length]` of one running sequence (token ids, bytes, samples).

  Args:
    stream: `[num_elements]`, in memory or memory-mapped.
    length: elements of a window.
    batch_size: windows of the global batch.
    name: Name of the array in the batch.
    starts: first element of every window; by default each element is in exactly one window, and
      the last window is filled up with `pad`.
    beside: further arrays of the batch, name -> `[num_windows]`, which go with the windows (their group).
    jitter: a random offset in [0, jitter) is added to each start, drawn anew for each step.
    pad: the value that stands for "no element" past the end of the stream; where it is negative, windows of uint8
      or uint16 are int32.
    seed, order, remainder, facts, resident: as for `array_source`.
  """
  if starts is None:
    starts = np.arange(0, len(stream), length)
  starts = np.asarray(starts, np.int64)
  if not len(starts):
    raise InputError(f"no window of {length} elements in a stream of {len(stream)}")
  short = int(starts.max()) + jitter + length - len(stream)
  if resident is None:
    resident = stream.nbytes <= RESIDENT_BYTES
  dtype = stream.dtype
  if dtype.kind == "u" and pad < 0:
    if dtype.itemsize > 2:
      raise InputError(f"pad={pad} does not fit a stream of {dtype}")
    dtype = np.dtype(np.int32)
    stream = stream.astype(dtype) if resident else stream
  if short > 0 and resident:
    stream = np.concatenate([stream, np.full(short, pad, stream.dtype)])
  beside = beside or {}
  _common_length({"starts": starts, **beside})
  index_at, steps_per_epoch = row_order(len(starts), batch_size, seed, order, remainder)

  def window_at(step, rows=slice(None)):
    index = index_at(step, rows)
    first = starts[index["row"]]
    if jitter:
      noise = np.random.Generator(np.random.Philox(key=[seed, 1], counter=[0, 0, 0, step]))
      first = first + noise.integers(0, jitter, batch_size)[rows]
    # int32 reaches 2**31 elements, which is what a resident stream can hold.
    return {"start": first.astype(np.int32 if resident else np.int64), "mask": index["mask"],
            **{key: value[index["row"]] for key, value in beside.items()}}

  def gather(table, index):
    index = dict(index)
    start = index.pop("start")
    return {name: table["stream"][start[:, None] + np.arange(length, dtype=start.dtype)], **index}

  def read(step, rows=slice(None)):
    index = window_at(step, rows)
    start = index.pop("start")
    window = np.full((len(start), length), pad, dtype)
    for row, first in enumerate(start):
      piece = stream[first:first + length]
      window[row, :len(piece)] = piece
    return {name: window, **index}

  facts = {"num_rows": len(starts), "steps_per_epoch": steps_per_epoch, **(facts or {})}
  if resident:
    return Source(facts, batch_size, window_at, gather, {"stream": stream})
  return Source(facts, batch_size, read, lambda _, feed: dict(feed))


def reader_source(
    reader: Any,
    encode: Callable[[list[Any]], Mapping[str, np.ndarray]],
    batch_size: int,
    *,
    seed: int = 0,
    order: str = "shuffled",
    facts: Mapping[str, Any] | None = None,
) -> Source:
  """Any random-access reader (`tfds.data_source`, a folder of files), read through Grain.

  Args:
    reader: has `__len__` and `__getitem__(int)`.
    encode: `items -> batch` of NumPy arrays (an encoder's).
    batch_size: rows of the global batch.
    seed, order, facts: as for `array_source`.
  """
  import grain

  dataset = grain.MapDataset.source(reader).seed(seed)
  if order == "shuffled":
    dataset = dataset.shuffle()
  dataset = dataset.repeat()
  _check_batch_size(len(reader), batch_size)

  def feed_at(step, rows=slice(None)):
    index = range(step * batch_size, (step + 1) * batch_size)[rows]
    return dict(encode([dataset[i] for i in index]))

  facts = {"num_rows": len(reader), "steps_per_epoch": len(reader) // batch_size, **(facts or {})}
  return Source(facts, batch_size, feed_at, lambda _, feed: dict(feed))


def _common_length(arrays: Mapping[str, np.ndarray]) -> int:
  lengths = {k: len(v) for k, v in arrays.items()}
  if not lengths or len(set(lengths.values())) != 1:
    raise InputError(f"arrays of one dataset must have the same number of rows, got {lengths}")
  num_rows = next(iter(lengths.values()))
  if num_rows == 0:
    raise InputError("the dataset is empty: it has 0 rows")
  return num_rows


def _check_batch_size(num_rows: int, batch_size: int) -> None:
  if batch_size < 1:
    raise InputError(f"batch_size={batch_size}: must be at least 1")
  if batch_size > num_rows:
    raise InputError(f"batch_size={batch_size} exceeds the {num_rows} rows of the dataset")


def row_order(num_rows: int, batch_size: int, seed: int, order: str, remainder: str):
  """Returns `(step, rows) -> {row, mask}` (see `array_source`) and the number of steps of an epoch."""
  if order not in ("shuffled", "sequential"):
    raise InputError(f"order={order!r}: must be 'shuffled' or 'sequential'")
  if remainder not in ("drop", "pad"):
    raise InputError(f"remainder={remainder!r}: must be 'drop' or 'pad'")
  if remainder == "drop":
    _check_batch_size(num_rows, batch_size)
    steps_per_epoch = num_rows // batch_size
  else:
    _check_batch_size(max(num_rows, batch_size), batch_size)
    steps_per_epoch = -(-num_rows // batch_size)

  @functools.lru_cache(maxsize=2)  # A dispatch may straddle two passes.
  def permutation(epoch: int) -> np.ndarray:
    noise = np.random.Generator(np.random.Philox(key=[seed, 0], counter=[0, 0, 0, epoch]))
    return noise.permutation(num_rows).astype(np.int32)

  def shuffled(position: np.ndarray, epoch: int) -> np.ndarray:
    # A permutation of many rows takes seconds to draw, and memory on every host.
    return permutation(epoch)[position] if num_rows <= MOST_DRAWN else enciphered(position, num_rows, seed, epoch)

  def index_at(step: int, rows: slice = slice(None)) -> dict[str, np.ndarray]:
    epoch, index = divmod(step, steps_per_epoch)
    position = index * batch_size + np.arange(batch_size)[rows]
    valid = position < num_rows
    position = np.where(valid, position, 0)
    row = position if order == "sequential" else shuffled(position, epoch)
    return {"row": row.astype(np.int32 if num_rows < 1 << 31 else np.int64), "mask": valid.astype(np.float32)}

  return index_at, steps_per_epoch


def enciphered(position: np.ndarray, num_rows: int, seed: int, epoch: int) -> np.ndarray:
  """Returns where a shuffle puts rows, each a function of (seed, epoch, position) alone, int64.

  A Feistel network permutes the numbers of an even number of bits (Luby & Rackoff 1988); what lies beyond the rows is
  enciphered again until it does not (cycle walking; Black & Rogaway 2002).
  """
  half = np.uint64(max(1, -(-(num_rows - 1).bit_length() // 2)))
  low = np.uint64((1 << int(half)) - 1)
  keys = np.random.Generator(np.random.Philox(key=[seed, 1], counter=[0, 0, 0, epoch])).integers(
      0, 1 << 64, ROUNDS, np.uint64)

  def encipher(x):
    left, right = x >> half, x & low
    for key in keys:
      mixed = (right + key) * np.uint64(0xBF58476D1CE4E5B9)  # The constants of SplitMix64.
      mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
      left, right = right, left ^ ((mixed ^ (mixed >> np.uint64(31))) & low)
    return (left << half) | right

  row = encipher(np.asarray(position, np.uint64))
  while (beyond := row >= num_rows).any():
    row[beyond] = encipher(row[beyond])
  return row.astype(np.int64)
