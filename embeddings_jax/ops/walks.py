"""Random walks on a graph: uniform or weighted (DeepWalk, Perozzi et al. 2014), and biased of second order (node2vec,
Grover & Leskovec 2016).

A walk at node v that came from t goes to a neighbor x with probability proportional to w(v, x) alpha(t, x),

  alpha(t, x) = 1/p  if x = t,     1  if there is an edge t -> x,     1/q  otherwise;

its first step, and every step for p = q = 1, goes to x with probability w(v, x) / sum_y w(v, y).

| paper | here | shape |
|---|---|---|
| V, E | `graph.indptr`, `graph.indices` | [n + 1], [m] |
| w(v, x) | `graph.thresholds`: cumulative in its row, in units of 2**-32 | [m] |
| l, walk length in nodes | `length` | [] |
| p, q | `p`, `q` | [] |

Walks are a pure function of (graph, start nodes, walk numbers, key). The key of walk i is hashed from its number, and
each draw from the walk's key and the draw's number (`ops/hashing.py`), so walks are the same however they are batched
and on any number of devices. Memory is the graph and the walks.

Second-order steps are drawn by rejection: a first-order proposal is accepted with probability alpha / max(1, 1/q). No
second-order table is made, so memory does not depend on the edges' pairs. Two cases would refuse too often:

- 1/p above max(1, 1/q): the excess of the return edge over that bound is drawn apart (Yang et al. 2019, KnightKing,
  section 4), so that the bound need not be raised for one edge;
- a row in which almost everything has a small alpha: after as many refusals as the row has edges the row is scanned,
  edge by edge, as a weighted reservoir of one, which is exact too. A step therefore takes at most about twice as many
  rounds as the node has edges, whatever p and q.

Each walk goes on at its own pace: a round makes one proposal (or scans one edge) for every unfinished walk.

Deviation. On directed graphs alpha asks for the edge t -> x, as the paper's d_tx does; the authors' program asks for
x -> t.
"""
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray, UInt32

from embeddings_jax.ops import hashing
from embeddings_jax.types import InputError

PADDING = -1  # Follows the last node of a walk that ended early.
_MAX_WORDS = 4  # Random words of a draw.
_MIN_REFUSALS = 16  # Rows shorter than this are not scanned before as many refusals.


class Graph(NamedTuple):
  """A graph in compressed sparse rows, resident on the device.

  Attributes:
    indptr: Row v holds the edges `indptr[v]` to `indptr[v + 1] - 1`; int32 [n + 1].
    indices: Targets of the edges, increasing within a row; int32 [m].
    thresholds: Edge j of a row is drawn by the words up to `thresholds[j]` that exceed `thresholds[j - 1]`; uint32
      [m], the last of a row is 2**32 - 1; see `data/graphs.py: weight_thresholds`. None if all edges of a row are
      equally likely.
  """

  indptr: Int[Array, " n_plus_1"]
  indices: Int[Array, " m"]
  thresholds: UInt32[Array, " m"] | None = None


def search_rounds(max_degree: int) -> int:
  """Returns the number of halvings that find an edge in a row of at most `max_degree` edges."""
  return max(1, math.ceil(math.log2(max_degree + 1)))


def random_walks(
    graph: Graph,
    starts: Int[Array, " walks"],
    numbers: Int[Array, " walks"],
    rng: PRNGKeyArray,
    *,
    length: int,
    max_degree: int,
    p: float = 1.0,
    q: float = 1.0,
) -> Int[Array, "walks length"]:
  """Draws one walk from each start node.

  Args:
    graph: The graph.
    starts: First nodes.
    numbers: Numbers of the walks, from which their randomness follows.
    rng: Key that all walks share.
    length: Number of nodes of a walk.
    max_degree: Largest number of edges of a row; static.
    p: Return parameter: the larger, the rarer a walk returns at once.
    q: In-out parameter: the larger, the closer a walk stays to where it came from.

  Returns:
    Nodes, int32; a walk that reaches a node without outgoing edges is filled with `PADDING`.

  Raises:
    InputError: `length`, `p` or `q` is out of range.
  """
  if length < 1:
    raise InputError(f"length={length}: must be at least 1")
  for name, value in (("p", p), ("q", q)):
    if not (math.isfinite(value) and value > 0):
      raise InputError(f"{name}={value}: must be a positive number")
  halves = jax.random.key_data(rng).astype(jnp.uint32).ravel()
  keys = tuple(hashing.words(halves[0], halves[-1], 2 * numbers + i) for i in range(2))
  rounds = search_rounds(max_degree)
  if p == q == 1:
    return _first_order_walks(graph, starts, keys, length, rounds)
  return _second_order_walks(graph, starts, keys, length, rounds, p, q)


