"""Graphs as datasets: every way in, labels, cached files, and links that are held out."""
import networkx as nx
import numpy as np
import pytest
import scipy.io
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from embeddings_jax.data.dataset import as_dataset
from embeddings_jax.data.encoders import load_encoder
from embeddings_jax.data.encoders.nodes import NodeEncoder
from embeddings_jax.data.graphs import coordinates, expected_visits, read
from embeddings_jax.data.link_split import hold_out
from embeddings_jax.data.pipelines.edges import edges
from embeddings_jax.data.pipelines.walks import walks
from embeddings_jax.errors import InputError


def dense(table):
  row, col, weight = coordinates(table)
  return sparse.coo_array((weight, (row, col)), (len(table.names),) * 2).toarray()


def weighted():
  graph = nx.les_miserables_graph()
  graph.add_node("nobody")
  return graph


def test_every_way_in_gives_the_same_graph(tmp_path):
  graph = nx.convert_node_labels_to_integers(nx.les_miserables_graph())
  expected = nx.to_numpy_array(graph)
  matrix = sparse.csr_array(expected)
  listed = np.array([(a, b, data["weight"]) for a, b, data in graph.edges(data=True)])
  (tmp_path / "edges.csv").write_text("".join(f"{a:.0f},{b:.0f},{w}\n" for a, b, w in listed))
  actual = {name: read("x", dataset=as_dataset(data)) for name, data in (
      ("networkx", graph), ("scipy", matrix), ("rows", listed))}
  actual["file"] = read(str(tmp_path / "edges.csv"), cache_dir=tmp_path)
  actual["cache"] = read(str(tmp_path / "edges.csv"), cache_dir=tmp_path)
  assert actual["cache"].fingerprint == actual["file"].fingerprint
  for dataset in actual.values():
    order = [dataset.items.index(str(i)) for i in range(len(graph))]
    np.testing.assert_array_equal(dense(dataset.graph)[np.ix_(order, order)], expected)
    assert not dataset.graph.directed and "254 edges" in dataset.note


def test_a_matrix_that_is_not_symmetric_is_directed():
  matrix = sparse.csr_array(np.array([[0, 1.0, 0], [0, 0, 2], [0, 0, 0]]))
  dataset = as_dataset(matrix)
  assert dataset.graph.directed
  np.testing.assert_array_equal(dense(dataset.graph), matrix.toarray())
  with pytest.raises(InputError, match="symmetrize=True"):
    edges(dataset)
  batch = edges(dataset, symmetrize=True).splits["train"].batch_at(0)
  assert list(zip(batch["row"], batch["col"], batch["weight"])) == [(0, 1, 1), (1, 0, 1), (1, 2, 2), (2, 1, 2)]


def test_options_change_the_graph():
  graph = weighted()
  graph.add_edge("Valjean", "Valjean", weight=3.0)
  plain = read("x", dataset=as_dataset(graph))
  dropped = read("x", dataset=as_dataset(graph), loops="drop", weighted=False)
  before, after = dense(plain.graph), dense(dropped.graph)
  assert np.trace(before) == 3 and np.trace(after) == 0
  np.testing.assert_array_equal(after, (before > 0) & ~np.eye(len(before), dtype=bool))
  assert len({plain.fingerprint, dropped.fingerprint}) == 2
  assert len(plain.items) == 78 and [plain.items[i] for i in plain.graph.isolated] == ["nobody"]


def test_labels_of_every_format(tmp_path):
  (tmp_path / "g.txt").write_text("a b\nb c\nc d\n")
  files = {"one.csv": "node,label\na,x\nb,y\nd,x\n", "several.txt": "a x\nb y x\nd x\n", "groups.cmty": "a b d\nb\n"}
  for name, content in files.items():
    (tmp_path / name).write_text(content)
  scipy.io.savemat(tmp_path / "m.mat", {"group": np.array([[1, 0], [1, 1], [0, 0], [1, 0]])})
  labels = {name: read(str(tmp_path / "g.txt"), labels=str(tmp_path / name), cache_dir=tmp_path).labels["class"]
            for name in (*files, "m.mat")}
  assert labels["one.csv"].tolist() == ["x", "y", "", "x"]
  assert labels["several.txt"].tolist() == [[True, False], [True, True], [False, False], [True, False]] or (
      labels["several.txt"].sum(1).tolist() == [1, 2, 0, 1])
  np.testing.assert_array_equal(labels["groups.cmty"], labels["m.mat"])


@pytest.mark.parametrize("content, message", [
    ("a x\nzz y\n", "line 2: the graph has no node 'zz'"), ("a\n", "line 1: node 'a' has no label"),
    ("", "no labels")])
def test_bad_labels(tmp_path, content, message):
  (tmp_path / "g.txt").write_text("a b\n")
  (tmp_path / "l.txt").write_text(content)
  with pytest.raises(InputError, match=message):
    read(str(tmp_path / "g.txt"), labels=str(tmp_path / "l.txt"), cache_dir=tmp_path)


@pytest.mark.parametrize("data, message", [
    (np.array([[0.5, 1.0]]), "expected whole numbers"), (np.zeros((3, 5)), "are no edges"),
    (sparse.csr_array(np.ones((2, 3))), "expected a square one")])
def test_arrays_that_are_no_graphs(data, message):
  with pytest.raises(InputError, match=message):
    read("x", dataset=as_dataset(data))


