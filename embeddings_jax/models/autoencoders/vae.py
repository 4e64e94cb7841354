"""Variational autoencoder (Kingma & Welling 2014, arXiv:1312.6114), with four likelihoods and two bounds.

  loss = mean_n -log p(x_n | z_n) + beta KL(q(z | x_n) || N(0, I)),   z_n ~ q(z | x_n) = N(mu, diag(sigma^2))

which is minus the evidence lower bound, in nats per image, where beta = 1. With `num_samples` = k > 1 it is minus the
importance weighted bound (Burda, Grosse & Salakhutdinov 2016, arXiv:1509.00519)

  loss = mean_n -log 1/k sum_i p(x_n | z_ni) p(z_ni) / q(z_ni | x_n).

| symbol | code | shape |
|---|---|---|
| x | image | [n, H, W, C] in [0, 1], D = H W C |
| mu, log sigma^2 | `params["encoder"]`; mu is `embed` | [n, dim] each |
| p(x given z) | `params["decoder"]`, `ops/likelihoods.py` | |
| s | `params["log_scale"]`, or half of the decoder's output | [], or [n, H, W, C] |

Likelihoods: `gaussian` with a learnt scale s, one for all pixels (Rybkin, Daniilidis & Levine 2021, "Simple and
Effective VAE Training with Calibrated Decoders"); `bernoulli`; `discretized_logistic` of 8-bit values; `squared`,
the 1000 x mean squared error of Foster's "Generative Deep Learning": a Gaussian with the fixed variance D / 2000,
whose constant is added so that the loss is minus the bound here too.

- `kl_warmup_steps` raises beta linearly from 0 (Bowman et al. 2016).
- `free_bits` lambda makes the KL term sum_j max(lambda, mean_n KL_j) (Kingma et al. 2016, arXiv:1606.04934).

Linear and Gaussian, with the one scale, it is probabilistic PCA, whose likelihood the bound reaches (Lucas, Tucker,
Grosse & Norouzi 2019, arXiv:1911.02469).

Split: image | a random code of the image | the image.

Expected: `embeddings_jax/configs/vae.py`.
"""
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from embeddings_jax.gradient import gradient_model
from embeddings_jax.nets.images import autoencoder_networks
from embeddings_jax.ops import likelihoods
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.pixels import to_float
from embeddings_jax.types import Fact, InputError, Model

LIKELIHOODS = ("gaussian", "bernoulli", "discretized_logistic", "squared")
SCALES = ("shared", "output")
OUTPUT_ACTIVATIONS = ("sigmoid", "linear")
MSE_WEIGHT = 1000.0  # Of `squared`.
ACTIVE = 0.01  # Least variance of an active unit's mean (Burda et al. 2016).
COLLAPSED = 0.1  # Nats of KL below which the code says nothing.
LEAST_LOG_SCALE = -7.0


