"""Colorization: predicts the colors of an image from its lightness.

Zhang, Isola, Efros 2016, "Colorful Image Colorization", arXiv:1603.08511. An image in Lab gives the input L and the
target ab, averaged over the cells of the trunk's map. ab is quantized (`ops/color.py`). With places i of all images,
the soft target t_i over the nearest five bins, and the nearest bin b_i, in nats (equations 2 to 5):

  L = -Σ_i w(b_i) Σ_q t_iq log softmax(g(f(L))_i)_q / number of places,   w = 1 / ((1 - λ) p + λ / Q),  Σ p w = 1
  color = Σ_q softmax(g / T)_q bin_q,   T = .38

  symbol  name              shape
  f       encoder           [batch, h, w, dim], the trunk's last map
  g       projector         [batch, h, w, Q]
  p       extra/counts      [Q], nearest bins of all places so far; p is their smoothed share
  λ, T    rarity_mix, temperature

`loss="regression"` is the baseline (equation 1): g has two outputs, L = mean |ab - 110 g|² / (2 · 110²).
`embed` sees lightness alone. Metrics: an accuracy is 1 - |error in ab| / 150, at least 0, the mean over pixels: the
area under the paper's curve of pixels within a distance. `balanced` weights pixels by w of λ = .01, nearly 1 / p, of
the batch; `gray` is the same of a = b = 0. Images without color are left out, `gray_fraction` counts them.
Deviations: p is counted during training, from the first batch on; the trunk is any encoder, without dilated
convolutions.

Split: color image | its lightness | its colors.

Expected: `embeddings_jax/configs/colorization.py`.
"""
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int, Shaped

from embeddings_jax.gradient import gradient_model
from embeddings_jax.nets.pretext import (
  PretextNetwork,
  applied,
  embedder,
  forgetful,
  masked_mean,
  started,
  sums,
)
from embeddings_jax.nets.siamese import Mlp, check_images
from embeddings_jax.nets.transformer import RULES
from embeddings_jax.ops import color
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.feature_maps import cell_means
from embeddings_jax.ops.pixels import to_float
from embeddings_jax.ops.tables import read_table
from embeddings_jax.types import InputError, Model

LOSSES = ("classification", "regression")
BALANCED_MIX = 0.01  # λ of balanced accuracies: nearly 1 / p, but bounded.
AB_SCALE = 110.0  # Largest |a| or |b|, by which the regression is scaled.


