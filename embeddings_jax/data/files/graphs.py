"""Readers of graphs: edge lists, adjacency lists, sparse matrices. Every format ends as one CSR with named nodes."""
import array
import csv
import itertools
import logging
import math
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from embeddings_jax.data.files.arrays import load_npz
from embeddings_jax.data.files.streams import opened, quoted, read_lines, refusing
from embeddings_jax.data.matrix import read_sparse
from embeddings_jax.types import InputError

MAX_NODES = 50_000_000  # Names alone take gigabytes beyond.
_ADJACENCY = (".adjlist", ".adj")
_COMPRESSED = (".gz", ".xz", ".bz2", ".zst")


class GraphTable(NamedTuple):
  """A graph in compressed sparse rows, on the host.

  Attributes:
    names: Names of the nodes, in the order in which the file names them first.
    indptr: Row v holds the edges `indptr[v]` to `indptr[v + 1] - 1`; int64 [n + 1].
    indices: Targets of the edges, increasing within a row; int32 [m]. An undirected edge is in both rows.
    weights: Positive, float64 [m]; None if all are equal.
    directed: Whether an edge leads one way only.
    num_loops: Edges from a node to itself that the file has.
    num_repeated: Edges that the file has more than once.
  """

  names: list[str]
  indptr: np.ndarray
  indices: np.ndarray
  weights: np.ndarray | None
  directed: bool
  num_loops: int
  num_repeated: int

  @property
  def isolated(self) -> np.ndarray:
    """Nodes without any edge, in or out; int64 [k]."""
    touched = np.diff(self.indptr) > 0
    touched[self.indices] = True
    return np.flatnonzero(~touched)


def read_graph(
    path: str | os.PathLike,
    *,
    directed: bool = False,
    loops: str = "keep",
    repeated: str = "largest",
    variable: str = "",
) -> GraphTable:
  """Reads a graph, in the format that the file's name tells.

  | name | format |
  |---|---|
  | `.adjlist`, `.adj` | a line for each node: its name, then those of its neighbors |
  | `.mat` | a square matrix of MATLAB; `variable` names it if the file has several |
  | `.npz` | a square matrix of `scipy.sparse.save_npz`, or an array `edges` [m, 2] or [m, 3] |
  | anything else | an edge a line: two nodes and perhaps a weight, separated by white space, tabs or commas |

  Text may be compressed (.gz, .xz, .bz2, .zst); lines that begin with # or % are comments. Of edges with tabs or
  commas a first line such as `source,target,weight` is a header, which a warning names; cells may be quoted.

  Args:
    path: The file.
    directed: Whether an edge leads one way only.
    loops: `keep` or `drop` edges from a node to itself.
    repeated: `largest` or `sum` of the weights of an edge that the file has more than once. An undirected edge that
      is listed in both directions is such an edge.
    variable: Name of the matrix in a `.mat` file.

  Raises:
    InputError: The file cannot be read, a line is no edge, or a weight is not positive.
  """
  path = Path(path)
  suffix = next((s for s in reversed(path.suffixes) if s not in _COMPRESSED), "").lower()
  if suffix == ".mat":
    names, edges, weights = _from_matrix(load_mat(path, variable), path)
  elif suffix == ".npz":
    names, edges, weights = _load_npz(path)
  elif suffix in _ADJACENCY:
    names, edges, weights = _read_adjacency(path)
  else:
    names, edges, weights = _read_edges(path)
  return build_graph(names, edges, weights, directed=directed, loops=loops, repeated=repeated, where=path)


