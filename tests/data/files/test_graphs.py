"""Graph files of every format become the same CSR; bad ones are refused in one line."""
import gzip

import networkx as nx
import numpy as np
import pytest
import scipy.io
from scipy import sparse

from embeddings_jax.data.files.graphs import build_graph, from_networkx, read_graph
from embeddings_jax.types import InputError

EDGES = [("a", "b", 2.0), ("c", "a", 0.5), ("b", "d", 1.0), ("d", "d", 3.0)]


def dense(graph):
  """The matrix of a graph, its rows and columns sorted by name."""
  order = np.argsort(graph.names)
  matrix = np.zeros((len(graph.names),) * 2)
  row = np.repeat(np.arange(len(graph.names)), np.diff(graph.indptr))
  matrix[row, graph.indices] = 1.0 if graph.weights is None else graph.weights
  return matrix[np.ix_(order, order)]


def expected(directed=False):
  matrix = np.zeros((4, 4))
  for first, second, weight in EDGES:
    matrix["abcd".index(first), "abcd".index(second)] = weight
  return matrix if directed else np.maximum(matrix, matrix.T)


@pytest.mark.parametrize("separator", [" ", "\t", ",", ", ", "   "])
@pytest.mark.parametrize("directed", [False, True])
def test_edge_lists(tmp_path, separator, directed):
  lines = ["# comment", "% another", "", *(separator.join(map(str, edge)) for edge in EDGES)]
  (tmp_path / "g.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
  graph = read_graph(tmp_path / "g.txt", directed=directed)
  np.testing.assert_array_equal(dense(graph), expected(directed))
  assert graph.names == ["a", "b", "c", "d"] and graph.num_loops == 1 and graph.num_repeated == 0


def test_every_format_gives_the_same_graph(tmp_path):
  matrix = expected()
  with gzip.open(tmp_path / "g.edges.gz", "wt") as file:
    file.writelines(f"{first} {second} {weight}\n" for first, second, weight in EDGES)
  scipy.io.savemat(tmp_path / "g.mat", {"network": sparse.csc_matrix(matrix), "group": np.ones((4, 2))})
  sparse.save_npz(tmp_path / "csr.npz", sparse.csr_array(matrix))
  sparse.save_npz(tmp_path / "csc.npz", sparse.csc_matrix(matrix))
  sparse.save_npz(tmp_path / "coo.npz", sparse.coo_array(matrix))
  np.savez(tmp_path / "edges.npz", edges=np.array([["abcd".index(a), "abcd".index(b), w] for a, b, w in EDGES]))
  for path in sorted(tmp_path.iterdir()):
    np.testing.assert_array_equal(dense(read_graph(path)), matrix, err_msg=path.name)
  graph = nx.Graph()
  graph.add_weighted_edges_from(EDGES)
  np.testing.assert_array_equal(dense(from_networkx(graph)), matrix)
  np.testing.assert_array_equal(dense(from_networkx(nx.DiGraph(graph))), nx.to_numpy_array(graph, "abcd"))


@pytest.mark.parametrize("header", ["source,target,weight", "from,to,x", '"a","b","weight"'])
def test_headers_are_no_edges_and_quotes_no_part_of_names(tmp_path, caplog, header):
  (tmp_path / "g.csv").write_text(f'{header}\n"a,b",c,2\n')
  if header == "from,to,x":
    assert read_graph(_written(tmp_path / "h.csv", "from,to\na,b\n")).names == ["a", "b"]
  graph = read_graph(tmp_path / "g.csv")
  assert graph.names == ["a,b", "c"] and graph.indices.tolist() == [1, 0]
  assert "line 1 (" in caplog.text and "is a header" in caplog.text
  assert read_graph(_written(tmp_path / "h.txt", "from to\na b\n")).names == ["from", "to", "a", "b"]


def _written(path, text):
  path.write_text(text)
  return path


def test_adjacency_lists_keep_isolated_nodes(tmp_path):
  (tmp_path / "g.adjlist").write_text("1 2 3\n2 1\n9\n3 1\n")
  graph = read_graph(tmp_path / "g.adjlist")
  assert graph.names == ["1", "2", "3", "9"] and graph.isolated.tolist() == [3] and graph.weights is None
  assert graph.indptr.tolist() == [0, 2, 3, 4, 4] and graph.indices.tolist() == [1, 2, 0, 0]


@pytest.mark.parametrize("repeated, weight", [("largest", 3.0), ("sum", 6.0)])
def test_repeated_edges_and_loops(tmp_path, repeated, weight):
  (tmp_path / "g.txt").write_text("x y 1\ny x 2\nx y 3\nz z 5\ny z 1\n")
  graph = read_graph(tmp_path / "g.txt", repeated=repeated, loops="drop")
  assert dense(graph).tolist() == [[0, weight, 0], [weight, 0, 1], [0, 1, 0]]
  assert graph.num_repeated == 2 and graph.num_loops == 1


def test_names_and_holes_do_not_change_the_numbers(tmp_path):
  (tmp_path / "a.txt").write_text("0 1\n1 2\n2 0\n2 3\n")
  (tmp_path / "b.txt").write_text("x 17\n17 y\ny x\ny 1000000000000\n")
  first, second = read_graph(tmp_path / "a.txt"), read_graph(tmp_path / "b.txt")
  np.testing.assert_array_equal(first.indices, second.indices)
  np.testing.assert_array_equal(first.indptr, second.indptr)
  assert second.names == ["x", "17", "y", "1000000000000"]


@pytest.mark.parametrize("content, message", [
    ("a b\nc\n", "g.txt: line 2: 1 columns; an edge has two nodes"),
    ("a b 1\nc d\n", "g.txt: line 2 has 2 columns, the lines before have 3"),
    ("a b 1\nb c x\n", "g.txt: line 2: 'x' is not a number"),
    ("a b 1\nb c -2\n", "g.txt: line 2: the weight is -2"),
    ("a b 0\n", "g.txt: line 1: the weight is 0"),
    ("a b nan\n", "g.txt: line 1: the weight is nan"),
    ("a b 1e999\n", "g.txt: line 1: the weight is 1e999"),
    ("# nothing\n", "g.txt: the graph has no edge"),
    ("", "g.txt: the graph has no edge"),
    ("a a\n", "g.txt: the graph has no edge")])
def test_bad_edge_lists(tmp_path, content, message):
  (tmp_path / "g.txt").write_text(content)
  with pytest.raises(InputError, match=message):
    read_graph(tmp_path / "g.txt", loops="drop")


def test_bad_matrices(tmp_path):
  scipy.io.savemat(tmp_path / "g.mat", {"a": np.ones((3, 3)), "b": np.ones((3, 3)), "c": np.ones((2, 3))})
  with pytest.raises(InputError, match="name the variable of the matrix; it has a, b, c"):
    read_graph(tmp_path / "g.mat")
  with pytest.raises(InputError, match="has no variable 'z'; it has a, b, c"):
    read_graph(tmp_path / "g.mat", variable="z")
  with pytest.raises(InputError, match=r"shape \[2, 3\], expected a square one"):
    read_graph(tmp_path / "g.mat", variable="c")
  bad = sparse.csr_array(np.eye(3))
  bad.indices[1] = 7
  sparse.save_npz(tmp_path / "g.npz", bad)
  with pytest.raises(InputError, match="g.npz: .*index|g.npz: .*column"):
    read_graph(tmp_path / "g.npz")
  for name in ("x.mat", "x.npz"):
    (tmp_path / name).write_bytes(b"rubbish")
    with pytest.raises(InputError, match=name):
      read_graph(tmp_path / name)
    with pytest.raises(InputError, match="[Nn]o such file"):
      read_graph(tmp_path / ("absent-" + name))
  with pytest.raises(InputError, match="edge 0 .from 0. has the weight -1.0"):
    build_graph("ab", np.array([[0, 1]]), np.array([-1.0]))


def test_damaged_matlab_files_are_refused(tmp_path):
  scipy.io.savemat(tmp_path / "g.mat", {"network": sparse.csc_matrix(expected())})
  content = (tmp_path / "g.mat").read_bytes()
  rng = np.random.default_rng(0)
  refused = 0
  for _ in range(3):  # Each costs a process, so they are few; SciPy's reader crashes in some of such cases.
    damaged = bytearray(content)
    for place in rng.integers(128, len(content), 6):
      damaged[place] = rng.integers(256)
    (tmp_path / "d.mat").write_bytes(damaged)
    try:
      read_graph(tmp_path / "d.mat")
    except InputError as error:
      refused += 1
      assert "d.mat" in str(error) and "\n" not in str(error)
  assert refused >= 2
