"""Linear variational autoencoder (Kingma & Welling 2014; Lucas et al. 2019, arXiv:1911.02469).

  q(z | x) = N(W x + b, diag(exp(s))),  p(x | z) = N(V z + c, sigma^2 I),  p(z) = N(0, I)

The bound has a closed form, as E_q |x - V z - c|^2 = |x - V mu - c|^2 + sum_k exp(s_k) |V_k|^2.
"""
import jax
import jax.numpy as jnp
import numpy as np

from embeddings_jax.gradient import gradient_model
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.types import Fact


@takes(image=4)
def linear_vae(*, height: Fact[int], width: Fact[int], channels: Fact[int], dim: int = 8, noise: float = 0.2,
               optimizer=None):
  """A linear VAE of images; `noise` is the standard deviation sigma of a pixel, of values from 0 to 1."""
  size = height * width * channels
  pixels = lambda batch: jnp.reshape(batch["image"], (-1, size)) / 255.0
  images = lambda x: jnp.clip(x.reshape(-1, height, width, channels), 0, 1)

  def init_params(rng, batch):
    encoder, decoder = jax.random.split(rng)
    draw = lambda rng, *shape: jax.random.normal(rng, shape) / np.sqrt(shape[0])
    return {"W": draw(encoder, size, dim), "b": jnp.zeros(dim), "s": jnp.zeros(dim),
            "V": draw(decoder, dim, size), "c": jnp.full(size, 0.3)}, {}

  def mean(params, batch):
    return pixels(batch) @ params["W"] + params["b"]

  def bound(params, batch):
    """The negative lower bound of each image, nats."""
    mu, variance, x = mean(params, batch), jnp.exp(params["s"]), pixels(batch)
    error = jnp.square(x - mu @ params["V"] - params["c"]).sum(1) + (variance * jnp.square(params["V"]).sum(1)).sum()
    likelihood = error / (2 * noise**2) + size * jnp.log(noise * jnp.sqrt(2 * jnp.pi))
    return likelihood + 0.5 * (jnp.square(mu) + variance - params["s"] - 1).sum(1)

  def loss(params, batch):
    mask = row_mask(batch)
    return (mask * bound(params, batch)).sum() / jnp.maximum(mask.sum(), 1)

  def measures(params, extra, batch):
    mask = row_mask(batch)
    return {"elbo_loss": jnp.stack([(mask * bound(params, batch)).sum(), mask.sum()])}

  def decode(params, extra, codes):
    return images(codes @ params["V"] + params["c"])

  outputs = {
      "loss": lambda params, extra, batch: loss(params, batch), "measures": measures, "decode": decode,
      "reconstruct": lambda params, extra, batch: {
          "original": images(pixels(batch)), "reconstructed": decode(params, extra, mean(params, batch))},
      "sample": lambda params, extra, rng, num, batch=None: decode(params, extra, jax.random.normal(rng, (num, dim))),
  }
  return gradient_model(init_params, lambda params, extra, batch, rng: (loss(params, batch), ({}, extra)),
                        lambda params, extra, batch: mean(params, batch), optimizer, outputs=outputs)
