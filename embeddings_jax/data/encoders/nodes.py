"""Encoder of a graph's nodes."""
import difflib
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from embeddings_jax.data.encoders.base import Batch, TextEncoder, check_some, ones, padded
from embeddings_jax.data.files.arrays import load_npz
from embeddings_jax.data.files.graphs import GraphTable
from embeddings_jax.data.files.names import format_names, read_names
from embeddings_jax.data.files.streams import quoted
from embeddings_jax.errors import InputError

NUM_WALKS = 64  # From a new node, as it is embedded.


class NodeEncoder(TextEncoder):
  """Nodes -> `node` int32 `[n]`, by their names.

  A node that the graph lacks is an item `(name, neighbors)`, the names of nodes that it has. Then the batch also has
  `neighbors` int32 `[n, length]`, padded with -1, and `node` is -1 for such an item. In a file a line is a node's
  name, or the name of a new node and those of its neighbors, separated by white space or tabs.

  With a graph the batch has `walks` too, int32 `[n, NUM_WALKS, walk_length]`: first-order walks that begin at the
  neighbors in turn, -1 behind their ends. They depend on the graph and the neighbors alone.

  Attributes:
    names: Names of the nodes, in the order of the rows.
    isolated: Names of those without an edge, whose vectors say nothing.
    graph: The graph on which new nodes walk, or None.
    walk_length: Nodes of such a walk.
  """

  kind = "nodes"
  padding = {"neighbors": -1}

  def __init__(self, names: Sequence[str], isolated: Sequence[str] = (), graph: GraphTable | None = None,
               walk_length: int = 10):
    self.names = list(names)
    self.isolated = list(isolated)
    self.graph = graph
    self.walk_length = walk_length
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
      if self.graph is not None:
        batch["walks"] = np.full((len(items), NUM_WALKS, self.walk_length), -1, np.int32)
        new = [i for i, rows in enumerate(around) if rows]
        for i, paths in zip(new, walks_from(self.graph, [np.resize(sorted(around[i]), NUM_WALKS) for i in new],
                                            self.walk_length)):
          batch["walks"][i] = paths
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
    return {} if self.graph is None else {"walk_length": self.walk_length}

  def files(self) -> dict[str, bytes]:
    files = {"nodes.txt": format_names(self.names).encode(), "isolated.txt": format_names(self.isolated).encode()}
    if self.graph is not None:
      file = io.BytesIO()
      np.savez(file, **{field: getattr(self.graph, field) for field in ("indptr", "indices", "weights")
                        if getattr(self.graph, field) is not None})
      files["graph.npz"] = file.getvalue()
    return files

  @classmethod
  def from_files(cls, options: Mapping[str, Any], folder: epath.Path) -> "NodeEncoder":
    names, isolated = (read_names(folder / f"{part}.txt") for part in ("nodes", "isolated"))
    if "walk_length" not in options:
      return cls(names, isolated)
    arrays = load_npz(folder / "graph.npz")
    graph = GraphTable(names, arrays["indptr"], arrays["indices"], arrays.get("weights"), False, 0, 0)
    return cls(names, isolated, graph, **options)


def walks_from(graph: GraphTable, starts: Sequence[np.ndarray], length: int) -> list[np.ndarray]:
  """Returns first-order walks of `length` nodes from each start, int32 [k, length], -1 behind their ends.

  The randomness of walks follows from their starts [k]. Those of training are drawn on the device, by `ops/walks.py`.
  """
  cumulative = None if graph.weights is None else np.concatenate([[0.0], np.cumsum(graph.weights)])
  return [_walks(graph, cumulative, nodes, length) for nodes in starts]


def _walks(graph: GraphTable, cumulative: np.ndarray | None, starts: np.ndarray, length: int) -> np.ndarray:
  noise = np.random.default_rng(np.asarray(starts, np.uint32))
  walks = np.full((len(starts), length), -1, np.int32)
  walks[:, 0] = node = starts
  for step in range(1, length):
    first, end = graph.indptr[node], graph.indptr[node + 1]
    word = noise.random(len(starts))
    if cumulative is None:
      edge = first + (word * (end - first)).astype(np.int64)
    else:
      below = cumulative[first]
      edge = np.searchsorted(cumulative, below + word * (cumulative[end] - below), side="right") - 1
    alive = (end > first) & (walks[:, step - 1] >= 0)
    edge = np.minimum(np.clip(edge, first, np.maximum(end - 1, first)), len(graph.indices) - 1)
    node = np.where(alive, graph.indices[edge], node)
    walks[:, step] = np.where(alive, node, -1)
  return walks


def _is_new(item: Any) -> bool:
  return isinstance(item, (tuple, list))