def propose(graph: Graph, node: Int[Array, " walks"], word: UInt32[Array, " walks"],
            rounds: int) -> Int[Array, " walks"]:
  """Draws an edge of each node's row by weight; `word` is uniform on 32 bits. Nodes need at least one edge."""
  first, end = graph.indptr[node], graph.indptr[node + 1]
  if graph.thresholds is None:
    return first + _high_word(word, (end - first).astype(jnp.uint32)).astype(jnp.int32)
  return _lower_bound(graph.thresholds, first, end - 1, word, rounds)


def find_edge(graph: Graph, source: Int[Array, " walks"], target: Int[Array, " walks"],
              rounds: int) -> tuple[Int[Array, " walks"], Bool[Array, " walks"]]:
  """Returns the place of the edge `source -> target` in `indices`, and whether there is one."""
  first, end = graph.indptr[source], graph.indptr[source + 1]
  index = _lower_bound(graph.indices, first, end, target, rounds)
  return index, (index < end) & (graph.indices[jnp.minimum(index, len(graph.indices) - 1)] == target)


def _lower_bound(values: Array, low: Array, high: Array, value: Array, rounds: int) -> Array:
  """Returns the first place in [low, high) whose value is not below `value`, or `high`.

  A round decides on one bit of the distance from `low`, the highest first: half the work of halving two bounds.
  """
  def decide(i, place):
    step = jnp.left_shift(1, rounds - 1 - i)
    below = values[jnp.minimum(place + step - 1, len(values) - 1)] < value
    return jnp.where((step <= high - place) & below, place + step, place)  # A sum of places might overflow.

  return jax.lax.fori_loop(0, rounds, decide, low)


def _high_word(x: Array, y: Array) -> Array:
  """Returns the upper 32 bits of the product of two uint32: uniform on [0, y) if x is uniform."""
  x_low, x_high, y_low, y_high = x & 0xFFFF, x >> 16, y & 0xFFFF, y >> 16
  middle = x_high * y_low + ((x_low * y_low) >> 16)
  return x_high * y_high + (middle >> 16) + (((middle & 0xFFFF) + x_low * y_high) >> 16)


def _words(keys: tuple[Array, Array], number: Int[Array, "..."], count: int) -> list[UInt32[Array, " walks"]]:
  """Returns `count` words of 32 random bits for each walk, whose key is two; `number` tells its draws apart."""
  number = number.astype(jnp.uint32) * jnp.uint32(_MAX_WORDS)
  return [hashing.words(*keys, number + jnp.uint32(i)) for i in range(count)]


def _first_order_walks(graph, starts, keys, length, rounds):
  def step(node, number):
    (word,) = _words(keys, number, 1)
    current = jnp.maximum(node, 0)
    alive = (node >= 0) & (graph.indptr[current + 1] > graph.indptr[current])
    edge = propose(graph, current, word, rounds)
    node = jnp.where(alive, graph.indices[jnp.minimum(edge, len(graph.indices) - 1)], PADDING)
    return node, node

  starts = starts.astype(jnp.int32)
  _, rest = jax.lax.scan(step, starts, jnp.arange(length - 1))
  return jnp.concatenate([starts[:, None], rest.T], 1)


class _Progress(NamedTuple):
  """Unfinished walks, each at its own pace.

  Attributes:
    walk: Nodes so far, [walks, length].
    previous, node: Last two nodes; `previous` is `PADDING` at the start.
    place: Number of steps made.
    draws: Number of proposals and scanned edges, which tells their randomness apart.
    refusals: Proposals refused in the present step.
    scanned: Edges of the row scanned in the present step.
    mass: Their total weight.
    chosen: The edge that the scan holds.
  """

  walk: Array
  previous: Array
  node: Array
  place: Array
  draws: Array
  refusals: Array
  scanned: Array
  mass: Array
  chosen: Array


