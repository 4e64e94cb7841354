"""Skip-gram on random walks: the computation that `deepwalk` and `node2vec` share.

An update draws the walks of its batch (`ops/walks.py`), cuts them into groups of `walks_per_step`, and makes a step
of skip-gram for each group (`ops/skipgram.py`): drawing many walks at a time is what makes walks cheap, small steps
are what makes skip-gram learn.

Noise words and the Huffman tree go by how often the walks visit a node. For first-order walks the expectation is
known exactly and given as `visits`. For second-order walks noise words go by a pilot of one walk from each node (of
at most `PILOT` walks), drawn when the state is made; the tree, whose choice affects only speed, by `visits`.
"""
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Float, Int, Num, UInt32

from embeddings_jax.ops import hierarchical, skipgram, word_blocks
from embeddings_jax.ops.batches import row_mask
from embeddings_jax.ops.skipgram import Skipgram
from embeddings_jax.ops.walks import Graph, random_walks
from embeddings_jax.types import Array, InputError, Model

PILOT = 1 << 16
_PILOT_AT_ONCE = 1 << 13
NOISE_NODES = 1 << 12  # Which stand for all, as a new node's vector is found.
PENALTY = 3.0  # On nodes of Cora in no division of `benchmark unseen_nodes` as good as 10, and better than 1.
_NEWTON_STEPS = 8
LOSSES = ("negative_sampling", "hierarchical_softmax")


class WalkState(NamedTuple):
  """Tables of n nodes, and what the frequencies of visits determine; n' > n, a multiple of 64.

  Attributes:
    step: [] int32, updates made.
    input: [n', d] vectors of the nodes; rows past the nodes stay 0.
    output: [n', d] vectors of the nodes as contexts, or of the inner nodes of the Huffman tree.
    keep: [n'] probability that subsampling keeps a visit (above 1: always), 0 past the nodes.
    noise: [n'] uint32, 2**32 sum_{u <= v} P_n(u).
    points, codes: [n', 40], paths in the Huffman tree, -1 behind their ends; () with negative sampling.
  """

  step: Array
  input: Array
  output: Array
  keep: Array
  noise: Array
  points: Any = ()
  codes: Any = ()


