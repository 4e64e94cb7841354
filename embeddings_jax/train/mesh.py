"""Where arrays live: a named mesh, and the layout of states and batches on it."""
import functools
import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from embeddings_jax.ops.sharding import DATA_AXES
from embeddings_jax.types import InputError, PyTree, Rule, Source

AXES = ("data", "fsdp", "model")
FSDP_MIN_BYTES = 1 << 20  # Splitting smaller leaves costs more messages than it saves memory.


def make_mesh(spec: str = "", devices: Sequence[jax.Device] | None = None) -> Mesh:
  """A mesh with the axes `data`, `fsdp` and `model` over all devices.

  Args:
    spec: Sizes as `data:4,fsdp:2`. An axis that is left out has size 1; without `data`, that axis takes all devices
      that the others leave over. `dcn:2` is the number of slices, by default that of the devices: the other sizes are
      those within a slice, and `data` runs over slices too, so that only sums of gradients cross between them.
    devices: Devices; by default those of all processes.
  """
  devices = list(jax.devices() if devices is None else devices)
  sizes = {}
  for part in filter(None, spec.split(",")):
    axis, _, size = part.partition(":")
    if axis not in (*AXES, "dcn") or not size.isdigit() or int(size) < 1 or axis in sizes:
      raise InputError(f"mesh={spec}: {part!r} is not one of {', '.join(AXES)}, dcn with a size, as in data:4,fsdp:2")
    sizes[axis] = int(size)
  slices = sizes.setdefault("dcn", len({getattr(device, "slice_index", 0) for device in devices}))
  others = math.prod(size for axis, size in sizes.items() if axis != "data")
  sizes.setdefault("data", max(len(devices) // others, 1))
  shape = tuple(sizes.get(axis, 1) for axis in AXES)
  if math.prod(shape) * slices != len(devices):
    raise InputError(f"mesh={spec}: needs {math.prod(shape) * slices} devices, and there are {len(devices)}")
  # Auto, not Explicit: Flax modules and scatters are not written for sharding in types.
  return Mesh(arranged(devices, shape, slices), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def arranged(devices: Sequence[jax.Device], shape: Sequence[int], slices: int = 1) -> np.ndarray:
  """Returns devices in the order of a mesh: neighbors along an axis are close to each other.

  Args:
    devices: As many as `shape` within each slice.
    shape: Sizes of the axes within a slice.
    slices: Number of groups of devices with fast links, along the first axis.
  """
  whole = (slices * shape[0], *shape[1:])
  if len({getattr(device, "slice_index", 0) for device in devices}) == slices > 1:
    return mesh_utils.create_hybrid_device_mesh(shape, (slices, *[1] * (len(shape) - 1)), devices,
                                                allow_split_physical_axes=True)
  try:
    return mesh_utils.create_device_mesh(whole, devices)
  except NotImplementedError:  # An axis that is no product of whole axes of the torus, as 64 and 4 of 16 x 16.
    return mesh_utils.create_device_mesh(whole, devices, allow_split_physical_axes=True)


def num_data_shards(mesh: Mesh) -> int:
  """Number of parts that a batch is split into."""
  return math.prod(mesh.shape[axis] for axis in DATA_AXES)


def check_batch_size(mesh: Mesh, batch_size: int) -> None:
  """Raises unless every data shard gets as many rows as the others."""
  if batch_size % num_data_shards(mesh):
    raise InputError(f"batch_size={batch_size}: must be a multiple of the {num_data_shards(mesh)} data shards "
                     f"of the mesh {dict(mesh.shape)}")


def check_model_axis(mesh: Mesh, rules: Sequence[Rule]) -> None:
  """Raises if the devices along `model` would only repeat each other's work."""
  named = {axis for _, spec in rules for axes in spec for axis in spread(axes)}
  if mesh.shape["model"] > 1 and "model" not in named:
    raise InputError(f"mesh=model:{mesh.shape['model']}: the model has no parameters that are split over `model`, so "
                     "these devices would repeat each other's work; use data or fsdp")


def padded(source: Source, multiple: int) -> Source:
  """A source of whole sets with rows of `mask` 0 added, up to a multiple of the data shards.

  Raises:
    InputError: rows are missing and may not be added.
  """
  extra = -source.batch_size % multiple
  if not extra:  # Memory maps stay on the disk.
    return source
  if not source.may_pad:
    raise InputError(f"the {source.batch_size} blocks of the data cannot be shared out to {multiple} data shards; "
                     f"data.blocks={source.batch_size + extra} can")
  resident = {k: np.pad(v, [(0, extra)] + [(0, 0)] * (v.ndim - 1)) for k, v in source.resident.items()}
  return source._replace(batch_size=source.batch_size + extra, resident=resident)


def path_name(path: Sequence[Any]) -> str:
  """`params/encoder/kernel` of a leaf's key path."""
  return "/".join(str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", key)))) for key in path)


def state_shardings(abstract_state: PyTree, mesh: Mesh, rules: Sequence[Rule]) -> PyTree:
  """The layout of every leaf: the first rule that is found in its path, else fsdp's choice.

  With an `fsdp` axis above 1, a leaf without a rule is split along its largest dimension that the
  axis divides. A dimension that the mesh does not divide is replicated instead.
  """

  def choose(path, leaf):
    for pattern, spec in rules:
      if re.search(pattern, path_name(path)):
        return NamedSharding(mesh, _divisible(spec, leaf.shape, mesh))
    size = mesh.shape["fsdp"]
    if size > 1 and leaf.size * leaf.dtype.itemsize >= FSDP_MIN_BYTES:
      for dim in sorted(range(leaf.ndim), key=lambda d: -leaf.shape[d]):
        if leaf.shape[dim] % size == 0:
          return NamedSharding(mesh, P(*[None] * dim, "fsdp"))
    return NamedSharding(mesh, P())

  return jax.tree_util.tree_map_with_path(choose, abstract_state)


def undivided(abstract_state: PyTree, mesh: Mesh, rules: Sequence[Rule]) -> dict[str, str]:
  """Returns the leaves that a rule would split but the mesh does not divide: path -> `30522 rows over model:4`."""
  lost = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(abstract_state):
    name = path_name(path)
    spec = next((spec for pattern, spec in rules if re.search(pattern, name)), P())
    for size, axes, kept in zip(leaf.shape, spec, _divisible(spec, leaf.shape, mesh)):
      if axes and kept is None and (split := [axis for axis in spread(axes) if mesh.shape[axis] > 1]):
        lost[name] = f"{size} over {','.join(f'{axis}:{mesh.shape[axis]}' for axis in split)}"
  return lost


def replication_note(abstract_state: PyTree, mesh: Mesh, rules: Sequence[Rule]) -> str:
  """Returns one line that names the largest of the leaves in `undivided`, or "" if there are none."""
  lost = undivided(abstract_state, mesh, rules)
  if not lost:
    return ""
  bytes_of = {path_name(path): leaf.size * leaf.dtype.itemsize
              for path, leaf in jax.tree_util.tree_leaves_with_path(abstract_state)}
  first = max(lost, key=bytes_of.__getitem__)
  others = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
  return (f"mesh={dict(mesh.shape)}: {first}{others} cannot be split evenly ({lost[first]}), so every device holds "
          f"{sum(bytes_of[name] for name in lost) / 1e6:.1f} MB of them whole along that axis")


def _divisible(spec: P, shape: tuple[int, ...], mesh: Mesh) -> P:
  def fits(size, axes):
    return size % math.prod(mesh.shape[axis] for axis in spread(axes)) == 0
  return P(*[axes if fits(size, axes) else None for size, axes in zip(shape, spec)])


def spread(axes: str | Sequence[str] | None) -> tuple[str, ...]:
  """Returns the axes of the mesh that an entry of a `PartitionSpec` names."""
  return (axes,) if isinstance(axes, str) else tuple(axes or ())


def put(tree: PyTree, sharding: NamedSharding) -> PyTree:
  """Returns host arrays, whole on every process, as global arrays with the given layout."""
  return jax.tree.map(
      lambda array: jax.make_array_from_callback(array.shape, sharding, functools.partial(_part, array)), tree)


def _part(array: np.ndarray, index: tuple[slice, ...] | None) -> np.ndarray:
  return np.asarray(array[index])


def placed(state: PyTree, layout: PyTree) -> PyTree:
  """A state whose NumPy arrays, whole on every process, are put where the layout says; arrays of JAX stay."""
  # Copied: what is donated must not be the caller's.
  put = lambda value, sharding: value if isinstance(value, jax.Array) else jax.make_array_from_callback(
      value.shape, sharding, lambda index: np.array(value[index]))
  return jax.tree.map(put, state, layout)


def joined(ranges: Collection[tuple[int, int]]) -> list[slice]:
  """Returns disjoint ranges of rows in order, those that follow each other as one."""
  slices: list[slice] = []
  for start, stop in sorted(ranges):
    if slices and slices[-1].stop == start:
      slices[-1] = slice(slices[-1].start, stop)
    else:
      slices.append(slice(start, stop))
  return slices


class Feeder:
  """Puts this process's rows of the feeds of a dispatch onto its devices.

  Every process reads only the rows that its devices hold; the global batches are the same for any
  number of processes.
  """

  def __init__(self, mesh: Mesh, batch_size: int):
    self.sharding = NamedSharding(mesh, P(None, DATA_AXES))
    self._batch_size = batch_size
    held = self.sharding.addressable_devices_indices_map((1, batch_size)).values()
    self.rows = joined({index[1].indices(batch_size)[:2] for index in held})

  def read(self, source: Source, step: int) -> dict[str, np.ndarray]:
    """Returns this process's rows of a step's feed, those of `self.rows` one after another."""
    feeds = [source.feed_at(step, rows) for rows in self.rows]
    if len(feeds) == 1:
      return feeds[0]
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}

  def __call__(self, feeds: Sequence[Mapping[str, np.ndarray]]) -> dict[str, jax.Array]:
    """Places feeds, one for every step of the dispatch, as `read` gives them."""
    lengths = [rows.stop - rows.start for rows in self.rows]
    before = np.cumsum([0, *lengths[:-1]])

    def place(name):
      value = np.stack([feed[name] for feed in feeds])
      shape = (len(feeds), self._batch_size) + value.shape[2:]

      def read(index):
        start, stop, _ = index[1].indices(self._batch_size)
        offset = next(first - rows.start for first, rows in zip(before, self.rows) if rows.start <= start < rows.stop)
        return value[(index[0], slice(start + offset, stop + offset)) + index[2:]]

      return jax.make_array_from_callback(shape, self.sharding, read)

    return {name: place(name) for name in feeds[0]}
