"""A graph as its adjacency matrix, the one batch of every step."""
import pathlib

import numpy as np
from scipy import sparse

from embeddings_jax import extensions
from embeddings_jax.data.dataset import Dataset, content_digest
from embeddings_jax.data.files.graphs import read_graph
from embeddings_jax.data.sources import array_source
from embeddings_jax.types import Prepared


def read(name, *, dataset=None, encoder=None, data_dir=None, cache_dir=None, allow_code=False, labels=""):
  """Reads an edge list, and the classes of its nodes from a file of `NODE CLASS` a line."""
  graph = read_graph(name)
  matrix = sparse.csr_array((np.ones(len(graph.indices)), graph.indices, graph.indptr)).toarray().astype(np.float32)
  classes = dict(line.split() for line in pathlib.Path(labels).read_text().splitlines()) if labels else {}
  return Dataset(name, "graph", list(graph.names), fingerprint=content_digest([matrix]), beside={"adjacency": matrix},
                 labels={"class": np.array([classes[node] for node in graph.names])} if labels else {})


ACCEPTS = ("graph",)
READ = read
FACTS = {"num_nodes": "Number of nodes"}


def graph(dataset, *, batch_size=0, seed=0):
  """Makes batches of `adjacency` `[num_nodes, num_nodes]`."""
  adjacency = dataset.beside["adjacency"]
  source = array_source({"adjacency": adjacency}, facts={"num_nodes": len(adjacency)})
  encoder = extensions.find("encoders", "vertices").VertexEncoder(dataset.items)
  return Prepared({"train": source}, encoder, dataset, source.facts)
