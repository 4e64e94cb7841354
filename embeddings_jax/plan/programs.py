"""Compiles the programs of a training run without its data: initialization, update and evaluation."""
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from embeddings_jax.data.stand_ins import Item
from embeddings_jax.ops.sharding import DATA_AXES
from embeddings_jax.plan import arithmetic
from embeddings_jax.runs import build
from embeddings_jax.train import loop
from embeddings_jax.train import mesh as mesh_lib
from embeddings_jax.train.padding import Padding
from embeddings_jax.types import InputError, Model, PyTree, Source

STEPS = 1000  # Of schedules, where a config counts epochs.
INIT, UPDATE, HELD_OUT, EMBED = "init", "update", "held_out", "embed"


class Compiled(NamedTuple):
  """A compiled program.

  Attributes:
    text: The compiler's HLO.
    memory: The compiler's statistics of one device, or None.
    flops: Products that the traced program asks for, of all devices together.
    kernel_flops: Those of them in hand-written kernels.
  """

  text: str
  memory: Any
  flops: float
  kernel_flops: float


class Planned(NamedTuple):
  """Compiled programs of a run, and the memory that they take.

  Attributes:
    model: The model.
    state: Abstract state.
    layout: Sharding of each leaf of the state.
    batch: Abstract global batch.
    programs: Name -> `Compiled`.
    skipped: Name -> why a program cannot be compiled from a training batch.
  """

  model: Model
  state: PyTree
  layout: PyTree
  batch: Mapping[str, Any]
  programs: Mapping[str, Compiled]
  skipped: Mapping[str, str]


def compile_run(config: Mapping[str, Any], mesh: Mesh, *, num_rows: int = 0, item_shape: tuple[int, ...] = (),
                evaluation: bool = True, report: Callable[[str], None] = lambda line: None) -> Planned:
  """Compiles the programs of a config for the devices of a mesh, which need not be there.

  Args:
    config: A completed config.
    mesh: Devices, as of `jax.experimental.topologies`.
    num_rows: Rows of a set that is one batch, where the config has batches of all rows; 0: a typical number.
    item_shape: Shape of an item, as the features of a row or the sizes of an image; () for that of the dataset.
    evaluation: Whether to compile `held_out` and `embed` too.
    report: Receives the name of each program before it is compiled.
  """
  whole = not config["batch_size"]
  facts, batch = stand_in(config, num_rows, item_shape)
  model = build.make_model(config, facts, config["steps"] or STEPS)
  rows = len_of(batch)
  whole = whole or rows != config["batch_size"]
  mesh_lib.check_model_axis(mesh, model.rules)
  shards = mesh_lib.num_data_shards(mesh)
  if whole:
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((-(-rows // shards) * shards, *x.shape[1:]), x.dtype)
                         if x.shape[:1] == (rows,) else x, batch)
    rows = len_of(batch)
  else:
    mesh_lib.check_batch_size(mesh, rows)
  shared = tuple(name for name, tree in batch.items() if any(x.shape[:1] != (rows,) for x in jax.tree.leaves(tree)))
  with jax.set_mesh(mesh):
    return _compiled(model, batch, shared, whole, mesh, rows, evaluation, report)


def stand_in(config: Mapping[str, Any], num_rows: int = 0, item_shape: tuple[int, ...] = ()) -> Any:
  """Returns facts and an abstract batch; see `build.stand_in`."""
  config = {**config, "batch_size": config["batch_size"] or num_rows}
  if not item_shape:
    return build.stand_in(config)
  from embeddings_jax.data import catalog, pipelines

  entry = catalog.entries().get(config["data"]["name"])
  return pipelines.find(config["pipeline"]).stand_in(
      Item(entry.kind if entry else "unknown", item_shape), batch_size=config["batch_size"], **config["data"])


def len_of(batch: Mapping[str, Any]) -> int:
  """Number of rows of an abstract batch."""
  first = batch["mask"] if "mask" in batch else next(iter(batch.values()))
  return jax.tree.leaves(first)[0].shape[0]


def _compiled(model, batch, shared, whole, mesh, rows, evaluation, report) -> Planned:
  replicated, by_rows = NamedSharding(mesh, P()), NamedSharding(mesh, P(DATA_AXES))

  def laid(tree, sharding):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

  of_step = NamedSharding(mesh, P(None, DATA_AXES))
  fed = {} if whole else {name: tree for name, tree in batch.items() if name not in shared}
  kept = {name: tree for name, tree in batch.items() if name not in fed}
  resident = {name: laid(tree, replicated if name in shared else by_rows) for name, tree in kept.items()}
  feeds = {name: jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype, sharding=of_step), tree)
           for name, tree in fed.items()}
  source = Source({}, rows, lambda step, rows=slice(None): {}, lambda resident, feed: {**resident, **feed},
                  shared=shared, whole=whole)
  scalar = lambda dtype, *shape: jax.ShapeDtypeStruct(shape, dtype, sharding=replicated)
  make_state, many_updates = loop.programs(model, source)
  seed = scalar(jnp.uint32)
  abstract = jax.eval_shape(make_state, seed, resident, feeds)
  padding = Padding(abstract, mesh, model.rules)
  abstract, layout = padding.stored, padding.layout
  state = jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), abstract, layout)
  programs, skipped = {}, {}

  def compile_one(name: str, function: Callable, *arguments: Any, **options: Any) -> None:
    report(name)
    traced = jax.jit(function, **options).trace(*arguments)
    compiled = traced.lower().compile()
    programs[name] = Compiled(compiled.as_text(), compiled.memory_analysis(), arithmetic.flops(traced.jaxpr),
                              arithmetic.kernel_flops(traced.jaxpr))

  compile_one(INIT, padding.of(make_state), seed, resident, feeds, out_shardings=layout)
  compile_one(UPDATE, padding.around(many_updates), state, seed, scalar(jnp.int32, 1), scalar(jnp.int32), resident,
              feeds, donate_argnums=0, out_shardings=(layout, replicated))
  if evaluation:
    rows_of = {name: laid(tree, replicated if name in shared else by_rows) for name, tree in batch.items()}
    measured = next((name for name in ("measures", "loss") if name in model.outputs), None)
    for name, function in ((HELD_OUT, model.outputs.get(measured)), (EMBED, model.embed)):
      if function is None:
        continue
      try:
        compile_one(name, padding.reading(function), state, rows_of, out_shardings=replicated)
      except (KeyError, InputError) as error:  # It reads batches of the encoder, not those of the training.
        skipped[name] = f"reads other batches than the training ({str(error).strip()})"
  return Planned(model, abstract, layout, batch, programs, skipped)


def read_share(devices: np.ndarray) -> float:
  """Returns the rows that all hosts read together, by those of the global batch: 1 where no row is read twice.

  Args:
    devices: Those of a mesh, [data, fsdp, model].
  """
  by_shard = devices.reshape(-1, devices.shape[-1])
  hosts = [{device.process_index for device in shard} for shard in by_shard]
  return sum(map(len, hosts)) / len(hosts)


def shard_bytes(leaf: Any, sharding: NamedSharding) -> int:
  """Bytes of an abstract array that a device holds."""
  return math.prod(sharding.shard_shape(leaf.shape)) * np.dtype(leaf.dtype).itemsize if leaf.size else 0
