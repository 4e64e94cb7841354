"""Encoders and decoders of images: convolutional and dense.

  convolutional encoder   3 x 3 convolutions, each with its stride and a LeakyReLU; flattened and made a code by a
                          dense layer without activation
  convolutional decoder   a dense layer, reshaped to rows x columns x channels; transposed 3 x 3 convolutions, each
                          but the last with a LeakyReLU
  dense encoder, decoder  dense layers with a ReLU between them; without hidden layers they are linear

A transposed convolution is the adjoint of the convolution with the same stride (`ops/kernels/convolution.py`). With
`upsampling="resize"` pixels are repeated before a plain convolution instead (Odena et al. 2016, "Deconvolution and
Checkerboard Artifacts"): transposed convolutions with stride 2 and 3 x 3 taps reach odd rows twice as often as even
ones, which shows as a checkerboard (`ops/image_quality.py: checkerboard`).
"""
import math
from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from embeddings_jax.ops.kernels.convolution import convolve, convolve_transposed
from embeddings_jax.types import InputError, PyTree

UPSAMPLINGS = ("transposed", "resize")


class Conv(nn.Module):
  """A square convolution with "same" padding, or with `transposed` its adjoint; kernel `[size, size, in, out]`, of
  the adjoint `[size, size, out, in]`."""

  features: int
  size: int = 3
  stride: int = 1
  transposed: bool = False

  @nn.compact
  def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch rows columns features"]:
    axes = (-1, -2) if self.transposed else (-2, -1)
    shape = (self.features, x.shape[3]) if self.transposed else (x.shape[3], self.features)
    kernel = self.param("kernel", nn.initializers.glorot_uniform(*axes), (self.size, self.size, *shape))
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    return (convolve_transposed if self.transposed else convolve)(x, kernel, self.stride) + bias


class ConvEncoder(nn.Module):
  """Images to codes.

  Attributes:
    dim: Size of the code; 0 returns the last map, `[batch, rows, columns, channels]`.
    widths: Channels of each convolution.
    strides: Stride of each convolution.
    size: Height and width of the kernels.
    slope: Slope of the LeakyReLU below 0.
  """

  dim: int
  widths: Sequence[int] = (32, 64, 64, 64)
  strides: Sequence[int] = (1, 2, 2, 1)
  size: int = 3
  slope: float = 0.3

  @nn.compact
  def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch ..."]:
    for i, (width, stride) in enumerate(zip(self.widths, self.strides)):
      x = nn.leaky_relu(Conv(width, self.size, stride, name=f"conv_{i}")(x), self.slope)
    return dense(self.dim, "code")(x.reshape(len(x), -1)) if self.dim else x


def conv_maps(encoder: ConvEncoder, params: PyTree, images: Float[Array, "batch height width channels"],
              ) -> dict[str, Float[Array, "batch rows columns features"]]:
  """Returns the maps of all convolutions by name, `block_0` first."""
  is_conv = lambda module, method: method == "__call__" and isinstance(module, Conv)
  _, captured = encoder.apply({"params": params}, images, capture_intermediates=is_conv, mutable=["intermediates"])
  maps = [captured["intermediates"][f"conv_{i}"]["__call__"][0] for i in range(len(encoder.widths))]
  return {f"block_{i}": nn.leaky_relu(value, encoder.slope) for i, value in enumerate(maps)}


class ConvDecoder(nn.Module):
  """Codes to images, without a last activation.

  Attributes:
    shape: Height, width and channels of the images.
    first: Channels of the map that the dense layer makes.
    widths: Channels of each convolution but the last, whose channels are those of the images.
    strides: Stride of each convolution.
    size, slope: As for the encoder.
    upsampling: `transposed` or `resize`.
  """

  shape: tuple[int, int, int]
  first: int = 64
  widths: Sequence[int] = (64, 64, 32)
  strides: Sequence[int] = (1, 2, 2, 1)
  size: int = 3
  slope: float = 0.3
  upsampling: str = "transposed"

  @nn.compact
  def __call__(self, codes: Float[Array, "batch dim"]) -> Float[Array, "batch height width channels"]:
    height, width, channels = self.shape
    rows, columns = grid(height, width, self.strides)
    x = dense(rows * columns * self.first, "code")(codes).reshape(-1, rows, columns, self.first)
    for i, (features, stride) in enumerate(zip((*self.widths, channels), self.strides)):
      if self.upsampling == "resize":
        x = jnp.repeat(jnp.repeat(x, stride, 1), stride, 2)
        x = Conv(features, self.size, name=f"conv_{i}")(x)
      else:
        x = Conv(features, self.size, stride, True, name=f"conv_{i}")(x)
      x = nn.leaky_relu(x, self.slope) if i < len(self.widths) else x
    return x


