"""Deep image prior: restores an image by a network that is fitted to this one degraded image alone.

Ulyanov, Vedaldi & Lempitsky 2018, "Deep Image Prior", arXiv:1711.10925:

  theta = argmin |M * (d(g_theta(z)) - X)|^2,   Y = g_theta(z)   stopped early,

where z is noise, d a degradation (`ops/degradations.py`) and M leaves out a fraction `held_out` of the observed
pixels. Natural images are fitted before noise is, and the two rules of stopping need no clean image:

  variance   the running variance of the output, V <- (1 - a)(V + a |y - e|^2), e <- (1 - a) e + a y with
             y = g_theta(z), is least (Wang, Li, Zhuang, Chen, Liang & Sun 2021, arXiv:2112.06074)
  held_out   the running mean of the error at the pixels that M leaves out is least

Both keep e at their best step in the state, whichever of them ends the run: the loop acts on `converged` one dispatch
late. Several images have a network each, and stop together.

| symbol | code | shape |
|---|---|---|
| X | image | [n, h, w, C] in [0, 1]; h = H / scale of super-resolution |
| M | `state.kept` | [n, h, w, 1] |
| z | `state.code` | [n, H, W, code_channels] |
| theta | `state.params` | a leading axis n |
| e, V | `state.mean`, `state.variance` | [n, H, W, C], [n] |

Split: one degraded image | fixed noise | the image's visible content.

Expected: pieces of 64 x 64 pixels of three photographs (`benchmark single_image_table`), PSNR: denoising at 25/255
28.4 by `variance`, 28.3 by `held_out`, total variation 28.1; super-resolution by 2 29.3 (bicubic 29.6, total
variation 31.2); half of the pixels 29.9 (biharmonic 31.8).
"""
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from embeddings_jax.nets.unet import UNet, check_unet
from embeddings_jax.ops.batches import takes
from embeddings_jax.ops.degradations import Degradation
from embeddings_jax.ops.pixels import to_float
from embeddings_jax.types import InputError, Model

STOPPINGS = ("variance", "held_out", "none")
CODE_SCALE = 0.1  # Of z, uniform noise from 0.


class Best(NamedTuple):
  """The best step so far by one rule."""

  value: Float[Array, " n"]
  step: Int[Array, " n"]
  output: Float[Array, "n height width channels"]


class DeepImagePriorState(NamedTuple):
  """Networks, running statistics of their output, and the best outputs by both rules."""

  step: Int[Array, ""]
  params: Any
  opt_state: Any
  code: Float[Array, "n height width code"]
  kept: Float[Array, "n rows columns 1"]
  mean: Float[Array, "n height width channels"]
  variance: Float[Array, " n"]
  error: Float[Array, " n"]
  by_variance: Best
  by_held_out: Best


