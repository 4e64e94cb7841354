"""Names of nodes -> their numbers."""
import numpy as np

from embeddings_jax.data.encoders.base import TextEncoder
from embeddings_jax.data.files.names import format_names, read_names
from embeddings_jax.errors import InputError


class VertexEncoder(TextEncoder):
  """Names of nodes -> `node` int32 `[n]`; a file has a name a line."""

  kind = "vertices"

  def __init__(self, names):
    self.nodes = {name: i for i, name in enumerate(names)}

  def encode(self, items):
    unknown = [item for item in items if item not in self.nodes]
    if unknown:
      raise InputError(f"node {unknown[0]!r}: is not in the graph")
    return {"node": np.array([self.nodes[item] for item in items], np.int32),
            "mask": np.ones(len(items), np.float32)}

  def example(self):
    return self.encode([next(iter(self.nodes))])

  def options(self):
    return {}

  def files(self):
    return {"nodes.txt": format_names(list(self.nodes)).encode()}

  @classmethod
  def from_files(cls, options, folder):
    return cls(read_names(folder / "nodes.txt"))
