"""Restoration of images by a network that learns from clean ones: denoising, super-resolution, inpainting.

  loss = mean |Y - g(X)|^2,   X = d(Y) + noise,   g(X) = b(X) + network(b(X), mask)

over clean images Y that are degraded anew in every update (`ops/degradations.py`); b(X) has the size of Y: X itself,
X enlarged by bicubic interpolation, or X with its holes filled from the pixels around them. Visible pixels of an
inpainted image without noise are those of X. Predicting the difference from the input is Zhang, Zuo, Chen, Meng &
Zhang 2017 ("Beyond a Gaussian Denoiser", arXiv:1608.03981).

| symbol | code | shape |
|---|---|---|
| Y | image | [n, H, W, C] in [0, 1] |
| X | `Degradation.observe` | [n, H, W, C], of super-resolution [n, H / scale, W / scale, C] |
| g | `params`, `restored` | a `nets/unet.py: UNet` |

Its counterpart that sees one degraded image and no clean one is `deep_image_prior`.

Split: image | the image degraded | the image.

Expected: `embeddings_jax/configs/restoration.py`.
"""
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from embeddings_jax.gradient import gradient_model
from embeddings_jax.nets.unet import UNet, check_unet
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.degradations import Degradation
from embeddings_jax.ops.image_quality import mse
from embeddings_jax.ops.pixels import to_float
from embeddings_jax.types import Fact, Model


@takes(image=4)
def restoration(
    *,
    height: Fact[int],
    width: Fact[int],
    channels: Fact[int],
    task: str = "denoise",
    noise: float = 25 / 255,
    scale: int = 2,
    kernel: str = "bicubic",
    visible: float = 0.5,
    widths: Sequence[int] = (32, 64),
    optimizer: optax.GradientTransformation | None = None,
    accumulate: int = 1,
    ema_decay: float | None = None,
) -> Model:
  """A network that restores images.

  Args:
    height, width, channels: Shape of the clean images.
    task: `denoise`, `superres` or `inpaint`.
    noise: Standard deviation of the observation's noise, of pixels in [0, 1].
    scale: Of super-resolution: pixels, each way, for one of the observation.
    kernel: Of super-resolution: `bicubic` or `box`.
    visible: Of inpainting: fraction of the pixels that are seen.
    widths: Channels of the network's levels.
    optimizer: By default Adam with a learning rate of 1e-3.
    accumulate, ema_decay: See `gradient_model`.

  Returns:
    A `Model` whose `embed` gives the lowest map of the clean image, averaged over places. Outputs: `loss`,
    `measures`, `reconstruct` (`corrupted` is b(X), of inpainting X), `predict`, which restores the batch's
    `observed` [n, ...] with its `visible` mask [n, H, W, 1] where it is inpainted. Metrics: `psnr_gain`, dB over
    b(X).
  """
  degradation = Degradation(task, float(noise), int(scale), kernel, float(visible)).check(height, width)
  check_unet(height, width, widths)
  network = UNet(channels, tuple(widths))
  optimizer = optax.adam(1e-3) if optimizer is None else optimizer
  inpaints = task == "inpaint"

  def inputs(guess, mask):
    return jnp.concatenate([guess, mask], -1) if inpaints else guess

  def init_params(rng, batch):
    params = network.init(rng, jnp.zeros((1, height, width, channels + inpaints)))["params"]
    # The untrained network returns its input; the first update moves the last layer from 0.
    params["last"]["kernel"] = jnp.zeros_like(params["last"]["kernel"])
    return params, {}

  def restored(params, observed, mask):
    guess = degradation.guess(observed, mask)
    image = guess + network.apply({"params": params}, inputs(guess, mask))
    return jnp.where(mask > 0, observed, image) if inpaints and not noise else image

  def errors(params, batch, rng):
    """Squared errors of each image, restored and guessed."""
    images = to_float(batch["image"])
    observed, mask = degradation.observe(rng, images)
    return mse(images, restored(params, observed, mask)), mse(images, degradation.guess(observed, mask))

  def loss_fn(params, extra, batch, rng):
    mask = row_mask(batch)
    after, before = ((mask * each).sum() / jnp.maximum(mask.sum(), 1) for each in errors(params, batch, rng))
    gain = 10 * jnp.log10(jnp.maximum(before, 1e-12) / jnp.maximum(after, 1e-12))
    return after, ({"psnr_gain": jax.lax.stop_gradient(gain)}, extra)

  def measures(params, extra, batch):
    mask = row_mask(batch)
    after, before = errors(params, batch, jax.random.key(0))
    return {"reconstruction_loss": jnp.stack([(mask * after).sum(), mask.sum()]),
            "observation_loss": jnp.stack([(mask * before).sum(), mask.sum()])}

  def reconstruct(params, extra, batch):
    images = to_float(batch["image"])
    observed, mask = degradation.observe(jax.random.key(0), images)
    return {"original": images, "corrupted": observed if inpaints else degradation.guess(observed, mask),
            "reconstructed": jnp.clip(restored(params, observed, mask), 0, 1)}

  def predict(params, extra, batch):
    """Restores observations, else the images themselves taken as such."""
    observed = to_float(batch["observed"] if "observed" in batch else batch["image"])
    mask = batch.get("visible", jnp.ones((*observed.shape[:3], 1)))
    return jnp.clip(restored(params, observed, mask), 0, 1)

  def embed_fn(params, extra, batch):
    images = to_float(batch["image"])
    seen = inputs(images, jnp.ones((*images.shape[:3], 1)))
    return network.apply({"params": params}, seen, lowest=True).mean((1, 2))

  outputs = {"loss": lambda params, extra, batch: loss_fn(params, extra, batch, jax.random.key(0))[0],
             "measures": measures, "reconstruct": reconstruct, "predict": predict}
  return gradient_model(init_params, loss_fn, embed_fn, optimizer, accumulate=accumulate, ema_decay=ema_decay,
                        outputs=outputs)
