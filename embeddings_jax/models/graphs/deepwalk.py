"""DeepWalk (Perozzi, Al-Rfou & Skiena 2014, "DeepWalk: Online Learning of Social Representations", arXiv:1403.6652):
skip-gram on truncated random walks.

A walk at node v goes to a neighbor x with probability w(v, x) / sum_y w(v, y), as the paper's without weights. Node i
of a walk looks at all nodes j with 0 < |i - j| <= r_i, r_i uniform on 1 ... c. One step lowers, over its pairs,

  hierarchical softmax: L = - sum_i sum_j log p(v_i | Phi(v_j)), see `ops/hierarchical.py`
  negative sampling:
    L = - sum_i [ sum_j log sigma(Phi(v_i) . g(v_j)) + (k n_i / K) sum_m log sigma(-Phi(v_i) . g(m)) ]

with K noise nodes m ~ visits(v)^{3/4} / Z. The paper has the former, with i and j exchanged; its program, as
word2vec's, predicts a node from those around it. The default is the latter, which is seven times as fast.

| paper | here | shape |
|---|---|---|
| Phi | `state.input` | [n', d], n' > n, a multiple of 64 |
| Psi (tree), g | `state.output` | [n', d] |
| w (window) | `window` (c) | [] |
| t (walk length), gamma (walks from each node) | `walk_length` (a fact), `config.data.num_walks` | [] |

Deviations. (1) Frequencies of nodes are the expected visits of the walks, exactly, not a corpus' counts. (2) Noise
nodes are shared by the positions of a tile, and all pairs of a step see the tables of its start, see
`models/words/sgns.py`. (3) No walk is repeated in later epochs.

A node that the graph lacks gets the mean of its neighbors' vectors, or with `config.data.unseen=walks` the vector
that best predicts, by negative sampling and with that mean as a prior, the nodes which walks from it meet
(`ops/walk_skipgram.py: fitted`).

Split: random walk | a node | the nodes near it in the walk.

Expected: see `embeddings_jax/configs/deepwalk.py`.
"""
from collections.abc import Callable
from typing import Any

from embeddings_jax.ops.batches import takes
from embeddings_jax.ops.walk_skipgram import walk_model
from embeddings_jax.types import Array, Fact, Model


@takes(node=None, start=None, number=None, graph=None)
def deepwalk(
    *,
    num_nodes: Fact[int],
    max_degree: Fact[int],
    walk_length: Fact[int],
    visits: Fact[Any],
    num_steps: Fact[int | None] = None,
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
  """DeepWalk. A batch is `{"start": int32 [B], "number": int32 [B], "mask": [B], "graph": {...}}`.

  Args:
    num_nodes: Number of nodes.
    max_degree: Largest number of edges of a node.
    walk_length: Nodes of a walk.
    visits: Expected visits of each node by first-order walks, [num_nodes].
    num_steps: Updates of the whole run, for the linear decay.
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
  return walk_model("deepwalk", p=1.0, q=1.0, **locals())  # The arguments.