@takes(image=4)
def vae(
    *,
    height: Fact[int],
    width: Fact[int],
    channels: Fact[int],
    dim: int = 2,
    widths: Sequence[int] = (32, 64, 64, 64),
    strides: Sequence[int] = (1, 2, 2, 1),
    slope: float = 0.3,
    upsampling: str = "transposed",
    likelihood: str = "gaussian",
    scale: str = "shared",
    output_activation: str = "sigmoid",
    beta: float = 1.0,
    kl_warmup_steps: int = 0,
    free_bits: float = 0.0,
    num_samples: int = 1,
    optimizer: optax.GradientTransformation | None = None,
    accumulate: int = 1,
    ema_decay: float | None = None,
) -> Model:
  """A variational autoencoder of images.

  Args:
    height, width, channels: Shape of the images.
    dim: Size of the code.
    widths, strides, slope, upsampling: Networks, see `autoencoder`.
    likelihood: `gaussian`, `bernoulli`, `discretized_logistic` or `squared`.
    scale: Of `gaussian` and `discretized_logistic`: `shared`, one learnt number, or `output`, of each pixel by the
      decoder.
    output_activation: Of the mean: `sigmoid` or `linear`; `bernoulli` has a sigmoid.
    beta: Weight of the KL divergence (Higgins et al. 2017).
    kl_warmup_steps: Updates in which beta rises from 0.
    free_bits: lambda, nats of each unit's KL that cost nothing more.
    num_samples: k, draws of the code; above 1 the importance weighted bound is the objective.
    optimizer: By default Adam with a learning rate of 1e-3.
    accumulate, ema_decay: See `gradient_model`.

  Returns:
    A `Model` whose `embed` gives the means [n, dim]. Outputs: `loss` (minus the bound, whatever the weights of the
    objective), `measures`, `likelihood_bound` (importance weighted, of `num` draws), `reconstruct` and `decode` (the
    mean of p(x|z), clipped to [0, 1]), `sample` (such means of codes from the prior). Metrics, nats per image:
    `elbo`, `reconstruction` (-log p(x|z)), `kl`; `bits_per_dim`, `active_units` (their number), `beta`, and
    `collapsed`, 1 where the KL is below .1 nat: then try a KL warm-up, free bits or a weaker decoder.
  """
  for name, value, choices in (("likelihood", likelihood, LIKELIHOODS), ("scale", scale, SCALES),
                               ("output_activation", output_activation, OUTPUT_ACTIVATIONS)):
    if value not in choices:
      raise InputError(f"{name}={value!r}: must be one of {', '.join(choices)}")
  if beta < 0 or kl_warmup_steps < 0 or free_bits < 0 or num_samples < 1:
    raise InputError(f"beta={beta}, kl_warmup_steps={kl_warmup_steps}, free_bits={free_bits}, "
                     f"num_samples={num_samples}: must be at least 0, 0, 0 and 1")
  if num_samples > 1 and (beta != 1 or kl_warmup_steps or free_bits):
    raise InputError(f"num_samples={num_samples}: the importance weighted bound has no KL term to weigh; set beta=1, "
                     "kl_warmup_steps=0 and free_bits=0")
  scaled = likelihood in ("gaussian", "discretized_logistic")
  by_pixel = scaled and scale == "output"
  shape, size = (height, width, channels), height * width * channels
  encoder, decoder = autoencoder_networks(
      shape, dim, widths=widths, strides=strides, slope=slope, upsampling=upsampling, code_factor=2,
      output_factor=2 if by_pixel else 1)
  optimizer = optax.adam(1e-3) if optimizer is None else optimizer

  def init_params(rng, batch):
    first, second = jax.random.split(rng)
    params = {"encoder": encoder.init(first, jnp.zeros((1, *shape)))["params"],
              "decoder": decoder.init(second, jnp.zeros((1, dim)))["params"]}
    if scaled and not by_pixel:
      params["log_scale"] = jnp.full((), -1.0, jnp.float32)
    return params, {"step": jnp.zeros((), jnp.int32)}

  def posterior(params, images):
    return jnp.split(encoder.apply({"params": params["encoder"]}, images), 2, -1)

  def outputs_of(params, codes):
    """The mean of p(x|z), as logits of `bernoulli`, and the logarithm of its scale."""
    output = decoder.apply({"params": params["decoder"]}, codes)
    log_scale = params.get("log_scale", jnp.float32(0.5 * math.log(size / (2 * MSE_WEIGHT))))
    if by_pixel:
      output, log_scale = jnp.split(output, 2, -1)
      log_scale = log_scale - 2.0
    if likelihood != "bernoulli" and output_activation == "sigmoid":
      output = jax.nn.sigmoid(output)
    return output, jnp.maximum(log_scale, LEAST_LOG_SCALE)

  def log_likelihood(params, images, codes):
    mean, log_scale = outputs_of(params, codes)
    if likelihood == "bernoulli":
      return likelihoods.bernoulli(images, mean)
    density = likelihoods.discretized_logistic if likelihood == "discretized_logistic" else likelihoods.gaussian
    return density(images, mean, log_scale)

  def log_weights(params, images, mean, log_variance, rng):
    """log p(x, z) / q(z | x) of one draw of the code for each image."""
    codes = draw(rng, mean, log_variance)
    return (log_likelihood(params, images, codes) + likelihoods.log_normal(codes, jnp.zeros(dim), jnp.zeros(dim))
            - likelihoods.log_normal(codes, mean, log_variance))

  def parts(params, batch, rng):
    """-log p(x|z) of each image, the KL of each image and unit, and the means."""
    images = to_float(batch["image"])
    mean, log_variance = posterior(params, images)
    return (-log_likelihood(params, images, draw(rng, mean, log_variance)),
            likelihoods.gaussian_kl(mean, log_variance), mean)

  def loss_fn(params, extra, batch, rng):
    mask = row_mask(batch)
    average = lambda values: jnp.tensordot(mask, values, 1) / jnp.maximum(mask.sum(), 1)
    reconstruction, kl, mean = parts(params, batch, rng)
    nats, units = average(reconstruction), average(kl)  # [], [dim]
    weight = beta * jnp.minimum(1.0, (extra["step"] + 1) / kl_warmup_steps) if kl_warmup_steps else jnp.float32(beta)
    loss = nats + weight * jnp.maximum(units, free_bits).sum()
    if num_samples > 1:
      images = to_float(batch["image"])
      rngs = jax.random.split(rng, num_samples)
      weights = jax.vmap(lambda rng: log_weights(params, images, *posterior(params, images), rng))(rngs)
      loss = -average(jax.nn.logsumexp(weights, 0) - math.log(num_samples))
    elbo = -nats - units.sum()
    return loss, ({
        "elbo": elbo, "reconstruction": nats, "kl": units.sum(), "beta": weight,
        "bits_per_dim": likelihoods.bits_per_dim(elbo, size),
        "active_units": (average(jnp.square(mean - average(mean))) > ACTIVE).sum(dtype=jnp.float32),
        "collapsed": (units.sum() < COLLAPSED).astype(jnp.float32)}, extra)

  def measures(params, extra, batch):
    mask = row_mask(batch)
    reconstruction, kl, _ = parts(params, batch, jax.random.key(0))
    kl = kl.sum(1)
    pairs = {"elbo_loss": reconstruction + kl, "reconstruction_loss": reconstruction, "kl_loss": kl}
    return {name: jnp.stack([(mask * values).sum(), mask.sum()]) for name, values in pairs.items()}

  def loss(params, extra, batch):
    total, count = measures(params, extra, batch)["elbo_loss"]
    return total / jnp.maximum(count, 1)

  def likelihood_bound(params, extra, batch, rng, num):
    images = to_float(batch["image"])
    mean, log_variance = posterior(params, images)

    def add(total, i):
      return jnp.logaddexp(total, log_weights(params, images, mean, log_variance, jax.random.fold_in(rng, i))), None

    return jax.lax.scan(add, jnp.full(len(images), -jnp.inf), jnp.arange(num))[0] - math.log(num)

  def decode(params, extra, codes):
    mean = outputs_of(params, codes)[0]
    return jax.nn.sigmoid(mean) if likelihood == "bernoulli" else jnp.clip(mean, 0, 1)

  def reconstruct(params, extra, batch):
    images = to_float(batch["image"])
    return {"original": images, "reconstructed": decode(params, extra, posterior(params, images)[0])}

  outputs = {
      "loss": loss, "measures": measures, "likelihood_bound": likelihood_bound, "reconstruct": reconstruct,
      "decode": decode,
      "sample": lambda params, extra, rng, num, batch=None: decode(params, extra, jax.random.normal(rng, (num, dim))),
  }
  return gradient_model(
      init_params, loss_fn, lambda params, extra, batch: posterior(params, to_float(batch["image"]))[0], optimizer,
      coupled=free_bits > 0, accumulate=accumulate, ema_decay=ema_decay, outputs=outputs,
      after_update=lambda state: state._replace(extra={"step": state.extra["step"] + 1}))


def draw(rng: Array, mean: Float[Array, "n dim"], log_variance: Float[Array, "n dim"]) -> Float[Array, "n dim"]:
  """Returns a draw of each row's N(mean, diag(exp(log_variance)))."""
  return mean + jnp.exp(0.5 * log_variance) * jax.random.normal(rng, mean.shape)
