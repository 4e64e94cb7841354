"""LayerNorm with backward passes of its own."""
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Float

from embeddings_jax.ops.sharding import platform
from embeddings_jax.types import Array


def layer_norm(
    x: Float[Array, "*shape dim"],
    params: Mapping[str, Array],
    epsilon: float,
    dtype: DTypeLike = jnp.float32,
) -> Float[Array, "*shape dim"]:
  """LayerNorm over the last axis in float32 (Ba et al. 2016, arXiv:1607.06450).

  Args:
    x: Any data type.
    params: `scale` and `bias`, [dim].
    epsilon: added to the variance.
    dtype: Data type of the result.
  """
  return _normalized(x, params["scale"], params["bias"], epsilon, dtype)


def unit_norm(
    x: Float[Array, "*shape dim"], epsilon: float, dtype: DTypeLike = jnp.float32,
) -> Float[Array, "*shape dim"]:
  """`layer_norm` with a scale of one and no bias, which are left to the affine map that follows (`folded`).

  For its backward pass it keeps what it returns, which that map keeps as well; and the sums over rows for the
  gradients of scale and bias are gone. A training step of a masked autoencoder took .97 of the time on two cores.
  """
  return _unit(x, epsilon, dtype, x.dtype)


def folded(
    norm: Mapping[str, Array], kernel: Float[Array, "n m"], bias: Float[Array, " m"],
) -> tuple[Float[Array, "n m"], Float[Array, " m"]]:
  """Kernel and bias of the affine map after a LayerNorm, for the unit norm: (u s + b) K + c = u (s K) + (b K + c)."""
  moved = jnp.matmul(norm["bias"], kernel, precision=jax.lax.Precision.HIGHEST)
  return norm["scale"][:, None] * kernel, moved + bias


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _normalized(x, scale, bias, epsilon, dtype):
  return _forward(x, scale, bias, epsilon, dtype)[0]


def _forward(x, scale, bias, epsilon, dtype):
  centered, mean, rate = _statistics(x, epsilon)
  return (centered * rate * scale + bias).astype(dtype), (x, scale, mean, rate)


def _backward(epsilon, dtype, saved, cotangent):
  x, scale, mean, rate = saved
  normalized = (x.astype(jnp.float32) - mean) * rate
  cotangent = cotangent.astype(jnp.float32)
  axes = tuple(range(x.ndim - 1))
  along = _along(cotangent * scale, normalized, rate, x.dtype)
  return along, (cotangent * normalized).sum(axes), cotangent.sum(axes)


_normalized.defvjp(_forward, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _unit(x, epsilon, dtype, output_dtype):
  return _unit_forward(x, epsilon, dtype, output_dtype)[0]


def _unit_forward(x, epsilon, dtype, output_dtype):
  centered, _, rate = _statistics(x, epsilon)
  normalized = (centered * rate).astype(dtype)
  return normalized, (normalized, rate)


def _unit_backward(epsilon, dtype, output_dtype, saved, cotangent):
  normalized, rate = saved
  return _along(cotangent.astype(jnp.float32), normalized.astype(jnp.float32), rate, output_dtype),


_unit.defvjp(_unit_forward, _unit_backward)


def _statistics(x, epsilon):
  """x less its mean, the mean, and one over the deviation."""
  wide = x.astype(jnp.float32)
  mean = wide.mean(-1, keepdims=True)
  centered = wide - mean
  if platform() == "cpu":
    variance = jnp.square(centered).mean(-1, keepdims=True)
  else:  # In one pass, which XLA joins with whatever makes x: a twentieth of a training step of BERT-base.
    variance = jnp.maximum(jnp.square(wide).mean(-1, keepdims=True) - jnp.square(mean), 0)
  return centered, mean, jax.lax.rsqrt(variance + epsilon)


def _along(inner, normalized, rate, dtype):
  """The gradient with respect to x, from that with respect to the unit norm."""
  inner = inner - normalized * (inner * normalized).mean(-1, keepdims=True)
  along = (rate * (inner - inner.mean(-1, keepdims=True))).astype(dtype)
  if platform() != "cpu":
    along = jax.lax.optimization_barrier(along)  # XLA would compute it again for each of those who read it.
  return along
