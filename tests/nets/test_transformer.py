"""The transformer: what it attends to, its forms that must agree, what it refuses. Parity: tests of the models."""
import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hlo import collectives
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from embeddings_jax.nets.text_encoder import sinusoidal_positions, text_encoder
from embeddings_jax.nets.transformer import RULES, Transformer
from embeddings_jax.ops.kernels.attention import attention
from embeddings_jax.ops.sharding import DATA_AXES
from embeddings_jax.train.mesh import state_shardings
from embeddings_jax.types import InputError

HYPER = dict(vocab_size=30, dim=12, num_layers=2, num_heads=3, mlp_dim=20, max_length=10, num_segments=2,
             dropout=0.2, attention_dropout=0.3)
TOKENS = jnp.array([[1, 2, 3, 4, 5, 6], [7, 8, 9, -1, -1, -1]], jnp.int32)


def params_of(**hyper):
  module = text_encoder(**HYPER | hyper)
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(module.init, jax.random.key(0), TOKENS)
  return module, jax.tree.map(lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32), shapes)


def call(module, params, *args, method=None):
  return jax.jit(functools.partial(module.apply, method=method))(params, *args)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_padding_is_not_seen_and_layers_agree(norm):
  module, params = params_of(norm=norm)
  actual = call(module, params, TOKENS)
  short = call(module, params, TOKENS[1:, :3])
  np.testing.assert_allclose(actual[1, :3], short[0], rtol=1e-5, atol=1e-5)
  layers = call(module, params, TOKENS, method="hidden")
  assert layers.shape == (2, 3, 6, 12)
  np.testing.assert_allclose(layers[:, -1], actual, rtol=1e-6)
  np.testing.assert_array_equal(layers, call(module, params, {"tokens": TOKENS}, method="layers"))
  weights = np.asarray(call(module, params, TOKENS, method="attention"))
  np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
  assert not weights[1, ..., 3:].any()


@pytest.mark.parametrize("norm, num_layers", [("post", 2), ("pre", 1)])
def test_the_first_token_alone_is_that_of_all_with_its_gradient(norm, num_layers):
  module, params = params_of(norm=norm, num_layers=num_layers)

  def loss(params, method):
    actual = module.apply(params, {"tokens": TOKENS}, method=method)[:, :1]
    return jnp.square(actual).sum(), actual

  calls = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)
  (_, expected), gradients = calls(params, "features")
  (_, found), others = calls(params, "first")
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
  largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradients))
  chex.assert_trees_all_close(others, gradients, rtol=1e-4, atol=1e-5 * largest)


@pytest.mark.parametrize("valid", ["none", "padding", "nothing", "parts", "causal"])
def test_attention_and_its_own_backward_pass(valid):
  rng = np.random.default_rng(0)
  *inputs, weight = (jnp.asarray(rng.normal(size=(2, 6, 3, 8)), jnp.float32) for _ in range(4))
  parts = jnp.broadcast_to(jnp.arange(6) // 2, (2, 6))
  seen = {"padding": TOKENS[:, :6] >= 0, "parts": parts[:, :, None] == parts[:, None],
          "nothing": jnp.zeros((2, 6), bool)}.get(valid)

  def plain(query, key, value):
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / 8**0.5
    if valid == "causal":
      scores = jnp.where(jnp.arange(6)[:, None] >= jnp.arange(6), scores, -1e30)
    elif seen is not None:
      scores = jnp.where(seen[:, None] if seen.ndim == 3 else seen[:, None, None], scores, -1e30)
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), value)

  own = lambda *inputs: attention(*inputs, seen, causal=valid == "causal")[0]
  loss = lambda attend: lambda *inputs: (weight * jnp.tanh(attend(*inputs))).sum()
  for actual, expected in zip([own(*inputs), *jax.grad(loss(own), (0, 1, 2))(*inputs)],
                              [plain(*inputs), *jax.grad(loss(plain), (0, 1, 2))(*inputs)]):
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("valid, time", [
    ("none", 6), ("padding", 6), ("parts", 6), ("none", 5), ("padding", 5), ("causal", 5)])
