"""All edges of a graph as one batch."""
from typing import Any

import numpy as np

from embeddings_jax.data import graphs, stand_ins
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders.nodes import NodeEncoder
from embeddings_jax.data.files.graphs import build_graph
from embeddings_jax.data.sources import array_source
from embeddings_jax.errors import InputError
from embeddings_jax.types import Prepared

ACCEPTS = ("graph",)
READ = graphs.read
UNIT = "edges"
FACTS = {"num_nodes": "Number of nodes", "degrees": "Sum of the weights of each node's edges"}


def edges(dataset: Dataset, *, batch_size: int = 0, seed: int = 0, encoder: Any = None,
          symmetrize: bool = False) -> Prepared:
  """Makes one batch of `row` and `col` int32, `weight` and `mask` `[num_edges]`, sorted by row, then column.

  An undirected edge is in both rows, a loop once.

  Args:
    dataset: A graph.
    batch_size, seed: Without effect.
    symmetrize: Whether edges of a directed graph count in both directions; the larger weight is taken.

  Raises:
    InputError: The graph is directed, and `symmetrize` is not set.
  """
  table = dataset.graph
  row, col, weight = graphs.coordinates(table)
  if table.directed:
    if not symmetrize:
      raise InputError(f"{dataset.name}: is a directed graph, and the model's mathematics is of undirected ones; "
                       "symmetrize=True counts edges in both directions")
    table = build_graph(table.names, np.stack([row, col], 1), weight)
    row, col, weight = graphs.coordinates(table)
  facts = {"num_nodes": len(table.names), "degrees": np.bincount(row, weight, len(table.names))}
  source = array_source({"row": row, "col": col, "weight": weight.astype(np.float32)}, facts=facts)
  return Prepared({"train": source}, NodeEncoder(table.names, [table.names[i] for i in table.isolated]), dataset,
                  source.facts)


def stand_in(item: stand_ins.Item, *, batch_size: int, **_: Any) -> stand_ins.StandIn:
  """Returns facts and batch shapes; see `stand_ins`."""
  num_nodes = stand_ins.NUM_ROWS
  facts = {"num_nodes": num_nodes, "degrees": np.full(num_nodes, 10.0)}
  return stand_ins.stand_in(facts, 10 * num_nodes, row=(np.int32,), col=(np.int32,), weight=(np.float32,))
