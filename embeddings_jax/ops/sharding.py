"""Queries of the mesh in context, for models, which never receive one."""
import contextlib
import contextvars
import math
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

DATA_AXES = ("data", "fsdp")  # A batch is split over both; `model` splits the state alone.


_alone: contextvars.ContextVar[bool] = contextvars.ContextVar("alone", default=False)


@contextlib.contextmanager
def one_device() -> Iterator[None]:
  """Within the function of a `jax.shard_map`: what is traced is not split further, and the mesh counts as one device.
  """
  token = _alone.set(True)
  try:
    yield
  finally:
    _alone.reset(token)


def constrain(tree: Any, spec: P) -> Any:
  """Asks for a layout of every leaf; does nothing outside `jax.set_mesh`, nor within `jax.shard_map`."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or AxisType.Manual in mesh.axis_types:
    return tree
  return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, spec), tree)


def platform() -> str:
  """Returns the platform that the program is traced for: that of the context's mesh, or of the default backend.

  A program for a TPU may be traced on a host without one.
  """
  device = jax.sharding.get_abstract_mesh().abstract_device
  return device.platform if device is not None else jax.default_backend()


def num_data_shards() -> int:
  """Number of parts that the context's mesh splits a batch into (1 without a mesh)."""
  return _size(*DATA_AXES)


def num_model_shards() -> int:
  """Number of parts that the context's mesh splits heads, hidden units and vocabularies into (1 without a mesh)."""
  return _size("model")


def _size(*axes: str) -> int:
  if _alone.get():
    return 1
  shape = jax.sharding.get_abstract_mesh().shape
  return math.prod(shape.get(axis, 1) for axis in axes)