def test_on_a_gpu_cudnn_is_asked_for_no_mask_and_no_length_that_it_refuses(monkeypatch, valid, time):
  """A mask's last axes must be those of queries and keys, and lengths even; with even ones run on an H200 as well,
  where bfloat16 gave XLA's values."""
  rng = np.random.default_rng(0)
  inputs = [jnp.asarray(rng.normal(size=(2, time, 2, 8)), jnp.bfloat16) for _ in range(3)]
  weight = rng.normal(size=(2, time, 2, 8))
  parts = jnp.broadcast_to(jnp.arange(time) // 2, (2, time))
  seen = {"padding": TOKENS[:, :time] >= 0, "parts": parts[:, :, None] == parts[:, None]}.get(valid)

  def loss(*inputs):
    actual = attention(*inputs, seen, causal=valid == "causal")[0].astype(jnp.float32)
    return (weight * actual).sum(), actual

  calls = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)
  expected = calls(*inputs)
  xla = jax.nn.dot_product_attention

  def like_cudnn(query, key, value, *, implementation, mask=None, **others):
    assert implementation == "cudnn" and query.shape[1] == key.shape[1] == value.shape[1] == 6
    assert mask is None or mask.shape[2:] == (6, 6)
    return xla(query, key, value, mask=mask, **others)

  monkeypatch.setattr(jax.nn, "dot_product_attention", like_cudnn)
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  ((_, found), slopes), ((_, value), gradients) = calls(*inputs), expected
  np.testing.assert_array_equal(found, value)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(*(np.asarray(x, np.float32) for x in (a, b)), atol=0.03),
               slopes, gradients)


def test_a_causal_network_knows_nothing_of_what_comes_after():
  module, params = params_of(norm="pre", causal=True)
  changed = TOKENS.at[0, 4].set(20)
  one, other = (np.asarray(call(module, params, tokens)) for tokens in (TOKENS, changed))
  np.testing.assert_array_equal(one[0, :4], other[0, :4])
  assert np.abs(one[0, 4:] - other[0, 4:]).min() > 0
  weights = np.asarray(call(module, params, TOKENS, method="attention"))
  assert not np.triu(weights[0, 0, 0], 1).any()


def test_dropout_remat_and_unrolling_change_nothing_else():
  module, params = params_of(norm="post")

  def loss(module, params):
    rngs = {"dropout": jax.random.key(3)}
    return jnp.square(module.apply(params, TOKENS, deterministic=False, rngs=rngs)).sum()

  expected = jax.jit(jax.value_and_grad(lambda p: loss(module, p)))(params)
  for options in ({"remat": "full"}, {"remat": "dots"}, {"unroll": 2}):
    other = text_encoder(**HYPER | options)
    actual = jax.jit(jax.value_and_grad(lambda p, other=other: loss(other, p)))(params)
    chex.assert_trees_all_close(actual, expected, rtol=1e-4, atol=1e-4)
  assert abs(float(expected[0]) - float(jnp.square(call(module, params, TOKENS)).sum())) > 0.1


@pytest.mark.parametrize("remat, named", [("none", None), ("full", []), ("dots", [48, 16, 32, 16] * 2)])
def test_layers_keep_what_their_policy_names(capsys, remat, named):
  """Beside parameters: each layer's input, and with `dots` the results of its four products, 12 rows of each."""
  module, x = Transformer(num_layers=2, num_heads=2, mlp_dim=32, remat=remat, unroll=2), jnp.zeros((2, 6, 16))
  params = jax.eval_shape(module.init, jax.random.key(0), x)
  jax.ad_checkpoint.print_saved_residuals(lambda params, x: module.apply(params, x).sum(), params, x)
  lines = re.findall(r"^f32\[12,(\d+)\] (\S+ 'product')?", capsys.readouterr().out, re.MULTILINE)
  kept = [(int(width), name) for width, name in lines]
  if named is None:
    assert len(kept) > 12
    return
  assert [width for width, name in kept if name] == named
  assert [width for width, name in kept if not name] == [16, 16]


def test_bfloat16_is_close_and_keeps_float32_parameters():
  module, params = params_of(dtype="bfloat16")
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
  actual = call(module, params, TOKENS)
  assert actual.dtype == jnp.bfloat16
  expected = call(text_encoder(**HYPER), params, TOKENS)
  np.testing.assert_allclose(np.asarray(actual, np.float32), expected, atol=0.1)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("bfloat16", 0.2)])
def test_what_accelerators_compute_otherwise_is_the_same(monkeypatch, dtype, tolerance):
  """Scores of a padded vocabulary, LayerNorm in one pass, products that round their sums."""
  module, params = params_of(dtype=dtype)

  def loss(params):
    scores = module.apply(params, module.apply(params, TOKENS), jnp.arange(30.0), method="decode")
    return jnp.square(scores).mean(), scores

  calls = jax.value_and_grad(loss, has_aux=True)
  (_, expected), gradients = calls(params)
  assert expected.shape == (2, 6, 30)
  monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
  (_, actual), others = calls(params)
  np.testing.assert_allclose(actual, expected, atol=tolerance)
  largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradients))
  chex.assert_trees_all_close(others, gradients, atol=tolerance * largest)


def test_positions():
  actual = np.asarray(sinusoidal_positions(9, 6))
  for position, i in ((0, 0), (5, 1), (8, 2)):
    angle = position / 10_000 ** (2 * i / 6)
    np.testing.assert_allclose(actual[position, 2 * i:2 * i + 2], [np.sin(angle), np.cos(angle)], atol=1e-6)


