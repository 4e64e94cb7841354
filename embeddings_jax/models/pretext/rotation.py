"""RotNet: predicts by how many quarters of a turn an image was rotated.

Gidaris, Singh, Komodakis 2018, "Unsupervised Representation Learning by Predicting Image Rotations",
arXiv:1803.07728. All four rotations of an image stand in one batch (section 3.3). With n images, in nats:

  L = -1/4n Σ_i Σ_r log softmax(g(f(rot(x_i, 90° r))))_r,   r = 0 ... 3

  symbol  name      shape
  f       encoder   [batch, h, w, dim], the trunk's last map
  g       head      [batch, 4], on means of the map over `grid` x `grid` cells
  r       label     [4 batch], counterclockwise quarters

`embed` is the mean of a block's map over `embed_grid` x `embed_grid` cells, on the image as it is. Deviations: the
trunk is any encoder (the paper's: a network in network of three to five blocks); the head is an MLP on pooled
features.

Split: image | the image, turned by a multiple of 90 degrees | the angle.

Expected: `embeddings_jax/configs/rotation.py`.
"""
from collections.abc import Sequence

import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Shaped

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
    sums,
)
from embeddings_jax.nets.siamese import Mlp, check_images
from embeddings_jax.nets.transformer import RULES
from embeddings_jax.ops.augment import augmented, compose, horizontal_flip, random_shift
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.types import InputError, Model


@takes(image=4)
def rotation(
    *,
    encoder: nn.Module,
    hidden_dims: Sequence[int] = (),
    grid: int = 1,
    shift: int = 0,
    embed_layer: str = "",
    embed_grid: int = 1,
    optimizer: optax.GradientTransformation | None = None,
    ema_decay: float | None = None,
) -> Model:
  """Predicts rotations.

  Args:
    encoder: Trunk; has `features(batch, deterministic)` of `image`.
    hidden_dims: Hidden layers of the head g.
    grid: Cells per side over which the last map is averaged for the head.
    shift: Images are shifted by up to so many pixels and flipped at random before they are rotated; 0: neither.
    embed_layer: Block that is embedded, as `block_3`; "" for the last.
    embed_grid: Cells per side over which that block is averaged.
    optimizer: Adam with a learning rate of 1e-3 by default.
    ema_decay: See `gradient_model`.
  """
  if shift < 0 or grid < 1 or embed_grid < 1:
    raise InputError(f"shift={shift}, grid={grid}, embed_grid={embed_grid}: must be at least 0, 1 and 1")
  network = PretextNetwork(encoder, Mlp((*hidden_dims, 4)), grid=grid)
  change = compose(random_shift(shift), horizontal_flip()) if shift else None
  embed_fn, layers = embedder(encoder, embed_layer, embed_grid)

  def init_params(rng, batch):
    check_images(encoder, batch)
    return started(network, rng, batch)

  def predicted(params, extra, images, mask, *, deterministic=False, network=network):
    """Returns losses and hits of all rotations, [n, 4], and the new `extra`."""
    views = {"image": side_by_side(rotations(images)), "mask": jnp.repeat(mask, 4)}
    logits, extra = applied(network, params, extra, views, deterministic=deterministic)
    logits, labels = logits.reshape(-1, 4, 4), jnp.broadcast_to(jnp.arange(4), (len(images), 4))
    return cross_entropy(logits, labels), (logits.argmax(-1) == labels).astype(jnp.float32), extra

  def loss_fn(params, extra, batch, rng):
    images, mask = batch["image"], row_mask(batch)
    images = augmented(change, rng, images) if change else images
    losses, hits, extra = predicted(params, extra, images, mask)
    return masked_mean(losses, mask), ({"accuracy": masked_mean(hits, mask)}, extra)

  def measures(params, extra, batch):
    losses, hits, _ = predicted(params, extra, batch["image"], row_mask(batch), deterministic=True)
    return {"pretext_loss": sums(losses, row_mask(batch)), "pretext_accuracy": sums(hits, row_mask(batch))}

  def calibrated(params, extra, batch):
    return predicted(params, extra, batch["image"], row_mask(batch), network=forgetful(network))[2]

  outputs = {"layers": layers, "measures": measures, "calibrated": calibrated}
  return gradient_model(init_params, loss_fn, embed_fn, optimizer or optax.adam(1e-3), coupled=True,
                        ema_decay=ema_decay, outputs=outputs, rules=RULES)


def rotations(images: Shaped[Array, "batch height width channels"]) -> Shaped[Array, "batch 4 width height channels"]:
  """Returns square images turned counterclockwise by 0, 1, 2 and 3 quarters."""
  if images.shape[1] != images.shape[2]:
    raise InputError(f"rotation: images of {images.shape[1]} x {images.shape[2]} pixels are not square; resize them "
                     "with data.image_size")
  return jnp.stack([jnp.rot90(images, quarters, (1, 2)) for quarters in range(4)], 1)
