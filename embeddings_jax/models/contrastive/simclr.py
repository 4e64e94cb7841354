"""SimCLR: an encoder of images by contrast, an image's other view being itself, cropped and colored differently.

Chen, Kornblith, Norouzi, Hinton 2020, "A Simple Framework for Contrastive Learning of Visual Representations",
arXiv:2002.05709. Of each image two views x are drawn by `ops/augment.py`, in `update`. In nats, with the 2n views
of a batch (equation 1; `ops/contrastive.py: nt_xent`):

  h = f(x),   z = g(h),   L = -1/2n Σ_i log( exp(cos(z_i, z_p(i)) / τ) / Σ_{k != i} exp(cos(z_i, z_k) / τ) )

  symbol  name         shape
  f, h    encoder      [batch, dim], the mean over places; what `embed` gives
  g, z    projector    [batch, projector_dims[-1]]
  τ       temperature

Where a batch has `positive` beside `image`, as of the pipeline `frame_pairs`, the second view is one of that image:
another frame of the same clip (Gordon et al. 2020, arXiv:2003.07990).

The encoder's parameters lie under `params/encoder`, its running statistics under `extra/batch_stats/encoder`. Both
views go through the network in one pass, so BatchNorm sees them together, over the whole mesh. Deviations: the
optimizer is the config's (the paper's is LARS); crops are of images as they are stored.

Split: image | one view of it | the other view, among those of other images.

Expected: `embeddings_jax/configs/simclr.py`.
"""
import functools
from collections.abc import Sequence

import jax.numpy as jnp
import optax
from flax import linen as nn

from embeddings_jax.gradient import gradient_model
from embeddings_jax.nets.pretext import layer_maps, variables_of
from embeddings_jax.nets.siamese import Mlp, Siamese, applied, calibrated, check_images, started
from embeddings_jax.nets.transformer import RULES
from embeddings_jax.ops.augment import two_views
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.contrastive import nt_xent
from embeddings_jax.ops.similarity import l2_normalize
from embeddings_jax.ops.uniformity import deviation
from embeddings_jax.types import InputError, Model


@takes(image=4)
def simclr(
    *,
    encoder: nn.Module,
    projector_dims: Sequence[int] = (2048, 128),
    temperature: float = 0.1,
    augmentation: str = "simclr",
    strength: float = 1.0,
    blur: bool = True,
    min_scale: float = 0.08,
    chunk_size: int = 0,
    optimizer: optax.GradientTransformation | None = None,
    accumulate: int = 1,
    ema_decay: float | None = None,
) -> Model:
  """SimCLR; the defaults are the paper's for ImageNet (for CIFAR-10 it takes τ = .5, strength .5 and no blur).

  Args:
    encoder: has the method `features(batch, deterministic)` -> [batch, places, dim] of `image`.
    projector_dims: Widths of the layers of g; the last but one is the encoder's dimension in the paper.
    temperature: τ.
    augmentation, strength, blur, min_scale: see `ops/augment.py: pair_of_views`. Views are squares of the encoder's
      `image_size`, where it has one, else of the images' height.
    chunk_size: views whose scores a device holds at a time; 0: all.
    optimizer: by default Adam with a rate of 1e-3.
    accumulate: 1: BatchNorm and the loss couple the images of a batch.
    ema_decay: as for `gradient_model`.
  """
  if not temperature > 0:
    raise InputError(f"temperature={temperature}: must be above 0")
  network = Siamese(encoder, Mlp(tuple(projector_dims)))
  draw = functools.partial(two_views, name=augmentation, size=getattr(encoder, "image_size", 0), strength=strength,
                           blur=blur, min_scale=min_scale)

  def init_params(rng, batch):
    check_images(encoder, batch)
    return started(network, rng, batch)

  def loss_fn(params, extra, batch, rng):
    images, mask = batch["image"], row_mask(batch)
    views = draw(rng, images, positives=batch.get("positive"))
    # The views of an image lie side by side, so that a sharded batch stays where it is.
    both = lambda pair: jnp.stack(pair, 1).reshape(-1, *pair[0].shape[1:])
    outputs, extra = applied(network, params, extra, {"image": both(views), "mask": both([mask, mask])},
                             deterministic=False)
    z = l2_normalize(outputs["z"])
    contrast = nt_xent(z[::2], z[1::2], mask=mask, temperature=temperature, chunk_size=chunk_size)
    metrics = {"accuracy": contrast.accuracy, "bound": contrast.bound, "deviation": deviation(z, both([mask, mask]))}
    return contrast.loss, (metrics, extra)

  def embed_fn(params, extra, batch):
    return network.apply({"params": params, **extra}, batch, method="represent")

  outputs = {"calibrated": lambda params, extra, batch: calibrated(network, params, extra, batch),
             "layers": lambda params, extra, batch: layer_maps(encoder, variables_of(params, extra), batch)}
  return gradient_model(init_params, loss_fn, embed_fn, optimizer or optax.adam(1e-3), coupled=True,
                        accumulate=accumulate, ema_decay=ema_decay, outputs=outputs, rules=RULES)
