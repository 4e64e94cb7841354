"""Gradients that are sent in fewer bits: their error, what moves, and what cannot be summed so."""
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hlo import collectives
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from embeddings_jax.gradient import CoupledLoss, gradient_model
from embeddings_jax.ops.sharding import DATA_AXES
from embeddings_jax.plan import arithmetic
from embeddings_jax.runs import build, presets
from embeddings_jax.types import InputError

SHAPE = (64, 128)
MASK = np.ones(32, np.float32)
MASK[[0, 1, 5, 30]] = 0  # Shards, of four rows each, weigh 2/28, 3/28, 4/28, ..., 3/28.
X = np.random.default_rng(0).normal(size=(32, SHAPE[0])).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(32, SHAPE[1])).astype(np.float32)


def loss_fn(params, extra, batch, rng):
  error = ((batch["x"] @ params["w"] + params["b"] - batch["y"]) ** 2).sum(1)
  loss = (error * batch["mask"]).sum() / batch["mask"].sum()
  return loss, ({"double": 2 * loss}, extra)


def model_of(dtype, loss=loss_fn, extra=(), **options):
  params = {"w": jnp.zeros(SHAPE), "b": jnp.zeros(SHAPE[1])}
  model = gradient_model(lambda rng, batch: (params, extra), loss, lambda *_: None, optax.sgd(1.0), **options)
  return build.with_gradient_dtype(model, dtype)


def lowered_update(model, mesh):
  """An update on the mesh, lowered, and its arguments."""
  rows = NamedSharding(mesh, P(DATA_AXES))
  state = jax.device_put(model.init(jax.random.key(0), None), NamedSharding(mesh, P()))
  batch = {name: jax.device_put(x, rows) for name, x in (("x", X), ("y", Y), ("mask", MASK))}
  with jax.set_mesh(mesh):
    return jax.jit(model.update).lower(state, batch, jax.random.key(0)), (state, batch, jax.random.key(0))


def test_the_error_is_that_of_two_roundings_and_half_the_bytes_are_summed(mesh_of):
  """With w = b = 0 the gradient of a shard's mean is -2 X' Y / n, which is known."""
  terms = np.stack([-2 * x.T.astype(np.float64) @ y / MASK.sum()
                    for x, y in zip(np.split(X * MASK[:, None], 8), np.split(Y, 8))])
  total, size = terms.sum(0), np.abs(terms).sum(0)
  lowered, arguments = lowered_update(model_of("bfloat16"), mesh_of("data:8"))
  compiled = lowered.compile()
  state, metrics = compiled(*arguments)
  actual = -np.asarray(state.params["w"], np.float64)
  assert (np.abs(actual - total) <= 2.0**-8 * 1.01 * (size + np.abs(total)) + 1e-6).all()
  error = np.linalg.norm(actual - total) / np.linalg.norm(total)
  assert 1e-3 < error < 3e-3, error  # Of at most 2^-8 = 4e-3 for each of the terms and for the sum.
  loss = ((Y**2).sum(1) * MASK).sum() / MASK.sum()
  np.testing.assert_allclose([metrics["loss"], metrics["double"]], [loss, 2 * loss], rtol=1e-5)
  np.testing.assert_allclose(state.params["b"], 2 * (Y * MASK[:, None]).sum(0) / MASK.sum(), atol=1e-5)

  # What is asked for, as compilers for CPUs add in float32; no other collective, and none in a loop.
  sums = re.findall(r"stablehlo\.all_reduce.*?\}\) : \(tensor<(?:([\dx]+)x)?(\w+)>\)", lowered.as_text(), re.DOTALL)
  assert ("64x128", "bf16") in sums and ("128", "f32") in sums
  assert all(not sizes for sizes, dtype in sums if (sizes, dtype) not in (("64x128", "bf16"), ("128", "f32")))
  assert {kind for kind, _ in collectives(compiled)} == {"all-reduce"}


def test_one_device_rounds_nothing(mesh_of):
  one, other = (lowered_update(model_of(dtype), mesh_of("data:1"))[0].as_text() for dtype in ("", "bfloat16"))
  assert one == other and "all_reduce" not in one


def test_a_network_is_traced_for_each_shard_alone(mesh_of):
  """Nothing in it splits rows again, and the large kernels and tables are summed in bfloat16."""
  config = presets.load_config("bert", "tiny")
  config.gradient_dtype = "bfloat16"
  facts, batch = build.stand_in(config)
  model = build.make_model(config, facts, 10)
  with jax.set_mesh(mesh_of("data:8")):
    state = jax.eval_shape(model.init, jax.random.key(0), batch)
    jaxpr = jax.make_jaxpr(model.update)(state, batch, jax.random.key(0))
  assert str(jaxpr).count("shard_map[") == 1
  actual = {x.aval.shape for x in sums_of(jaxpr.jaxpr) if x.aval.dtype == jnp.bfloat16}
  assert actual == {x.shape for x in jax.tree.leaves(state.params) if x.size >= 1 << 12} != set()


def sums_of(jaxpr):
  """Operands of the sums over devices."""
  for equation in jaxpr.eqns:
    if equation.primitive.name.startswith("psum"):
      yield from equation.invars
    for inner in arithmetic.inner(equation.params):
      yield from sums_of(inner)


def coupled(params, extra, rows, batch):
  return loss_fn(params, extra, batch, None)


@pytest.mark.parametrize("spec, options, message", [
    ("data:4,fsdp:2", {}, "needs a mesh with the axis data alone"),
    ("data:8", {"coupled": True}, "couples the examples"),
    ("data:8", {"loss": CoupledLoss(lambda *_: jnp.zeros(32), coupled)}, "couples the examples"),
    ("data:8", {"extra": {"mean": jnp.zeros(3)}}, "moves statistics")])
def test_what_cannot_be_summed_by_shards_is_refused(mesh_of, spec, options, message):
  model = model_of("bfloat16", **options)
  batch = {"x": X, "y": Y, "mask": MASK}
  with jax.set_mesh(mesh_of(spec)), pytest.raises(InputError, match=message):
    jax.eval_shape(model.update, model.init(jax.random.key(0), None), batch, jax.random.key(0))


def test_other_models_and_types_are_refused():
  config = presets.load_config("gmm", "tiny")
  facts, batch = build.stand_in(config)
  model = build.with_gradient_dtype(build.make_model(config, facts, 10), "bfloat16")
  state = jax.eval_shape(model.init, jax.random.key(0), batch)
  with pytest.raises(InputError, match="gradient_dtype=bfloat16: the model's update is not one step"):
    jax.eval_shape(model.update, state, batch, jax.random.key(0))
  with pytest.raises(InputError, match="gradient_dtype=int8: unknown"):
    build.with_gradient_dtype(model, "int8")
