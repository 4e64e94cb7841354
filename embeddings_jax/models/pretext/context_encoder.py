"""Context encoders: fill a hole in an image.

Pathak et al. 2016, "Context Encoders: Feature Learning by Inpainting", arXiv:1604.07379. The network sees an image x
without the inside of a hole M (`ops/holes.py`) and paints all of M, which overlaps what it sees by `overlap` pixels.
Means over images, and over the pixels of a hole with the weights v, 10 in the overlap and 1 elsewhere (section 3.2):

  G = decoder(bottleneck(f(x without the hole)))
  L_rec = Σ v M |x - G|² / Σ v M,   L_adv = -log D(M G),   L_D = -log D(M x) - log(1 - D(M G))
  L = (1 - λ) L_rec + λ L_adv for all but D, and L_D for D

  symbol  name                 shape
  f       encoder              [batch, h, w, dim], the trunk's last map
  bottleneck                   `dense`: `bottleneck_dim` numbers; `channelwise`: a matrix [h w, h w] for each channel
  G       decoder              [batch, height, width, channels]
  D       discriminator        [batch], logits of an image that is gray outside of the hole
  λ       adversarial_weight

Both players move in the same update, each by its own optimizer (`optimizer` may be a dict of `generator` and
`discriminator`). The paper has two networks: that of generation is dense, with λ = .001, an overlap of 4 and a rate
of the generator ten times D's; that of features is channelwise, with λ = 0 and an overlap of 7. `border_loss` is the
mean difference of neighboring pixels across the border of a filled hole, `true_border_loss` that of the image.
`embed` sees whole images. Deviations: the trunk is any encoder; the decoder repeats pixels and convolves; D has no
BatchNorm.

Split: image | the image with a hole | what was in the hole.

Expected: `embeddings_jax/configs/context_encoder.py`.
"""
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float

from embeddings_jax.gradient import gradient_model
from embeddings_jax.nets.pretext import applied, embedder, feature_map, forgetful, masked_mean, started, sums
from embeddings_jax.nets.siamese import check_images
from embeddings_jax.nets.transformer import RULES
from embeddings_jax.ops import holes
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.patch_layouts import row_keys
from embeddings_jax.ops.pixels import to_float
from embeddings_jax.types import InputError, Model

BOTTLENECKS = ("dense", "channelwise")
PLAYERS = ("generator", "discriminator")
FILL = 0.5  # What stands for pixels that are not shown.
OVERLAP_WEIGHT = 10.0


