"""Encoder of a graph's nodes."""
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from embeddings_jax.data.encoders.base import Batch, TextEncoder, check_some, ones, padded
from embeddings_jax.data.files.names import format_names, read_names
from embeddings_jax.data.files.streams import quoted
from embeddings_jax.errors import InputError


class NodeEncoder(TextEncoder):
  """Nodes -> `node` int32 `[n]`, by their names.

  A node that the graph lacks is an item `(name, neighbors)`, the names of nodes that it has. Then the batch also has
  `neighbors` int32 `[n, length]`, padded with -1, and `node` is -1 for such an item. In a file a line is a node's
  name, or the name of a new node and those of its neighbors, separated by white space or tabs.

  Attributes:
    names: Names of the nodes, in the order of the rows.
    isolated: Names of those without an edge, whose vectors say nothing.
  """

  kind = "nodes"
  padding = {"neighbors": -1}

  def __init__(self, names: Sequence[str], isolated: Sequence[str] = ()):
    self.names = list(names)
    self.isolated = list(isolated)
    self._index = {name: i for i, name in enumerate(self.names)}
    if len(self._index) < len(self.names):
      raise InputError("nodes: two nodes have one name")

  def encode(self, items: Sequence[Any]) -> Batch:
    check_some(items)
    nodes = np.array([-1 if _is_new(item) else self._row(item) for item in items], np.int32)
    batch = {"node": nodes, "mask": ones(items)}
    if (nodes < 0).any():
      around = [[self._row(name) for name in item[1]] if _is_new(item) else [] for item in items]
      bare = next((item[0] for item, rows in zip(items, around) if _is_new(item) and not rows), None)
      if bare is not None:
        raise InputError(f"node {quoted(str(bare))}: is new and has no neighbor, so nothing is known of it")
      batch["neighbors"] = padded([np.array(rows, np.int32) for rows in around], np.int32, -1)
    return batch

  def _row(self, name: Any) -> int:
    row = self._index.get(str(name))
    if row is None:
      close = difflib.get_close_matches(str(name), self.names[:100_000], n=1)
      hint = f"; the nearest name is {quoted(close[0])}" if close else ""
      raise InputError(f"node {quoted(str(name))}: is not in the graph{hint}; give a new node with its neighbors")
    return row

  def read_indexed(self, path: str, errors: str = "strict") -> tuple[list[Any], list[str]]:
    items, (lines, places) = [], super().read_indexed(path, errors)
    for line in lines:
      name, *neighbors = [cell for cell in re.split(r"\t" if "\t" in line else r"\s+", line.strip()) if cell] or [""]
      items.append(line if line in self._index or not neighbors else (name, neighbors))
    return items, places

  def example(self) -> Batch:
    return self.encode(self.names[:1])

  def options(self) -> dict[str, Any]:
    return {}

  def files(self) -> dict[str, bytes]:
    return {"nodes.txt": format_names(self.names).encode(), "isolated.txt": format_names(self.isolated).encode()}

  @classmethod
  def from_files(cls, options: Mapping[str, Any], folder: epath.Path) -> "NodeEncoder":
    return cls(read_names(folder / "nodes.txt"), read_names(folder / "isolated.txt"), **options)


def _is_new(item: Any) -> bool:
  return isinstance(item, (tuple, list))
