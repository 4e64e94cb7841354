"""deepwalk and node2vec: their walks, frequencies, gradients, and what they learn."""
import inspect
from collections import Counter

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest

import embeddings_jax as ej
from embeddings_jax.data.dataset import as_dataset
from embeddings_jax.data.encoders.nodes import walks_from
from embeddings_jax.data.graphs import coordinates, read
from embeddings_jax.data.pipelines.walks import walks
from embeddings_jax.models.graphs.deepwalk import deepwalk
from embeddings_jax.models.graphs.node2vec import node2vec
from embeddings_jax.ops import hierarchical
from embeddings_jax.ops.skipgram import Skipgram
from embeddings_jax.ops.walk_skipgram import (
  PENALTY,
  fitted,
  noise_quantiles,
  noise_table,
  tile_of,
  walk_contexts,
)
from embeddings_jax.ops.word_blocks import Draws, draw_blocks, window_pairs
from embeddings_jax.types import InputError
from experiments.walk_corpus import draw

SMALL = dict(dim=6, window=3, shared_negatives=4, walks_per_step=16)


def prepared(graph="les-miserables", num_walks=2, walk_length=9, batch_size=32, seed=5):
  dataset = read(graph) if isinstance(graph, str) else as_dataset(graph)
  return walks(dataset, batch_size=batch_size, seed=seed, num_walks=num_walks, walk_length=walk_length)


def build(factory, data, **options):
  facts = {key: data.facts[key] for key in ("num_nodes", "max_degree", "walk_length", "visits")}
  return factory(**facts, **{**SMALL, **options})


def batch_of(data, step=0):
  return jax.tree.map(jnp.asarray, data.splits["train"].batch_at(step))


@pytest.mark.parametrize("p, q", [(1.0, 1.0), (0.25, 4.0)])
def test_walks_of_training_are_those_of_the_corpus(p, q):
  """Walk i is a function of the graph, the seed and i alone, whatever the batch."""
  data = prepared()
  model = build(node2vec, data, p=p, q=q)
  actual = np.concatenate([jax.jit(model.outputs["walks"])(None, batch_of(data, step)) for step in range(4)])
  expected = np.concatenate(list(draw(data.dataset.graph, num_walks=2, length=9, p=p, q=q, seed=5)))
  np.testing.assert_array_equal(actual[:128], expected[:128])


def test_the_walk_of_the_issue_has_its_pairs():
  """4 6 8 6 4 3 1 2 5 with a window of 1."""
  path = np.array([[4, 6, 8, 6, 4, 3, 1, 2, 5]])
  draws = draw_blocks(jnp.full(64, 2.0), None, {"tokens": jnp.asarray(path), "mask": jnp.ones(1)}, jax.random.key(0),
                      vocab_size=9, window=1, group=tile_of(9, 1))
  paired = np.asarray(window_pairs(draws.document, draws.radius, window=1, tile=tile_of(9, 1)))[0, 0, :9, 1:10]
  counts = Counter(tuple(sorted((path[0, i], path[0, j]))) for i, j in zip(*np.nonzero(np.triu(paired))))
  assert counts == {(4, 6): 2, (6, 8): 2, (3, 4): 1, (1, 3): 1, (1, 2): 1, (2, 5): 1}


def test_noise_nodes_go_by_expected_visits_of_first_order_walks():
  data = prepared()
  state = build(deepwalk, data).init(jax.random.key(0), batch_of(data))
  shares = np.diff(np.asarray(state.noise, np.float64)[:77], prepend=0) / 2**32
  expected = data.facts["visits"] ** 0.75
  np.testing.assert_allclose(shares, expected / expected.sum(), rtol=1e-6)


def test_noise_nodes_of_second_order_walks_go_by_a_pilot():
  """On a star with long tails and a small p walks stay where they began; first-order visits would differ."""
  graph = nx.star_graph(40)
  data = prepared(graph, num_walks=400, walk_length=7)
  model = build(node2vec, data, p=1e-3)
  state = jax.jit(model.init)(jax.random.key(0), batch_of(data))
  shares = np.diff(np.asarray(state.noise, np.float64)[:41], prepend=0) / 2**32
  corpus = np.concatenate(list(draw(data.dataset.graph, num_walks=400, length=7, p=1e-3, seed=1)))
  counts = np.bincount(corpus.ravel(), minlength=41) ** 0.75
  np.testing.assert_allclose(shares[0], (counts / counts.sum())[0], rtol=0.02)
  np.testing.assert_allclose(shares.sum(), 1, atol=1e-6)