@takes(image=4)
def context_encoder(
    *,
    encoder: nn.Module,
    hole: str = "center",
    area: float = 0.25,
    overlap: int = 4,
    bottleneck: str = "dense",
    bottleneck_dim: int = 4000,
    decoder_channels: Sequence[int] = (128, 64),
    discriminator_channels: Sequence[int] = (64, 128),
    adversarial_weight: float = 0.001,
    embed_layer: str = "",
    embed_grid: int = 1,
    optimizer: optax.GradientTransformation | Mapping[str, optax.GradientTransformation] | None = None,
    ema_decay: float | None = None,
) -> Model:
  """Fills holes.

  Args:
    encoder: Trunk; has `features(batch, deterministic)` of `image`.
    hole: One of `ops/holes.py: HOLES`.
    area: Fraction of the image in a hole.
    overlap: Width in pixels of the border inside of a hole that is shown.
    bottleneck: `dense` or `channelwise`.
    bottleneck_dim: Numbers that a dense bottleneck lets through.
    decoder_channels: Channels of the decoder, which doubles the map's size after each but the last.
    discriminator_channels: Channels of D, which halves the size in each.
    adversarial_weight: λ; 0: there is no D.
    embed_layer: Block that is embedded, as `block_3`; "" for the last.
    embed_grid: Cells per side over which that block is averaged.
    optimizer: For both players, or a dict of `generator` and `discriminator`; Adam with learning rates of 2e-3 and
      2e-4 by default.
    ema_decay: See `gradient_model`.
  """
  if bottleneck not in BOTTLENECKS:
    raise InputError(f"bottleneck={bottleneck!r}: must be one of {', '.join(BOTTLENECKS)}")
  if not 0 <= adversarial_weight < 1 or overlap < 0 or bottleneck_dim < 1:
    raise InputError(f"adversarial_weight={adversarial_weight}, overlap={overlap}, bottleneck_dim={bottleneck_dim}: "
                     "must lie in [0, 1), be at least 0, and at least 1")
  holes.hole(jax.random.key(0), hole, 2, 2, area)
  network = Generator(encoder, bottleneck, bottleneck_dim, tuple(decoder_channels))
  discriminator = Discriminator(tuple(discriminator_channels)) if adversarial_weight else None
  embed_fn, layers = embedder(encoder, embed_layer, embed_grid)

  def examples(batch, rng):
    """Returns images, holes [n, h, w] and the part of them that is not shown."""
    images = to_float(batch["image"])
    masks = jax.vmap(lambda key: holes.hole(key, hole, *images.shape[1:3], area))(row_keys(rng, len(images)))
    return images, masks, jax.vmap(lambda mask: holes.eroded(mask, overlap))(masks)

  def init_params(rng, batch):
    check_images(encoder, batch)
    rng, rng_other = jax.random.split(rng)
    params, extra = started(network, rng, {"image": to_float(batch["image"])})
    if discriminator:
      params = {**params, "discriminator": discriminator.init(rng_other, to_float(batch["image"]))["params"]}
    return params, extra

  def filled(params, extra, batch, rng, *, deterministic=False, network=network):
    """Returns images, holes, what is not shown, the painted images, and the new `extra`."""
    images, masks, hidden = examples(batch, rng)
    own = {name: value for name, value in params.items() if name != "discriminator"}
    shown = {"image": covered(images, hidden), "mask": row_mask(batch)}
    painted, extra = applied(network, own, extra, shown, deterministic=deterministic)
    return images, masks, hidden, painted, extra

  def judged(params, images):
    return discriminator.apply({"params": params["discriminator"]}, images)

  def loss_fn(params, extra, batch, rng):
    images, masks, hidden, painted, extra = filled(params, extra, batch, rng)
    valid = row_mask(batch)
    loss = reconstruction = masked_mean(hole_error(images, painted, masks, hidden), valid)
    metrics = {"reconstruction_loss": reconstruction}
    if discriminator:
      real, fake = (covered(x, 1 - masks) for x in (images, painted))
      fooled = masked_mean(jax.nn.softplus(-judged(jax.lax.stop_gradient(params), fake)), valid)
      adversarial_loss = masked_mean(jax.nn.softplus(-judged(params, real)) +
                                     jax.nn.softplus(judged(params, jax.lax.stop_gradient(fake))), valid)
      loss = (1 - adversarial_weight) * reconstruction + adversarial_weight * fooled + adversarial_loss
      metrics |= {"adversarial_loss": fooled, "discriminator_loss": adversarial_loss}
    return loss, (metrics, extra)

  def measures(params, extra, batch):
    images, masks, hidden, painted, _ = filled(params, extra, batch, jax.random.key(0), deterministic=True)
    whole = jnp.where(hidden[..., None] > 0, painted, images)
    valid = row_mask(batch)
    return {"pretext_loss": sums(hole_error(images, painted, hidden, hidden), valid),
            "border_loss": sums(holes.border_jump(whole, hidden), valid),
            "true_border_loss": sums(holes.border_jump(images, hidden), valid)}

  def reconstruct(params, extra, batch):
    images, _, hidden, painted, _ = filled(params, extra, batch, jax.random.key(0), deterministic=True)
    return {"original": images, "masked": covered(images, hidden), "mask": hidden,
            "reconstructed": jnp.where(hidden[..., None] > 0, painted, images)}

  def calibrated(params, extra, batch):
    return filled(params, extra, batch, jax.random.key(0), network=forgetful(network))[-1]

  def draws(params, extra, batch, rng):
    """Holes of each image, and what is not shown of it."""
    _, masks, hidden = examples(batch, rng)
    return {"holes": masks, "hidden": hidden}

  outputs = {"layers": layers, "measures": measures, "reconstruct": reconstruct, "calibrated": calibrated,
             "draws": draws}
  return gradient_model(init_params, loss_fn, embed_fn, for_players(optimizer), coupled=True, ema_decay=ema_decay,
                        outputs=outputs, rules=RULES)


