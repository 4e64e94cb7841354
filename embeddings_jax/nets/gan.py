"""Generators and discriminators: dense ones for rows, those of DCGAN for images (Radford et al. 2016).

  dense   G: dense layers, each but the last with a norm and ReLU; D: dense layers with LeakyReLU .2 between them
  dcgan   G: a dense layer to a map of `widths[0]` channels, and for each width a transposed convolution of stride 2,
          to the next width, at last to the image by tanh; norm and ReLU before each. D: for each width a convolution
          of stride 2, norm and LeakyReLU .2; a dense layer from the last map

Images are in [-1, 1] here. D has no norm after its first layer. A class y of `num_labels` stands beside z as a
one-hot vector, and adds the inner product of a learnt vector of the class and the summed features to D's logit
(Miyato & Koyama 2018, arXiv:1802.05637); -1 stands for an unknown class.
"""
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from embeddings_jax.nets.images import grid
from embeddings_jax.ops.adversarial import spectral_norm
from embeddings_jax.ops.kernels.convolution import convolve, convolve_transposed
from embeddings_jax.types import InputError

NORMS = ("none", "batch", "spectral")
NETWORKS = ("auto", "dense", "dcgan")
SLOPE = 0.2
NORM_DECAY = 0.9
SPREAD = 0.02  # Standard deviation of DCGAN's first weights.


