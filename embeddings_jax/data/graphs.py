"""Graphs as datasets: nodes are the items, their names as strings; edges are a `files/graphs.py: GraphTable`."""
import itertools
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from embeddings_jax.data import catalog, formats
from embeddings_jax.data.cache import cache_root, cached, digest
from embeddings_jax.data.dataset import Dataset, content_digest
from embeddings_jax.data.files.graphs import GraphTable, build_graph, from_networkx, load_mat, read_graph
from embeddings_jax.data.files.json import read_json
from embeddings_jax.data.link_split import Links, hold_out
from embeddings_jax.errors import InputError

_VERSION = 1  # Of cached graphs: raise it when the same file would give another graph.
_ROWS = 1024
_READING_BYTES = 12  # Bytes of memory for each byte of an edge list while it is read, measured on 2 M edges.


def read(name: str, *, dataset: Dataset | None = None, encoder: Any = None, data_dir: str | None = None,
         cache_dir: str | None = None, allow_code: bool = False, labels: str = "", attributes: str = "",
         directed: bool = False, weighted: bool = True, loops: str = "keep", repeated: str = "largest",
         variable: str = "", held_out: float = 0.0, held_out_seed: int = 0) -> Dataset:
  """Reads a graph.

  Args:
    name: A graph of the catalog, or the path of a file of `files/graphs.py: read_graph`.
    dataset: A graph, or rows [m, 2] or [m, 3] that are edges: two whole numbers and perhaps a weight.
    labels: File with the nodes' labels, see `read_labels`.
    attributes: File with numeric attributes of the nodes, see `read_attributes`.
    directed: Whether the edges of a file or of rows lead one way only.
    weighted: Whether weights count.
    loops: `keep` or `drop` edges from a node to itself.
    repeated: `largest` or `sum` of the weights of an edge that a file has more than once.
    variable: Name of the matrix in a `.mat` file.
    held_out: Fraction of the edges to remove before training, for `link_prediction`; see `link_split.py`.
    held_out_seed: Random seed of that choice.

  Raises:
    InputError: The name, a file or an option is wrong.
  """
  options = dict(directed=directed, loops=loops, repeated=repeated)
  if dataset is None and name in catalog.entries():
    dataset = catalog.load(name, data_dir=data_dir, cache_dir=cache_dir)
  elif dataset is None:
    dataset = graph_dataset(name, _read_cached(name, cache_dir, variable=variable, **options))
  elif dataset.kind == "rows":
    dataset = graph_dataset(dataset.name, _of_rows(dataset.items, **options))
  if dataset.kind != "graph":
    return dataset
  table = dataset.graph
  if loops == "drop":
    table = without_loops(table, dataset.name)
  if not weighted:
    table = table._replace(weights=None)
  links = dataset.links
  if held_out:
    table, links = hold_out(table, held_out, held_out_seed, dataset.name)
  classes = read_labels(labels, table.names) if labels else dataset.labels
  numbers = read_attributes(attributes, table.names) if attributes else dataset.attributes
  return dataset._replace(graph=table, links=links, labels=classes, attributes=numbers, note=describe(table, links),
                          fingerprint=_fingerprint(table, links))


def graph_dataset(name: str, table: GraphTable, labels: Mapping[str, np.ndarray] | None = None,
                  split: Mapping[str, np.ndarray] | None = None) -> Dataset:
  """Returns a graph as a dataset, whose items are the nodes' names."""
  return Dataset(name, "graph", table.names, names=table.names, labels=labels or {}, split=split or {}, graph=table,
                 fingerprint=_fingerprint(table, None))