def test_the_noise_table_keeps_rare_nodes():
  counts = jnp.concatenate([jnp.full(1, 1e6), jnp.ones(5000)])
  table = np.asarray(noise_table(counts, 1.0, 5056), np.float64)
  np.testing.assert_allclose(np.diff(table[:5001])[:-1], 2**32 / (1e6 + 5000), rtol=1e-3)
  assert table[-1] == 2**32 - 1


def test_huffman_paths_are_a_prefix_code_of_least_cost():
  counts = np.array([50, 1, 1, 30, 7, 7, 2, 90, 3])
  points, codes = hierarchical.huffman_paths(counts, 64)
  lengths = (codes[:9] >= 0).sum(1)
  assert (points[9:] == -1).all() and sum(2.0**-lengths) == 1  # Kraft's equality.
  # Reference: merges of the two smallest, whose sums are the cost.
  heap, cost = sorted(counts.tolist()), 0
  while len(heap) > 1:
    merged = heap.pop(0) + heap.pop(0)
    cost += merged
    heap = sorted([*heap, merged])
  assert (counts * lengths).sum() == cost
  words = {tuple(code[code >= 0]) for code in codes[:9]}
  assert len(words) == 9 and not any(a != b and a == b[:len(a)] for a in words for b in words)
  assert points[:9].max() == 7 and (points[:9, 0] == 7).all()  # All begin at the root.


def test_hierarchical_probabilities_sum_to_one():
  noise = np.random.default_rng(0)
  points, codes = map(jnp.asarray, hierarchical.huffman_paths(noise.integers(1, 100, 37), 64))
  output = jnp.asarray(noise.normal(size=(64, 5)), jnp.float32)
  log = hierarchical.log_probability(jnp.asarray(noise.normal(size=5), jnp.float32), output, points[:37], codes[:37])
  np.testing.assert_allclose(np.exp(log).sum(), 1, rtol=1e-5)


def test_a_hierarchical_step_is_the_gradient_of_a_plain_loop():
  noise = np.random.default_rng(1)
  size, rows, dim, window = 11, 64, 4, 2
  points, codes = map(jnp.asarray, hierarchical.huffman_paths(noise.integers(1, 50, size), rows))
  tokens = jnp.asarray([[3, 1, 4, 1, 5, size], [2, 2, 9, size, size, size]])
  document = jnp.asarray([[0, 0, 0, 1, 1, -1], [0, 0, 0, -1, -1, -1]])
  radius = jnp.asarray([[2, 1, 2, 2, 1, 1], [1, 2, 2, 1, 1, 1]])
  draws = Draws(tokens, document, radius, jnp.zeros((2, 1, 0), jnp.int32), jnp.ones(()), jnp.zeros(()))
  tables = tuple(jnp.asarray(noise.normal(size=(rows, dim)), jnp.float32).at[-1].set(0) for _ in range(2))
  tables = tuple(table.at[size].set(0) for table in tables)
  pairs = [(b, i, j) for b in range(2) for i in range(6) for j in range(6) if i != j
           and document[b, i] == document[b, j] >= 0 and abs(i - j) <= radius[b, i]]

  def objective(tables):
    return -sum(hierarchical.log_probability(tables[0][tokens[b, j]], tables[1], points[tokens[b, i]],
                                             codes[tokens[b, i]]) for b, i, j in pairs)

  value, gradient = jax.value_and_grad(objective)(tables)
  depth = int((codes >= 0).sum(1).max())
  options = Skipgram(size, rows, window, 1, 1, 3, 1, 1e9, "float32")  # Two tiles.
  new, loss, number = hierarchical.step(tables, points, codes, draws, jnp.float32(0.1), options, depth)
  assert number == len(pairs)
  np.testing.assert_allclose(loss, value / len(pairs), rtol=1e-5)
  for old, moved, slope in zip(tables, new, gradient):
    np.testing.assert_allclose((old - moved)[:size] / 0.1, slope[:size], atol=2e-5)


