"""Queries of the mesh in context."""
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from embeddings_jax.nets.text_encoder import text_encoder
from embeddings_jax.ops.sharding import num_data_shards, num_model_shards, platform


def described(kind, name):
  """A mesh of four chips that this host does not have."""
  return AbstractMesh((2, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2,
                      abstract_device=AbstractDevice(device_kind=kind, num_cores=None, platform=name))


@pytest.mark.parametrize("kind, name", [("TPU v5e", "tpu"), ("NVIDIA H200", "gpu")])
def test_the_platform_is_that_of_the_mesh_and_not_of_the_host(kind, name):
  assert platform() == jax.default_backend()
  with jax.sharding.use_abstract_mesh(described(kind, name)):
    assert platform() == name
    assert (num_data_shards(), num_model_shards()) == (2, 2)
  assert (num_data_shards(), num_model_shards()) == (1, 1)


def test_a_program_for_a_tpu_is_traced_on_a_host_without_one():
  """Scores of a vocabulary are padded to 128 columns on accelerators alone."""
  network = text_encoder(vocab_size=30, dim=8, num_layers=1, num_heads=2, mlp_dim=8, max_length=4)
  params = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 4), jnp.int32))
  call = lambda params, x: network.apply(params, x, method="decode")
  x = jax.ShapeDtypeStruct((4, 8), jnp.float32)
  assert "128" not in str(jax.make_jaxpr(call)(params, x))
  with jax.sharding.use_abstract_mesh(described("TPU v5e", "tpu")):
    assert "f32[4,128]" in str(jax.make_jaxpr(call)(params, x))
