"""Vision transformers (Dosovitskiy et al. 2021, arXiv:2010.11929): images as sequences of patches.

Parameters (N patches of p x p pixels and C channels, D = dim):

  patch_embedding     kernel [p p C, D], a pixel's place being (row, column, channel); bias [D]
  cls                 [D]
  position_embedding  [1 + N, D], of the CLS token first; only where positions are learned
  layers, final_norm  a stack with norm="pre", see `nets/transformer.py`

The product of unfolded patches with the kernel is a convolution with a stride of p.
"""
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Shaped

from embeddings_jax.nets.grids import Grid, tapped
from embeddings_jax.nets.patches import check_divides, unfold
from embeddings_jax.nets.transformer import ACTIVATIONS, REMAT, Transformer
from embeddings_jax.ops.kernels.layer_norm import layer_norm
from embeddings_jax.ops.kernels.product import affine
from embeddings_jax.ops.pixels import standardized
from embeddings_jax.types import InputError

POSITIONS = ("sincos2d", "learned")


class Vit(nn.Module):
  """Images to vectors: a CLS token and one vector of each patch.

  The hyperparameters are checked by `vit`, which makes one.

  Attributes:
    patch_size, dim: p, D.
    num_layers, num_heads, mlp_dim, activation, norm_epsilon, dtype, remat, unroll: see `Transformer`.
    positions: `sincos2d`, fixed and of any grid, or `learned`.
    pixel_mean, pixel_std: what pixels in [0, 1] are standardized with, one number or one for each channel.
  """

  patch_size: int
  dim: int
  num_layers: int
  num_heads: int
  mlp_dim: int
  positions: str = "sincos2d"
  activation: str = "gelu"
  norm_epsilon: float = 1e-6
  pixel_mean: float | Sequence[float] = 0.5
  pixel_std: float | Sequence[float] = 0.5
  dtype: DTypeLike = jnp.float32
  remat: str = "none"
  unroll: int = 1

  @nn.compact
  def __call__(
      self,
      pixels: Float[Array, "batch visible pixels"],
      grid: tuple[int, int],
      places: Int[Array, "batch visible"] | None = None,
      collect: str = "",
      only: slice | None = None,
  ) -> Float[Array, "batch *layers time dim"]:
    """Encodes patches alone, [B, 1 + K, D], the CLS token first.

    Args:
      pixels: standardized values of patches, as `cut` gives them.
      grid: rows and columns of the whole image's patches.
      places: which of them are given, counted by rows; None: all, in order.
      collect: "" the last layer, `layers` [B, L + 1, 1 + K, D], `attention` the weights [B, L, H, 1 + K, 1 + K].
      only: positions that are asked for, the CLS token being the first.
    """
    x = Affine(self.dim, self.dtype, name="patch_embedding")(pixels)
    cls = self.param("cls", nn.initializers.normal(0.02), (self.dim,))
    if self.positions == "learned":
      table = self.param("position_embedding", nn.initializers.truncated_normal(0.02),
                         (1 + grid[0] * grid[1], self.dim))
      cls, table = cls + table[0], table[1:]
    else:
      table = jnp.asarray(sincos2d(*grid, self.dim))
    x = x + (table if places is None else table[places]).astype(self.dtype)
    cls = jnp.broadcast_to(cls.astype(self.dtype), (len(x), 1, self.dim))
    x = jnp.concatenate([cls, x], 1)
    shifts = self._shifts(x)
    x = Transformer(
        self.num_layers, self.num_heads, self.mlp_dim, "pre", activation=self.activation,
        norm_epsilon=self.norm_epsilon, kernel_init=nn.initializers.glorot_uniform(), dtype=self.dtype,
        remat=self.remat, unroll=self.unroll, name="layers")(x, collect=collect, only=only, shifts=shifts)
    if collect == "attention":
      return x
    final = self.param("final_norm", norm_params(self.dim))
    norm = lambda x: tapped(self, f"block_{self.num_layers - 1}", layer_norm(x, final, self.norm_epsilon, self.dtype))
    return x.at[:, -1].set(norm(x[:, -1])) if collect == "layers" else norm(x)

  def _shifts(self, x):
    """Returns the perturbations of all blocks but the last, [L, B, T, D], or None; the last one's is added to what
    the final norm makes."""
    names = [f"block_{i}" for i in range(self.num_layers - 1)]
    if not any(self.has_variable("perturbations", f"{name}_tokens") for name in names):
      return None
    return jnp.stack([tapped(self, name, jnp.zeros_like(x)) for name in names] + [jnp.zeros_like(x)])

  def cut(self, images: Shaped[Array, "batch height width channels"]) -> Float[Array, "batch patches pixels"]:
    """Standardized patches of whole images."""
    return unfold(standardized(images, self.pixel_mean, self.pixel_std), self.patch_size)

  def features(self, batch: Mapping[str, Array], deterministic: bool = True) -> Float[Array, "batch time dim"]:
    """[B, 1 + N, D] of a batch of `image`, the CLS token first; there is no dropout."""
    return self._whole(batch)

  def layers(self, batch: Mapping[str, Array], deterministic: bool = True) -> Float[Array, "batch layers time dim"]:
    """All L + 1 layers, what goes into the first of them first; the final norm is applied to the last alone."""
    return self._whole(batch, collect="layers")

  def first(self, batch: Mapping[str, Array], deterministic: bool = True) -> Float[Array, "batch 1 dim"]:
    """`features` of the CLS token alone."""
    return self._whole(batch, only=slice(1))

  def patches(self, batch: Mapping[str, Array], deterministic: bool = True) -> Float[Array, "batch patches dim"]:
    """`features` without the CLS token."""
    return self.features(batch, deterministic)[:, 1:]

  def attention(self, batch: Mapping[str, Array]) -> Float[Array, "batch layers heads time time"]:
    """Returns the attention weights; a row's weights over what it attends to have the sum 1."""
    return self._whole(batch, collect="attention")

  def grids(self, height: int, width: int) -> dict[str, Grid]:
    """Returns where the patches of each block lie in images of this size; a patch sees the whole image."""
    rows, columns = check_divides(self.patch_size, height, width)
    size = self.patch_size
    grid = Grid(rows, columns, (size, size), ((size - 1) / 2,) * 2, (2 * height, 2 * width), leading=1)
    return {f"block_{i}": grid for i in range(self.num_layers)}

  def tokens(self, images: Shaped[Array, "batch height width channels"]) -> dict[str, Array]:
    """Returns the vectors of each block, [B, 1 + N, D], the CLS token first."""
    layers = self.layers({"image": images})
    return {f"block_{i}": layers[:, i + 1] for i in range(self.num_layers)}

  def first_filters(self, params: Mapping[str, Any]) -> Float[Array, "filters rows columns channels"]:
    """Returns the kernels of the patches' embedding."""
    kernel = jnp.asarray(params["patch_embedding"]["kernel"])
    return kernel.T.reshape(kernel.shape[1], self.patch_size, self.patch_size, -1)

  def valid(self, batch: Mapping[str, Array]) -> Bool[Array, "batch time"]:
    """All True: images are not padded."""
    rows, columns = self.grid(batch["image"])
    return jnp.ones((len(batch["image"]), 1 + rows * columns), bool)

  def grid(self, images: Shaped[Array, "batch height width channels"]) -> tuple[int, int]:
    """Rows and columns of patches."""
    return check_divides(self.patch_size, *images.shape[1:3])

  def _whole(self, batch, **options):
    return self(self.cut(batch["image"]), self.grid(batch["image"]), **options)


