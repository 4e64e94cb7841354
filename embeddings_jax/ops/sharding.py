"""Queries of the mesh in context, for models, which never receive one."""
from typing import Any

import jax
from jax.sharding import PartitionSpec as P

DATA_AXES = ("data", "fsdp")  # A batch is split over both; `model` splits the state alone.


def constrain(tree: Any, spec: P) -> Any:
  """Asks for a layout of every leaf; does nothing outside `jax.set_mesh`."""
  if jax.sharding.get_abstract_mesh().empty:
    return tree
  return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, spec), tree)


def num_data_shards() -> int:
  """Number of parts that the context's mesh splits a batch into (1 without a mesh)."""
  shape = jax.sharding.get_abstract_mesh().shape
  size = 1
  for axis in DATA_AXES:
    size *= shape.get(axis, 1)
  return size