def walk_model(
    name: str,
    *,
    num_nodes: int,
    max_degree: int,
    walk_length: int,
    visits: Any,
    num_steps: int | None,
    p: float,
    q: float,
    dim: int,
    window: int,
    loss: str,
    num_negatives: int,
    subsample: float,
    negative_power: float,
    learning_rate: float | Callable[[Array], Array],
    walks_per_step: int,
    shared_negatives: int,
    max_mass: float,
    dtype: str,
) -> Model:
  """Returns the model; for the arguments see `models/graphs/node2vec.py`."""
  if loss not in LOSSES:
    raise InputError(f"{name}: loss={loss!r}: must be one of {', '.join(LOSSES)}")
  if walk_length <= window:
    raise InputError(f"{name}: window={window}: walks of walk_length={walk_length} nodes are no longer than it; "
                     "raise config.data.walk_length")
  if walks_per_step < 1:
    raise InputError(f"{name}: walks_per_step={walks_per_step}: must be at least 1")
  words = word_blocks.count_words(name, num_nodes, visits, subsample, negative_power)
  tile = tile_of(walk_length, window)
  options = Skipgram(num_nodes, words.num_rows, window, num_negatives, shared_negatives, tile, 1, max_mass, dtype)
  skipgram.check(name, options, dim)
  schedule = word_blocks.linear_decay(learning_rate, num_steps)
  sampled, first_order = loss == "negative_sampling", p == q == 1
  paths = None if sampled else hierarchical.huffman_paths(np.asarray(visits), words.num_rows)
  depth = 0 if sampled else int((paths[0] >= 0).sum(1).max())
  room = min(1, words.kept_share + (0.06 if subsample else 0))

  def walk(graph, starts, numbers):
    csr = Graph(graph["indptr"], graph["indices"], graph.get("thresholds"))
    return random_walks(csr, starts, numbers, jax.random.key(graph["seed"]), length=walk_length,
                        max_degree=max_degree, p=p, q=q)

  def init(rng, batch):
    keep, noise = jnp.asarray(words.keep), jnp.asarray(words.noise)
    if not first_order:
      counts = pilot_visits(batch["graph"], walk, num_nodes)
      keep, noise = keep_table(counts, subsample, words.num_rows), noise_table(counts, negative_power, words.num_rows)
    return WalkState(
        jnp.zeros((), jnp.int32), word_blocks.random_table(rng, words.num_rows, num_nodes, dim),
        jnp.zeros((words.num_rows, dim)), keep, noise, *(() if sampled else map(jnp.asarray, paths)))

  def draw(state, tokens, mask, rng, room=1.0):
    return word_blocks.draw_blocks(
        state.keep, state.noise if sampled else None, {"tokens": tokens, "mask": mask}, rng, vocab_size=num_nodes,
        window=window, shared_negatives=shared_negatives, group=tile, room=room)

  def update(state, batch, rng):
    mask = row_mask(batch)
    number = groups_of(name, len(mask), walks_per_step)
    walks = walk(batch["graph"], batch["start"], batch["number"])
    # A group has rows of every shard, so that the loop over groups moves none.
    in_groups = lambda x: x.reshape((-1, number) + x.shape[1:]).swapaxes(0, 1)

    def step(tables, group):
      position, tokens, mask = group
      draws = draw(state, tokens, mask, jax.random.fold_in(rng, position), room)
      rate = jnp.asarray(schedule(state.step + position / number), jnp.float32)
      if sampled:
        tables, loss, pairs = skipgram.negative_step(tables, draws, rate, options)
      else:
        tables, loss, pairs = hierarchical.step(tables, state.points, state.codes, draws, rate, options, depth)
      return tables, (loss * pairs, pairs, draws.words, rate)

    tables, (losses, pairs, tokens, rates) = jax.lax.scan(
        step, (state.input, state.output), (jnp.arange(number), in_groups(walks), in_groups(mask)))
    return state._replace(step=state.step + 1, input=tables[0], output=tables[1]), {
        "loss": losses.sum() / jnp.maximum(pairs.sum(), 1), "pairs": pairs.sum(), "words": tokens.sum(),
        "learning_rate": rates.mean()}

  def embed(state, batch):
    node = batch["node"]
    vectors = state.input.at[jnp.where(node >= 0, node, num_nodes)].get(mode="promise_in_bounds")
    if "neighbors" not in batch:
      return vectors
    around = word_blocks.mean_of_words(state.input, batch["neighbors"], num_nodes)
    if "walks" in batch:
      if not sampled:
        raise InputError(f"{name}: loss={loss}: new nodes are embedded by walks with negative_sampling alone; use "
                         "config.data.unseen=neighbors")
      contexts, weights = walk_contexts(batch["walks"], window, num_nodes)
      noise = noise_quantiles(state.noise)
      around = jax.lax.map(lambda new: fitted(state.output, *new, noise, num_negatives), (contexts, weights, around))
    return jnp.where((node >= 0)[:, None], vectors, around)

  def components(state):
    return {"input": state.input[:num_nodes], "output": state.output[:num_nodes - (not sampled)]}

  def walks(state, batch):
    return walk(batch["graph"], batch["start"], batch["number"])

  rules = ((r"(^|/)(input|output)$", P("model", None)),)
  return Model(init, update, embed, {"components": components, "walks": walks}, rules)


def walk_contexts(
    walks: Int[Array, "n W L"], window: int, num_nodes: int,
) -> tuple[Int[Array, "n C"], Float[Array, "n C"]]:
  """Returns the nodes that walks from new nodes meet within the window, and how often each counts.

  A node at distance r counts (c - r + 1) / c, as r_i, uniform on 1 ... c, is at least r that often.

  Args:
    walks: Walks behind the new node, -1 behind their ends.
    window: c.
    num_nodes: Number of nodes, the row of what is none.
  """
  met = walks[:, :, :window]
  weights = jnp.where(met >= 0, 1 - jnp.arange(met.shape[-1]) / window, 0)
  flat = lambda x: x.reshape(len(x), -1)
  return flat(jnp.where(met >= 0, met, num_nodes)), flat(weights)


