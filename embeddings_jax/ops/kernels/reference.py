"""The kernels' operations in their plain form, for reading and for tests."""
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def affine(x: Float[Array, "*shape n"], kernel: Float[Array, "n m"], bias: Float[Array, " m"]) -> Array:
  """Returns x @ kernel + bias, see `product.affine`."""
  return x @ kernel + bias


def dropout(x: Float[Array, "*shape"], keep: Bool[Array, "*shape"], rate: float) -> Array:
  """Returns x / (1 - rate) where `keep`, else 0, see `dropout.dropout`."""
  return jnp.where(keep, x / (1 - rate), 0)


def layer_norm(x: Float[Array, "*shape dim"], scale: Float[Array, " dim"], bias: Float[Array, " dim"],
               epsilon: float) -> Array:
  """Returns LayerNorm over the last axis, see `layer_norm.layer_norm`; `unit_norm` has scale 1 and bias 0."""
  mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
  return (x - mean) / jnp.sqrt(variance + epsilon) * scale + bias


def attention(query: Float[Array, "batch time heads dim"], key: Float[Array, "batch keys heads dim"],
              value: Float[Array, "batch keys heads dim"], valid: Bool[Array, "batch time keys"]) -> Array:
  """Returns softmax(q k^T / sqrt(d)) v over the valid keys, see `attention.attention`."""
  scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / jnp.sqrt(query.shape[-1])
  weights = jax.nn.softmax(jnp.where(valid[:, None], scores, -jnp.inf), axis=-1)
  return jnp.einsum("bhqk,bkhd->bqhd", weights, value)


def cross_entropy(queries: Float[Array, "blocks size dim"], table: Float[Array, "words dim"],
                  targets: Int[Array, "blocks size"], weight: Float[Array, "blocks size"]) -> Array:
  """Returns -sum_i weight_i log softmax(q_i t^T)[target_i], see `softmax.cross_entropy`."""
  log_likelihood = jax.nn.log_softmax(queries @ table.T, axis=-1)
  return -(weight * jnp.take_along_axis(log_likelihood, targets[..., None], -1)[..., 0]).sum()


def weighted_log_partition(queries: Float[Array, "blocks size dim"], table: Float[Array, "words dim"],
                           weight: Float[Array, "blocks size"], vocab_size: int) -> Array:
  """Returns sum_i weight_i log sum_w exp(q_i . t_w), see `softmax.weighted_log_partition`."""
  return (weight * jax.nn.logsumexp(queries @ table[:vocab_size].T, axis=-1)).sum()


def same_padding(size: int, stride: int) -> tuple[int, int]:
  """Returns the padding before and after an axis whose length the stride divides, so that length / stride remain."""
  total = max(size - stride, 0)
  return total // 2, total - total // 2


def convolve(x: Float[Array, "batch height width channels"], kernel: Float[Array, "size size channels features"],
             stride: int = 1) -> Float[Array, "batch rows columns features"]:
  """Returns the convolution with "same" padding, see `convolution.convolve`."""
  padding = (same_padding(kernel.shape[0], stride),) * 2
  return jax.lax.conv_general_dilated(x, kernel, (stride, stride), padding,
                                      dimension_numbers=("NHWC", "HWIO", "NHWC"))


def convolve_transposed(
    y: Float[Array, "batch rows columns features"], kernel: Float[Array, "size size channels features"],
    stride: int = 1,
) -> Float[Array, "batch height width channels"]:
  """Returns the adjoint of `convolve`: a convolution of y, spread by the stride, with the turned kernel."""
  size = kernel.shape[0]
  before, after = same_padding(size, stride)
  padding = ((size - 1 - before, size - 1 - after + max(stride - size, 0)),) * 2
  return jax.lax.conv_general_dilated(y, kernel[::-1, ::-1].swapaxes(2, 3), (1, 1), padding, (stride, stride),
                                      dimension_numbers=("NHWC", "HWIO", "NHWC"))