class Generator(nn.Module):
  """Images with a hole to images of the same size in [0, 1]: trunk, bottleneck, decoder."""

  encoder: nn.Module
  bottleneck: str
  bottleneck_dim: int
  channels: tuple[int, ...]

  @nn.compact
  def __call__(self, batch: Mapping[str, Any], *, deterministic: bool = True) -> Float[Array, "batch h w channels"]:
    image, valid = batch["image"], batch.get("mask")
    valid = None if valid is None or deterministic else (valid > 0)[:, None, None, None]
    x = feature_map(self.encoder, batch, deterministic)
    rows, columns, dim = x.shape[1:]
    times = len(self.channels) - 1
    if (rows << times, columns << times) != image.shape[1:3]:
      raise InputError(f"decoder_channels={self.channels}: the trunk's map of {rows} x {columns} places, doubled "
                       f"{times} times, is no image of {image.shape[1]} x {image.shape[2]} pixels")
    if self.bottleneck == "dense":
      x = nn.relu(nn.Dense(self.bottleneck_dim, name="bottleneck")(x.reshape(len(x), -1)))
      x = nn.Dense(rows * columns * self.channels[0], name="expand")(x).reshape(len(x), rows, columns, -1)
    else:
      kernel = self.param("bottleneck", nn.initializers.lecun_normal(1, 2, batch_axis=(0,)),
                          (dim, rows * columns, rows * columns))
      x = jnp.einsum("bpd,dpq->bqd", x.reshape(len(x), -1, dim), kernel).reshape(x.shape)
      x = nn.Dense(self.channels[0], name="expand")(nn.relu(x))
    for i, channels in enumerate(self.channels):
      x = nn.Conv(channels, (3, 3), use_bias=False, name=f"decode_{i}")(nn.relu(x))
      x = nn.BatchNorm(deterministic, momentum=0.9, epsilon=1e-5, name=f"decode_norm_{i}")(x, mask=valid)
      if i < times:
        x = x.repeat(2, 1).repeat(2, 2)
    return nn.sigmoid(nn.Conv(image.shape[3], (3, 3), name="paint")(nn.relu(x)))


class Discriminator(nn.Module):
  """Images to logits of being real."""

  channels: tuple[int, ...]

  @nn.compact
  def __call__(self, images: Float[Array, "batch h w channels"]) -> Float[Array, " batch"]:
    x = 2 * images - 1
    for i, channels in enumerate(self.channels):
      x = nn.leaky_relu(nn.Conv(channels, (4, 4), (2, 2), name=f"conv_{i}")(x), 0.2)
    return nn.Dense(1, name="out")(x.reshape(len(x), -1))[:, 0]


def covered(images: Float[Array, "batch h w channels"], masks: Float[Array, "batch h w"]) -> Float[
    Array, "batch h w channels"]:
  """Returns images that are gray where the mask is 1."""
  return jnp.where(masks[..., None] > 0, FILL, images)


def hole_error(
    images: Float[Array, "batch h w channels"], painted: Float[Array, "batch h w channels"],
    masks: Float[Array, "batch h w"], hidden: Float[Array, "batch h w"],
) -> Float[Array, " batch"]:
  """Returns the mean squared error in each hole; pixels of the hole that are shown weigh ten times as much."""
  weights = masks * jnp.where(hidden > 0, 1.0, OVERLAP_WEIGHT)
  error = jnp.square(images - painted).mean(-1)
  return (weights * error).sum((1, 2)) / jnp.maximum(weights.sum((1, 2)), 1)


def for_players(optimizer: Any) -> optax.GradientTransformation:
  """Returns one transformation in which each player has its own optimizer."""
  if optimizer is None:
    optimizer = {"generator": optax.adam(2e-3, b1=0.5), "discriminator": optax.adam(2e-4, b1=0.5)}
  if not isinstance(optimizer, Mapping):
    return optimizer
  if set(optimizer) != set(PLAYERS):
    raise InputError(f"optimizer: of {', '.join(optimizer)}; give one for each of {', '.join(PLAYERS)}")
  label = lambda params: {name: PLAYERS[name == "discriminator"] for name in params}
  return optax.partition(dict(optimizer), label)
