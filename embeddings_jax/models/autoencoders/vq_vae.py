"""VQ-VAE: an autoencoder of images whose code is a map of whole numbers.

van den Oord, Vinyals & Kavukcuoglu 2017, "Neural Discrete Representation Learning", arXiv:1711.00937. With f the
encoder, g the decoder, q(z) the nearest row of the codebook to each vector of a map, and sg no gradient:

  z = f(x),   x^ = g(z + sg(q(z) - z)),   loss = mean |x - x^|^2 / v + beta mean |z - sg(q(z))|^2

| symbol | code | shape |
|---|---|---|
| x | image | [n, H, W, C] in [0, 1] |
| z | `params["encoder"]` | [n, h, w, dim], h = H / 2^len(widths) |
| e | `extra["codebook"]` | [num_codes, dim], running averages (`ops/quantization.py`) |
| q(z) | `embed`, flattened | [n, h w dim] |
| the code | `codes` | int32 [n, h, w] |
| v | `variance` | of the data's pixels, as the authors' programs have it |

The gradient of x^ passes the codes unchanged, to z. The codebook follows z by averages over the whole batch, on all
devices; a code that is hardly used becomes a vector of the batch (`revival`), all of them at the first update.
`levels` takes finite scalar quantization instead of a codebook: loss without the second term.

`usage` is the share of codes with more than 1 % of the mean count, and `perplexity` exp of the entropy of their
frequencies, over some 1 / (1 - decay) updates; the protocol `codebook` measures both over a split. A prior over codes
is a second model: `python -m experiments.run --model=gpt --config.pipeline=codes --config.data.codes=RUN`.

Deviations: the codebook's vectors are few numbers; dead codes are revived. Expected:
`embeddings_jax/configs/vq_vae.py`.

Split: image | discrete codes of the image | the image.
"""
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from embeddings_jax.gradient import gradient_model
from embeddings_jax.nets.images import grid
from embeddings_jax.nets.pretext import masked_mean, sums
from embeddings_jax.nets.quantized import MapDecoder, MapEncoder
from embeddings_jax.ops import quantization
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.pixels import to_float
from embeddings_jax.types import Fact, InputError, Model

USED = 0.01  # Share of the mean count from which a code counts as used.


