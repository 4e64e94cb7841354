"""Tables [n, R, ...] of n groups of R rows, of which every device holds its share of each group's rows.

A batch names some groups, one for each of its examples and none twice. A device reads its own examples' groups and
writes its own share of all groups of the batch: both are exchanges in which it sends and receives as many rows as its
own examples have, however many devices there are. Were tables whole on every device, each would need the changes of
all groups.
"""
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from embeddings_jax.ops.sharding import DATA_AXES, num_data_shards, num_model_shards
from embeddings_jax.types import Array, PyTree

# `model` comes first: then the shares that a data shard's exchange brings together are neighbors.
ROWS = P(None, ("model", *DATA_AXES))
MULTIPLE = 64  # Usual numbers of devices divide it.


def even_size(size: int) -> int:
  """Returns R for groups of `size` rows: with padding that lets up to 64 devices share it, unless that is a lot."""
  even = -(-size // MULTIPLE) * MULTIPLE
  return even if even <= size * 17 / 16 else size


def read(tables: PyTree, groups: Array) -> PyTree:
  """Returns the rows of some groups, [B, R, ...], split over the data axes as `groups` [B] is; 0 where >= n."""
  if _num_devices() == 1:
    return jax.tree.map(lambda table: _take(table, groups), tables)
  split = _is_split(tables)

  def local(tables, groups):
    every = jax.lax.all_gather(groups, DATA_AXES, tiled=True)

    def one(table):
      if not split:
        return _take(table, groups)
      rows = jax.lax.all_to_all(_take(table, every), DATA_AXES, split_axis=0, concat_axis=1, tiled=True)
      return rows if num_model_shards() == 1 else jax.lax.all_gather(rows, "model", axis=1, tiled=True)
    return jax.tree.map(one, tables)

  return jax.shard_map(local, in_specs=(ROWS if split else P(), P(DATA_AXES)), out_specs=P(DATA_AXES),
                       check_vma=False)(tables, groups)


def write(change: Callable[[PyTree, PyTree, Array], PyTree], tables: PyTree, changes: PyTree,
          groups: Array) -> PyTree:
  """Returns `tables` with some groups' rows changed, by each device its own ones.

  Args:
    change: `(tables, changes, rows) -> tables`, of flat tables [n R, ...], changes [m, ...] and the m rows that they
      belong to; rows that are not there are >= n R.
    tables: Tree of arrays [n, R, ...].
    changes: Tree of arrays [B, R, ...], split over the data axes.
    groups: [B], split likewise; >= n: nowhere.
  """

  def on_flat(tables, changes, groups):
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (tables, changes))
    size = jax.tree.leaves(tables)[0].shape[1]
    changed = change(*flat, _rows(groups, size).ravel())
    return jax.tree.map(lambda new, table: new.reshape(table.shape), changed, tables)

  if _num_devices() == 1:
    return on_flat(tables, changes, groups)
  split = _is_split(tables)

  def local(tables, changes, groups):
    def exchanged(x):
      if not split:
        return jax.lax.all_gather(x, DATA_AXES, tiled=True)
      share = x.shape[1] // num_model_shards()
      own = jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index("model") * share, share, 1)
      return jax.lax.all_to_all(own, DATA_AXES, split_axis=1, concat_axis=0, tiled=True)
    return on_flat(tables, jax.tree.map(exchanged, changes), jax.lax.all_gather(groups, DATA_AXES, tiled=True))

  layout = ROWS if split else P()
  return jax.shard_map(local, in_specs=(layout, P(DATA_AXES), P(DATA_AXES)), out_specs=layout,
                       check_vma=False)(tables, changes, groups)


def in_order(table: Array, size: int) -> Array:
  """Returns [n, R, ...] as [n size, ...], row i being row floor(i / n) of group i mod n."""
  return jnp.swapaxes(table[:, :size], 0, 1).reshape(-1, *table.shape[2:])


def _rows(groups: Array, size: int) -> Array:
  """[B] -> [B, R], places in a flat table. Whole groups as the windows of a scatter were copied on CPUs."""
  return groups[:, None] * size + jnp.arange(size)


def _take(table: Array, groups: Array) -> Array:
  flat = table.reshape(-1, *table.shape[2:])
  return flat.at[_rows(groups, table.shape[1])].get(mode="fill", fill_value=0)


def _num_devices() -> int:
  return num_data_shards() * num_model_shards()


def _is_split(tables: Any) -> bool:
  return all(table.shape[1] % _num_devices() == 0 for table in jax.tree.leaves(tables))
