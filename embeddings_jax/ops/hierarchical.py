"""Hierarchical softmax (Morin & Bengio 2005) on a Huffman tree, as word2vec has it.

  p(w | v) = prod_{l < L(w)} sigma((1 - 2 code_{w,l}) v . theta_{point_{w,l}}),

a word's path leads from the root (`point` V - 2) over inner nodes of the tree, and `code` says which way it turns.
"""
import heapq
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from embeddings_jax.ops import word_blocks
from embeddings_jax.ops.skipgram import Skipgram
from embeddings_jax.ops.word_blocks import Draws, minus_log, tiled, transposed, window_pairs, with_halo
from embeddings_jax.types import Array, InputError

Tables = tuple[Float[Array, "rows d"], Float[Array, "rows d"]]  # Vectors of words and of inner nodes.
MAX_CODE = 40  # As in word2vec; a deeper tree needs counts above 10**8 that grow like Fibonacci numbers.


def huffman_paths(counts: np.ndarray, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
  """Builds the tree with the smallest expected length of a path.

  Args:
    counts: Occurrences of the V words, at least two.
    num_rows: Rows of the result; those past V are empty.

  Returns:
    `points` int32 and `codes` int8 [num_rows, 40]: inner nodes from the root on, numbered from 0 to V - 2, and the
    turns; -1 behind the end of a path.
  """
  size = len(counts)
  if size < 2:
    raise InputError("loss=hierarchical_softmax: needs two words or nodes")
  heap = [(float(count), i) for i, count in enumerate(counts)]
  heapq.heapify(heap)
  parent, side = np.zeros(2 * size - 1, np.int64), np.zeros(2 * size - 1, np.int8)
  for inner in range(size, 2 * size - 1):
    (first, a), (second, b) = heapq.heappop(heap), heapq.heappop(heap)
    parent[[a, b]], side[b] = inner, 1
    heapq.heappush(heap, (first + second, inner))
  depth = np.zeros(2 * size - 1, np.int64)
  for node in range(2 * size - 3, -1, -1):  # A parent's number is above its children's.
    depth[node] = depth[parent[node]] + 1
  depth = depth[:size]
  if depth.max() > MAX_CODE:
    raise InputError(f"loss=hierarchical_softmax: the counts give codes of {depth.max()} turns; at most {MAX_CODE} "
                     "are supported")
  points, codes = np.full((num_rows, MAX_CODE), -1, np.int32), np.full((num_rows, MAX_CODE), -1, np.int8)
  words, node, position = np.arange(size), np.arange(size), depth - 1
  while len(words):  # All paths at once, from the leaves up.
    points[words, position] = parent[node] - size
    codes[words, position] = side[node]
    node, position = parent[node], position - 1
    words, node, position = words[position >= 0], node[position >= 0], position[position >= 0]
  return points, codes


def log_probability(
    vector: Float[Array, " d"], output: Float[Array, "rows d"], points: Int[Array, "*words L"],
    codes: Int[Array, "*words L"],
) -> Float[Array, "*words"]:
  """Returns log p(w | v) for a vector [d] and paths [..., L] of words."""
  score = output.at[jnp.maximum(points, 0)].get(mode="promise_in_bounds") @ vector
  return jnp.where(points >= 0, jax.nn.log_sigmoid((1 - 2 * codes.astype(jnp.float32)) * score), 0).sum(-1)


class QueryTerms(NamedTuple):
  """Queries z against the paths of the words that they predict.

  Attributes:
    path: Inner nodes, [B, N, L]; the last row of the table behind a path's end.
    turns: 1 where a turn of a path is predicted, else 0, [B, N, L].
    grad_query: Minus the gradient of the summed loss for the queries, [B, N, d].
    grad_path: The same for the inner nodes, [B, N, L, d].
    loss: Summed loss.
  """

  path: Int[Array, "B N L"]
  turns: Float[Array, "B N L"]
  grad_query: Float[Array, "B N d"]
  grad_path: Float[Array, "B N L d"]
  loss: Float[Array, ""]


def query_terms(
    query: Float[Array, "B N d"], output: Float[Array, "rows d"], points: Int[Array, "rows L"],
    codes: Int[Array, "rows L"], words: Int[Array, "B N"], predicted: Bool[Array, "B N"],
) -> QueryTerms:
  """Returns loss and gradients of - sum log p(word | query) over the positions where a word is predicted.

  Args:
    query: Vectors z.
    output: Vectors of the inner nodes.
    points, codes: Of `huffman_paths`, cut to the longest path.
    words: Word of each position.
    predicted: Whether it is predicted.
  """
  path = points.at[words].get(mode="promise_in_bounds")
  here = (path >= 0) & predicted[..., None]
  path = jnp.where(here, path, len(output) - 1)
  sign = jnp.where(here, 1 - 2 * codes.at[words].get(mode="promise_in_bounds").astype(jnp.float32), 0)
  nodes, turns = word_blocks.take_rows(output, path), here.astype(jnp.float32)
  right = jax.nn.sigmoid(sign * jnp.einsum("bnd,bnld->bnl", query, nodes))
  error = sign * (1 - right)
  return QueryTerms(path, turns, jnp.einsum("bnl,bnld->bnd", error, nodes), error[..., None] * query[:, :, None],
                    (turns * minus_log(right)).sum())


class _Tiles(NamedTuple):
  """A step's pairs: a tile of positions predicts each position's word from the vectors around it.

  Attributes:
    node: Inner nodes on the paths of a tile's words, [B, t, n], n = tile x depth; the last row behind a path's end.
    sign: 1 - 2 code of each turn, 0 behind a path's end, [B, t, n].
    context: Words in the tile and up to a window around it, [B, t, j].
    terms: 1 where a node is scored with a context, else 0, [B, t, n, j].
    pairs: Number of pairs.
  """

  node: Int[Array, "B t n"]
  sign: Float[Array, "B t n"]
  context: Int[Array, "B t j"]
  terms: Float[Array, "B t n j"]
  pairs: Float[Array, ""]


def step(
    tables: Tables, points: Int[Array, "rows L"], codes: Int[Array, "rows L"], draws: Draws, rate: Float[Array, ""],
    options: Skipgram, depth: int,
) -> tuple[Tables, Float[Array, ""], Float[Array, ""]]:
  """Returns the tables after a step of skip-gram, the mean loss of a pair, and the number of pairs.

  As word2vec's program does, position i predicts its own word from each vector within its radius. A path is so
  gathered and moved once per position rather than once per pair. The summed step of a row is shortened by
  min(1, max_mass / mass), mass = its pairs and turns in the batch, as with negative sampling.

  Args:
    tables: Vectors [V', d] of words and of inner nodes.
    points, codes: Of `huffman_paths`.
    draws: Tokens and windows.
    rate: Learning rate.
    options: Window, tile, rows and `max_mass`.
    depth: Longest path.
  """
  tiles = _arranged(points, codes, draws, options, depth)
  contexts, thetas, right, loss = _scored(tables, tiles)
  error = tiles.sign[..., None] * tiles.terms * (1 - right)
  sizes = lambda ids, axis: word_blocks.step_sizes(options.num_rows, ids, tiles.terms.sum(axis), rate,
                                                   options.max_mass)
  of_nodes = error * sizes(tiles.node, -1)[..., None]
  of_contexts = transposed(error * sizes(tiles.context, -2)[:, :, None])
  step_context = jnp.einsum("btjn,btnd->btjd", of_contexts, thetas)
  step_theta = jnp.einsum("btnj,btjd->btnd", of_nodes, contexts)
  return (word_blocks.add_rows(tables[0], tiles.context, step_context),
          word_blocks.add_rows(tables[1], tiles.node, step_theta)), loss, tiles.pairs


def mean_loss(
    tables: Tables, points: Int[Array, "rows L"], codes: Int[Array, "rows L"], draws: Draws, options: Skipgram,
    depth: int,
) -> Float[Array, ""]:
  """Returns the mean loss of a pair."""
  return _scored(tables, _arranged(points, codes, draws, options, depth))[-1]


def _arranged(points: Array, codes: Array, draws: Draws, options: Skipgram, depth: int) -> _Tiles:
  """Returns the paths, contexts and pairs of a batch."""
  token = tiled(draws.tokens, options.tile)
  path = points[:, :depth].at[token].get(mode="promise_in_bounds")
  turns = codes[:, :depth].at[token].get(mode="promise_in_bounds").astype(jnp.float32)
  paired = window_pairs(draws.document, draws.radius, window=options.window, tile=options.tile)
  in_a_row = lambda x: x.reshape(x.shape[:2] + (-1,))
  node = in_a_row(jnp.where(path >= 0, path, options.num_rows - 1))
  here = in_a_row(path >= 0)
  terms = jnp.repeat(paired, depth, 2) * here[..., None]
  return _Tiles(node, jnp.where(here, 1 - 2 * in_a_row(turns), 0),
                with_halo(token, options.window, options.vocab_size), terms, paired.sum())


def _scored(tables: Tables, tiles: _Tiles) -> tuple[Array, Array, Array, Array]:
  """Returns rows of both tables, sigma(sign * score), and the mean loss of a pair."""
  contexts = word_blocks.take_rows(tables[0], tiles.context)
  thetas = word_blocks.take_rows(tables[1], tiles.node)
  right = jax.nn.sigmoid(tiles.sign[..., None] * jnp.einsum("btnd,btdj->btnj", thetas, transposed(contexts)))
  return contexts, thetas, right, (tiles.terms * minus_log(right)).sum() / jnp.maximum(tiles.pairs, 1)