def noise_quantiles(noise: UInt32[Array, " rows"]) -> Int[Array, " K"]:
  """Returns `NOISE_NODES` nodes at equal distances in the cumulative distribution of noise nodes."""
  at = (jnp.arange(NOISE_NODES, dtype=jnp.uint32) * np.uint32(2**32 // NOISE_NODES)
        + np.uint32(2**31 // NOISE_NODES))
  return jnp.searchsorted(noise, at).astype(jnp.int32)


def fitted(
    output: Float[Array, "rows d"], contexts: Int[Array, " C"], weights: Float[Array, " C"],
    prior: Float[Array, " d"], noise: Int[Array, " K"], num_negatives: float, penalty: float = PENALTY,
) -> Float[Array, " d"]:
  """Returns the vector of a new node, by Newton's method: the context table stays as it is.

    max_phi  sum_c w_c log sigma(phi . g_c) + (k W / K) sum_m log sigma(-phi . g_m) - penalty W / 2 |phi - prior|^2

  with W = sum_c w_c: the objective of training for one node, and a Gaussian prior around the mean of its neighbors,
  which also bounds the vectors of nodes whose contexts can be told from noise.
  """
  mass = jnp.maximum(weights.sum(), 1e-6)
  rows = jnp.concatenate([output[contexts], -output[noise]])
  share = jnp.concatenate([weights / mass, jnp.full(len(noise), num_negatives / len(noise))])

  def newton(_, vector):
    wrong = jax.nn.sigmoid(-(rows @ vector))
    gradient = (share * wrong) @ rows - penalty * (vector - prior)
    hessian = jnp.einsum("c,ci,cj->ij", share * wrong * (1 - wrong), rows, rows) + penalty * jnp.eye(len(vector))
    return vector + jnp.linalg.solve(hessian, gradient)

  return jax.lax.fori_loop(0, _NEWTON_STEPS, newton, prior)


def tile_of(walk_length: int, window: int) -> int:
  """Returns the positions of a tile: a walk is cut into equal tiles of some 20 positions, not below the window."""
  return math.ceil(walk_length / max(1, walk_length // max(window, 20)))


def groups_of(name: str, batch_size: int, walks_per_step: int) -> int:
  """Returns the number of steps that a batch of walks makes."""
  if batch_size <= walks_per_step:
    return 1
  if batch_size % walks_per_step:
    raise InputError(f"{name}: batch_size={batch_size} is not a multiple of walks_per_step={walks_per_step}")
  return batch_size // walks_per_step


def pilot_visits(graph: Any, walk: Callable[..., Array], num_nodes: int) -> Float[Array, " n"]:
  """Returns visits of each node by a pilot, scaled to one walk from each node, [n]; every node counts at least once.

  The walks' numbers are the last of 2**31, which no training reaches.
  """
  total = min(num_nodes, PILOT)
  at_once = min(total, _PILOT_AT_ONCE)
  rank = jnp.arange(-(-total // at_once) * at_once)
  starts = jnp.minimum((rank.astype(jnp.float32) * (num_nodes / total)).astype(jnp.int32), num_nodes - 1)
  numbers = jnp.int32(2**31 - 1) - rank

  def add(counts, part):
    position, starts, numbers = part
    nodes = walk(graph, starts, numbers)
    kept = (nodes >= 0) & (position < total)[:, None]
    return counts.at[jnp.where(kept, nodes, num_nodes)].add(1, mode="drop"), None

  parts = jax.tree.map(lambda x: x.reshape(-1, at_once), (rank, starts, numbers))
  counts = jax.lax.scan(add, jnp.zeros(num_nodes, jnp.int32), parts)[0]
  return jnp.maximum(counts * (num_nodes / total), 1.0)


def keep_table(counts: Num[Array, " n"], subsample: float, num_rows: int) -> Float[Array, " rows"]:
  """Returns `word_blocks.Words.keep` of counts [n] on the device, [num_rows]."""
  ratio = subsample * counts.sum() / jnp.maximum(counts, 1)
  keep = jnp.sqrt(ratio) + ratio if subsample else jnp.full(counts.shape, 2.0, jnp.float32)
  return jnp.pad(keep, (0, num_rows - len(counts)))


def noise_table(counts: Num[Array, " n"], power: float, num_rows: int) -> UInt32[Array, " rows"]:
  """Returns `word_blocks.Words.noise` of counts [n] on the device, uint32 [num_rows].

  Shares are rounded one by one to units of 2**-32 and added as integers, as a sum of floats would lose rare nodes.
  """
  weights = counts ** power
  share = weights / weights.sum() * (1 - 2.0**-20)  # Rounding must not lead beyond 2**32.
  table = jnp.cumsum((share * 2.0**32).astype(jnp.uint32), dtype=jnp.uint32)
  table = table.at[-1].set(np.uint32(2**32 - 1))
  return jnp.pad(table, (0, num_rows - len(counts)), mode="edge")
