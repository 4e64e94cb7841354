"""netmf against the dense formula, its closed form for T = 1, and counts of walks."""
import functools

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest

import embeddings_jax as ej
from embeddings_jax.data.dataset import as_dataset
from embeddings_jax.data.graphs import expected_visits
from embeddings_jax.data.pipelines.edges import edges
from embeddings_jax.models.graphs.netmf import filtered, log_matrix, netmf
from embeddings_jax.types import InputError
from experiments.walk_corpus import draw


def graph_with_a_loop():
  graph = nx.connected_watts_strogatz_graph(40, 6, 0.4, seed=2)
  noise = np.random.default_rng(0)
  for _, _, data in graph.edges(data=True):
    data["weight"] = noise.uniform(0.2, 3)
  graph.add_edge(3, 3, weight=2.0)
  return graph


def dense(adjacency, window, negatives=1.0):
  """The paper's equation in float64."""
  degree = adjacency.sum(1)
  step = adjacency / np.maximum(degree, 1e-300)[:, None]
  total = sum(np.linalg.matrix_power(step, r) for r in range(1, window + 1))
  inverse = np.where(degree > 0, 1 / np.maximum(degree, 1e-300), 0)
  return np.log(np.maximum(1, degree.sum() / (negatives * window) * total * inverse))


def solve(graph, **options):
  data = edges(as_dataset(graph))
  model = netmf(num_nodes=data.facts["num_nodes"], degrees=data.facts["degrees"],
                **{**dict(dim=6, window=4, block=8, blocks=3, tol=1e-5), **options})
  batch = jax.tree.map(jnp.asarray, data.splits["train"].batch_at(0))
  state, metrics = jax.jit(model.update)(model.init(jax.random.key(0), batch), batch, jax.random.key(1))
  return state, metrics, model


def check_vectors(state, metrics, matrix, dim):
  values, vectors = np.linalg.eigh(matrix)
  order = np.argsort(-abs(values))[:dim]
  expected = vectors[:, order] * np.sqrt(abs(values[order]))
  np.testing.assert_allclose(state.values, values[order], rtol=1e-4)
  actual = np.asarray(state.vectors[:-1])
  np.testing.assert_allclose(actual @ actual.T, expected @ expected.T, atol=2e-3 * np.abs(matrix).max())
  np.testing.assert_allclose(metrics["loss"], 1 - (values[order]**2).sum() / (matrix**2).sum(), atol=1e-4)
  left = np.linalg.svd(matrix)[1][:dim]  # As singular values.
  np.testing.assert_allclose(abs(np.asarray(state.values)), left, rtol=1e-4)


def test_the_matrix_is_the_dense_formula():
  adjacency = nx.to_numpy_array(graph_with_a_loop())
  degree = adjacency.sum(1)
  actual = log_matrix(jnp.asarray(adjacency, jnp.float32), jnp.asarray(1 / degree, jnp.float32), 10, degree.sum() / 2)
  np.testing.assert_allclose(actual, dense(adjacency, 10, 2.0), atol=1e-5)


def test_exact_vectors_are_those_of_the_dense_formula():
  graph = graph_with_a_loop()
  state, metrics, _ = solve(graph, solver="exact", num_negatives=2.0)
  check_vectors(state, metrics, dense(nx.to_numpy_array(graph), 4, 2.0), 6)


@pytest.mark.parametrize("solver", ["sparse", "exact"])
def test_a_window_of_one_is_pmi_of_edges(solver):
  graph = graph_with_a_loop()
  adjacency = nx.to_numpy_array(graph)
  degree = adjacency.sum(1)
  matrix = np.log(np.maximum(1, degree.sum() * adjacency / np.outer(degree, degree)))
  np.testing.assert_allclose(matrix, dense(adjacency, 1), atol=1e-12)
  state, metrics, _ = solve(graph, solver=solver, window=1)
  check_vectors(state, metrics, matrix, 6)


@pytest.mark.parametrize("max_memory", [1.0, 0.0])
def test_filtered_is_the_paper_s_algorithm(max_memory):
  """Eigenvalues below 0 after the filter count as 0; rows made block by block give the same."""
  graph = graph_with_a_loop()
  adjacency = nx.to_numpy_array(graph)
  degree = adjacency.sum(1)
  values, vectors = np.linalg.eigh(adjacency / np.sqrt(np.outer(degree, degree)))
  values, vectors = values[::-1][:30], vectors[:, ::-1][:, :30]
  assert values.min() < -0.05
  kept = np.maximum(0, sum(values**r for r in range(1, 5)) / 4)
  np.testing.assert_allclose(filtered(jnp.asarray(values, jnp.float32), 4), kept, atol=1e-6)
  matrix = np.log(np.maximum(1, degree.sum() * (vectors * kept) @ vectors.T / np.sqrt(np.outer(degree, degree))))
  state, metrics, _ = solve(graph, solver="filtered", rank=30, max_memory=max_memory)
  check_vectors(state, metrics, matrix, 6)


