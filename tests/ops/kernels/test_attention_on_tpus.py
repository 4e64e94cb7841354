"""Attention as TPUs compute it: the kernel's values by interpretation, and dropout of some queries at a time."""
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from embeddings_jax.ops.kernels import attention, reference, splash
from embeddings_jax.ops.kernels.dropout import dropout, hash_bits


def heads(batch, time, num=1, width=8, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=(batch, time, num, width)), jnp.float32)


def value_and_slopes(function, arguments):
  @jax.jit
  def both(*arguments):
    value, back = jax.vjp(function, *arguments)
    return value, back(jnp.sin(jnp.arange(value.size, dtype=jnp.float32)).reshape(value.shape))
  return both(*arguments)


@pytest.mark.parametrize("case", ["padded", "causal"])
def test_splash_attention_equals_the_reference(case):
  """A row of padding alone sees every key; keys may be as many as they like where nothing is causal."""
  time, keys = (128, 128) if case == "causal" else (90, 70)
  arguments = heads(3, time, seed=1), heads(3, keys, seed=2), heads(3, keys, seed=3)
  if case == "causal":
    arguments = tuple(x[:1] for x in arguments)
    own = lambda *qkv: splash.splash(*qkv, causal=True, interpret=True)
    plain = lambda *qkv: reference.attention(*qkv, jnp.tril(jnp.ones((1, time, keys), bool)))
  else:
    valid = jnp.arange(keys) < jnp.array([[keys], [41], [0]])
    seen = jnp.broadcast_to((valid | ~valid.any(1, keepdims=True))[:, None], (3, time, keys))
    own = lambda *qkv: splash.splash(*qkv, valid, interpret=True)
    plain = lambda *qkv: reference.attention(*qkv, seen)
  actual, expected = value_and_slopes(own, arguments), value_and_slopes(plain, arguments)
  chex.assert_trees_all_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lengths, valid, causal, taken", [
    ((512, 512), 2, False, True), ((512, 512), None, True, True), ((197, 197), None, False, True),
    ((257, 257), None, False, False), ((64, 64), 2, False, False), ((128, 256), None, False, True),
    ((128, 256), None, True, False), ((512, 512), 3, False, False)])
def test_the_kernel_is_left_where_padding_or_the_mask_loses(lengths, valid, causal, taken):
  """257 would be padded to 384; a mask of every pair of positions is no segment."""
  query, key = (jnp.zeros((2, length, 2, 4)) for length in lengths)
  mask = None if valid is None else jnp.ones((2, *lengths[-valid + 1:]), bool)
  assert splash.takes(query, key, mask, causal) == taken


def test_rows_and_heads_that_the_mesh_does_not_divide_take_the_plain_form(mesh_of):
  x = lambda batch, num: jnp.zeros((batch, 128, num, 4))
  with jax.set_mesh(mesh_of("data:2,model:2")):
    assert splash.takes(x(2, 2), x(2, 2), None, False)
    assert not splash.takes(x(1, 2), x(1, 2), None, False) and not splash.takes(x(2, 3), x(2, 3), None, False)


def test_queries_in_chunks_drop_the_same_weights(time=10):
  query, key, value = (jnp.swapaxes(heads(2, time, 2, 4, seed), 1, 2) for seed in (1, 2, 3))
  rng, rate = jax.random.key(3), 0.3
  seen = (jnp.arange(time) < jnp.array([[time], [7]]))[:, None, None] & jnp.tril(jnp.ones((time, time), bool))

  def whole(query, key, value):
    weights = jax.nn.softmax(attention._scores(query, key, seen), axis=-1)
    return dropout(weights, rng, rate) @ value

  chunks = lambda *qkv: attention.in_chunks(*qkv, seen, rate, rng, size=4)
  actual, expected = (value_and_slopes(f, (query, key, value)) for f in (chunks, whole))
  chex.assert_trees_all_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_bits_of_a_part_are_those_of_the_whole():
  key, whole = jax.random.key(0), (3, 2, 8, 5)
  part = hash_bits(key, (3, 2, 4, 5), 4 * 5, whole)
  np.testing.assert_array_equal(part, hash_bits(key, whole)[:, :, 4:])


def test_programs_for_tpus_take_the_kernel_and_never_hold_all_scores():
  chip = AbstractDevice(device_kind="TPU v5e", num_cores=None, platform="tpu")
  mesh = AbstractMesh((2, 1, 2), ("data", "fsdp", "model"), axis_types=(AxisType.Auto,) * 3, abstract_device=chip)
  x = jax.ShapeDtypeStruct((2, 512, 2, 64), jnp.bfloat16)

  def traced(rate):
    rng = jax.random.key(0)
    with jax.sharding.use_abstract_mesh(mesh):
      return str(jax.make_jaxpr(lambda q, k, v: attention.attention(q, k, v, rate=rate, rng=rng)[0])(x, x, x))

  assert "pallas_call" in traced(0.0) and "2,2,512,512" not in traced(0.0)
  assert "pallas_call" not in traced(0.1) and "2,2,512,512" not in traced(0.1) and "2,2,128,512" in traced(0.1)


def test_remat_of_products_keeps_what_the_kernel_gave(capsys):
  """So the backward pass, which has kernels of its own, does not run it again."""
  from embeddings_jax.nets.transformer import REMAT

  def kept(policy):
    run = jax.checkpoint(lambda q, k, v: splash.splash(q, k, v, interpret=True), policy=REMAT[policy])
    jax.ad_checkpoint.print_saved_residuals(run, *[jnp.zeros((1, 128, 1, 8))] * 3)
    return capsys.readouterr().out.count("output of jitted function '_splash_attention'")

  assert (kept("full"), kept("dots")) == (0, 2)