class Linear(nn.Module):
  """A dense layer, or with `size` a convolution or its adjoint, perhaps divided by its spectral norm.

  The collection `spectral` has the vector of the power iteration; it moves where that collection is mutable.

  Attributes:
    features: Outputs.
    size: Height and width of a convolution's kernel; 0: a dense layer.
    stride: Of a convolution.
    transposed: Whether it is the adjoint.
    spectral: Whether to divide by the spectral norm.
    std: Standard deviation of the first weights; 0: that of He et al.
  """

  features: int
  size: int = 0
  stride: int = 1
  transposed: bool = False
  spectral: bool = False
  std: float = 0.0
  use_bias: bool = True

  @nn.compact
  def __call__(self, x: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
    axes = (self.features, x.shape[-1]) if self.transposed else (x.shape[-1], self.features)
    shape = (self.size, self.size, *axes) if self.size else axes
    start = nn.initializers.normal(self.std) if self.std else nn.initializers.he_normal()
    kernel = self.param("kernel", start, shape)
    if self.spectral:
      first = lambda: jnp.full(shape[-1], shape[-1] ** -0.5)
      u = self.variable("spectral", "u", first)
      norm, new = spectral_norm(kernel, u.value)
      if self.is_mutable_collection("spectral"):
        u.value = new
      kernel = kernel / norm
    if not self.size:
      x = x @ kernel
    else:
      x = (convolve_transposed if self.transposed else convolve)(x, kernel, self.stride)
    return x + self.param("bias", nn.initializers.zeros, (self.features,)) if self.use_bias else x


class Generator(nn.Module):
  """Noise to rows or images.

  Attributes:
    shape: `(num_features,)` of rows, or height, width and channels of images.
    network: `dense` or `dcgan`.
    widths: See above.
    norm: `batch` or `none`.
    num_labels: Classes of the condition; 0: none.
    kernel_size: Of the convolutions.
    norm_decay: Decay of the running statistics; 0: those of the last batch.
  """

  shape: tuple[int, ...]
  network: str
  widths: Sequence[int]
  norm: str = "batch"
  num_labels: int = 0
  kernel_size: int = 5
  norm_decay: float = NORM_DECAY

  @nn.compact
  def __call__(self, z: Float[Array, "batch dim"], label: Int[Array, " batch"] | None = None, *,
               deterministic: bool = True) -> Float[Array, "batch ..."]:
    normed = self.norm == "batch"
    if self.num_labels:
      z = jnp.concatenate([z, jax.nn.one_hot(label, self.num_labels)], -1)

    def activated(x, i):
      if normed:
        x = nn.BatchNorm(deterministic, momentum=self.norm_decay, epsilon=1e-5, name=f"norm_{i}")(x)
      return nn.relu(x)

    if self.network == "dense":
      for i, width in enumerate(self.widths):
        z = activated(Linear(width, use_bias=not normed, name=f"dense_{i}")(z), i)
      x = Linear(_size(self.shape), std=SPREAD if len(self.shape) == 3 else 0.0, name="out")(z)
      return jnp.tanh(x.reshape(-1, *self.shape)) if len(self.shape) == 3 else x
    height, width, channels = self.shape
    rows, columns = grid(height, width, (2,) * len(self.widths))
    x = Linear(rows * columns * self.widths[0], use_bias=not normed, std=SPREAD, name="project")(z)
    x = x.reshape(-1, rows, columns, self.widths[0])
    for i, features in enumerate((*self.widths[1:], channels)):
      last = i == len(self.widths) - 1
      x = Linear(features, self.kernel_size, 2, True, std=SPREAD, use_bias=last or not normed,
                 name=f"conv_{i}")(activated(x, i))
    return jnp.tanh(x)


class Discriminator(nn.Module):
  """Rows or images to logits of being real; `features` are those before the last layer.

  Attributes: As of `Generator`; `norm` may be `spectral`.
  """

  shape: tuple[int, ...]
  network: str
  widths: Sequence[int]
  norm: str = "batch"
  num_labels: int = 0
  kernel_size: int = 5

  def setup(self):
    spectral, std = self.norm == "spectral", SPREAD if self.network == "dcgan" else 0.0
    normed = lambda i: self.norm == "batch" and i > 0
    size, stride = (self.kernel_size, 2) if self.network == "dcgan" else (0, 1)
    self.layers = [Linear(width, size, stride, spectral=spectral, std=std, use_bias=not normed(i))
                   for i, width in enumerate(self.widths)]
    self.norms = [nn.BatchNorm(momentum=NORM_DECAY, epsilon=1e-5) if normed(i) else None
                  for i in range(len(self.widths))]
    self.out = Linear(1, spectral=spectral, std=std)
    if self.num_labels:
      self.classes = Linear(self.widths[-1], spectral=spectral, std=std, use_bias=False)

  def features(self, x: Float[Array, "batch ..."], mask: Float[Array, " batch"] | None = None, *,
               deterministic: bool = True) -> Float[Array, "batch ..."]:
    """Returns the last map [batch, rows, columns, dim], of dense networks [batch, dim]."""
    x = x.reshape(len(x), -1) if self.network == "dense" else x
    valid = None if mask is None or deterministic else (mask > 0).reshape(-1, *[1] * (x.ndim - 1))
    for layer, norm in zip(self.layers, self.norms):
      x = layer(x)
      x = norm(x, use_running_average=deterministic, mask=valid) if norm is not None else x
      x = nn.leaky_relu(x, SLOPE)
    return x

  def __call__(self, x: Float[Array, "batch ..."], label: Int[Array, " batch"] | None = None,
               mask: Float[Array, " batch"] | None = None, *, deterministic: bool = True) -> Float[Array, " batch"]:
    x = self.features(x, mask, deterministic=deterministic)
    logit = self.out(x.reshape(len(x), -1))[:, 0]
    if self.num_labels:
      whole = x.sum((1, 2)) if x.ndim == 4 else x
      logit += (self.classes(jax.nn.one_hot(label, self.num_labels)) * whole).sum(-1)
    return logit


def gan_networks(
    shape: tuple[int, ...], *, network: str, generator_widths: Sequence[int], discriminator_widths: Sequence[int],
    generator_norm: str, discriminator_norm: str, kernel_size: int, num_labels: int,
) -> tuple[Generator, Discriminator]:
  """Returns a generator and a discriminator of checked hyperparameters; arguments: see `models/adversarial/gan.py`.

  Raises:
    InputError: A hyperparameter does not fit the data.
  """
  for name, value, choices in (("network", network, NETWORKS), ("generator_norm", generator_norm, NORMS[:2]),
                               ("discriminator_norm", discriminator_norm, NORMS)):
    if value not in choices:
      raise InputError(f"{name}={value!r}: must be one of {', '.join(choices)}")
  images = len(shape) == 3
  network = network if network != "auto" else "dcgan" if images else "dense"
  widths = tuple(generator_widths), tuple(discriminator_widths)
  for name, value in zip(("generator_widths", "discriminator_widths"), widths):
    if any(width < 1 for width in value) or (network == "dcgan" or name[0] == "d") and not value:
      raise InputError(f"{name}={value}: must be at least one number, all at least 1")
  if network == "dcgan":
    if not images:
      raise InputError(f"network='dcgan': makes images, and the rows have {shape[0]} features; use 'dense'")
    if kernel_size < 2:
      raise InputError(f"kernel_size={kernel_size}: must be at least 2, the stride")
    for value in widths:
      grid(*shape[:2], (2,) * len(value))
  options = dict(shape=tuple(shape), network=network, num_labels=num_labels, kernel_size=kernel_size)
  return (Generator(widths=widths[0], norm=generator_norm, **options),
          Discriminator(widths=widths[1], norm=discriminator_norm, **options))


def _size(shape: Sequence[int]) -> int:
  size = 1
  for length in shape:
    size *= length
  return size