def from_object(graph: Any, name: str = "graph") -> Dataset | None:
  """Returns a networkx graph, a square matrix of scipy or a `GraphTable` as a dataset; None for anything else.

  Attributes that all nodes of a networkx graph have become labels, or numeric attributes where they are floats. A
  matrix that is not symmetric is a directed graph.
  """
  if isinstance(graph, GraphTable):
    return graph_dataset(name, graph)
  if all(hasattr(graph, method) for method in ("nodes", "edges", "is_directed")):
    return graph_dataset(name, from_networkx(graph), _attributes(graph, (str, int)))._replace(
        attributes={key: values.astype(np.float64) for key, values in _attributes(graph, (float,)).items()})
  if hasattr(graph, "tocoo"):
    if graph.ndim != 2 or graph.shape[0] != graph.shape[1]:
      raise InputError(f"{name}: the matrix has the shape {list(graph.shape)}, expected a square one, a graph")
    coo = graph.tocoo()
    nonzero = coo.data != 0
    edges, weights = np.stack([coo.row[nonzero], coo.col[nonzero]], 1), np.asarray(coo.data[nonzero], np.float64)
    directed = bool(abs(graph - graph.T).sum() != 0)
    return graph_dataset(name, build_graph(range(graph.shape[0]), edges, weights, directed=directed, where=name))
  return None


def _attributes(graph: Any, kinds: tuple[type, ...]) -> dict[str, np.ndarray]:
  """Returns attributes that all nodes have, of some types."""
  data = [attributes for _, attributes in graph.nodes(data=True)]
  names = [name for name in data[0] if all(isinstance(each.get(name), kinds) for each in data)] if data else []
  return {str(name): np.array([each[name] for each in data]) for name in names}


def _of_rows(rows: np.ndarray, **options: Any) -> GraphTable:
  rows = np.asarray(rows)
  if rows.ndim != 2 or rows.shape[1] not in (2, 3):
    raise InputError(f"data: rows of {list(rows.shape)} are no edges; expected [m, 2], or [m, 3] with weights")
  ends = rows[:, :2]
  if not (np.isfinite(ends).all() and (ends == np.rint(ends)).all()):
    raise InputError("data: the first two columns of edges are nodes, expected whole numbers")
  ids, indices = np.unique(ends.astype(np.int64), return_inverse=True)
  return build_graph(ids.tolist(), indices.reshape(-1, 2), rows[:, 2] if rows.shape[1] == 3 else None, **options)


def without_loops(table: GraphTable, where: str = "graph") -> GraphTable:
  """Removes edges from a node to itself."""
  source, target, weights = coordinates(table)
  kept = source != target
  if kept.all():
    return table
  if not kept.any():
    raise InputError(f"{where}: loops=drop leaves no edge")
  return select_edges(table, kept)


def select_edges(table: GraphTable, kept: np.ndarray) -> GraphTable:
  """Returns the graph of some edges; `kept` is bool [m]."""
  counts = np.add.reduceat(np.append(kept, False), table.indptr[:-1]) * (np.diff(table.indptr) > 0)
  return table._replace(indptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), indices=table.indices[kept],
                        weights=None if table.weights is None else table.weights[kept])