@pytest.mark.parametrize("solver", ["exact", "filtered"])
def test_isolated_nodes_get_zeros_and_change_nothing(solver):
  graph = graph_with_a_loop()
  alone = solve(graph, solver=solver)[0]
  graph.add_nodes_from(range(100, 130))
  state = solve(graph, solver=solver)[0]
  assert not np.asarray(state.vectors[40:]).any()
  actual, expected = (np.asarray(each.vectors[:40]) for each in (state, alone))
  np.testing.assert_allclose(actual @ actual.T, expected @ expected.T, atol=1e-2)


def test_shuffled_nodes_give_the_same_gram_matrix():
  graph = graph_with_a_loop()
  order = np.random.default_rng(0).permutation(40)
  shuffled = nx.Graph()
  shuffled.add_nodes_from(order.tolist())
  shuffled.add_weighted_edges_from(graph.edges(data="weight"))
  first, second = (np.asarray(solve(each)[0].vectors[:-1]) for each in (graph, shuffled))
  np.testing.assert_allclose((first @ first.T)[np.ix_(order, order)], second @ second.T, atol=1e-2)


def test_counts_of_walks_converge_to_their_expectation():
  """Pairs at a distance of r steps: sum_t diag(visits at t) P^r, whose mean over long walks is netmf's matrix."""
  graph = graph_with_a_loop()
  table, window, length = as_dataset(graph).graph, 3, 12
  adjacency = nx.to_numpy_array(graph)
  step = adjacency / adjacency.sum(1, keepdims=True)
  visits = [expected_visits(table, t + 1) - (expected_visits(table, t) if t else 0) for t in range(length)]
  powers = [np.linalg.matrix_power(step, r) for r in range(1, window + 1)]
  expected = sum(visits[t][:, None] * power for r, power in enumerate(powers, 1) for t in range(length - r))
  errors = []
  for num_walks in (100, 1600):
    walks = np.concatenate(list(draw(table, num_walks=num_walks, length=length)))
    counts = np.zeros((40, 40))
    for r in range(1, window + 1):
      np.add.at(counts, (walks[:, :-r].ravel(), walks[:, r:].ravel()), 1)
    errors.append(np.linalg.norm(counts / num_walks - expected) / np.linalg.norm(expected))
  assert errors[1] < 0.02 and 3 < errors[0] / errors[1] < 5.3  # 16 times the walks: a quarter of the error.

  def distance(length):
    visits = [functools.reduce(lambda now, _: now @ step, range(t), np.ones(40)) for t in range(length)]
    joint = sum(visits[t][:, None] * power for r, power in enumerate(powers, 1) for t in range(length - r))
    joint = joint + joint.T
    pmi = np.log(np.maximum(1, joint * joint.sum() / np.outer(joint.sum(1), joint.sum(1))))
    return np.linalg.norm(pmi - dense(adjacency, window))

  near, far = distance(200), distance(12)
  assert near < 0.2 * far < 0.1 * np.linalg.norm(dense(adjacency, window))


@pytest.mark.parametrize("options", [dict(solver="exact", window=3), dict(window=1),
                                     dict(solver="filtered", rank=40, window=3)], ids=lambda options: str(options))
def test_a_copy_of_a_node_is_projected_to_its_vector(options):
  graph = nx.planted_partition_graph(2, 20, 0.5, 0.03, seed=0)
  state, _, model = solve(graph, dim=4, **options)
  around = np.full((2, 16), -1)
  for row, node in enumerate((3, 25)):
    around[row, :graph.degree(node)] = list(graph[node])
  actual = jax.jit(model.embed)(state, {"node": jnp.array([-1, -1]), "neighbors": jnp.asarray(around)})
  np.testing.assert_allclose(actual, state.vectors[jnp.array([3, 25])], atol=5e-3)


def test_the_library_and_new_nodes(tmp_path):
  graph = nx.planted_partition_graph(2, 20, 0.5, 0.03, seed=0)
  run = ej.fit("netmf", graph, dim=4, window=3, workdir=tmp_path / "w")
  assert run.embed(list(graph.nodes)).shape == (40, 4)
  new = [("new", [1, 7]), 5]
  np.testing.assert_allclose(ej.load(tmp_path / "w").embed(new), run.embed(new), rtol=1e-5)


@pytest.mark.parametrize("options, message", [
    ({"dim": 41}, "exceeds the 40 nodes"), ({"solver": "sparse"}, "exact for window=1 alone"),
    ({"solver": "dense"}, "must be one of"), ({"num_negatives": 0}, "must be above 0"),
    ({"solver": "exact", "max_memory": 1e-9}, "use filtered")])
def test_bad_hyperparameters(options, message):
  with pytest.raises(InputError, match=message):
    solve(graph_with_a_loop(), **options)