def build_graph(
    names: Sequence[Any],
    edges: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    directed: bool = False,
    loops: str = "keep",
    repeated: str = "largest",
    where: object = "graph",
) -> GraphTable:
  """Makes a CSR of a list of edges.

  Args:
    names: Names of the n nodes.
    edges: Pairs of node indices; int [m, 2].
    weights: Positive numbers [m]; None if all are equal.
    directed, loops, repeated: As in `read_graph`.
    where: Name of the graph for error messages.

  Raises:
    InputError: There is no edge, or a weight is not positive.
  """
  for option, value, choices in (("loops", loops, ("keep", "drop")), ("repeated", repeated, ("largest", "sum"))):
    if value not in choices:
      raise InputError(f"{option}={value!r}: must be one of {', '.join(choices)}")
  edges = np.asarray(edges, np.int64).reshape(-1, 2)
  values = np.ones(len(edges)) if weights is None else np.asarray(weights, np.float64)
  bad = ~(np.isfinite(values) & (values > 0))
  if bad.any():
    raise InputError(f"{where}: edge {bad.argmax()} (from 0) has the weight {values[bad.argmax()]}, expected a "
                     "positive number")
  if len(edges) and not (0 <= edges.min() and edges.max() < len(names)):
    raise InputError(f"{where}: an edge names node {edges.max()}, there are {len(names)} nodes")
  is_loop = edges[:, 0] == edges[:, 1]
  if loops == "drop":
    edges, values = edges[~is_loop], values[~is_loop]
  if not len(edges):
    raise InputError(f"{where}: the graph has no edge")
  source, target = (edges[:, 0], edges[:, 1]) if directed else (edges.min(1), edges.max(1))
  code = source * len(names) + target
  code, inverse = np.unique(code, return_inverse=True)
  merged = np.zeros(len(code))
  (np.add if repeated == "sum" else np.maximum).at(merged, inverse, values)
  source, target = np.divmod(code, len(names))
  num_repeated = len(edges) - len(code)
  if not directed:
    proper = source != target
    source, target, merged = (np.concatenate([source, target[proper]]), np.concatenate([target, source[proper]]),
                              np.concatenate([merged, merged[proper]]))
  order = np.lexsort((target, source))
  indptr = np.zeros(len(names) + 1, np.int64)
  np.cumsum(np.bincount(source, minlength=len(names)), out=indptr[1:])
  merged = None if (merged == merged[0]).all() else merged[order]
  return GraphTable([str(name) for name in names], indptr, target[order].astype(np.int32), merged, directed,
                    int(is_loop.sum()), num_repeated)


def from_networkx(
    graph: Any, *, weight: str = "weight", loops: str = "keep", repeated: str = "largest"
) -> GraphTable:
  """Makes a `GraphTable` of a networkx graph; nodes keep their order, edges without `weight` have 1."""
  names = list(graph.nodes)
  index = {name: i for i, name in enumerate(names)}
  listed = [(index[a], index[b], float(data.get(weight, 1.0))) for a, b, data in graph.edges(data=True)]
  table = np.array(listed, np.float64).reshape(-1, 3)
  return build_graph(names, table[:, :2].astype(np.int64), table[:, 2], directed=graph.is_directed(), loops=loops,
                     repeated=repeated)


def _data_lines(path: Path) -> Iterable[tuple[int, str]]:
  """Yields the lines that are neither empty nor comments, with their numbers from 1."""
  for number, line in enumerate(read_lines(path), 1):
    line = line.strip()
    if line and line[0] not in "#%":
      yield number, line


def _delimiter(line: str) -> str | None:
  return next((mark for mark in "\t," if mark in line), None)


def _cells(line: str, delimiter: str | None) -> list[str]:
  cells = next(csv.reader([line], delimiter=delimiter)) if delimiter and '"' in line else line.split(delimiter)
  return [cell.strip() for cell in cells]


_HEADER = ("source", "target", "src", "dst", "from", "to", "node1", "node2", "node_1", "node_2", "fromnodeid",
           "tonodeid", "id1", "id2", "id_1", "id_2")


def _is_header(cells: Sequence[str]) -> bool:
  """Returns whether the first line of an edge list names its columns."""
  names = [cell.lower() for cell in cells]
  return len(names) in (2, 3) and (all(name in _HEADER for name in names[:2]) and names[0] != names[1]
                                   or names[2:] == ["weight"])


class _Nodes(defaultdict):
  """Numbers names in the order in which they come."""

  def __init__(self):
    super().__init__(itertools.count().__next__)


def _read_edges(path: Path):
  nodes, ends, weights, width, delimiter = _Nodes(), array.array("q"), array.array("d"), 0, None
  for number, line in _data_lines(path):
    if not width:
      delimiter = _delimiter(line)
    cells = _cells(line, delimiter)
    if len(cells) not in (2, 3) or not (cells[0] and cells[1]):
      raise InputError(f"{path}: line {number}: {len(cells)} columns; an edge has two nodes and perhaps a weight, "
                       "separated by white space, tabs or commas")
    if width and len(cells) != width:
      raise InputError(f"{path}: line {number} has {len(cells)} columns, the lines before have {width}")
    if not width and delimiter and _is_header(cells):
      logging.warning("%s: line %d (%s) is a header", path, number, ", ".join(cells))
      width = len(cells)
      continue
    width = len(cells)
    ends.append(nodes[cells[0]])
    ends.append(nodes[cells[1]])
    if width == 3:
      weights.append(_weight(cells[2], path, number))
  if not ends:
    raise InputError(f"{path}: the graph has no edge")
  return list(nodes), np.array(ends).reshape(-1, 2), np.array(weights) if width == 3 else None


def _weight(cell: str, path: Path, number: int) -> float:
  try:
    weight = float(cell)
  except ValueError:
    raise InputError(f"{path}: line {number}: {quoted(cell)} is not a number; the third column is the "
                     "weight") from None
  if not (math.isfinite(weight) and weight > 0):
    raise InputError(f"{path}: line {number}: the weight is {cell[:40]}, expected a positive number")
  return weight


