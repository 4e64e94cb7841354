"""Random walks against brute force: frequencies, dead ends, and independence of batches and devices."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from embeddings_jax.data.graphs import weight_thresholds
from embeddings_jax.ops.walks import PADDING, Graph, find_edge, random_walks, search_rounds
from embeddings_jax.types import InputError

PARAMETERS = [(1, 1), (0.25, 4), (4, 0.25), (1000, 0.001), (0.001, 1000)]


def graph_of(weights):
  """The graph of a dense matrix of weights, and its largest degree."""
  row, col = np.nonzero(weights)
  indptr = np.searchsorted(row, np.arange(len(weights) + 1)).astype(np.int32)
  values = weights[row, col]
  thresholds = None if (values == 1).all() else jnp.asarray(weight_thresholds(indptr, values))
  return Graph(jnp.asarray(indptr), jnp.asarray(col.astype(np.int32)), thresholds), int(np.diff(indptr).max())


def directed():
  """Twelve nodes, weights between .2 and 5, loops, rows of 2 to 9 edges."""
  rng = np.random.default_rng(0)
  weights = np.exp(rng.uniform(np.log(0.2), np.log(5), (12, 12))) * (rng.random((12, 12)) < 0.4)
  weights[np.arange(12), (np.arange(12) + 1) % 12] = 1.5
  weights[3, 3] = weights[5, 5] = 2.0
  return weights


def undirected():
  """Ten nodes without weights: a clique of five with a tail and a loop."""
  edges = np.zeros((10, 10))
  edges[:5, :5] = 1
  np.fill_diagonal(edges, 0)
  for i in range(4, 9):
    edges[i, i + 1] = edges[i + 1, i] = 1
  edges[2, 7] = edges[7, 2] = edges[9, 9] = 1
  return edges


def second_order(weights, p, q):
  """P(x | t, v), dense, by the definition: [t, v, x]."""
  there = weights > 0
  alpha = np.where(there[:, None, :], 1.0, 1 / q)  # Is there an edge t -> x?
  alpha = np.broadcast_to(alpha, (len(weights),) * 3).copy()
  alpha[np.arange(len(weights)), :, np.arange(len(weights))] = 1 / p
  table = weights[None] * alpha
  return table / table.sum(-1, keepdims=True)


def walk(weights, num, length, p=1.0, q=1.0, seed=0):
  graph, max_degree = graph_of(weights)
  draw = jax.jit(lambda starts, numbers, rng: random_walks(
      graph, starts, numbers, rng, length=length, max_degree=max_degree, p=p, q=q))
  return np.asarray(draw(jnp.arange(num) % len(weights), jnp.arange(num), jax.random.key(seed)))


@pytest.mark.parametrize("weights", [directed(), undirected()], ids=["directed", "undirected"])
@pytest.mark.parametrize("p, q", PARAMETERS)
@pytest.mark.parametrize("num", [100_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_steps_have_the_frequencies_of_the_definition(weights, p, q, num):
  walks = walk(weights, num // 40, 42, p, q)
  steps = np.stack([walks[:, :-2], walks[:, 1:-1], walks[:, 2:]], -1).reshape(-1, 3)
  assert len(steps) == num and (steps >= 0).all()
  size = len(weights)
  counts = np.bincount(np.ravel_multi_index(steps.T, (size,) * 3), minlength=size**3).reshape((size,) * 3)
  expected = second_order(weights, p, q) * counts.sum(-1, keepdims=True)
  assert not counts[expected == 0].any()
  # Rare edges of a row are pooled, as the statistic's distribution asks.
  statistic, freedom = 0.0, 0
  for observed, mean in zip(counts.reshape(-1, size), expected.reshape(-1, size)):
    rare = mean < 5
    observed = np.append(observed[~rare], observed[rare].sum())
    mean = np.append(mean[~rare], mean[rare].sum())
    observed, mean = observed[mean >= 5], mean[mean >= 5]
    if len(mean) > 1 and np.isclose(observed.sum(), mean.sum()):
      statistic += (np.square(observed - mean) / mean).sum()
      freedom += len(mean) - 1
  assert freedom > (20 if num == 1_000_000 else 8)  # Extreme p and q visit few pairs of nodes often.
  assert stats.chi2.sf(statistic, freedom) > 1e-3 / (2 * len(PARAMETERS))


def test_first_steps_go_by_weight():
  weights = directed()
  graph, max_degree = graph_of(weights)
  num = 60_000
  walks = np.asarray(random_walks(graph, jnp.full(num, 3), jnp.arange(num), jax.random.key(1), length=2,
                                  max_degree=max_degree, p=0.5, q=2.0))
  expected = weights[3] / weights[3].sum() * num
  counts = np.bincount(walks[:, 1], minlength=12)
  there = expected > 0
  assert not counts[~there].any()
  assert stats.chisquare(counts[there], expected[there]).pvalue > 1e-3


def test_visits_are_by_degree_on_an_undirected_graph():
  edges = undirected()
  degree = edges.sum(1)
  graph, max_degree = graph_of(edges)
  num = 100_000
  starts = np.repeat(np.arange(10), np.round(degree / degree.sum() * num).astype(int))
  walks = np.asarray(random_walks(graph, jnp.asarray(starts), jnp.arange(len(starts)), jax.random.key(2), length=9,
                                  max_degree=max_degree))
  counts = np.bincount(walks[:, -1], minlength=10)  # One node a walk: the others depend on it.
  assert stats.chisquare(counts, degree / degree.sum() * len(starts)).pvalue > 1e-3


def test_a_walk_ends_at_a_node_without_edges():
  weights = np.zeros((4, 4))
  weights[0, 1] = weights[1, 2] = 1
  for p in (1.0, 0.5):
    assert walk(weights, 4, 5, p).tolist() == [[0, 1, 2, PADDING, PADDING], [1, 2, *[PADDING] * 3],
                                               [2, *[PADDING] * 4], [3, *[PADDING] * 4]]


@pytest.mark.parametrize("p, q", [(1, 1), (0.25, 4)])
def test_walks_do_not_depend_on_the_batch_they_are_drawn_in(p, q, mesh_of):
  weights = directed()
  graph, max_degree = graph_of(weights)
  draw = jax.jit(lambda starts, numbers: random_walks(
      graph, starts, numbers, jax.random.key(3), length=12, max_degree=max_degree, p=p, q=q))
  numbers = np.arange(64)
  whole = np.asarray(draw(numbers % 12, numbers))
  order = np.random.default_rng(0).permutation(64)
  np.testing.assert_array_equal(draw(order[:16] % 12, order[:16]), whole[order[:16]])
  sharding = jax.sharding.NamedSharding(mesh_of("data:8"), jax.sharding.PartitionSpec("data"))
  np.testing.assert_array_equal(draw(*jax.device_put((numbers % 12, numbers), sharding)), whole)


def test_a_hub_is_scanned_in_bounded_time_whatever_q():
  # From 1, everything but 0 is far from 0's other neighbors: with q = 1e6 a proposal is accepted once in a million.
  size = 2000
  row = np.concatenate([[0], np.ones(size - 1, int)])
  col = np.concatenate([[1], np.delete(np.arange(size), 1)])
  indptr = np.searchsorted(row, np.arange(size + 1)).astype(np.int32)
  graph = Graph(jnp.asarray(indptr), jnp.asarray(col.astype(np.int32)))
  walks = np.asarray(random_walks(graph, jnp.zeros(8, int), jnp.arange(8), jax.random.key(0), length=3,
                                  max_degree=size - 1, p=1e6, q=1e6))
  assert (walks[:, 1] == 1).all() and (walks[:, 2] != 1).all() and len(set(walks[:, 2])) > 4


@pytest.mark.parametrize("size", [1, 2, 7, 8, 33])
def test_edges_are_those_of_the_matrix(size):
  """All pairs of nodes, rows of every length from none to full."""
  weights = (np.arange(size) < np.arange(size)[:, None] + (size > 7)).astype(float)
  weights = np.random.default_rng(size).permuted(weights, axis=1)
  weights[-1] = 1
  graph, max_degree = graph_of(weights)
  source, target = (jnp.asarray(x.ravel(), jnp.int32) for x in np.indices((size, size)))
  place, there = find_edge(graph, source, target, search_rounds(max_degree))
  np.testing.assert_array_equal(there, weights.ravel() > 0)
  np.testing.assert_array_equal(graph.indices[place[there]], target[there])


def test_thresholds_are_cumulative_shares_of_each_row():
  indptr = np.array([0, 3, 3, 5])
  weights = np.array([1.0, 2.0, 1.0, 1e-3, 1e6])
  words = weight_thresholds(indptr, weights).astype(np.float64) + 1
  np.testing.assert_allclose(words / 2**32, [0.25, 0.75, 1, 1e-9, 1], rtol=1e-2, atol=2**-32)
  large = np.random.default_rng(0).random(100_000)
  words = weight_thresholds(np.array([0, 100_000]), large).astype(np.float64) + 1
  np.testing.assert_allclose(words / 2**32, np.cumsum(large) / large.sum(), atol=2**-31)


@pytest.mark.parametrize("options, message", [
    ({"length": 0}, "length=0"), ({"p": 0.0}, "p=0.0"), ({"q": -1.0}, "q=-1.0"), ({"p": float("nan")}, "p=nan")])
def test_bad_parameters_are_refused(options, message):
  graph, max_degree = graph_of(undirected())
  with pytest.raises(InputError, match=message):
    random_walks(graph, jnp.zeros(1, int), jnp.zeros(1, int), jax.random.key(0),
                 **{"length": 5, "max_degree": max_degree} | options)


@pytest.mark.parametrize("weight", [0.0, -1.0, np.nan, np.inf])
def test_bad_weights_are_refused(weight):
  with pytest.raises(InputError, match="weights: edge 1 has"):
    weight_thresholds(np.array([0, 2]), np.array([1.0, weight]))


@pytest.mark.parametrize("seed", [0, 1])
def test_no_draw_follows_another_of_its_walk_or_of_the_walk_before(seed):
  """On the complete graph of nine nodes a draw is uniform on the eight others, whatever came before."""
  nodes = walk(1 - np.eye(9), 1 << 16, 6, seed=seed)
  drawn = (nodes[:, 1:] - nodes[:, :-1]) % 9 - 1
  for first, second in [(drawn[1:], drawn[:-1]), (drawn[:, 1:], drawn[:, :-1]), (drawn[1:, 1:], drawn[:-1, :-1])]:
    counts = np.bincount((8 * first + second).ravel(), minlength=64)
    assert stats.chisquare(counts).pvalue > 1e-3