def test_heads_begin_at_the_neighbors():
  """Scores of positions are the written sum; on random tokens each head's mean attention is highest at its offset."""
  hyper = HYPER | dict(dim=128, num_heads=4, vocab_size=500, max_length=40, position_init="neighbors")
  tokens = jax.random.randint(jax.random.key(1), (16, 40), 0, 500)
  module = text_encoder(**hyper)
  params = module.init(jax.random.key(0), tokens)["params"]
  waves = np.asarray(params["position_embedding"]) / (0.02 * 2**0.5)
  kernel, width = np.asarray(params["layers"]["qkv"]["kernel"]), 32
  attention = module.apply({"params": params}, tokens, method="attention")[:, 0].mean(0)
  speeds = 10_000.0 ** (-np.arange(0, width, 2) / 128)
  place = np.arange(40)
  for head, offset in enumerate((-1, 1, -2, 2)):
    scores = (waves @ kernel[0, :, 0, head]) @ (waves @ kernel[0, :, 1, head]).T / width**0.5
    apart = place[:, None] + offset - place
    expected = 3 * 8 / width * np.cos(speeds * apart[..., None]).sum(-1)
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    mean = [np.diagonal(attention[head], step)[5:-5].mean() for step in range(-5, 6)]
    assert np.argmax(mean) == offset + 5 and max(mean) > 0.2  # A 40th each otherwise.
  plain = text_encoder(**hyper | {"position_init": "sinusoidal"}).init(jax.random.key(0), tokens)["params"]
  np.testing.assert_array_equal(plain["layers"]["qkv"]["kernel"][1], kernel[1])
  np.testing.assert_array_equal(plain["layers"]["qkv"]["kernel"][0, :, 2], kernel[0, :, 2])


@pytest.mark.parametrize("options,expected", [
    ({"position_init": "neighbors", "num_heads": 1}, "position_init='neighbors': needs learned positions"),
    ({"dim": 13}, "dim=13: must be a multiple of num_heads=3"),
    ({"norm": "middle"}, "norm='middle': must be one of post, pre"),
    ({"activation": "tanh"}, "activation='tanh'"),
    ({"dropout": 1.0}, r"dropout=1.0: must lie in \[0, 1\)"),
])
def test_what_does_not_fit_is_refused(options, expected):
  with pytest.raises(InputError, match=expected):
    text_encoder(**HYPER | options)


def test_too_long_a_text_is_refused():
  module, params = params_of()
  with pytest.raises(InputError, match="11 tokens: the encoder knows positions up to 10"):
    module.apply(params, jnp.zeros((1, 11), jnp.int32))


def compiled_gradient(mesh, only):
  """Returns the program of a gradient of a stack whose activations, [256, 16, 32], outweigh its parameters."""
  stack = Transformer(num_layers=3, num_heads=4, mlp_dim=64, norm="pre")
  with jax.set_mesh(mesh):
    params = jax.eval_shape(stack.init, jax.random.key(0), jnp.zeros((1, 16, 32)))
    rules = [(pattern.removeprefix("layers/"), spec) for pattern, spec in RULES]
    layout = state_shardings(params, mesh, rules)
    described = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), params, layout)
    x = jax.ShapeDtypeStruct((256, 16, 32), jnp.float32, sharding=NamedSharding(mesh, P(DATA_AXES)))
    loss = lambda params, x: jnp.square(stack.apply(params, x, only=only)).mean()
    return jax.jit(jax.grad(loss), out_shardings=layout).lower(described, x).compile()


@pytest.mark.parametrize("only", [None, slice(1)])
def test_heads_are_split_where_they_are_computed(only, mesh_of):
  """Tensor parallelism adds up activations once after attention and once after the MLP, and moves nothing else."""
  moved = collectives(compiled_gradient(mesh_of("data:2,model:4"), only))
  assert {operation for operation, _ in moved} == {"all-reduce"}


@pytest.mark.parametrize("norm, only", [("post", None), ("pre", slice(2))])
def test_heads_on_several_devices_give_what_one_gives(norm, only, mesh_of):
  stack = Transformer(num_layers=2, num_heads=4, mlp_dim=64, norm=norm)
  x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 6, 32)), jnp.float32)
  params = stack.init(jax.random.key(0), x)
  call = lambda params, x: jnp.square(stack.apply(params, x, only=only)).sum()
  expected = jax.jit(jax.value_and_grad(call))(params, x)
  with jax.set_mesh(mesh_of("data:2,model:4")):
    chex.assert_trees_all_close(jax.jit(jax.value_and_grad(call))(params, x), expected, rtol=1e-4, atol=1e-4)