@pytest.mark.parametrize("loss", ["negative_sampling", pytest.param("hierarchical_softmax", marks=pytest.mark.long)])
def test_two_communities_come_apart(loss):
  graph = nx.planted_partition_graph(2, 20, 0.5, 0.03, seed=0)
  run = ej.fit("deepwalk", graph, preset="tiny", loss=loss, window=4, dim=8, steps=300,
               data_options={"num_walks": 20, "walk_length": 12}, walks_per_step=8, batch_size=32,
                 optimizer={"learning_rate": 0.05})
  # Vectors of skip-gram share a direction, which is taken away.
  actual = run.embed([*graph.nodes, ("new", list(range(10)))])
  actual -= actual[:-1].mean(0)
  vectors = actual / np.linalg.norm(actual, axis=1, keepdims=True)
  cosine = vectors @ vectors.T
  same = np.arange(40)[:, None] // 20 == np.arange(40) // 20
  assert cosine[:40, :40][same & ~np.eye(40, dtype=bool)].mean() > cosine[:40, :40][~same].mean() + 0.4
  assert cosine[40, :20].mean() > cosine[40, 20:40].mean() + 0.4  # A new node lies with its neighbors.


def test_walks_of_new_nodes_go_by_weight():
  graph = nx.DiGraph()
  graph.add_weighted_edges_from([("a", "b", 3.0), ("a", "c", 1.0), ("b", "a", 2.0)])
  table = as_dataset(graph).graph
  a, b, c = (table.names.index(name) for name in "abc")
  (paths,) = walks_from(table, [np.full(8000, a)], 4)
  np.testing.assert_array_equal(paths[:, 0], a)
  assert set(map(tuple, paths[:, 1:].tolist())) == {(b, a, b), (b, a, c), (c, -1, -1)}
  assert abs((paths[:, 1] == b).mean() - 0.75) < 3 * np.sqrt(0.75 * 0.25 / 8000)
  np.testing.assert_array_equal(paths, walks_from(table, [np.full(8000, a)], 4)[0])


def test_the_vector_of_a_new_node_has_no_gradient():
  """Checks the objective of training, written as a plain loop over contexts and noise."""
  noise = np.random.default_rng(0)
  output = jnp.asarray(noise.normal(size=(30, 4)), jnp.float32)
  walks = jnp.asarray([[[3, 7, -1], [3, 5, 7]]])
  contexts, weights = walk_contexts(walks, 2, 29)
  assert contexts.tolist() == [[3, 7, 3, 5]] and weights.tolist() == [[1, 0.5, 1, 0.5]]
  drawn = jnp.asarray(noise.integers(0, 29, 64))
  prior = jnp.asarray(noise.normal(size=4), jnp.float32)
  vector = fitted(output, contexts[0], weights[0], prior, drawn, 5)

  def objective(vector):
    right = sum(w * jax.nn.log_sigmoid(vector @ output[c]) for c, w in zip(contexts[0], weights[0]))
    wrong = sum(jax.nn.log_sigmoid(-vector @ output[m]) for m in drawn)
    return right + 5 * 3 / 64 * wrong - PENALTY * 3 / 2 * ((vector - prior) ** 2).sum()

  assert jnp.abs(jax.grad(objective)(vector)).max() < 1e-4
  assert objective(vector) > objective(0.9 * vector) and objective(vector) > objective(prior)
  quantiles = noise_quantiles(noise_table(jnp.arange(1.0, 31), 0.75, 64))
  expected = np.arange(1, 31) ** 0.75
  np.testing.assert_allclose(np.bincount(quantiles, minlength=30) / len(quantiles), expected / expected.sum(),
                             atol=1 / len(quantiles))


def test_a_new_node_joins_the_community_that_it_walks_in(tmp_path):
  graph = nx.planted_partition_graph(2, 20, 0.5, 0.03, seed=0)
  run = ej.fit("deepwalk", graph, preset="tiny", window=4, dim=8, steps=200, walks_per_step=8, batch_size=32,
               data_options={"num_walks": 20, "walk_length": 12, "unseen": "walks"}, workdir=tmp_path / "run",
               optimizer={"learning_rate": 0.05})
  actual = run.embed([*graph.nodes, ("new", [0, 1, 2]), ("copy", list(graph[25]))])
  loaded = ej.load(tmp_path / "run").embed([("new", [0, 1, 2]), ("copy", list(graph[25]))])
  np.testing.assert_allclose(loaded, actual[40:], atol=1e-6)
  actual = actual - actual[:40].mean(0)
  vectors = actual / np.linalg.norm(actual, axis=1, keepdims=True)
  cosine = vectors[40:] @ vectors[:40].T
  assert cosine[0, :20].mean() > cosine[0, 20:].mean() + 0.4
  assert cosine[1, 20:].mean() > cosine[1, :20].mean() + 0.4