def test_unknown_graphs(tmp_path):
  with pytest.raises(InputError, match="unknown graph; --list_data"):
    read("karatee")
  with pytest.raises(InputError, match="no such file"):
    read(str(tmp_path / "none.txt"))


def test_a_graph_beyond_the_memory_is_refused_before_it_is_read(tmp_path):
  with open(tmp_path / "large.txt", "wb") as file:
    file.truncate(1 << 40)  # A hole, which takes no room.
  with pytest.raises(InputError, match=r"needs about \d+\.\d GB of memory"):
    read(str(tmp_path / "large.txt"))


def test_expected_visits_are_those_of_matrix_powers():
  table = as_dataset(weighted()).graph
  adjacency = dense(table)
  step = adjacency / np.maximum(adjacency.sum(1, keepdims=True), 1e-30)
  now, visits = np.ones(len(step)), np.zeros(len(step))
  for _ in range(7):
    visits += now
    now = now @ step
  np.testing.assert_allclose(expected_visits(table, 7), visits, rtol=1e-12)


def test_an_epoch_starts_each_round_once_at_every_node():
  dataset = read("karate")
  source = walks(dataset, batch_size=20, seed=3, num_walks=2, walk_length=5).splits["train"]
  assert source.facts["steps_per_epoch"] == 4 and source.facts["num_nodes"] == 34
  batches = [source.batch_at(step) for step in range(8)]
  for epoch in (batches[:4], batches[4:]):
    kept = np.concatenate([batch["mask"] for batch in epoch]) > 0
    starts = np.concatenate([batch["start"] for batch in epoch])[kept]
    assert len(starts) == 68 and all(sorted(part) == list(range(34)) for part in (starts[:34], starts[34:]))
  numbers = np.concatenate([batch["number"][batch["mask"] > 0] for batch in batches])
  assert sorted(numbers) == list(range(136))  # No walk is repeated.
  whole, part = source.feed_at(2), source.feed_at(2, slice(5, 9))
  np.testing.assert_array_equal(whole["start"][5:9], part["start"])


def test_held_out_links_keep_components_and_are_no_edges_of_the_rest():
  whole = read("les-miserables").graph
  rest, links = hold_out(whole, 0.5, seed=1)
  before, after = dense(whole) > 0, dense(rest) > 0
  assert len(links.positive) == len(links.negative) == len(links.train_positive) == 127
  assert len(links.train_negative) == 127
  assert before[tuple(links.positive.T)].all() and not after[tuple(links.positive.T)].any()
  np.testing.assert_array_equal(after, after.T)
  assert before.sum() - after.sum() == 2 * 127 and after[tuple(links.train_positive.T)].all()
  others = np.concatenate([links.negative, links.train_negative])
  assert not before[tuple(others.T)].any() and len(np.unique(others, axis=0)) == 254
  assert connected_components(before)[0] == connected_components(after)[0]
  assert (dense(rest)[after] == dense(whole)[after]).all()  # Weights stay.
  with pytest.raises(InputError, match="can go without taking a component apart"):
    hold_out(whole, 0.9)


def test_nodes_are_encoded_by_name_and_new_ones_by_their_neighbors(tmp_path):
  encoder = NodeEncoder(["a", "b c", "7"], ["7"])
  assert encoder.encode([7, "a"])["node"].tolist() == [2, 0]
  batch = encoder.encode(["b c", ("new", ["a", 7])])
  assert batch["node"].tolist() == [1, -1] and batch["neighbors"].tolist() == [[-1, -1], [0, 2]]
  (tmp_path / "in.txt").write_text("b c\nnew\ta\t7\na\n")
  assert encoder.read(str(tmp_path / "in.txt")) == ["b c", ("new", ["a", "7"]), "a"]
  encoder.save(tmp_path / "encoder")
  again = load_encoder(tmp_path / "encoder")
  assert again.names == encoder.names and again.isolated == ["7"] and again.fingerprint == encoder.fingerprint
  assert (tmp_path / "encoder" / "isolated.txt").read_text() == "7\n"
  with pytest.raises(InputError, match="node 'b d': is not in the graph; the nearest name is 'b c'"):
    encoder.encode(["b d"])
  with pytest.raises(InputError, match="has no neighbor"):
    encoder.encode([("new", [])])


@pytest.mark.data
@pytest.mark.parametrize("name, nodes, edges, classes", [
    ("blogcatalog", 10312, 333983, (10312, 39)), ("wikipedia-pos", 4777, 92517, (4777, 40)), ("cora", 2708, 5278, 7)])
def test_published_graphs(name, nodes, edges, classes):
  dataset = read(name)
  assert f"{nodes:,} nodes, {edges:,} edges" in dataset.note
  labels = dataset.labels["class"]
  assert (len(np.unique(labels)) if labels.ndim == 1 else labels.shape) == classes
  if name == "cora":
    assert [len(dataset.split[part]) for part in ("train", "validation", "test")] == [140, 500, 1000]


def test_protocols_of_one_label_leave_several_out():
  from embeddings_jax.runs.evaluation import LeftOut, with_labels

  dataset = read("karate")
  several = dataset._replace(labels={"groups": np.eye(34, 3) > 0})
  with pytest.raises(LeftOut, match="several labels each; ask node_classification"):
    with_labels("linear_probe", several, print)
  assert with_labels("node_classification", several, print, True).labels.keys() == {"groups"}
  both = several._replace(labels={**several.labels, **dataset.labels})
  assert with_labels("linear_probe", both, print).labels.keys() == {"club"}