class Affine(nn.Module):
  """x @ kernel + bias with sums in float32 (`ops/kernels/product.py`): [..., n] -> [..., features]."""

  features: int
  dtype: DTypeLike = jnp.float32
  kernel_init: Callable[..., Array] = nn.initializers.glorot_uniform()

  @nn.compact
  def __call__(self, x: Float[Array, "*shape n"]) -> Float[Array, "*shape m"]:
    kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
    return affine(x, kernel, self.param("bias", nn.initializers.zeros, (self.features,)), self.dtype)


def norm_params(dim: int) -> Callable[[Array], dict[str, Array]]:
  """An initializer of LayerNorm's parameters."""
  return lambda rng: {"scale": jnp.ones(dim), "bias": jnp.zeros(dim)}


def vit(**hyper: Any) -> Vit:
  """A `Vit` of checked hyperparameters; `dtype` may be a name."""
  for name, known in (("positions", POSITIONS), ("activation", tuple(ACTIVATIONS)), ("remat", tuple(REMAT))):
    if name in hyper and hyper[name] not in known:
      raise InputError(f"{name}={hyper[name]!r}: must be one of {', '.join(known)}")
  if hyper["patch_size"] < 1:
    raise InputError(f"patch_size={hyper['patch_size']}: must be at least 1")
  check_width("", hyper["dim"], hyper["num_heads"], hyper.get("positions", "sincos2d"))
  for name in ("pixel_mean", "pixel_std"):
    if isinstance(hyper.get(name), Sequence):
      hyper[name] = tuple(hyper[name])
  if not np.all(np.asarray(hyper.get("pixel_std", 0.5)) > 0):
    raise InputError(f"pixel_std={hyper['pixel_std']}: must be above 0")
  if "dtype" in hyper:
    hyper["dtype"] = jnp.dtype(hyper["dtype"])
  return Vit(**hyper)


def check_width(prefix: str, dim: int, num_heads: int, positions: str) -> None:
  """Raises where heads or the waves of positions do not divide the dimensions."""
  if dim % num_heads:
    raise InputError(f"{prefix}dim={dim}: must be a multiple of {prefix or 'num_'}heads={num_heads}")
  if positions == "sincos2d" and dim % 4:
    raise InputError(f"{prefix}dim={dim}: must be a multiple of 4, for sines and cosines of rows and of columns")


def sincos2d(rows: int, columns: int, dim: int) -> Float[np.ndarray, "patches dim"]:
  """Fixed positions of a grid, by rows: sines and cosines of the column, then of the row, a quarter of `dim` each.

  Frequencies are 10000^(-4i / D), i < D / 4. He et al. 2022 (arXiv:2111.06377, appendix A.1) by the authors' program,
  in which the column goes first.
  """
  frequency = 10_000.0 ** -(np.arange(dim // 4) / (dim // 4))
  row, column = np.divmod(np.arange(rows * columns), columns)
  angles = (coordinate[:, None] * frequency for coordinate in (column, row))
  return np.concatenate([wave(angle) for angle in angles for wave in (np.sin, np.cos)], -1).astype(np.float32)
