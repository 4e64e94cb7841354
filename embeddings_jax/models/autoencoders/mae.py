"""Masked autoencoders: a vision transformer that sees a quarter of an image and predicts the rest.

He, Chen, Xie, Li, Dollár, Girshick 2022, "Masked Autoencoders Are Scalable Vision Learners", arXiv:2111.06377.

  L = mean_{(b,n) masked} |x_bn - x̂_bn|² / (p p C),   x̂ = decoder(encoder(visible patches), places of the masked)

where x_bn is a masked patch of a standardized image; with `norm_pix` less its own mean, and over its own standard
deviation (unbiased, 1e-6 being added to the variance).

  symbol  name                     shape
  x       image                    uint8 [batch, height, width, C], N patches of p x p pixels
  h       hidden                   [batch, layers + 1, 1 + N, dim], of the whole image, the CLS token first
          decoder/mask_token       [decoder_dim]
  x̂       decoder/predict          [decoder_dim, p p C], by row, column, channel

int(N (1 - mask_ratio)) patches are visible, those of the smallest noise, which is drawn anew for every update
(`ops/masking.py: patch_noise`), or is the batch's own `noise` [batch, N]. The encoder reads them alone; the
decoder reads their vectors and a mask token at each hidden place, and only these are predicted. Attention does not
know an order, so that nothing is put back in its place for that. Positions are sines and cosines of row and column,
fixed, for both.

Split: image | a quarter of its patches | the pixels of the other patches.

Expected: `embeddings_jax/configs/mae.py`.
"""
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Shaped

from embeddings_jax.gradient import gradient_model
from embeddings_jax.nets.patches import fold
from embeddings_jax.nets.transformer import RULES, Transformer
from embeddings_jax.nets.vit import Affine, Vit, check_width, norm_params, sincos2d, vit
from embeddings_jax.ops.augment import augmented, compose, horizontal_flip, random_resized_crop
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.chunks import loss_over_chunks
from embeddings_jax.ops.kernels.layer_norm import layer_norm
from embeddings_jax.ops.masking import PATCH_MASKINGS, patch_noise
from embeddings_jax.ops.pixels import to_float
from embeddings_jax.types import InputError, Model

POOLINGS = ("cls", "mean")
# Arguments of `mae` that the encoder does not know, of the decoder and the loss.
PRETRAINING = ("decoder_dim", "decoder_layers", "decoder_heads", "decoder_mlp_dim", "decoder_chunk", "mask_ratio",
               "norm_pix")
GREY = 0.5  # Of hidden patches in images of them.


class Decoder(nn.Module):
  """A light transformer from the vectors of visible patches to the pixels of all; see `Transformer`."""

  dim: int
  num_layers: int
  num_heads: int
  mlp_dim: int
  activation: str
  norm_epsilon: float
  dtype: DTypeLike
  remat: str
  unroll: int

  @nn.compact
  def __call__(
      self,
      x: Float[Array, "batch seen features"],
      order: Int[Array, "batch patches"],
      grid: tuple[int, int],
      width: int,
      every: bool,
  ) -> Float[Array, "batch predicted {width}"]:
    """Pixels of the masked patches, or of `every`, in the `order` of whose places the visible ones are the first."""
    num_visible = x.shape[1] - 1
    x = Affine(self.dim, self.dtype, name="embed")(x)
    token = self.param("mask_token", nn.initializers.normal(0.02), (self.dim,))
    positions = jnp.asarray(sincos2d(*grid, self.dim))[order]
    x = jnp.concatenate([x[:, :1], x[:, 1:] + positions[:, :num_visible].astype(self.dtype),
                         (token + positions[:, num_visible:]).astype(self.dtype)], 1)
    x = Transformer(
        self.num_layers, self.num_heads, self.mlp_dim, "pre", activation=self.activation,
        norm_epsilon=self.norm_epsilon, kernel_init=nn.initializers.glorot_uniform(), dtype=self.dtype,
        remat=self.remat, unroll=self.unroll, name="layers")(x, only=slice(1 if every else 1 + num_visible, None))
    x = layer_norm(x, self.param("final_norm", norm_params(self.dim)), self.norm_epsilon, self.dtype)
    return Affine(width, self.dtype, name="predict")(x).astype(jnp.float32)


