"""SimSiam: an encoder of images whose views predict each other, without negatives and without a second network.

Chen & He 2021, "Exploring Simple Siamese Representation Learning", arXiv:2011.10566. Of each image two views x_1,
x_2 are drawn by `ops/augment.py`, in `update`; equations 1 to 4:

  z = g(f(x)),   p = h(z),   L = -1/2 cos(p_1, stop(z_2)) - 1/2 cos(p_2, stop(z_1)),   mean over the images

  symbol  name         shape
  f       encoder      [batch, dim], the mean over places; what `embed` gives
  g, z    projector    [batch, projector_dims[-1]], BatchNorm after each layer
  h, p    predictor    [batch, projector_dims[-1]], by way of `predictor_dim`
  stop                 no gradient; without it the vectors collapse to one, which `deviation` would show (section 4.1)

The encoder's parameters lie under `params/encoder`, its running statistics under `extra/batch_stats/encoder`. Each
view has BatchNorm's statistics of its own, over the whole mesh. The loss lies in [-1, 1], as the paper's does, not in
nats. That the predictor's rate does not fall (section 4.2) is the optimizer's affair (`optimizer.constant`).

Split: image | one view of it | the vector of another view.

Expected: `embeddings_jax/configs/simsiam.py`.
"""
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from embeddings_jax.gradient import gradient_model
from embeddings_jax.nets.pretext import layer_maps, variables_of
from embeddings_jax.nets.siamese import Mlp, Siamese, applied, calibrated, check_images, started
from embeddings_jax.nets.transformer import RULES
from embeddings_jax.ops.augment import two_views
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.similarity import l2_normalize
from embeddings_jax.ops.uniformity import deviation
from embeddings_jax.types import Model


@takes(image=4)
def simsiam(
    *,
    encoder: nn.Module,
    projector_dims: Sequence[int] = (2048, 2048, 2048),
    predictor_dim: int = 512,
    augmentation: str = "simclr",
    strength: float = 0.5,
    blur: bool = True,
    min_scale: float = 0.2,
    optimizer: optax.GradientTransformation | None = None,
    accumulate: int = 1,
    ema_decay: float | None = None,
) -> Model:
  """SimSiam; the defaults are the paper's for ImageNet (on CIFAR-10 it takes two layers for the projector, no blur).

  Args:
    encoder: has the method `features(batch, deterministic)` -> [batch, places, dim] of `image`.
    projector_dims: Widths of the layers of g.
    predictor_dim: Width of the hidden layer of h, a quarter of its output in the paper.
    augmentation, strength, blur, min_scale: see `ops/augment.py: pair_of_views`. Views are squares of the encoder's
      `image_size`, where it has one, else of the images' height.
    optimizer: by default momentum .9 with a rate of .05.
    accumulate: 1: BatchNorm couples the images of a batch.
    ema_decay: as for `gradient_model`.
  """
  network = Siamese(encoder, Mlp(tuple(projector_dims), last_norm=True), Mlp((predictor_dim, projector_dims[-1])))
  draw = functools.partial(two_views, name=augmentation, size=getattr(encoder, "image_size", 0), strength=strength,
                           blur=blur, min_scale=min_scale)

  def init_params(rng, batch):
    check_images(encoder, batch)
    return started(network, rng, batch)

  def loss_fn(params, extra, batch, rng):
    images, mask = batch["image"], row_mask(batch)
    z, p = [], []
    for view in draw(rng, images):
      view = {"image": view, "mask": mask}
      outputs, extra = applied(network, params, extra, view, deterministic=False)
      z.append(l2_normalize(outputs["z"]))
      p.append(l2_normalize(outputs["q"]))
    cosines = sum((p[i] * jax.lax.stop_gradient(z[1 - i])).sum(-1) for i in (0, 1)) / 2
    loss = -(mask * cosines).sum() / jnp.maximum(mask.sum(), 1)
    return loss, ({"deviation": deviation(z[0], mask)}, extra)

  def embed_fn(params, extra, batch):
    return network.apply({"params": params, **extra}, batch, method="represent")

  outputs = {"calibrated": lambda params, extra, batch: calibrated(network, params, extra, batch),
             "layers": lambda params, extra, batch: layer_maps(encoder, variables_of(params, extra), batch)}
  return gradient_model(init_params, loss_fn, embed_fn, optimizer or optax.sgd(0.05, 0.9), coupled=True,
                        accumulate=accumulate, ema_decay=ema_decay, outputs=outputs, rules=RULES)
