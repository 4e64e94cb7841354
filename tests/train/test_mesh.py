"""Meshes, layouts, and which rows a process feeds."""
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from embeddings_jax.data.sources import array_source
from embeddings_jax.train import mesh as mesh_lib
from embeddings_jax.types import InputError


@pytest.mark.parametrize("spec,shape", [("", (8, 1, 1)), ("data:4,fsdp:2", (4, 2, 1)), ("model:2", (4, 1, 2)),
                                        ("fsdp:8", (1, 8, 1))])
def test_axes(spec, shape):
  assert tuple(mesh_lib.make_mesh(spec).shape.values()) == shape


@pytest.mark.parametrize("spec", ["data:3", "data:16", "rows:8", "data:0", "data", "data:4,data:2"])
def test_impossible_meshes_are_refused(spec):
  with pytest.raises(InputError, match="mesh="):
    mesh_lib.make_mesh(spec)


def test_rules_then_fsdp_then_replicated():
  mesh = mesh_lib.make_mesh("data:2,fsdp:2,model:2")
  state = {"table": jax.ShapeDtypeStruct((640, 100), jnp.float32),
           "odd_table": jax.ShapeDtypeStruct((641, 100), jnp.float32),
           "dense": {"kernel": jax.ShapeDtypeStruct((512, 1024), jnp.float32)},
           "step": jax.ShapeDtypeStruct((), jnp.int32)}
  layout = mesh_lib.state_shardings(state, mesh, [("table", P("model", None))])
  assert layout["table"].spec == P("model", None)
  assert layout["odd_table"].spec == P(None, None)  # 641 rows cannot be halved.
  assert layout["dense"]["kernel"].spec == P(None, "fsdp")
  assert layout["step"].spec == P()


def test_whole_sets_are_padded_to_the_shards():
  source = mesh_lib.padded(array_source({"x": np.arange(23.0)}), 8)
  batch = source.batch_at(3)
  assert source.batch_size == 24 and batch["x"][23] == 0
  np.testing.assert_array_equal(batch["mask"], [1] * 23 + [0])


def test_feeder_places_rows_of_every_step():
  mesh = mesh_lib.make_mesh("data:4,fsdp:2")
  feeder = mesh_lib.Feeder(mesh, 16)
  assert feeder.rows == [slice(0, 16)]
  placed = feeder([{"x": np.arange(16) + 100 * step} for step in range(3)])["x"]
  np.testing.assert_array_equal(placed, np.arange(16) + 100 * np.arange(3)[:, None])
  assert {shard.data.shape for shard in placed.addressable_shards} == {(3, 2)}


def test_devices_that_would_repeat_each_other_are_refused(mesh_of):
  from embeddings_jax.models.mixtures.kmeans import kmeans
  from embeddings_jax.train.loop import train

  source = array_source({"x": np.ones((8, 2), np.float32)}, 8)
  with pytest.raises(InputError, match="mesh=model:2: the model has no parameters that are split over `model`"):
    train(kmeans(num_components=2), source, steps=1, mesh=mesh_of("data:2,model:2"))
  mesh_lib.check_model_axis(mesh_of("data:2,model:2"), [("kernel", P(None, ("fsdp", "model")))])
  mesh_lib.check_model_axis(mesh_of("data:2,fsdp:2"), ())


def test_slices_are_split_along_data_alone():
  """Each slice is a block of consecutive rows of the mesh, whatever the order in which its devices come."""
  devices = [types.SimpleNamespace(id=i, platform="cpu", device_kind="cpu", process_index=i // 2, slice_index=i % 2)
             for i in range(16)]
  order = mesh_lib.arranged(devices, (2, 4, 1), slices=2)
  assert order.shape == (4, 4, 1)
  numbers = np.array([[device.slice_index for device in row] for row in order[..., 0]])
  np.testing.assert_array_equal(numbers, np.repeat([[0], [0], [1], [1]], 4, 1))
  assert sorted(device.id for device in order.ravel()) == list(range(16))


def test_slices_may_be_simulated():
  mesh = mesh_lib.make_mesh("dcn:2,data:2,fsdp:2")
  assert dict(mesh.shape) == {"data": 4, "fsdp": 2, "model": 1}
  assert dict(mesh_lib.make_mesh("dcn:2").shape) == {"data": 8, "fsdp": 1, "model": 1}
  with pytest.raises(InputError, match="mesh=dcn:3: needs 6 devices, and there are 8"):
    mesh_lib.make_mesh("dcn:3")


def test_a_torus_is_cut_where_no_axis_fits():
  """data:64,fsdp:4 of a slice of 16 x 16 chips."""
  chips = [types.SimpleNamespace(id=16 * y + x, platform="tpu", device_kind="TPU v6 lite", coords=(x, y, 0),
                                 core_on_chip=0, process_index=(16 * y + x) // 4, slice_index=0)
           for y in range(16) for x in range(16)]
  order = mesh_lib.arranged(chips, (64, 4, 1))
  assert order.shape == (64, 4, 1)
  assert sorted(chip.id for chip in order.ravel()) == list(range(256))
  for row in order[:, :, 0]:  # Those that share parameters are neighbors.
    assert max(abs(a.coords[i] - b.coords[i]) for a, b in zip(row, row[1:]) for i in (0, 1)) == 1


def test_a_process_reads_its_rows_and_no_others(mesh_of):
  """Its devices may hold rows in several places of the batch."""
  assert mesh_lib.joined({(8, 12), (0, 4), (4, 8), (20, 24)}) == [slice(0, 12), slice(20, 24)]
  asked = []

  def feed_at(step, rows):
    asked.append(rows)
    return {"x": 100 * step + np.arange(16)[rows]}

  feeder = mesh_lib.Feeder(mesh_of("data:4"), 16)
  feeder.rows = [slice(0, 4), slice(4, 8), slice(8, 16)]
  source = array_source({"x": np.zeros(16)}, 16)._replace(feed_at=feed_at)
  placed = feeder([feeder.read(source, step) for step in (0, 1)])["x"]
  assert asked == 2 * feeder.rows
  np.testing.assert_array_equal(placed, [np.arange(16), 100 + np.arange(16)])