def coordinates(table: GraphTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns sources and targets int32 [m] and weights float64 [m] of the edges, sorted by source, then target."""
  source = np.repeat(np.arange(len(table.names), dtype=np.int32), np.diff(table.indptr))
  return source, table.indices, np.ones(len(source)) if table.weights is None else table.weights


def describe(table: GraphTable, links: Links | None = None) -> str:
  """Returns a line about a graph for the user to check."""
  kind = ("directed" if table.directed else "undirected") + (", weighted" if table.weights is not None else "")
  number = len(table.indices)
  if not table.directed:
    source, target, _ = coordinates(table)
    number = (number + int((source == target).sum())) // 2
  held = f", {len(links.positive):,} more held out" if links is not None else ""
  return (f"graph ({kind}): {len(table.names):,} nodes, {number:,} edges{held}; the file has {table.num_loops:,} "
          f"loops and {table.num_repeated:,} repeated edges; {len(table.isolated):,} nodes have no edge")


def _fingerprint(table: GraphTable, links: Links | None) -> str:
  arrays = [table.indptr, table.indices, *([] if table.weights is None else [table.weights]),
            *([] if links is None else list(links))]
  return digest(table.names, table.directed, content_digest(arrays))


def _read_cached(name: str, cache_dir: str | os.PathLike | None, **options: Any) -> GraphTable:
  """Reads a file once for every content and options; the cache keeps its CSR."""
  path = Path(name).expanduser()
  if not path.is_file():
    near = re.search(r"[/\\.]", name) is None
    raise InputError(f"data={name}: " + ("unknown graph; --list_data lists those of the catalog" if near else
                                         "no such file"))
  check_memory(path)
  key = digest("graph", _VERSION, "".join(path.suffixes), formats.sha256(path), options)

  def build(folder: Path) -> None:
    table = read_graph(path, **options)
    folder.mkdir()
    for field in ("indptr", "indices", "weights"):
      if getattr(table, field) is not None:
        np.save(folder / f"{field}.npy", getattr(table, field))
    (folder / "names.txt").write_text(json.dumps(table.names), encoding="utf-8")
    counts = {field: getattr(table, field) for field in ("directed", "num_loops", "num_repeated")}
    (folder / "graph.json").write_text(json.dumps(counts))

  folder = cached(cache_root(cache_dir) / f"graph-{key[:32]}", build)
  arrays = {field: formats.load_npy(folder / f"{field}.npy") for field in ("indptr", "indices", "weights")
            if (folder / f"{field}.npy").exists()}
  names = json.loads((folder / "names.txt").read_text(encoding="utf-8"))
  return GraphTable(names, weights=arrays.pop("weights", None), **arrays, **read_json(folder / "graph.json"))


def check_memory(path: Path) -> None:
  """Raises if a graph is larger than what memory is free, before it is read."""
  try:
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  except (ValueError, OSError):  # Not every system says.
    return
  needed = _READING_BYTES * path.stat().st_size
  if needed > available:
    raise InputError(f"{path}: needs about {needed / 1e9:.1f} GB of memory to be read, {available / 1e9:.1f} GB are "
                     "free; give integers as .npz, or a part of the graph")


def read_labels(path: str, names: list[str]) -> dict[str, np.ndarray]:
  """Reads labels of nodes.

  | name | format |
  |---|---|
  | `.cmty` | a line of nodes for each label |
  | `.mat` | a matrix `group` [num_nodes, num_classes], 1 for each label of a node; `FILE.mat:NAME` for another name |
  | anything else | a node and its labels a line, separated by white space, tabs or commas; # and % begin comments |

  Args:
    path: The file.
    names: Names of the nodes.

  Returns:
    `class`: texts [n], "" where there is none; or, where a node has several, bool [n, num_classes].

  Raises:
    InputError: The file cannot be read, or names a node that the graph lacks.
  """
  mat = re.fullmatch(r"(.*\.mat)(?::(\w+))?", path)
  if mat:
    matrix = load_mat(Path(mat[1]).expanduser(), mat[2] or "group")
    if matrix.shape[0] != len(names):
      raise InputError(f"{path}: has labels of {matrix.shape[0]} nodes, the graph has {len(names)}")
    return {"class": _simplified(matrix.toarray() > 0, [str(i) for i in range(matrix.shape[1])])}
  index, by_label = {name: i for i, name in enumerate(names)}, {}
  for number, line in enumerate(formats.read_lines(Path(path).expanduser()), 1):
    cells = [cell for cell in (cell.strip() for cell in re.split(r"[,\t]" if re.search(r"[,\t]", line) else r"\s+",
                                                                 line.strip())) if cell]
    if not cells or cells[0][0] in "#%" or (number == 1 and cells[0].lower() in ("node", "id", "name")):
      continue
    if path.endswith(".cmty"):
      pairs = [(cell, str(len(by_label))) for cell in cells]
      by_label[str(len(by_label))] = []
    elif len(cells) < 2:
      raise InputError(f"{path}: line {number}: node {formats.quoted(cells[0])} has no label")
    else:
      pairs = list(itertools.product(cells[:1], cells[1:]))
    for node, label in pairs:
      if node not in index:
        raise InputError(f"{path}: line {number}: the graph has no node {formats.quoted(node)}")
      by_label.setdefault(label, []).append(index[node])
  if not by_label:
    raise InputError(f"{path}: has no labels")
  member = np.zeros((len(names), len(by_label)), bool)
  for column, nodes in enumerate(by_label.values()):
    member[nodes, column] = True
  return {"class": _simplified(member, list(by_label))}


def read_attributes(path: str, names: list[str]) -> dict[str, np.ndarray]:
  """Reads numeric attributes of nodes: a header `node,NAME,...`, then a node and its numbers a line.

  Cells are separated by tabs, or else by commas; an empty cell is an unknown value.

  Args:
    path: The file.
    names: Names of the nodes.

  Returns:
    name -> float64 [n], NaN where unknown.

  Raises:
    InputError: The file cannot be read, has no header, names a node that the graph lacks, or has a cell that is no
      number.
  """
  index, titles, values = {name: i for i, name in enumerate(names)}, [], np.zeros((len(names), 0))
  for number, line in enumerate(formats.read_lines(Path(path).expanduser()), 1):
    cells = [cell.strip() for cell in line.rstrip("\r\n").split("\t" if "\t" in line else ",")]
    if not titles:
      titles, values = cells[1:], np.full((len(names), len(cells) - 1), np.nan)
      if not titles or len(set(titles)) < len(titles) or "" in titles:
        raise InputError(f"{path}: line {number}: expected a header with different names, as in node,age,income")
    elif any(cells):
      if cells[0] not in index:
        raise InputError(f"{path}: line {number}: the graph has no node {formats.quoted(cells[0])}")
      if len(cells) != len(titles) + 1:
        raise InputError(f"{path}: line {number}: has {len(cells)} cells, the header {len(titles) + 1}")
      for column, cell in enumerate(cells[1:]):
        try:
          values[index[cells[0]], column] = float(cell or "nan")
        except ValueError:
          raise InputError(f"{path}: line {number}: {titles[column]}: {formats.quoted(cell)} is no number") from None
  if not titles:
    raise InputError(f"{path}: has no line")
  return dict(zip(titles, values.T))


def _simplified(member: np.ndarray, classes: list[str]) -> np.ndarray:
  """Labels as texts [n] where no node has several."""
  if (member.sum(1) > 1).any():
    return member
  return np.where(member.any(1), np.array(classes)[member.argmax(1)], "")


def weight_thresholds(indptr: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Returns the cumulative weights of each row in units of 2**-32, uint32 [m], for `ops/walks.py: Graph.thresholds`.

  Args:
    indptr: int [n + 1].
    weights: Positive numbers, float64 [m].

  Raises:
    InputError: A weight is not positive and finite.
  """
  weights = np.asarray(weights, np.float64)
  bad = ~(np.isfinite(weights) & (weights > 0))
  if bad.any():
    raise InputError(f"weights: edge {bad.argmax()} has {weights[bad.argmax()]}, expected a positive number")
  thresholds = np.empty(len(weights), np.uint32)
  for row in range(0, len(indptr) - 1, _ROWS):  # Some rows at a time keep the running sum of shares small, so exact.
    part = np.asarray(indptr[row:row + _ROWS + 1], np.int64)
    degree = np.diff(part)
    degree, last = degree[degree > 0], part[1:][degree > 0] - part[0] - 1
    if len(last):
      of_part = weights[part[0]:part[-1]]
      total = np.add.reduceat(of_part, last - degree + 1)
      share = np.cumsum(of_part / np.repeat(total, degree))
      before = np.repeat(np.concatenate([[0.0], share[last[:-1]]]), degree)
      scaled = np.clip(np.ceil((share - before) * 2.0**32) - 1, 0, 2**32 - 1).astype(np.uint32)
      scaled[last] = 2**32 - 1
      thresholds[part[0]:part[-1]] = scaled
  return thresholds


def expected_visits(table: GraphTable, length: int, starts: np.ndarray | None = None) -> np.ndarray:
  """Returns the expected number of visits of each node by first-order walks, float64 [n]: sum_{t < l} (P')^t starts.

  Args:
    table: The graph.
    length: Nodes of a walk, l.
    starts: Number of walks from each node [n]; by default one.
  """
  from scipy import sparse

  size = len(table.names)
  source, target, weights = coordinates(table)
  total = np.bincount(source, weights, size)
  step = sparse.csr_array((weights / total[source], (target, source)), shape=(size, size))
  now = np.ones(size) if starts is None else np.asarray(starts, np.float64)
  visits = now.copy()
  for _ in range(length - 1):
    now = step @ now
    visits += now
  return visits

