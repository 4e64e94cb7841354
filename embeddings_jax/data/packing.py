"""Several texts in one row of a batch, so that next to nothing of it is padding."""
from collections.abc import Mapping, Sequence

import numpy as np

from embeddings_jax.data.encoders.base import Batch

SLOTS = 16  # Texts of a row, at most.


def row_widths(max_length: int) -> list[int]:
  """The lengths that rows have: 64 and what is twice, four times and eight times as long, up to `max_length`."""
  return [width for width in (64, 128, 256) if width < max_length] + [max_length]


def pack(lengths: Sequence[int], widths: Sequence[int],
         slots: int = SLOTS) -> tuple[np.ndarray, np.ndarray, list[int]]:
  """Where each text goes: the longest first, each into the row that it fills best, else into a new one.

  Args:
    lengths: Lengths of the texts, 1 to `widths[-1]`.
    widths: that rows may have, ascending; a new row is as long as its first text needs.
    slots: texts of a row, at most.

  Returns:
    The row and the first place of each text, int [n] both, and the rows' widths.
  """
  row, start = np.zeros(len(lengths), int), np.zeros(len(lengths), int)
  chosen: list[int] = []
  number: list[int] = []
  rooms: list[list[int]] = [[] for _ in range(widths[-1] + 1)]  # Rows by what is left of them.
  for i in np.argsort(-np.asarray(lengths), kind="stable").tolist():
    length = int(lengths[i])
    room = next((room for room in range(length, len(rooms)) if rooms[room]), 0)
    if room:
      batch_row = rooms[room].pop()
    else:
      batch_row, room = len(chosen), next(width for width in widths if width >= length)
      chosen.append(room)
      number.append(0)
    row[i], start[i] = batch_row, chosen[batch_row] - room
    number[batch_row] += 1
    if room > length and number[batch_row] < slots:
      rooms[room - length].append(batch_row)
  return row, start, chosen


def packed(batch: Mapping[str, np.ndarray], widths: Sequence[int], slots: int = SLOTS) -> list[Batch]:
  """Encoded texts, `tokens` and `segments` [n, length] with -1 past the end of `tokens`, packed; a batch per width.

  Returns:
    `tokens` and `segments` int32 [rows, width], `parts` int32 [rows, width] (the number of each token's text in its
    row, -1 on padding), and `slots` int32 [rows, slots]: which of the texts those are, -1 for none. Texts without a
    token are nowhere.
  """
  lengths = (batch["tokens"] >= 0).sum(1)
  items = np.flatnonzero(lengths)
  row, start, chosen = pack(lengths[items], widths, slots)
  order = np.lexsort((start, row))
  items, row, start = items[order], row[order], start[order]
  part = np.arange(len(row)) - np.searchsorted(row, row)  # Within its row, from the left.
  size = lengths[items]
  column = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
  width_of, batches = np.asarray(chosen, int), []
  for width in np.unique(width_of):
    rows = np.flatnonzero(width_of == width)
    number = np.full(len(width_of), -1)
    number[rows] = np.arange(len(rows))
    members = number[row] >= 0
    one = {"tokens": np.full((len(rows), width), -1, np.int32), "segments": np.zeros((len(rows), width), np.int32),
           "parts": np.full((len(rows), width), -1, np.int32), "slots": np.full((len(rows), slots), -1, np.int32)}
    one["slots"][number[row[members]], part[members]] = items[members]
    token = np.repeat(members, size)
    source = (np.repeat(items, size)[token], column[token])
    target = (np.repeat(number[row], size)[token], (np.repeat(start, size) + column)[token])
    for key in ("tokens", "segments"):
      one[key][target] = batch[key][source]
    one["parts"][target] = np.repeat(part, size)[token]
    batches.append(one)
  return batches