class Mae(nn.Module):
  """Encoder and decoder."""

  trunk: Mapping[str, Any]
  decoder_sizes: Mapping[str, int]

  def setup(self):
    self.encoder = vit(**self.trunk)
    shared = ("activation", "norm_epsilon", "dtype", "remat", "unroll")
    self.decoder = Decoder(**self.decoder_sizes, **{name: getattr(self.encoder, name) for name in shared})

  def __call__(
      self,
      images: Shaped[Array, "batch height width channels"],
      order: Int[Array, "batch patches"],
      num_visible: int,
      every: bool = False,
  ) -> tuple[Float[Array, "batch predicted pixels"], Float[Array, "batch predicted pixels"]]:
    """Predictions and standardized pixels of the masked patches, or of `every`, in `order`, visible places first."""
    latent, pixels = self.encode(images, order, num_visible)
    predicted = self.decode(latent, order, self.encoder.grid(images), pixels.shape[-1], every)
    return predicted, pixels if every else pixels[:, num_visible:]

  def encode(
      self,
      images: Shaped[Array, "batch height width channels"],
      order: Int[Array, "batch patches"],
      num_visible: int,
  ) -> tuple[Float[Array, "batch seen features"], Float[Array, "batch patches pixels"]]:
    """Vectors of the visible patches, the CLS token first, and standardized pixels of all, in `order`."""
    pixels = jnp.take_along_axis(self.encoder.cut(images), order[..., None], 1)
    return self.encoder(pixels[:, :num_visible], self.encoder.grid(images), order[:, :num_visible]), pixels

  def decode(self, *inputs: Any) -> Float[Array, "batch predicted pixels"]:
    """See `Decoder`."""
    return self.decoder(*inputs)

  def read(self, batch, method):
    return getattr(self.encoder, method)(batch)


def encoder(
    *,
    patch_size: int = 16,
    dim: int = 768,
    num_layers: int = 12,
    num_heads: int = 12,
    mlp_dim: int | None = None,
    **others: Any,
) -> Vit:
  """The network whose parameters lie under `params/encoder`; `others` are of `nets/vit.py: Vit`."""
  return vit(patch_size=patch_size, dim=dim, num_layers=num_layers, num_heads=num_heads, mlp_dim=mlp_dim or 4 * dim,
             **others)


