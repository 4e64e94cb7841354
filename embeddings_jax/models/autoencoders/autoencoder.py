"""Autoencoders of images: convolutional, dense or linear; denoising, sparse or contractive.

  loss = mean_n L(x_n, g(f(x~_n))) + lambda mean_n |df/dx(x_n)|_F^2

  squared      L = |x - x^|^2 / (H W C), the mean squared error
  bernoulli    L = -sum_i [x_i log x^_i + (1 - x_i) log(1 - x^_i)], nats per image
  ssim         L = 1 - SSIM(x, x^) (`ops/image_quality.py`)
  perceptual   L = |phi(x) - phi(x^)|^2 / (h w d), phi a layer of a trunk that is not trained (Johnson, Alahi &
               Fei-Fei 2016, arXiv:1603.08155, equation 2)

| symbol | code | shape |
|---|---|---|
| x, x~ | image, `corrupted` | [n, H, W, C] in [0, 1] |
| f | `params["encoder"]`, `embed` | code [n, dim] |
| g | `params["decoder"]`, `decode` | [n, H, W, C] |
| phi | `extra["features"]` | [n, h, w, d] |
| lambda | `contraction` | |

- x~ is x, or x with noise, and then the *clean* x is still the target: denoising (Vincent, Larochelle, Bengio &
  Manzagol 2008). Linear, with squared loss and Gaussian noise of variance s^2, its optimum is the Wiener filter
  S (S + s^2 I)^-1 of data with covariance S.
- The penalty makes it contractive (Rifai, Vincent, Muller, Glorot & Bengio 2011). One vector-Jacobian product for
  each unit of the code gives it exactly.
- `top_k` keeps the largest k units of each code and sets the others to 0 (Makhzani & Frey 2014, "k-Sparse
  Autoencoders").
- `tied` decoders have the transposed kernels of the encoder (dense networks alone).

The default networks, with "same" padding and LeakyReLU .3, are those of Foster, "Generative Deep Learning" (2nd
edition, chapter 3): 98,946 and 102,017 parameters for images of 28 x 28 and codes of 2.

Split: image | the image, whole or corrupted | the image.

Expected: `embeddings_jax/configs/autoencoder.py`.
"""
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int

from embeddings_jax.gradient import gradient_model
from embeddings_jax.nets.images import autoencoder_networks, conv_maps, tied_decoder, untied_part
from embeddings_jax.nets.pretext import layer_maps, started, variables_of
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.corruption import check_corruption, corrupted
from embeddings_jax.ops.image_quality import checkerboard, mse, ssim
from embeddings_jax.ops.pixels import to_float
from embeddings_jax.types import Fact, InputError, Model

LOSSES = ("squared", "bernoulli", "ssim", "perceptual")
OUTPUT_ACTIVATIONS = ("sigmoid", "linear")
CODE_ACTIVATIONS = ("linear", "relu", "sigmoid")
VARIES = 1e-6  # Least range of a living unit over a batch.


