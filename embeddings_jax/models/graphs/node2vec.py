"""node2vec (Grover & Leskovec 2016, "node2vec: Scalable Feature Learning for Networks", arXiv:1607.00653): skip-gram
with negative sampling on biased random walks.

A walk at node v that came from t goes to x with probability proportional to w(v, x) alpha(t, x), alpha = 1/p for
x = t, 1 for a neighbor x of t, 1/q otherwise. Node i of a walk looks at all j with 0 < |i - j| <= r_i, r_i uniform
on 1 ... c. One step lowers, over the n_i pairs of each position and K noise nodes m ~ P_n(v) = visits(v)^{3/4} / Z,

  L = - sum_i [ sum_j log sigma(f(v_i) . g(v_j)) + (k n_i / K) sum_m log sigma(-f(v_i) . g(m)) ].

| paper | here | shape |
|---|---|---|
| f, g | `state.input`, `state.output` | [n', d], n' > n, a multiple of 64 |
| p, q | `p`, `q` | [] |
| l, r (length and number of walks) | `walk_length` (a fact), `config.data.num_walks` | [] |
| k (context size) | `window` (c) | [] |
| ns | `num_negatives` (k) | [] |
| P_n | `state.noise`: cumulative, in units of 2**-32 | [n'] |

Deviations. (1) The paper's P_n goes by the corpus' counts, here by a pilot's, see `ops/walk_skipgram.py`. (2) Noise
nodes are shared by the positions of a tile, and all pairs of a step see the tables of its start, see
`models/words/sgns.py`. (3) No walk is repeated in later epochs. (4) On directed graphs alpha asks for the edge t ->
x, as the paper does; the authors' program asks for x -> t. (5) With `loss=hierarchical_softmax` the Huffman tree of
p, q other than 1 goes by the expected visits of first-order walks.

A node that the graph lacks gets the mean of its neighbors' vectors, or with `config.data.unseen=walks` the vector
that best predicts, by negative sampling and with that mean as a prior, the nodes which walks from it meet
(`ops/walk_skipgram.py: fitted`).

Split: random walk (second order) | a node | the nodes near it in the walk.

Expected: see `embeddings_jax/configs/node2vec.py`.
"""
from collections.abc import Callable
from typing import Any

from embeddings_jax.ops.batches import takes
from embeddings_jax.ops.walk_skipgram import walk_model
from embeddings_jax.types import Array, Fact, Model


@takes(node=None, start=None, number=None, graph=None)
def node2vec(
    *,
    num_nodes: Fact[int],
    max_degree: Fact[int],
    walk_length: Fact[int],
    visits: Fact[Any],
    num_steps: Fact[int | None] = None,
    p: float = 1.0,
    q: float = 1.0,
    dim: int = 128,
    window: int = 10,
    loss: str = "negative_sampling",
    num_negatives: int = 5,
    subsample: float = 0.0,
    negative_power: float = 0.75,
    learning_rate: float | Callable[[Array], Array] = 0.025,
    walks_per_step: int = 64,
    shared_negatives: int = 24,
    max_mass: float = 128.0,
    dtype: str = "float32",
) -> Model:
  """node2vec. A batch is `{"start": int32 [B], "number": int32 [B], "mask": [B], "graph": {...}}`.

  Args:
    num_nodes: Number of nodes.
    max_degree: Largest number of edges of a node.
    walk_length: Nodes of a walk.
    visits: Expected visits of each node by first-order walks, [num_nodes].
    num_steps: Updates of the whole run, for the linear decay.
    p: Return parameter: the larger, the rarer a walk returns at once.
    q: In-out parameter: the larger, the closer a walk stays to where it came from.
    dim: Size of the vectors.
    window: Largest distance in a walk between a node and its context.
    loss: `negative_sampling` or `hierarchical_softmax`.
    num_negatives: Weight of the noise nodes, per pair.
    subsample: Threshold of the relative frequency above which visits are thinned; 0 keeps all.
    negative_power: Exponent of the frequencies for noise nodes.
    learning_rate: A schedule, or the start of a linear decay to 1e-4 of it over `num_steps`.
    walks_per_step: Walks of a step; a batch of more makes several steps.
    shared_negatives: Noise nodes drawn for each tile of positions.
    max_mass: Most pairs' worth of gradient that one step may add to a row; see `models/words/sgns.py`.
    dtype: Type of the factors of the products, float32 or bfloat16; sums, tables and steps are float32.
  """
  return walk_model("node2vec", **locals())  # The arguments.