@takes(image=4)
def colorization(
    *,
    encoder: nn.Module,
    loss: str = "classification",
    bin_size: int = 10,
    bin_file: str = "",
    rarity_mix: float = 0.5,
    temperature: float = 0.38,
    gray_threshold: float = 1.0,
    hidden_dims: Sequence[int] = (),
    embed_layer: str = "",
    embed_grid: int = 1,
    optimizer: optax.GradientTransformation | None = None,
    ema_decay: float | None = None,
) -> Model:
  """Predicts colors.

  Args:
    encoder: Trunk; has `features(batch, deterministic)` of `image`, which is lightness in one channel.
    loss: `classification` over bins, or `regression` of ab.
    bin_size: Size of a bin in a and b, 5 to 20.
    bin_file: `.npy` or text file with the a and b of a bin's center in each row, instead.
    rarity_mix: λ; 1: all bins weigh the same.
    temperature: T of the annealed mean.
    gray_threshold: Images whose mean chroma is below it have no color.
    hidden_dims: Hidden layers of g, at each place.
    embed_layer: Block that is embedded, as `block_3`; "" for the last.
    embed_grid: Cells per side over which that block is averaged.
    optimizer: Adam with a learning rate of 1e-3 by default.
    ema_decay: See `gradient_model`.
  """
  if loss not in LOSSES:
    raise InputError(f"loss={loss!r}: must be one of {', '.join(LOSSES)}")
  if not 0 <= rarity_mix <= 1 or not temperature > 0:
    raise InputError(f"rarity_mix={rarity_mix}, temperature={temperature}: must lie in [0, 1] and be above 0")
  table = color.check_bins(read_table(bin_file, "bin_file"), f"bin_file={bin_file}") if bin_file else (
      color.ab_bins(bin_size))
  bins, by_class = jnp.asarray(table), loss == "classification"
  network = PretextNetwork(encoder, Mlp((*hidden_dims, len(table) if by_class else 2)))
  embed_fn, layers = embedder(encoder, embed_layer, embed_grid, lambda images: lightness(images) / 100)

  def init_params(rng, batch):
    check_images(encoder, batch)
    _lab_of(batch["image"])
    params, extra = started(network, rng, {"image": lightness(batch["image"]) / 100}, method="places")
    return params, {**extra, "counts": jnp.zeros(len(table))}

  def predicted(params, extra, batch, *, deterministic=False, network=network):
    """Returns g, Lab, the target ab of each place, the mask of valid images with color, and the new `extra`."""
    lab = _lab_of(batch["image"])
    mask = row_mask(batch) * has_color(lab, gray_threshold)
    logits, extra = applied(network, params, extra, {"image": lab[..., :1] / 100, "mask": mask},
                            deterministic=deterministic, method="places")
    return logits, lab, cell_means(lab[..., 1:], *logits.shape[1:3]), mask, extra

  def losses_of(logits, target, near, counts):
    """Returns losses of places, [n, h, w]; `near` are the soft targets."""
    if not by_class:
      return jnp.square(logits - target / AB_SCALE).sum(-1) / 2
    weights = color.rarity_weights(color.smoothed_shares(counts, bins), rarity_mix)
    return weighted_losses(logits, *near, weights)

  def loss_fn(params, extra, batch, rng):
    del rng  # There is nothing random here.
    logits, _, target, mask, extra = predicted(params, extra, batch)
    near = color.soft_targets(target, bins, 5 if by_class else 1)
    nearest = near[0][..., 0]
    counts = extra["counts"].at[nearest].add(jnp.broadcast_to(mask[:, None, None], nearest.shape))
    valid = row_mask(batch)
    metrics = {"gray_fraction": masked_mean(1 - mask, valid), "bins_seen": (counts > 0).mean()}
    return masked_mean(losses_of(logits, target, near, counts), mask), (metrics, {**extra, "counts": counts})

  def colors_of(logits, shape):
    """Returns ab of the pixels."""
    ab = color.annealed_mean(logits, bins, temperature) if by_class else AB_SCALE * logits
    return jax.image.resize(ab, (len(ab), *shape, 2), "bilinear")

  def measures(params, extra, batch):
    logits, lab, target, mask, _ = predicted(params, extra, batch, deterministic=True)
    nearest = color.soft_targets(lab[..., 1:], bins, 1)[0][..., 0]
    pixels = jnp.broadcast_to(mask[:, None, None], nearest.shape)
    shares = color.smoothed_shares(jnp.zeros(len(bins)).at[nearest].add(pixels), bins)
    weights = color.rarity_weights(shares, BALANCED_MIX)[nearest] * pixels
    near = color.soft_targets(target, bins)
    measured = {"pretext_loss": sums(losses_of(logits, target, near, extra["counts"]), mask)}
    for name, ab in (("", colors_of(logits, lab.shape[1:3])), ("gray_", jnp.zeros_like(lab[..., 1:]))):
      right = closeness(ab, lab[..., 1:])
      measured[f"{name}raw_accuracy"] = sums(right, mask)
      measured[f"{name}balanced_accuracy"] = jnp.stack([(weights * right).sum(), weights.sum()])
    return measured

  def reconstruct(params, extra, batch):
    logits, lab, _, _, _ = predicted(params, extra, batch, deterministic=True)
    ab = colors_of(logits, lab.shape[1:3])
    return {"original": to_float(batch["image"]),
            "reconstructed": color.lab_to_rgb(jnp.concatenate([lab[..., :1], ab], -1))}

  def calibrated(params, extra, batch):
    return predicted(params, extra, batch, network=forgetful(network))[-1]

  outputs = {"layers": layers, "measures": measures, "calibrated": calibrated, "reconstruct": reconstruct,
             "components": lambda params, extra: {"bins": bins, "counts": extra["counts"]}}
  return gradient_model(init_params, loss_fn, embed_fn, optimizer or optax.adam(1e-3), coupled=True,
                        ema_decay=ema_decay, outputs=outputs, rules=RULES)


def weighted_losses(
    logits: Float[Array, "*shape q"], index: Int[Array, "*shape k"], target: Float[Array, "*shape k"],
    weights: Float[Array, " q"],
) -> Float[Array, "*shape"]:
  """Returns the cross-entropy of soft targets, weighted by the rarity of the nearest bin, `index[..., 0]`."""
  entropy = -(target * jnp.take_along_axis(jax.nn.log_softmax(logits), index, -1)).sum(-1)
  return weights[index[..., 0]] * entropy


def closeness(ab: Float[Array, "*shape 2"], true: Float[Array, "*shape 2"]) -> Float[Array, "*shape"]:
  """Returns 1 - |ab - true| / 150, at least 0."""
  return jnp.maximum(1 - jnp.sqrt(jnp.square(ab - true).sum(-1)) / 150, 0)


def has_color(lab: Float[Array, "batch height width 3"], threshold: float) -> Float[Array, " batch"]:
  """Returns 1 for images whose mean chroma is at least `threshold`, else 0."""
  return (jnp.sqrt(jnp.square(lab[..., 1:]).sum(-1)).mean((1, 2)) >= threshold).astype(jnp.float32)


def lightness(images: Shaped[Array, "batch height width channels"]) -> Float[Array, "batch height width 1"]:
  """Returns L in [0, 100] of color or gray images."""
  images = to_float(images)
  images = jnp.broadcast_to(images, (*images.shape[:3], 3)) if images.shape[3] == 1 else images
  return color.rgb_to_lab(images)[..., :1]


def _lab_of(images):
  if images.shape[-1] != 3:
    raise InputError(f"colorization: images of {images.shape[-1]} channels have no colors to predict; give data with "
                     "red, green and blue")
  return color.rgb_to_lab(to_float(images))