class DenseEncoder(nn.Module):
  """Images, flattened, to codes: `widths` are those of the hidden layers, which have a ReLU."""

  dim: int
  widths: Sequence[int] = ()

  @nn.compact
  def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch dim"]:
    x = x.reshape(len(x), -1)
    for i, width in enumerate(self.widths):
      x = nn.relu(dense(width, f"dense_{i}")(x))
    return dense(self.dim, "code")(x)


class DenseDecoder(nn.Module):
  """Codes to images of `shape`, without a last activation; as `DenseEncoder`."""

  shape: tuple[int, int, int]
  widths: Sequence[int] = ()

  @nn.compact
  def __call__(self, codes: Float[Array, "batch dim"]) -> Float[Array, "batch height width channels"]:
    for i, width in enumerate(self.widths):
      codes = nn.relu(dense(width, f"dense_{i}")(codes))
    height, width, channels = self.shape
    return dense(height * width * channels, "pixels")(codes).reshape(-1, *self.shape)


def dense(features: int, name: str) -> nn.Dense:
  """A dense layer that starts as Keras's does."""
  return nn.Dense(features, kernel_init=nn.initializers.glorot_uniform(), name=name)


def grid(height: int, width: int, strides: Sequence[int]) -> tuple[int, int]:
  """Returns rows and columns of the map that convolutions with these strides make of an image.

  Raises:
    InputError: The strides do not divide a side.
  """
  rows, columns = height, width
  for stride in strides:
    if rows % stride or columns % stride:
      raise InputError(f"strides={tuple(strides)}: do not divide images of {height} x {width} pixels; set "
                       f"data.image_size to a multiple of {math.prod(strides)}, or take other strides")
    rows, columns = rows // stride, columns // stride
  return rows, columns


def autoencoder_networks(
    shape: tuple[int, int, int], dim: int, *, widths: Sequence[int], strides: Sequence[int], slope: float = 0.3,
    upsampling: str = "transposed", code_factor: int = 1, output_factor: int = 1,
) -> tuple[nn.Module, nn.Module]:
  """Returns an encoder and its mirror image as a decoder: convolutional if there are `strides`, else dense.

  Args:
    shape: Height, width and channels of the images.
    dim: Size of the code.
    widths: Channels of the encoder's convolutions, or widths of its hidden layers; the decoder has them in reverse.
    strides: Strides of the encoder's convolutions; the decoder has them in reverse. () for dense layers.
    slope: Slope of the LeakyReLU of convolutional networks below 0.
    upsampling: `transposed` or `resize`, of convolutional decoders.
    code_factor: Numbers that the encoder gives for each of the code (2 for mean and variance).
    output_factor: Numbers that the decoder gives for each pixel and channel.

  Raises:
    InputError: A hyperparameter does not fit the images.
  """
  widths, strides = tuple(widths), tuple(strides)
  if dim < 1 or any(width < 1 for width in widths) or any(stride < 1 for stride in strides):
    raise InputError(f"dim={dim}, widths={widths}, strides={strides}: must be at least 1")
  if upsampling not in UPSAMPLINGS:
    raise InputError(f"upsampling={upsampling!r}: must be one of {', '.join(UPSAMPLINGS)}")
  output = *shape[:2], output_factor * shape[2]
  if not strides:
    return DenseEncoder(code_factor * dim, widths), DenseDecoder(output, widths[::-1])
  if len(widths) != len(strides):
    raise InputError(f"widths={widths} and strides={strides}: must be equally many; strides=() makes dense layers")
  grid(*shape[:2], strides)
  # The map that the encoder ends with is the one that the decoder begins with.
  return (ConvEncoder(code_factor * dim, widths, strides, slope=slope),
          ConvDecoder(output, widths[-1], widths[-2::-1], strides[::-1], slope=slope, upsampling=upsampling))


def untied_part(params: PyTree) -> PyTree:
  """Returns the parameters that a tied `DenseDecoder` has of its own, its biases."""
  return {name: {"bias": layer["bias"]} for name, layer in params.items()}


def tied_decoder(encoder: PyTree, own: PyTree) -> PyTree:
  """Returns parameters of a `DenseDecoder` whose kernels are those of its `DenseEncoder`, transposed."""
  hidden = len(own) - 1
  forward = [f"dense_{i}" for i in range(hidden)] + ["code"]
  back = [f"dense_{i}" for i in range(hidden)] + ["pixels"]
  return {name: {"kernel": encoder[mirrored]["kernel"].T, **own[name]}
          for name, mirrored in zip(back, forward[::-1], strict=True)}
