"""Two-dimensional convolutions and their adjoints as shifted slices and one matrix product.

XLA's own gradients of strided convolutions and of their adjoints take several times as long on CPUs, and all its
convolutions run on one core within a loop, as in a `scan` over updates or parts of a batch. On two cores beside other
work (jax 0.10), a step of the autoencoder of `configs/autoencoder.py: paper` with 128 digits took 2,030 ms as XLA has
it, and 826 so; a step of `configs/restoration.py: small` 15,000 ms in a `scan` as XLA has it, and 670 so, though
outside of it 280 and 730. On accelerators XLA's are taken.

The taps of a convolution, k x k slices of its padded input at distance `stride`, are laid side by side (`_gathered`)
and multiplied by the kernel as one matrix. The adjoint of laying them out adds each tap to the place it came from
(`_scattered`). Of the `stride` x `stride` residues of a place modulo the stride, each is reached by its own taps, so
that all sums are of slices that lie densely. Either is the other's backward pass.

Padding is "same" as TensorFlow has it: `max(k - stride, 0)` in all, the odd one at the end; torch's `padding=1` with
stride 2 puts it at the start.
"""
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from embeddings_jax.ops.kernels import reference
from embeddings_jax.ops.sharding import platform


def convolve(
    x: Float[Array, "batch height width channels"], kernel: Float[Array, "size size channels features"],
    stride: int = 1,
) -> Float[Array, "batch rows columns features"]:
  """Returns the convolution of `reference.convolve`; `stride` must divide the height and the width."""
  if platform() != "cpu":
    return reference.convolve(x, kernel, stride)
  if _is_symmetric(kernel, stride) and kernel.shape[3] < kernel.shape[2]:  # Fewer taps to write.
    return _scattered(x @ _flipped(kernel).reshape(-1, kernel.shape[2]).T, kernel.shape[0], stride)
  return _gathered(x, kernel.shape[0], stride) @ kernel.reshape(-1, kernel.shape[3])


def convolve_transposed(
    y: Float[Array, "batch rows columns features"], kernel: Float[Array, "size size channels features"],
    stride: int = 1,
) -> Float[Array, "batch height width channels"]:
  """Returns the adjoint of `convolve` with the same kernel and stride, of `stride` times the rows and columns."""
  if platform() != "cpu":
    return reference.convolve_transposed(y, kernel, stride)
  size, _, channels, features = kernel.shape
  if _is_symmetric(kernel, stride) and features < channels:
    return _gathered(y, size, stride) @ _flipped(kernel).reshape(-1, channels)
  return _scattered(y @ kernel.reshape(-1, features).T, size, stride)


def _is_symmetric(kernel, stride):
  """Returns whether the adjoint is the convolution with the flipped kernel: padding is symmetric."""
  return stride == 1 and kernel.shape[0] % 2 == 1


def _flipped(kernel):
  return kernel[::-1, ::-1].swapaxes(2, 3)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gathered(x, size, stride):
  """Taps of each place: [B, H, W, C] -> [B, H / stride, W / stride, size * size * C]."""
  padding = reference.same_padding(size, stride)
  rows, columns = x.shape[1] // stride, x.shape[2] // stride
  x = jnp.pad(x, ((0, 0), padding, padding, (0, 0)))
  along = lambda first, number: slice(first, first + (number - 1) * stride + 1, stride)
  return jnp.concatenate([x[:, along(i, rows), along(j, columns)] for i in range(size) for j in range(size)], -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _scattered(taps, size, stride):
  """Sum of the taps that fall on each place: [B, H, W, size * size * C] -> [B, H * stride, W * stride, C]."""
  batch, rows, columns, width = taps.shape
  channels = width // size**2
  before, _ = reference.same_padding(size, stride)

  def shifted(i, j):
    """Tap (i, j), at the row and column to which it is added among those with its residue."""
    tap = taps[..., (i * size + j) * channels:(i * size + j + 1) * channels]
    down, right = (i - before) // stride, (j - before) // stride
    return jax.lax.pad(tap, jnp.zeros((), taps.dtype),
                       ((0, 0, 0), (down, -down, 0), (right, -right, 0), (0, 0, 0)))

  def residue(a, b):
    reached = lambda residue: [i for i in range(size) if (i - before) % stride == residue]
    reaching = [shifted(i, j) for i in reached(a) for j in reached(b)]
    return sum(reaching) if reaching else jnp.zeros((batch, rows, columns, channels), taps.dtype)

  if stride == 1:
    return residue(0, 0)
  grid = jnp.stack([jnp.stack([residue(a, b) for b in range(stride)], 3) for a in range(stride)], 2)
  return grid.reshape(batch, rows * stride, columns * stride, channels)


_gathered.defvjp(lambda x, size, stride: (_gathered(x, size, stride), None),
                 lambda size, stride, _, cotangent: (_scattered(cotangent, size, stride),))
_scattered.defvjp(lambda taps, size, stride: (_scattered(taps, size, stride), None),
                  lambda size, stride, _, cotangent: (_gathered(cotangent, size, stride),))