@takes(image=4)
def deep_image_prior(
    *,
    task: str = "denoise",
    scale: int = 2,
    kernel: str = "bicubic",
    widths: Sequence[int] = (32, 64, 64),
    skips: bool = False,
    code_channels: int = 16,
    code_noise: float = 1 / 30,
    stopping: str = "held_out",
    held_out: float = 0.02,
    decay: float = 0.98,
    burn_in: int = 200,
    patience: int = 300,
    optimizer: optax.GradientTransformation | None = None,
) -> Model:
  """Networks that restore the images of a batch, which must be the same in every update.

  Args:
    task: `denoise`, `superres` or `inpaint`; the last reads the batch's `visible` [n, h, w, 1], 1 where seen.
    scale, kernel: Of super-resolution, see `Degradation`.
    widths, skips: Of the networks, see `UNet`.
    code_channels: Channels of z.
    code_noise: Standard deviation of the noise that is added to z, anew in each update, in units of that of z.
    stopping: Rule that ends the run: `variance`, `held_out` or `none`.
    held_out: Fraction of the observed pixels that are not fitted; 0 for none, without that rule.
    decay: 1 - a, of the running statistics.
    burn_in: Updates before the first output that may be the best.
    patience: Updates without a better output after which the run has converged.
    optimizer: By default Adam with a learning rate of .01.

  Returns:
    A `Model` whose `embed` gives the mean color of the outputs [n, C]. Outputs: `components`, with `by_variance`,
    `by_held_out`, `latest` (the mean e) and the rules' steps; `reconstruct`. Metrics, means over images: `variance`,
    `held_out_error`, `best_variance_step`, `best_held_out_step`.
  """
  if stopping not in STOPPINGS:
    raise InputError(f"stopping={stopping!r}: must be one of {', '.join(STOPPINGS)}")
  if not 0 <= held_out < 1 or not 0 < decay < 1 or burn_in < 0 or patience < 1 or code_channels < 1:
    raise InputError(f"held_out={held_out}, decay={decay}, burn_in={burn_in}, patience={patience}, "
                     f"code_channels={code_channels}: must lie in [0, 1), in (0, 1), and be at least 0, 1 and 1")
  if stopping == "held_out" and not held_out:
    raise InputError("stopping='held_out': needs held_out above 0, as 0.02")
  degradation = Degradation(task, 0.0, int(scale), kernel)
  optimizer = optax.adam(0.01) if optimizer is None else optimizer

  def network_of(channels):
    return UNet(channels, tuple(widths), norm=True, skips=skips)

  def images_of(params, code, channels):
    apply = lambda params, code: network_of(channels).apply({"params": params}, code[None])[0]
    return jax.nn.sigmoid(jax.vmap(apply)(params, code))

  def seen(batch):
    """Observations, and which of their pixels are observed."""
    observed = to_float(batch["image"])
    if task == "inpaint" and "visible" not in batch:
      raise InputError("task='inpaint': the batch has no 'visible', [n, height, width, 1], 1 where a pixel is seen")
    return observed, batch.get("visible", jnp.ones((*observed.shape[:3], 1)))

  def init(rng, batch):
    observed, visible = seen(batch)
    number, channels = len(observed), observed.shape[3]
    height, width = (side * (scale if task == "superres" else 1) for side in observed.shape[1:3])
    degradation.check(height, width)
    check_unet(height, width, widths)
    first, second, third = jax.random.split(rng, 3)
    code = CODE_SCALE * jax.random.uniform(first, (number, height, width, code_channels))
    params = jax.vmap(lambda rng, code: network_of(channels).init(rng, code[None])["params"])(
        jax.random.split(second, number), code)
    kept = visible * (jax.random.uniform(third, visible.shape) >= held_out)
    zeros = jnp.zeros((number, height, width, channels))
    best = lambda: Best(jnp.full(number, jnp.inf, jnp.float32), jnp.zeros(number, jnp.int32), jnp.zeros_like(zeros))
    return DeepImagePriorState(jnp.zeros((), jnp.int32), params, optimizer.init(params), code, kept, zeros,
                               jnp.zeros(number), jnp.zeros(number), best(), best())

  def errors(images, observed, weight, mask):
    """Mean squared error of each image at the observed pixels of a weight."""
    squares = jnp.square(degradation.forward(images, mask) - observed).mean(-1, keepdims=True)
    return (weight * squares).sum((1, 2, 3)) / jnp.maximum(weight.sum((1, 2, 3)), 1)

  def update(state, batch, rng):
    observed, visible = seen(batch)
    noise = CODE_SCALE / 12**0.5 * code_noise * jax.random.normal(rng, state.code.shape)

    def loss_fn(params):
      images = images_of(params, state.code + noise, observed.shape[3])
      each = errors(images, observed, state.kept, visible)
      return each.sum(), (each.mean(), images)  # A sum: no network's gradient depends on their number.

    grads, (loss, images) = jax.grad(loss_fn, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    first = state.step == 0
    moved = jnp.square(images - state.mean).mean((1, 2, 3))
    variance = jnp.where(first, 0.0, decay * (state.variance + (1 - decay) * moved))
    mean = jnp.where(first, images, decay * state.mean + (1 - decay) * images)
    outside = errors(images, observed, visible - state.kept, visible)
    error = jnp.where(first, outside, decay * state.error + (1 - decay) * outside)
    step = state.step + 1
    by_variance = better(state.by_variance, variance, mean, step, step > burn_in)
    by_held_out = better(state.by_held_out, error, mean, step, (step > burn_in) & (held_out > 0))
    rule = by_held_out if stopping == "held_out" else by_variance
    converged = (step > burn_in) & (step - rule.step >= patience).all() & (stopping != "none")
    metrics = {"loss": loss, "variance": variance.mean(), "held_out_error": error.mean(),
               "best_variance_step": by_variance.step.mean(dtype=jnp.float32),
               "best_held_out_step": by_held_out.step.mean(dtype=jnp.float32),
               "converged": converged.astype(jnp.float32)}
    return DeepImagePriorState(step, optax.apply_updates(state.params, updates), opt_state, state.code, state.kept,
                               mean, variance, error, by_variance, by_held_out), metrics

  def reconstruct(state, batch):
    observed, visible = seen(batch)
    rule = state.by_held_out if stopping == "held_out" else state.by_variance
    shown = observed if task == "inpaint" else degradation.guess(observed, visible)
    return {"original": shown, "reconstructed": rule.output}

  def components(state):
    return {"by_variance": state.by_variance.output, "by_held_out": state.by_held_out.output, "latest": state.mean,
            "variance_step": state.by_variance.step, "held_out_step": state.by_held_out.step}

  return Model(init, update, lambda state, batch: state.mean.mean((1, 2)),
               {"components": components, "reconstruct": reconstruct})


def better(best: Best, value: Float[Array, " n"], output: Float[Array, "n _ _ _"], step: Int[Array, ""],
           allowed: Array) -> Best:
  """Returns the best step with a new one, image by image, where its value is smaller and it is allowed."""
  replace = allowed & (value < best.value)
  return Best(jnp.where(replace, value, best.value), jnp.where(replace, step, best.step),
              jnp.where(replace[:, None, None, None], output, best.output))
