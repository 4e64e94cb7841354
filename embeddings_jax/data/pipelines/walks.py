"""Starts of random walks; the walks are drawn where the model is, from a graph that stays on the device."""
import functools
from typing import Any

import numpy as np

from embeddings_jax.data import graphs, stand_ins
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders.nodes import NodeEncoder
from embeddings_jax.errors import InputError, check_choice
from embeddings_jax.types import Prepared, Source

ACCEPTS = ("graph",)
READ = graphs.read
UNIT = "walks"
FACTS = {"num_nodes": "Number of nodes", "max_degree": "Largest number of edges of a node",
         "walk_length": "Nodes of a walk", "visits": "Expected visits of each node by an epoch's first-order walks"}


def walks(dataset: Dataset, *, batch_size: int, seed: int, encoder: Any = None, num_walks: int = 80,
          walk_length: int = 40, unseen: str = "neighbors") -> Prepared:
  """Makes batches of `start` and `number` int32 `[batch_size]`, with the `graph` beside them, which is no example.

  `graph` has `indptr`, `indices` and, with weights, `thresholds` (see `ops/walks.py: Graph`), and `seed`. Walk i is a
  function of the graph, the seed and i alone. An epoch is `num_walks` walks from each node; each round visits all
  nodes in a random order, and no epoch repeats a walk.

  Args:
    dataset: A graph.
    batch_size: Walks of a batch.
    seed: Random seed of the data order and of the walks.
    num_walks: Walks from each node in an epoch.
    walk_length: Nodes of a walk.
    unseen: How new nodes are embedded: `neighbors`, the mean of their vectors, or `walks`, a vector that predicts the
      nodes which walks from the new node meet; the graph is then kept with the run.
  """
  check_choice("unseen", unseen, ["neighbors", "walks"])
  table, size = dataset.graph, len(dataset.items)
  for name, value in (("num_walks", num_walks), ("walk_length", walk_length)):
    if value < 1:
      raise InputError(f"{name}={value}: must be at least 1")
  if batch_size < 1:
    raise InputError(f"batch_size={batch_size}: must be at least 1")
  if len(table.indices) >= 2**31 or num_walks * size >= 2**31:
    raise InputError(f"{dataset.name}: {len(table.indices):,} edges and {num_walks * size:,} walks; at most "
                     f"{2**31 - 1:,} of each are supported")
  graph = {"indptr": table.indptr.astype(np.int32), "indices": table.indices, "seed": np.uint32(seed)}
  if table.weights is not None:
    graph["thresholds"] = graphs.weight_thresholds(table.indptr, table.weights)
  steps_per_epoch = -(-num_walks * size // batch_size)
  nodes_in_order = functools.lru_cache(maxsize=2)(  # A batch may straddle two rounds.
      lambda round_: np.random.default_rng((seed, round_)).permutation(size))

  def feed_at(step, rows=slice(None)):
    epoch, batch_index = divmod(step, steps_per_epoch)
    index = batch_index * batch_size + np.arange(batch_size)[rows]
    valid = index < num_walks * size
    number = epoch * num_walks * size + np.where(valid, index, 0)
    rounds, ranks = np.divmod(number, size)
    start = np.empty(len(number), np.int32)
    for round_ in np.unique(rounds):
      start[rounds == round_] = nodes_in_order(int(round_))[ranks[rounds == round_]]
    return {"start": start, "number": number.astype(np.uint32).view(np.int32), "mask": valid.astype(np.float32)}

  facts = {"num_rows": num_walks * size, "steps_per_epoch": steps_per_epoch, "num_nodes": size,
           "max_degree": int(np.diff(table.indptr).max()), "walk_length": walk_length,
           "visits": num_walks * graphs.expected_visits(table, walk_length)}
  source = Source(facts, batch_size, feed_at, lambda resident, feed: {**feed, "graph": dict(resident)}, graph,
                  shared=("graph",))
  encoder = NodeEncoder(table.names, [table.names[i] for i in table.isolated],
                        *((table, walk_length - 1) if unseen == "walks" else ()))
  return Prepared({"train": source}, encoder, dataset, facts)


def stand_in(item: stand_ins.Item, *, batch_size: int, num_walks: int = 80, walk_length: int = 40,
             **_: Any) -> stand_ins.StandIn:
  """Returns facts and batch shapes of an unweighted graph; see `stand_ins`."""
  num_nodes, num_edges = stand_ins.NUM_ROWS, 10 * stand_ins.NUM_ROWS
  facts = {"num_nodes": num_nodes, "max_degree": 100, "walk_length": walk_length,
           "visits": np.full(num_nodes, float(num_walks * walk_length))}
  prepared = stand_ins.stand_in(facts, batch_size, start=(np.int32,), number=(np.int32,))
  graph = {"indptr": stand_ins.spec(np.int32, num_nodes + 1), "indices": stand_ins.spec(np.int32, num_edges),
           "seed": stand_ins.spec(np.uint32)}
  return prepared._replace(batch={**prepared.batch, "graph": graph})
