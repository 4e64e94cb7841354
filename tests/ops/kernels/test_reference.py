"""Each kernel has the value and the gradients of its plain form."""
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax.ops.kernels import attention, dropout, layer_norm, product, reference, softmax

B, T, D, V = 2, 5, 8, 11


def array(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


X, KERNEL, BIAS, TABLE = array(B, T, D), array(D, V, seed=1), array(V, seed=2), array(V + 2, D, seed=3)
HEADS = tuple(array(B, T, 2, 4, seed=seed) for seed in (4, 5, 6))
VALID = jnp.arange(T)[None] < jnp.array([T, 3])[:, None]
WEIGHT, TARGETS = jnp.abs(array(B, T, seed=7)), jnp.arange(B * T).reshape(B, T) % V
KEY = jax.random.key(0)

CASES = {
    "affine": (product.affine, reference.affine, (X, KERNEL, BIAS)),
    "dropout": (lambda x: dropout.dropout(x, KEY, 0.3),
                lambda x: reference.dropout(x, dropout.keep_mask(KEY, x.shape, 0.3), 0.3), (X,)),
    "layer_norm": (lambda x, s, b: layer_norm.layer_norm(x, {"scale": s, "bias": b}, 1e-5),
                   lambda x, s, b: reference.layer_norm(x, s, b, 1e-5), (X, array(D, seed=8), array(D, seed=9))),
    "unit_norm": (lambda x: layer_norm.unit_norm(x, 1e-5),
                  lambda x: reference.layer_norm(x, jnp.ones(D), jnp.zeros(D), 1e-5), (X,)),
    "attention": (lambda *qkv: attention.attention(*qkv, VALID)[0],
                  lambda *qkv: reference.attention(*qkv, jnp.broadcast_to(VALID[:, None], (B, T, T))), HEADS),
    "causal_attention": (lambda *qkv: attention.attention(*qkv, causal=True)[0],
                         lambda *qkv: reference.attention(*qkv, jnp.tril(jnp.ones((B, T, T), bool))), HEADS),
    "cross_entropy": (lambda q, t: softmax.cross_entropy(q, t, TARGETS, WEIGHT, 4)[0],
                      lambda q, t: reference.cross_entropy(q, t, TARGETS, WEIGHT), (X, TABLE)),
    "weighted_log_partition": (lambda q, t: softmax.weighted_log_partition(q, t, WEIGHT, V, 4),
                               lambda q, t: reference.weighted_log_partition(q, t, WEIGHT, V), (X, TABLE)),
}


@pytest.mark.parametrize("name", CASES)
def test_kernel_equals_reference(name):
  kernel, plain, arguments = CASES[name]
  value = kernel(*arguments)
  chex.assert_trees_all_close(value, plain(*arguments), rtol=1e-5, atol=1e-5)
  direction = array(*value.shape, seed=10)
  slopes = [jax.grad(lambda args, fn=fn: (fn(*args) * direction).sum())(arguments) for fn in (kernel, plain)]
  chex.assert_trees_all_close(*slopes, rtol=1e-4, atol=1e-5)
