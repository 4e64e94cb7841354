"""Exemplar networks: tell every image, distorted at random, from all others.

Dosovitskiy et al. 2014, "Discriminative Unsupervised Feature Learning with Exemplar Convolutional Neural Networks",
arXiv:1406.6909. A surrogate class is one patch and its distortions T (`ops/distortions.py`). In nats, with n images
and k distortions of each:

  softmax: L = -1/nk Σ log softmax(W h(T x_i) + b)_i          h = g(f(T x_i)), i = 1 ... the number of images
  triplet: L = mean max(0, |u_a - u_p|² - |u_a - u_n|² + α)   u = h / |h|; a and p distortions of an image, n the
           nearest of another image that is farther than p (Kolesnikov et al. 2019, arXiv:1901.09005, section 3)

  symbol  name           shape
  f       encoder        [batch k, h, w, dim], the trunk's last map
  g, h    projector      [batch k, projector_dims[-1]]
  W, b    classes        [projector_dims[-1], num_rows], [num_rows], sharded over `model`
  α       margin

Batches hold `number`, the class of each image (`pipelines/numbered_images.py`, which also limits their number: the
paper has 8,000 to 32,000). Without classes to weigh, the triplets take any number of images. Deviations: the patch is
the middle of an image, not where gradients are large; the axes of the first contrast are those of the batch's pixels.

Split: patch | the patch, distorted | which patch of all it is.

Expected: `embeddings_jax/configs/exemplar.py`.
"""
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from embeddings_jax.gradient import gradient_model
from embeddings_jax.nets.pretext import (
    PretextNetwork,
    applied,
    cross_entropy,
    embedder,
    forgetful,
    masked_mean,
    side_by_side,
    started,
)
from embeddings_jax.nets.siamese import Mlp, check_images
from embeddings_jax.nets.transformer import RULES
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.distortions import color_axes, distorted
from embeddings_jax.ops.kernels.product import affine
from embeddings_jax.ops.metric_learning import triplet
from embeddings_jax.ops.patch_layouts import row_keys
from embeddings_jax.ops.pixels import to_float
from embeddings_jax.ops.similarity import l2_normalize
from embeddings_jax.types import Fact, InputError, Model

LOSSES = ("softmax", "triplet")
CLASS_RULES = ((r"params/classes/kernel", P(None, "model")), (r"params/classes/bias", P("model")))


@takes(image=4)
def exemplar(
    *,
    encoder: nn.Module,
    num_rows: Fact[int],
    loss: str = "softmax",
    views: int = 1,
    patch: int = 32,
    translation: float = 0.2,
    scale: Sequence[float] = (0.7, 1.4),
    angle: float = 20.0,
    hue: float = 0.1,
    margin: float = 0.5,
    projector_dims: Sequence[int] = (512,),
    grid: int = 2,
    embed_layer: str = "",
    embed_grid: int = 1,
    optimizer: optax.GradientTransformation | None = None,
    ema_decay: float | None = None,
) -> Model:
  """Tells images apart.

  Args:
    encoder: Trunk; has `features(batch, deterministic)` of `image`.
    num_rows: Number of training images; filled in from the dataset.
    loss: `softmax` over all images, or `triplet`.
    views: Distortions of each image, k; at least 2 for triplets.
    patch: Size of a patch in pixels.
    translation: Largest move in each direction, by the size of the patch.
    scale: Range of the scale.
    angle: Largest turn in degrees.
    hue: Largest move of the hue, in turns.
    margin: α.
    projector_dims: Layers of g.
    grid: Cells per side over which the last map is averaged for g.
    embed_layer: Block that is embedded, as `block_3`; "" for the last.
    embed_grid: Cells per side over which that block is averaged.
    optimizer: Adam with a learning rate of 1e-3 by default.
    ema_decay: See `gradient_model`.
  """
  if loss not in LOSSES:
    raise InputError(f"loss={loss!r}: must be one of {', '.join(LOSSES)}")
  if views < (2 if loss == "triplet" else 1) or patch < 1:
    raise InputError(f"views={views}, patch={patch}: must be at least 1, and triplets need 2 views")
  if not 0 < scale[0] <= scale[1] or min(translation, angle, hue) < 0 or hue > 0.5:
    raise InputError(f"scale={tuple(scale)}, translation={translation}, angle={angle}, hue={hue}: must be a range "
                     "above 0, and at least 0; hue at most 0.5")
  network = PretextNetwork(encoder, Mlp(tuple(projector_dims)), grid=grid)
  ranges = dict(translation=translation, scale=tuple(scale), angle=math.radians(angle), hue=hue)
  embed_fn, layers = embedder(encoder, embed_layer, embed_grid)

  def examples(batch, rng):
    """Returns distortions, [n, views, patch, patch, channels]."""
    images = to_float(batch["image"])
    axes = color_axes(images, row_mask(batch))
    several = lambda key, image: jax.vmap(lambda key: distorted(key, image, patch, *axes, **ranges))(
        jax.random.split(key, views))
    return jax.vmap(several)(row_keys(rng, len(images)), images)

  def init_params(rng, batch):
    check_images(encoder, batch)
    rng, rng_classes = jax.random.split(rng)
    params, extra = started(network, rng, {"image": side_by_side(examples(batch, rng))})
    if loss == "softmax":
      shape = projector_dims[-1], num_rows
      params = {**params, "classes": {"kernel": nn.initializers.lecun_normal()(rng_classes, shape),
                                      "bias": jnp.zeros(num_rows)}}
    return params, extra

  def projected(params, extra, batch, rng, network=network):
    """Returns h, [n views, dim], the mask of its rows, and the new `extra`."""
    mask = jnp.repeat(row_mask(batch), views)
    rows = {"image": side_by_side(examples(batch, rng)), "mask": mask}
    trunk = {name: value for name, value in params.items() if name != "classes"}
    embeddings, extra = applied(network, trunk, extra, rows, deterministic=False)
    return embeddings, mask, extra

  def loss_fn(params, extra, batch, rng):
    if "number" not in batch:
      raise InputError("exemplar: the batch has no 'number' of each image; take pipeline=numbered_images")
    embeddings, mask, extra = projected(params, extra, batch, rng)
    labels = jnp.repeat(batch["number"], views)
    if loss == "triplet":
      return triplet(l2_normalize(embeddings), labels, mask=mask, margin=margin), ({}, extra)
    logits = affine(nn.relu(embeddings), **params["classes"])
    metrics = {"accuracy": masked_mean((logits.argmax(-1) == labels).astype(jnp.float32), mask)}
    return masked_mean(cross_entropy(logits, labels), mask), (metrics, extra)

  def draws(params, extra, batch, rng):
    """Distortions of each image."""
    return {"patches": examples(batch, rng)}

  def calibrated(params, extra, batch):
    return projected(params, extra, batch, jax.random.key(0), forgetful(network))[2]

  outputs = {"layers": layers, "calibrated": calibrated, "draws": draws}
  return gradient_model(init_params, loss_fn, embed_fn, optimizer or optax.adam(1e-3), coupled=True,
                        ema_decay=ema_decay, outputs=outputs, rules=(*CLASS_RULES, *RULES))
