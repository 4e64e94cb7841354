"""Windows of frames of clips, as a source."""
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embeddings_jax.data.sources import RESIDENT_BYTES, row_order
from embeddings_jax.data.video import Clips
from embeddings_jax.errors import InputError
from embeddings_jax.types import Source


def clip_source(
    clips: Clips,
    chosen: Sequence[int],
    window: int,
    batch_size: int,
    *,
    stride: int = 1,
    hop: int = 0,
    beside: Sequence[str] = (),
    jitter: bool = False,
    seed: int = 0,
    order: str = "shuffled",
    remainder: str = "drop",
    facts: Mapping[str, Any] | None = None,
    resident: bool | None = None,
) -> Source:
  """Windows of frames: `clip` uint8 `[batch_size, window, height, width, channels]`.

  Args:
    clips: Clips.
    chosen: Numbers of the clips that belong to the source; no frame of another is read.
    window: Frames of a window.
    batch_size: Windows of the global batch.
    stride: Distance of a window's frames in the clip.
    hop: Distance of the windows' first frames; 0: windows do not overlap.
    beside: Names of arrays beside the frames that a batch has too, `[batch_size, window, ...]`.
    jitter: Whether a window begins up to `hop` frames later, drawn anew for each step, as far as the clip reaches.
    seed, order, remainder, facts, resident: See `array_source`.

  Raises:
    InputError: A clip is shorter than a window.
  """
  span = 1 + (window - 1) * stride
  hop = hop or span
  chosen = np.asarray(chosen, np.int64)
  for i in chosen:
    if clips.lengths[i] < span:
      raise InputError(f"clip {i}: has {clips.lengths[i]} frames, and a window spans {span} (window={window}, stride="
                       f"{stride}); leave it out, or lower data.window or data.stride")
  last = clips.lengths[chosen] - span  # Last first frame of a window, in its clip.
  number = last // hop + 1
  clip = np.repeat(np.arange(len(chosen)), number)
  place = np.concatenate([hop * np.arange(count) for count in number]) if len(number) else np.zeros(0, int)
  room = np.minimum(last[clip] - place + 1, hop)
  names = ("frames", *beside)
  arrays = {name: clips.frames if name == "frames" else clips.beside[name] for name in names}
  per_frame = sum(value.nbytes for value in arrays.values()) / max(1, len(clips.frames))
  if resident is None:
    resident = per_frame * clips.lengths[chosen].sum() <= RESIDENT_BYTES
  starts = clips.starts[chosen]
  if resident:
    arrays = {name: np.concatenate([clips.of(name, i) for i in chosen]) for name in names}
    starts = np.concatenate([[0], np.cumsum(clips.lengths[chosen])])[:-1]
  index_at, steps_per_epoch = row_order(len(clip), batch_size, seed, order, remainder)
  key = {name: "clip" if name == "frames" else name for name in names}

  def window_at(step, rows=slice(None)):
    index = index_at(step, rows)
    row = index["row"]
    first = starts[clip[row]] + place[row]
    if jitter:
      noise = np.random.Generator(np.random.Philox(key=[seed, 1], counter=[0, 0, 0, step]))
      first = first + (noise.random(batch_size)[rows] * room[row]).astype(np.int64)
    # int32 reaches 2**31 frames, more than a device holds.
    return {"start": first.astype(np.int32 if resident else np.int64), "mask": index["mask"]}

  def gather(table, index):
    start = index["start"]
    at = start[:, None] + stride * np.arange(window, dtype=start.dtype)
    return {key[name]: table[name][at] for name in names} | {"mask": index["mask"]}

  def read(step, rows=slice(None)):
    index = window_at(step, rows)
    columns = {key[name]: np.stack([arrays[name][first:first + span:stride] for first in index["start"]])
               for name in names}
    return columns | {"mask": index["mask"]}

  facts = {"num_rows": len(clip), "steps_per_epoch": steps_per_epoch, **(facts or {})}
  if resident:
    return Source(facts, batch_size, window_at, gather, arrays)
  return Source(facts, batch_size, read, lambda _, feed: dict(feed))