@takes(image=4)
def vq_vae(
    *,
    height: Fact[int],
    width: Fact[int],
    channels: Fact[int],
    num_codes: int = 512,
    dim: int = 64,
    levels: Sequence[int] = (),
    widths: Sequence[int] = (128, 256),
    num_blocks: int = 2,
    commitment: float = 0.25,
    decay: float = 0.99,
    revival: float = 0.1,
    variance: float = 0.06,
    optimizer: optax.GradientTransformation | None = None,
    ema_decay: float | None = None,
) -> Model:
  """A vector-quantized autoencoder of images.

  Args:
    height, width, channels: Shape of the images.
    num_codes: Rows of the codebook.
    dim: Size of its vectors.
    levels: Numbers of values of each unit for finite scalar quantization, as (8, 5, 5, 5) for 1,000 codes; () for a
      codebook.
    widths: Channels of the encoder's convolutions, each of stride 2; reversed in the decoder.
    num_blocks: Residual blocks of either network.
    commitment: beta.
    decay: Decay of the codebook's averages.
    revival: Share of the mean count below which a code is dead; 0 revives none.
    variance: v, variance of the data's pixels, which scales the reconstruction.
    optimizer: By default Adam with a learning rate of 2e-4.
    ema_decay: See `gradient_model`.

  Returns:
    A `Model` whose `embed` gives quantized maps [n, h w dim]. Outputs: `codes`, `decode` (of whole numbers [n, h, w]
    or [n, h w], or of maps like those of `embed`, which are quantized), `reconstruct`, `loss`, `measures`. Metrics:
    `reconstruction_loss` (mean squared error), `usage`, `perplexity`, `revived`.
  """
  widths, levels = tuple(widths), tuple(levels)
  if not widths or min(widths) < 1 or num_codes < 2 or dim < 1 or num_blocks < 0:
    raise InputError(f"widths={widths}, num_codes={num_codes}, dim={dim}, num_blocks={num_blocks}: must be at least "
                     "1, 2, 1 and 0")
  if levels and min(levels) < 2:
    raise InputError(f"levels={levels}: must be at least 2 each; () takes a codebook")
  if not 0 <= decay < 1 or not 0 <= revival < 1 or commitment < 0 or variance <= 0:
    raise InputError(f"decay={decay}, revival={revival}, commitment={commitment}, variance={variance}: must lie in "
                     "[0, 1), in [0, 1), be at least 0, and above 0")
  rows, columns = grid(height, width, (2,) * len(widths))
  size, total = (len(levels), math.prod(levels)) if levels else (dim, num_codes)
  encoder = MapEncoder(size, widths, num_blocks)
  decoder = MapDecoder(channels, widths, num_blocks)

  def init_params(rng, batch):
    rng_encoder, rng_decoder, rng_codes = jax.random.split(rng, 3)
    params = {"encoder": encoder.init(rng_encoder, jnp.zeros((1, height, width, channels)))["params"],
              "decoder": decoder.init(rng_decoder, jnp.zeros((1, rows, columns, size)))["params"]}
    extra = {"counts": jnp.zeros(total)}
    if not levels:
      extra |= {"codebook": jax.random.normal(rng_codes, (total, size)) / math.sqrt(size),
                "sums": jnp.zeros((total, size))}
    return params, extra

  def encode(params, images):
    return encoder.apply({"params": params["encoder"]}, images)

  def decoded(params, maps):
    return decoder.apply({"params": params["decoder"]}, maps)

  def quantize(extra, z):
    """Codes [n, h, w] and their vectors, with gradients passed on for scalars."""
    if levels:
      squeezed = quantization.bounded(z, levels)
      numbers = quantization.straight_through(squeezed, jnp.round(squeezed))
      return quantization.numbers_to_codes(jnp.round(squeezed), levels), quantization.scalar_values(numbers, levels)
    codes = quantization.nearest_codes(z.reshape(-1, size), extra["codebook"]).reshape(z.shape[:3])
    return codes, extra["codebook"][codes]

  def loss_fn(params, extra, batch, rng):
    images, mask = to_float(batch["image"]), row_mask(batch)
    z = encode(params, images)
    codes, vectors = quantize(extra, z)
    maps = vectors if levels else quantization.straight_through(z, vectors)
    error = masked_mean(jnp.square(images - decoded(params, maps)).mean((1, 2, 3)), mask)
    value = error / variance
    weight = jnp.broadcast_to(mask[:, None, None], codes.shape).reshape(-1)
    flat, of_rows = jax.lax.stop_gradient(z).reshape(-1, size), codes.reshape(-1)
    if levels:
      used = (jax.nn.one_hot(of_rows, total) * weight[:, None]).sum(0)
      counts, moved = decay * extra["counts"] + (1 - decay) * used, jnp.zeros(())
      extra = {"counts": counts}
    else:
      value += commitment * masked_mean(jnp.square(z - jax.lax.stop_gradient(vectors)).mean((1, 2, 3)), mask)
      counts, totals, codebook = quantization.moved_codebook(extra["counts"], extra["sums"], extra["codebook"], flat,
                                                             of_rows, weight, decay)
      counts, totals, codebook, moved = quantization.revived(rng, counts, totals, codebook, flat, weight, revival)
      extra = {"counts": counts, "codebook": codebook, "sums": totals}
    usage = (counts > USED * counts.mean()).mean(dtype=jnp.float32)
    return value, ({"reconstruction_loss": error, "usage": usage, "perplexity": quantization.perplexity(counts),
                    "revived": moved}, jax.lax.stop_gradient(extra))

  def codes_of(params, extra, batch):
    return quantize(extra, encode(params, to_float(batch["image"])))[0]

  def decode(params, extra, codes):
    if jnp.issubdtype(codes.dtype, jnp.integer):
      codes = jnp.clip(codes.reshape(-1, rows, columns), 0, total - 1)
    else:
      maps = codes.reshape(-1, rows, columns, size)
      codes = quantization.numbers_to_codes(quantization.nearest_numbers(maps, levels), levels) if levels else (
          quantize(extra, maps)[0])
    vectors = quantization.scalar_values(quantization.codes_to_numbers(codes, levels), levels) if levels else (
        extra["codebook"][codes])
    return jnp.clip(decoded(params, vectors), 0, 1)

  def reconstruct(params, extra, batch):
    images = to_float(batch["image"])
    return {"original": images, "reconstructed": decode(params, extra, codes_of(params, extra, batch))}

  def errors(params, extra, batch):
    images = to_float(batch["image"])
    return jnp.square(images - decoded(params, quantize(extra, encode(params, images))[1])).mean((1, 2, 3))

  outputs = {
      "codes": codes_of, "decode": decode, "reconstruct": reconstruct,
      "loss": lambda params, extra, batch: masked_mean(errors(params, extra, batch), row_mask(batch)),
      "measures": lambda params, extra, batch: {
          "reconstruction_loss": sums(errors(params, extra, batch), row_mask(batch))},
  }

  def embed_fn(params, extra, batch):
    z = encode(params, to_float(batch["image"]))
    return quantize(extra, z)[1].reshape(len(z), -1)

  return gradient_model(init_params, loss_fn, embed_fn, optimizer or optax.adam(2e-4), coupled=True,
                        ema_decay=ema_decay, outputs=outputs)
