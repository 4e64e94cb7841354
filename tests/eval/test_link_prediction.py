"""Link prediction: heuristics against networkx, metrics by hand, and what it must not see."""
import networkx as nx
import numpy as np
import pytest

import embeddings_jax as ej
from embeddings_jax.data.dataset import as_dataset
from embeddings_jax.data.graphs import coordinates, read
from embeddings_jax.errors import InputError
from embeddings_jax.eval.link_prediction import heuristics, link_prediction, measured


def test_heuristics_are_those_of_networkx():
  graph = nx.les_miserables_graph()
  nodes = list(graph.nodes)
  pairs = np.random.default_rng(0).integers(0, len(nodes), (60, 2))
  pairs = pairs[pairs[:, 0] != pairs[:, 1]]
  named = [(nodes[a], nodes[b]) for a, b in pairs]
  actual = heuristics(as_dataset(graph).graph, pairs)
  for name, reference in (("jaccard", nx.jaccard_coefficient), ("adamic_adar", nx.adamic_adar_index),
                          ("preferential_attachment", nx.preferential_attachment)):
    np.testing.assert_allclose(actual[name], [score for _, _, score in reference(graph, named)], rtol=1e-12)
  np.testing.assert_array_equal(actual["common_neighbors"],
                                [len(list(nx.common_neighbors(graph, a, b))) for a, b in named])


def test_metrics_by_hand():
  negative = np.arange(20.0)
  # The edge at 30 is above all, that at 9 ties with one and has ten above, that at -1 has all above.
  actual = measured(np.array([30.0, 9.0, -1.0]), negative)
  assert actual["auc"] == pytest.approx((20 + 9.5 + 0) / 60)
  assert actual["hits@10"] == pytest.approx(1 / 3) and "hits@100" not in actual
  assert actual["mrr"] == pytest.approx((1 + 1 / 11.5 + 1 / 21) / 3)


def test_perfect_and_random_vectors():
  """With rows of the whole graph's own spectrum edges are known; random vectors know nothing."""
  graph = nx.planted_partition_graph(2, 30, 0.5, 0.0, seed=0)
  dataset = read("x", dataset=as_dataset(graph), held_out=0.3)
  side = np.repeat([1.0, -1.0], 30)[:, None]
  perfect = link_prediction(lambda items: side * [1.0, 0.5], dataset)
  chance = link_prediction(lambda items: np.random.default_rng(1).normal(size=(60, 4)), dataset)
  # Pairs without an edge within a community tie with the edges.
  assert perfect["test/best/auc"] == perfect["test/dot/auc"] > 0.8
  assert abs(chance["test/best/auc"] - 0.5) < 0.12


def test_vectors_come_from_the_graph_without_the_held_out_edges():
  graph = nx.planted_partition_graph(2, 30, 0.5, 0.05, seed=0)
  run = ej.fit("netmf", graph, dim=8, window=2, data_options={"held_out": 0.3})
  source, links = run.prepared.splits["train"], run.prepared.dataset.links
  trained = set(zip(source.resident["row"].tolist(), source.resident["col"].tolist()))
  assert not trained & {tuple(pair) for pair in links.positive.tolist()} and len(links.positive) > 100
  metrics = run.evaluate("link_prediction")
  assert metrics["test/best/auc"] > 0.65


def test_a_graph_with_all_its_edges_is_refused():
  with pytest.raises(InputError, match="config.data.held_out=0.5"):
    link_prediction(lambda items: np.eye(34), read("karate"))


def test_links_of_a_graph_that_is_read_again_stay(monkeypatch):
  """And many held-out edges are reported on a sample of them."""
  monkeypatch.setattr("embeddings_jax.data.link_split.MAX_PAIRS", 7)
  once = read("karate", held_out=0.3)
  again = read("x", dataset=once)
  assert again.links is once.links and [len(pairs) for pairs in once.links] == [7] * 4
  assert len(once.graph.indices) == 2 * (78 - 23)
  assert not {tuple(pair) for pair in once.links.positive.tolist()} & set(zip(*coordinates(once.graph)[:2]))