def _read_adjacency(path: Path):
  nodes, ends, delimiter = _Nodes(), array.array("q"), ""
  for _, line in _data_lines(path):
    if delimiter == "":
      delimiter = _delimiter(line)
    source, *targets = [nodes[cell] for cell in _cells(line, delimiter)]
    for target in targets:
      ends.append(source)
      ends.append(target)
  return list(nodes), np.array(ends, np.int64).reshape(-1, 2), None


# SciPy's compiled reader trusts MATLAB files, and a damaged one can crash it: it runs in a process of its own.
_MAT_READER = """
import sys
import numpy, scipy.io, scipy.sparse
source, target, wanted = sys.argv[1:]
arrays = {name: value for name, value in scipy.io.loadmat(source).items() if not name.startswith("__")}
square = [name for name, value in arrays.items() if numpy.ndim(value) == 2 and value.shape[0] == value.shape[1]]
if wanted not in arrays and (wanted or len(square) != 1):
  what = f"has no variable {wanted!r}" if wanted else "name the variable of the matrix"
  sys.exit(f"{what}; it has {', '.join(arrays) or 'none'}")
matrix = arrays[wanted or square[0]]
if numpy.ndim(matrix) != 2 or matrix.dtype.kind not in "fiub":
  sys.exit(f"the variable {wanted!r} is no matrix of numbers")
scipy.sparse.save_npz(target, scipy.sparse.coo_array(matrix))
"""


def load_mat(path: Path, variable: str) -> Any:
  """Reads a matrix of a MATLAB file as a sparse one; without a name it is the only square one."""
  with opened(path, decompress=False) as file:
    header = file.read(128)
  # Files of versions 4 and before have no signature, so that SciPy takes any bytes for one.
  if header[126:] not in (b"IM", b"MI"):
    raise InputError(f"{path}: not a MATLAB file of version 5 or 7; save it with save -v7 or scipy.io.savemat")
  with tempfile.TemporaryDirectory() as folder:
    target = Path(folder) / "matrix.npz"
    done = subprocess.run([sys.executable, "-c", _MAT_READER, str(path), str(target), variable], capture_output=True,
                          text=True, errors="replace")
    if done.returncode == 0 and target.exists():
      return read_sparse(target)
    lines = done.stderr.strip().splitlines()
    if done.returncode == 1 and len(lines) == 1:  # Its own words.
      raise InputError(f"{path}: {lines[0]}")
    raise InputError(f"{path}: not a MATLAB file that can be read ({lines[-1][:120] if lines else 'it crashed'})")


def _load_npz(path: Path):
  arrays = load_npz(path)
  if "edges" not in arrays:
    return _from_matrix(read_sparse(path), path)
  edges = arrays["edges"]
  if edges.ndim != 2 or edges.shape[1] not in (2, 3) or edges.dtype.kind not in "iuf" or not len(edges):
    raise InputError(f"{path}: `edges` is {edges.dtype} {list(edges.shape)}, expected numbers [m, 2] or [m, 3]")
  ends = edges[:, :2]
  if edges.dtype.kind == "f" and not (np.isfinite(ends).all() and (np.abs(ends) < 2**53).all()
                                      and (ends == np.rint(ends)).all()):
    raise InputError(f"{path}: `edges` has nodes that are no whole numbers")
  ids, indices = np.unique(ends.astype(np.uint64 if edges.dtype.kind == "u" else np.int64), return_inverse=True)
  return [str(i) for i in ids], indices.reshape(-1, 2), edges[:, 2] if edges.shape[1] == 3 else None


def _from_matrix(matrix: Any, path: Path):
  from scipy import sparse

  if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
    raise InputError(f"{path}: the matrix has the shape {list(matrix.shape)}, expected a square one")
  if matrix.dtype.kind not in "fiub":
    raise InputError(f"{path}: the matrix holds {matrix.dtype}, expected numbers")
  if matrix.shape[0] > MAX_NODES:
    raise InputError(f"{path}: the matrix has {matrix.shape[0]:,} rows; at most {MAX_NODES:,} nodes are supported")
  with refusing(path, "not a matrix of numbers"):
    coo = sparse.coo_array(matrix)
  if coo.nnz and (min(coo.row.min(), coo.col.min()) < 0 or max(coo.row.max(), coo.col.max()) >= matrix.shape[0]):
    raise InputError(f"{path}: the matrix has indices beyond its shape {list(matrix.shape)}")
  nonzero = coo.data != 0
  edges = np.stack([coo.row[nonzero], coo.col[nonzero]], 1)
  return [str(i) for i in range(matrix.shape[0])], edges, coo.data[nonzero].astype(np.float64)