@takes(image=4)
def mae(
    *,
    patch_size: int = 16,
    dim: int = 768,
    num_layers: int = 12,
    num_heads: int = 12,
    mlp_dim: int | None = None,
    decoder_dim: int = 512,
    decoder_layers: int = 8,
    decoder_heads: int = 16,
    decoder_mlp_dim: int | None = None,
    decoder_chunk: int = 0,
    mask_ratio: float = 0.75,
    masking: str = "random",
    norm_pix: bool = True,
    flip: bool = False,
    min_scale: float = 1.0,
    pooling: str = "cls",
    positions: str = "sincos2d",
    activation: str = "gelu",
    norm_epsilon: float = 1e-6,
    pixel_mean: float | Sequence[float] = 0.5,
    pixel_std: float | Sequence[float] = 0.5,
    dtype: str = "float32",
    remat: str = "none",
    unroll: int = 1,
    optimizer: optax.GradientTransformation | None = None,
    accumulate: int = 1,
    ema_decay: float | None = None,
) -> Model:
  """A masked autoencoder; the defaults are those of the paper's base size, for images of 224 x 224.

  Args:
    patch_size: p; must divide the images' height and width.
    dim, num_layers, num_heads, mlp_dim: Sizes of the encoder; `mlp_dim` is 4 dim by default.
    decoder_dim, decoder_layers, decoder_heads, decoder_mlp_dim: Sizes of the decoder, alike.
    decoder_chunk: images that the decoder of a device sees at a time, forward and backward, to save memory: it has
      four times as many tokens as the encoder. 0: all at once, and with its parameters split if the mesh says so.
    mask_ratio: share of the patches that is hidden.
    masking: which: `random`, `block`, `grid`, `top` (predict the upper part from the lower) or `future` (predict what
      comes later, by rows from the top and in a row from the left); see `ops/masking.py: patch_noise`.
    norm_pix: predict patches that are standardized one by one.
    flip: mirror half of the images of an update.
    min_scale: the smallest share of an image's area that is cropped and resized to the whole of it, in an update
      (the paper's is .2); 1: no crops.
    pooling: Pooling of `embed`: the `cls` token, or the `mean` of the patches.
    positions: Positions of the encoder, `sincos2d` or `learned`; the decoder's are `sincos2d`.
    activation, norm_epsilon, remat, unroll: see `nets/transformer.py`; of both.
    pixel_mean, pixel_std: see `nets/vit.py`.
    dtype: Data type of the computation (`float32` or `bfloat16`); parameters, normalization and the loss are float32.
    optimizer: by default the paper's AdamW with a rate of 1.5e-4.
    accumulate, ema_decay: as for `gradient_model`.
  """
  if masking not in PATCH_MASKINGS:
    raise InputError(f"masking={masking!r}: must be one of {', '.join(PATCH_MASKINGS)}")
  if not 0 < mask_ratio < 1:
    raise InputError(f"mask_ratio={mask_ratio}: must lie between 0 and 1, so that some patches are seen and some not")
  if pooling not in POOLINGS:
    raise InputError(f"pooling={pooling!r}: must be one of {', '.join(POOLINGS)}")
  if decoder_chunk < 0:
    raise InputError(f"decoder_chunk={decoder_chunk}: must not be negative")
  if not 0 < min_scale <= 1:
    raise InputError(f"min_scale={min_scale}: must lie above 0 and not above 1")
  check_width("decoder_", decoder_dim, decoder_heads, "sincos2d")
  trunk = dict(patch_size=patch_size, dim=dim, num_layers=num_layers, num_heads=num_heads, mlp_dim=mlp_dim or 4 * dim,
               positions=positions, activation=activation, norm_epsilon=norm_epsilon, pixel_mean=pixel_mean,
               pixel_std=pixel_std, dtype=dtype, remat=remat, unroll=unroll)
  grid = vit(**trunk).grid  # Refuses what does not fit before anything is compiled.
  network = Mae(trunk, dict(dim=decoder_dim, num_layers=decoder_layers, num_heads=decoder_heads,
                            mlp_dim=decoder_mlp_dim or 4 * decoder_dim))

  def order_of(batch, rng) -> tuple[Int[Array, "batch patches"], int]:
    """The places of the patches, visible ones first, and how many these are."""
    images = batch["image"]
    rows, columns = grid(images)
    num_visible = int(rows * columns * (1 - mask_ratio))
    if not num_visible:
      raise InputError(f"mask_ratio={mask_ratio}: of {rows} x {columns} patches none stays visible; lower it, or "
                       "take a smaller patch_size")
    if num_visible == rows * columns:
      raise InputError(f"mask_ratio={mask_ratio}: of {rows} x {columns} patches none is masked; raise it, or take a "
                       "smaller patch_size")
    if norm_pix and patch_size**2 * images.shape[3] == 1:
      raise InputError(f"norm_pix: patches of one number (patch_size={patch_size}) have no deviation; take "
                       "larger ones")
    noise = batch.get("noise")
    if noise is None:
      noise = patch_noise(rng, masking, len(images), rows, columns)
    return jnp.argsort(noise, 1), num_visible

  def init_params(rng, batch):
    return network.init(rng, batch["image"], *order_of(batch, jax.random.key(0)))["params"], {}

  def loss_fn(params, extra, batch, rng):
    images = batch["image"]
    rng, rng_images = jax.random.split(rng)
    changes = [horizontal_flip()] if flip else []
    if min_scale < 1:
      changes.append(random_resized_crop(_square(images), scale=(min_scale, 1.0), method="bicubic"))
    images = augmented(compose(*changes), rng_images, images) if changes else images
    loss, metrics = masked_loss(params, images, batch, rng)
    return loss, (metrics, extra)

  def masked_loss(params, images, batch, rng):
    """Loss and metrics of the (augmented) images of a batch, with masks from `rng`."""
    order, num_visible = order_of(batch, rng)
    latent, pixels = network.apply({"params": params}, images, order, num_visible, method="encode")
    target = pixels[:, num_visible:]
    if norm_pix:
      target = _standardized(target)[0]
    valid = row_mask(batch)
    weights = valid / jnp.maximum(valid.sum() * target.shape[1] * target.shape[2], 1)
    mean = lambda weights, errors: jnp.einsum("b,bnp->", weights, jnp.square(errors))

    def error(decoder, rows):
      predicted = network.apply({"params": {"decoder": decoder}}, rows["latent"], rows["order"], grid(images),
                                target.shape[2], False, method="decode")
      return mean(rows["weight"], predicted - rows["target"]), ()

    rows = {"latent": latent, "order": order, "weight": weights, "target": target}
    over = functools.partial(loss_over_chunks, error, size=decoder_chunk) if decoder_chunk else error
    loss, _ = over(params["decoder"], rows)
    # Of predicting the mean over all masked patches 1 is left.
    plain = mean(weights, target - jnp.einsum("b,bnp->p", weights, target) * target.shape[2])
    return loss, {"unexplained": loss / jnp.maximum(plain, 1e-12)}

  def reconstruct(params, extra, batch):
    """Images in [0, 1], with predicted patches in the masked places, and `mask` [batch, N], 1 where masked."""
    images = batch["image"]
    order, num_visible = order_of(batch, jax.random.key(0))  # Always the same.
    predicted, target = network.apply({"params": params}, images, order, num_visible, every=True)
    if norm_pix:  # What the loss does not ask for is taken from the image.
      _, center, std = _standardized(target)
      predicted = predicted * std + center
    back = jnp.argsort(order, 1)
    mask = (back >= num_visible).astype(jnp.float32)
    pixels = fold(jnp.take_along_axis(predicted, back[..., None], 1), patch_size, images.shape[1:])
    pixels = pixels * jnp.asarray(pixel_std, jnp.float32) + jnp.asarray(pixel_mean, jnp.float32)
    hidden = fold(jnp.broadcast_to(mask[..., None], predicted.shape), patch_size, images.shape[1:]) > 0
    original = to_float(images)
    return {"original": original, "masked": jnp.where(hidden, GREY, original), "mask": mask,
            "reconstructed": jnp.where(hidden, jnp.clip(pixels, 0, 1), original)}

  def embed_fn(params, extra, batch):
    method = "first" if pooling == "cls" else "patches"
    return network.apply({"params": params}, batch, method, method="read").astype(jnp.float32).mean(1)

  outputs = {
      "loss": lambda params, extra, batch: masked_loss(params, batch["image"], batch, jax.random.key(0))[0],
      "reconstruct": reconstruct,
      "hidden": lambda params, extra, batch: network.apply({"params": params}, batch, "layers", method="read"),
  }
  optimizer = optimizer or optax.adamw(1.5e-4, b2=0.95, weight_decay=0.05)
  return gradient_model(init_params, loss_fn, embed_fn, optimizer, accumulate=accumulate, ema_decay=ema_decay,
                        outputs=outputs, rules=RULES)


def _standardized(patches):
  """Each patch less its mean and over its deviation, and these."""
  mean = patches.mean(-1, keepdims=True)
  std = jnp.sqrt(patches.var(-1, keepdims=True, ddof=1) + 1e-6)
  return (patches - mean) / std, mean, std


def _square(images) -> int:
  """The side of square images, which crops are."""
  if images.shape[1] != images.shape[2]:
    raise InputError(f"min_scale: crops are square, the images have {images.shape[1]} x {images.shape[2]} pixels; "
                     "give data.image_size")
  return images.shape[1]