@takes(image=4)
def autoencoder(
    *,
    height: Fact[int],
    width: Fact[int],
    channels: Fact[int],
    dim: int = 2,
    widths: Sequence[int] = (32, 64, 64, 64),
    strides: Sequence[int] = (1, 2, 2, 1),
    slope: float = 0.3,
    upsampling: str = "transposed",
    loss: str = "squared",
    encoder: nn.Module | None = None,
    layer: str = "",
    output_activation: str = "sigmoid",
    code_activation: str = "linear",
    corruption: str = "none",
    corruption_level: float = 0.1,
    contraction: float = 0.0,
    top_k: int = 0,
    tied: bool = False,
    dead_after: int = 100,
    optimizer: optax.GradientTransformation | None = None,
    accumulate: int = 1,
    ema_decay: float | None = None,
) -> Model:
  """An autoencoder of images.

  Args:
    height, width, channels: Shape of the images.
    dim: Size of the code.
    widths: Channels of the encoder's convolutions, or widths of its dense hidden layers; reversed in the decoder.
    strides: Strides of the convolutions; () makes dense networks with ReLU, without `widths` linear ones.
    slope: Slope of the LeakyReLU of convolutional networks below 0.
    upsampling: `transposed` convolutions, or `resize` and convolve, without checkerboards.
    loss: `squared`, `bernoulli`, `ssim` or `perceptual`.
    encoder: Of `perceptual`: trunk of images whose features are compared; it is not trained. `--init_from=RUN` takes
      the one that a run has learnt, else its weights are random.
    layer: Of `perceptual`: block of the trunk, as `block_3`; "" for the last.
    output_activation: `sigmoid`, or `linear` (not with `bernoulli`).
    code_activation: `linear`, `relu` or `sigmoid`.
    corruption: Of the encoder's input: `none`, `gaussian`, `masking` or `salt_and_pepper`.
    corruption_level: Standard deviation of Gaussian noise, else fraction of changed pixels.
    contraction: lambda, weight of the squared Frobenius norm of the encoder's Jacobian.
    top_k: Units of the code that are kept; 0 for all.
    tied: Whether the decoder's kernels are the encoder's, transposed.
    dead_after: A unit of the code that was the same for all images of this many updates in a row counts as dead.
    optimizer: By default Adam with a learning rate of 5e-4.
    accumulate, ema_decay: See `gradient_model`.

  Returns:
    A `Model` whose `embed` gives the codes [n, dim] of clean images. Outputs: `loss`, `reconstruct`, `decode`,
    `measures`. Metrics: `dead_units`, the share of dead units; with `contraction` also `jacobian_norm`, the mean of
    |df/dx|_F^2; with strides `checkerboard`, that of the reconstructions at a period of 2.
  """
  check_corruption(corruption, corruption_level)
  for name, value, choices in (("loss", loss, LOSSES), ("output_activation", output_activation, OUTPUT_ACTIVATIONS),
                               ("code_activation", code_activation, CODE_ACTIVATIONS)):
    if value not in choices:
      raise InputError(f"{name}={value!r}: must be one of {', '.join(choices)}")
  if loss == "bernoulli" and output_activation != "sigmoid":
    raise InputError(f"output_activation={output_activation!r}: loss='bernoulli' needs probabilities; use 'sigmoid'")
  if not 0 <= top_k <= dim:
    raise InputError(f"top_k={top_k}: must be from 0 (all) to dim={dim}")
  if contraction < 0 or dead_after < 1:
    raise InputError(f"contraction={contraction}, dead_after={dead_after}: must be at least 0, and at least 1")
  if tied and strides:
    raise InputError("tied=True: needs dense networks; set strides=()")
  if loss == "perceptual" and encoder is None:
    raise InputError("loss='perceptual': needs an encoder, the trunk whose features are compared; start from the "
                     "config autoencoder_perceptual")
  if loss != "perceptual" and encoder is not None:
    raise InputError(f"loss={loss!r}: compares no features; leave the encoder out, or set loss='perceptual'")
  trunk, shape = encoder, (height, width, channels)
  encoder, decoder = autoencoder_networks(shape, dim, widths=widths, strides=strides, slope=slope,
                                          upsampling=upsampling)
  optimizer = optax.adam(5e-4) if optimizer is None else optimizer

  def init_params(rng, batch):
    first, second = jax.random.split(rng)
    params = {"encoder": encoder.init(first, jnp.zeros((1, *shape)))["params"],
              "decoder": decoder.init(second, jnp.zeros((1, dim)))["params"]}
    if tied:
      params["decoder"] = untied_part(params["decoder"])
    extra = {"idle": jnp.zeros(dim, jnp.int32)}
    if trunk is not None:
      own, statistics = started(trunk, jax.random.fold_in(rng, 2), jnp.zeros((1, *shape)))
      extra |= {"features": {"encoder": own}, **{name: {"encoder": value} for name, value in statistics.items()}}
    return params, extra

  def features(extra, images):
    """Maps of the frozen trunk, [n, h, w, d]."""
    maps = layer_maps(trunk, variables_of(extra["features"], extra), {"image": images})
    if layer and layer not in maps:
      raise InputError(f"layer={layer!r}: must be one of {', '.join(maps)}")
    return maps[layer or list(maps)[-1]]

  def encode(params, images):
    code = encoder.apply({"params": params["encoder"]}, images)
    code = {"linear": lambda x: x, "relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid}[code_activation](code)
    return keep_largest(code, top_k) if top_k else code

  def decoded(params, codes):
    """Images before the last activation."""
    own = tied_decoder(params["encoder"], params["decoder"]) if tied else params["decoder"]
    return decoder.apply({"params": own}, codes)

  def activated(output):
    return jax.nn.sigmoid(output) if output_activation == "sigmoid" else output

  def losses(params, extra, images, rng):
    """Loss of each image without the penalty, the output, and the codes."""
    codes = encode(params, corrupted(rng, images, corruption, corruption_level))
    output = decoded(params, codes)
    if loss == "bernoulli":
      each = optax.sigmoid_binary_cross_entropy(output, images).sum((1, 2, 3))
    elif loss == "perceptual":
      each = jnp.square(features(extra, activated(output)) - features(extra, images)).mean((1, 2, 3))
    else:
      each = mse(images, activated(output)) if loss == "squared" else 1 - ssim(images, activated(output))
    return each, activated(output), codes

  def loss_fn(params, extra, batch, rng):
    images, mask = to_float(batch["image"]), row_mask(batch)
    mean = lambda values: (mask * values).sum() / jnp.maximum(mask.sum(), 1)
    each, output, codes = losses(params, extra, images, rng)
    idle = jnp.where(varies(codes, mask), 0, extra["idle"] + 1)
    metrics = {"dead_units": (idle >= dead_after).mean(dtype=jnp.float32)}
    value = mean(each)
    if contraction:
      metrics["jacobian_norm"] = mean(jacobian_norm(lambda x: encode(params, x), images))
      value = value + contraction * metrics["jacobian_norm"]
    if strides:
      metrics["checkerboard"] = jax.lax.stop_gradient(mean(checkerboard(output)))
    return value, (metrics, {**extra, "idle": idle})

  def reconstruct(params, extra, batch):
    images = to_float(batch["image"])
    seen = corrupted(jax.random.key(0), images, corruption, corruption_level)
    result = {"original": images, "reconstructed": activated(decoded(params, encode(params, seen)))}
    return result if corruption == "none" else result | {"corrupted": seen}

  def measures(params, extra, batch):
    mask = row_mask(batch)
    each = losses(params, extra, to_float(batch["image"]), jax.random.key(0))[0]
    return {"reconstruction_loss": jnp.stack([(mask * each).sum(), mask.sum()])}

  outputs = {
      "loss": lambda params, extra, batch: loss_fn(params, extra, batch, jax.random.key(0))[0],
      "measures": measures,
      "reconstruct": reconstruct,
      "decode": lambda params, extra, codes: activated(decoded(params, codes)),
  }
  if strides:
    outputs["layers"] = lambda params, extra, batch: conv_maps(encoder, params["encoder"], to_float(batch["image"]))
  return gradient_model(init_params, loss_fn, lambda params, extra, batch: encode(params, to_float(batch["image"])),
                        optimizer, accumulate=accumulate, ema_decay=ema_decay, outputs=outputs)


def keep_largest(codes: Float[Array, "n dim"], k: int) -> Float[Array, "n dim"]:
  """Returns codes with all but the k largest units of each set to 0; of equal ones the first are kept."""
  kept = jax.lax.top_k(codes, k)[1]
  return codes * jax.nn.one_hot(kept, codes.shape[1]).sum(1)


def jacobian_norm(encode, images: Float[Array, "n height width channels"]) -> Float[Array, " n"]:
  """Returns |d encode(x) / dx|_F^2 of each image, by one vector-Jacobian product for each unit of the code."""
  codes, pull = jax.vjp(encode, images)
  directions = jnp.broadcast_to(jnp.eye(codes.shape[1])[:, None], (codes.shape[1], *codes.shape))
  rows, = jax.vmap(pull)(directions)  # [dim, n, height, width, channels]
  return jnp.square(rows).sum((0, 2, 3, 4))


def varies(codes: Float[Array, "n dim"], mask: Float[Array, " n"]) -> Int[Array, " dim"]:
  """Returns 1 for units of the code that differ among the valid rows."""
  valid = mask[:, None] > 0
  low, high = (jnp.where(valid, codes, sign * jnp.inf) for sign in (1, -1))
  low, high = low.min(0), high.max(0)
  return (high - low > VARIES * (1 + jnp.maximum(jnp.abs(low), jnp.abs(high)))).astype(jnp.int32)