def test_names_with_holes_change_nothing():
  graph = nx.karate_club_graph()
  renamed = nx.relabel_nodes(graph, {i: f"member {3 * i}" for i in graph})
  runs = [ej.fit("node2vec", each, preset="tiny", steps=6) for each in (graph, renamed)]
  np.testing.assert_array_equal(runs[0].embed([0, 33, 5]), runs[1].embed(["member 0", "member 99", "member 15"]))


def test_isolated_nodes_have_rows_and_are_flagged(tmp_path):
  graph = nx.Graph([("a", "b"), ("b", "c")])
  graph.add_nodes_from(["lonely", "alone"])
  run = ej.fit("deepwalk", graph, preset="tiny", steps=4, workdir=tmp_path / "w")
  assert np.load(tmp_path / "w" / "embeddings.npy").shape == (5, 8)
  assert (tmp_path / "w" / "vocabulary.txt").read_text().split() == ["a", "b", "c", "lonely", "alone"]
  assert (tmp_path / "w" / "encoder" / "isolated.txt").read_text().split() == ["lonely", "alone"]
  np.testing.assert_array_equal(ej.load(tmp_path / "w").embed(["c"]), run.embed(["c"]))


@pytest.mark.parametrize("factory, options, message", [
    (deepwalk, {"window": 9}, "walk_length=9 nodes are no longer than it"),
    (node2vec, {"p": 0.0}, "p=0.0: must be a positive number"),
    (deepwalk, {"loss": "softmax"}, "must be one of negative_sampling, hierarchical_softmax")])
def test_bad_hyperparameters(factory, options, message):
  data = prepared()
  with pytest.raises(InputError, match=message):
    model = build(factory, data, **options)
    jax.eval_shape(model.update, jax.eval_shape(model.init, jax.random.key(0), batch_of(data)), batch_of(data),
                   jax.random.key(0))


def test_walks_of_new_nodes_need_negative_sampling():
  data = prepared()
  model = build(deepwalk, data, loss="hierarchical_softmax")
  state = jax.eval_shape(model.init, jax.random.key(0), batch_of(data))
  ids = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.int32)
  with pytest.raises(InputError, match="new nodes are embedded by walks with negative_sampling alone"):
    jax.eval_shape(model.embed, state, {"node": ids(1), "neighbors": ids(1, 2), "walks": ids(1, 3, 4)})


def test_batches_of_several_steps_are_divisible():
  data = prepared(batch_size=40)
  model = build(deepwalk, data)
  with pytest.raises(InputError, match="batch_size=40 is not a multiple of walks_per_step=16"):
    jax.eval_shape(model.update, model.init(jax.random.key(0), batch_of(data)), batch_of(data), jax.random.key(0))


def test_deepwalk_is_node2vec_without_p_and_q():
  defaults = [{key: value.default for key, value in inspect.signature(factory).parameters.items()}
              for factory in (deepwalk, node2vec)]
  assert {key: value for key, value in defaults[1].items() if key not in ("p", "q")}.keys() == defaults[0].keys()
  data = prepared()
  results = [jax.jit(model.update)(model.init(jax.random.key(1), batch_of(data)), batch_of(data),
  jax.random.key(2))[0]
             for model in (build(deepwalk, data), build(node2vec, data))]
  jax.tree.map(np.testing.assert_array_equal, *results)


def test_weights_change_the_walks():
  """On a path a-b-c whose edge b-c is nine times as heavy, b goes to c nine times of ten."""
  graph = nx.Graph()
  graph.add_weighted_edges_from([("a", "b", 1.0), ("b", "c", 9.0)])
  data = prepared(graph, num_walks=2000, walk_length=4, batch_size=6000)
  model = build(deepwalk, data, walks_per_step=6000, window=2)
  actual = np.asarray(jax.jit(model.outputs["walks"])(None, batch_of(data)))
  after = actual[:, 1:][actual[:, :-1] == 1]
  assert abs((after == 2).mean() - 0.9) < 4 * np.sqrt(0.09 / len(after))
  assert coordinates(data.dataset.graph)[2].tolist() == [1, 1, 9, 9]