def _second_order_walks(graph, starts, keys, length, rounds, p, q):
  bound = max(1.0, 1 / q)
  outlier = 1 / p > bound
  share = functools.partial(_acceptance, bound=bound)
  rows = jnp.arange(len(starts))

  def alive(state):
    return (state.place < length - 1) & (graph.indptr[state.node + 1] > graph.indptr[state.node])

  def advance(state: _Progress) -> _Progress:
    propose_word, accept_word, *return_word = _words(keys, state.draws, 2 + outlier)
    first, end = graph.indptr[state.node], graph.indptr[state.node + 1]
    started = state.previous >= 0
    previous = jnp.maximum(state.previous, 0)
    scanning = state.refusals >= jnp.maximum(end - first, _MIN_REFUSALS)

    edge = jnp.where(scanning, first + state.scanned, propose(graph, state.node, propose_word, rounds))
    target = graph.indices[edge]
    returns = target == previous
    near = find_edge(graph, previous, target, rounds)[1]
    accepted = ~started | jnp.where(returns, share(accept_word, 1 / p),
                                    jnp.where(near, share(accept_word, 1.0), share(accept_word, 1 / q)))
    if outlier:
      back, possible = find_edge(graph, state.node, previous, rounds)
      excess = jnp.where(possible, _probability(graph, first, end, back), 0.0) * (1 / p - bound)
      drawn_apart = started & _happens(return_word[0], excess / (bound + excess))
      edge = jnp.where(drawn_apart & ~scanning, back, edge)
      accepted |= drawn_apart

    # The scan keeps an edge with its share of the weight so far; at the end of the row the edge it holds is a draw.
    alpha = jnp.where(returns, 1 / p, jnp.where(near, 1.0, 1 / q))
    weight = _probability(graph, first, end, jnp.where(scanning, edge, first)) * alpha
    mass = state.mass + weight
    chosen = jnp.where(_happens(accept_word, weight / mass), edge, state.chosen)
    accepted = jnp.where(scanning, state.scanned == end - first - 1, accepted) & alive(state)
    edge = jnp.where(scanning, chosen, edge)

    target = graph.indices[edge]
    place = state.place + accepted
    walk = state.walk.at[rows, jnp.where(accepted, place, length)].set(target, mode="drop")
    reset = lambda value, zero: jnp.where(accepted, zero, value)
    return _Progress(
        walk, jnp.where(accepted, state.node, state.previous), jnp.where(accepted, target, state.node), place,
        state.draws + 1, reset(state.refusals + ~scanning, 0), reset(state.scanned + scanning, 0),
        reset(jnp.where(scanning, mass, 0.0), 0.0), reset(jnp.where(scanning, chosen, 0), 0))

  starts = starts.astype(jnp.int32)
  zeros = jnp.zeros_like(starts)
  walk = jnp.full((len(starts), length), PADDING, jnp.int32).at[:, 0].set(starts)
  state = _Progress(walk, jnp.full_like(starts, PADDING), starts, zeros, zeros, zeros, zeros,
                    jnp.zeros(starts.shape, jnp.float32), zeros)
  return jax.lax.while_loop(lambda state: alive(state).any(), advance, state).walk


def _acceptance(word: Array, alpha: float, bound: float) -> Array:
  """Returns whether a proposal with this alpha is accepted; exact to 2**-32."""
  return word <= np.uint32(max(0, min(2**32, round(alpha / bound * 2**32)) - 1))


def _happens(word: Array, probability: Array) -> Array:
  """Returns whether an event happens, by a word of 32 random bits."""
  return (word >> 8).astype(jnp.float32) * np.float32(2.0**-24) < probability


def _probability(graph: Graph, first: Array, end: Array, edge: Array) -> Array:
  """Returns the first-order probability of an edge of the row [first, end)."""
  if graph.thresholds is None:
    return 1 / (end - first).astype(jnp.float32)
  below = jnp.where(edge > first, graph.thresholds[jnp.maximum(edge - 1, 0)], np.uint32(0))
  above = graph.thresholds[edge]
  # The first edge of a row has the words from 0, the others those past the one before.
  return ((above - below).astype(jnp.float32) + (edge == first)) * np.float32(2.0**-32)
