"""BYOL: an encoder of images that predicts what a slower copy of itself makes of another view.

Grill et al. 2020, "Bootstrap Your Own Latent", arXiv:2006.07733. Of each image two views are drawn by
`ops/augment.py`, in `update`; with the online parameters θ and the target's ξ (equations 1 and 2, and algorithm 1):

  z = g(f(x)),   L = Σ_{(a, b) in (1, 2), (2, 1)} |u(q_θ(z_θ(x_a))) - u(z_ξ(x_b))|²,   u(x) = x / |x|
  ξ <- τ ξ + (1 - τ) θ,   τ = 1 - (1 - τ_0) (cos(π k / K) + 1) / 2   in update k of K

  symbol  name           shape
  f       encoder        [batch, dim], the mean over places; what `embed` gives, of the online network
  g, z    projector      [batch, projector_dims[-1]]
  q       predictor      [batch, projector_dims[-1]], by way of `predictor_dim`
  ξ       extra/target   as θ, without the predictor
  τ_0     target_decay
  K       num_steps

The encoder's parameters lie under `params/encoder`, its running statistics under `extra/batch_stats/encoder`. Each
view has BatchNorm's statistics of its own, over the whole mesh; so has the target, whose statistics are never kept.
The loss lies in [0, 8]; `deviation` shows a collapse.

Split: image | one view of it | the target network's vector of another view.

Expected: `embeddings_jax/configs/byol.py`.
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
from embeddings_jax.types import Fact, InputError, Model


@takes(image=4)
def byol(
    *,
    encoder: nn.Module,
    projector_dims: Sequence[int] = (4096, 256),
    predictor_dim: int = 4096,
    target_decay: float = 0.996,
    num_steps: Fact[int] = 0,
    augmentation: str = "byol",
    strength: float = 0.5,
    blur: bool = True,
    min_scale: float = 0.08,
    optimizer: optax.GradientTransformation | None = None,
    accumulate: int = 1,
    ema_decay: float | None = None,
) -> Model:
  """BYOL; the defaults are the paper's for ImageNet.

  Args:
    encoder: has the method `features(batch, deterministic)` -> [batch, places, dim] of `image`.
    projector_dims: Widths of the layers of g.
    predictor_dim: Width of the hidden layer of q.
    target_decay: τ_0, with which the target begins.
    num_steps: K, after which the target stands still; 0: τ stays τ_0.
    augmentation, strength, blur, min_scale: see `ops/augment.py: pair_of_views`. Views are squares of the encoder's
      `image_size`, where it has one, else of the images' height.
    optimizer: by default Adam with a rate of 1e-3.
    accumulate: 1: BatchNorm couples the images of a batch.
    ema_decay: as for `gradient_model`.
  """
  if not 0 <= target_decay < 1:
    raise InputError(f"target_decay={target_decay}: must lie in [0, 1)")
  network = Siamese(encoder, Mlp(tuple(projector_dims), last_bias=False), Mlp((predictor_dim, projector_dims[-1])))
  target_network = Siamese(network.encoder, network.projector)
  draw = functools.partial(two_views, name=augmentation, size=getattr(encoder, "image_size", 0), strength=strength,
                           blur=blur, min_scale=min_scale)

  def without_predictor(tree):
    return {name: tree[name] for name in ("encoder", "projector") if name in tree}

  def init_params(rng, batch):
    check_images(encoder, batch)
    params, extra = started(network, rng, batch)
    # The target must not share buffers with the parameters: both are donated.
    return params, extra | {"target": jax.tree.map(jnp.array, without_predictor(params))}

  def loss_fn(params, extra, batch, rng):
    images, mask = batch["image"], row_mask(batch)
    statistics = {"batch_stats": extra["batch_stats"]}
    of_target = {"batch_stats": without_predictor(extra["batch_stats"])}
    z, q, targets = [], [], []
    for view in draw(rng, images):
      view = {"image": view, "mask": mask}
      outputs, statistics = applied(network, params, statistics, view, deterministic=False)
      target, _ = applied(target_network, extra["target"], of_target, view, deterministic=False)
      z.append(outputs["z"])
      q.append(l2_normalize(outputs["q"]))
      targets.append(jax.lax.stop_gradient(l2_normalize(target["z"])))
    distances = sum(jnp.square(q[i] - targets[1 - i]).sum(-1) for i in (0, 1))
    loss = (mask * distances).sum() / jnp.maximum(mask.sum(), 1)
    return loss, ({"deviation": deviation(z[0], mask)}, {**extra, **statistics})

  def after_update(state):
    decay = target_decay
    if num_steps:
      done = jnp.minimum(state.step - 1, num_steps) / num_steps
      decay = 1 - (1 - target_decay) * (jnp.cos(jnp.pi * done) + 1) / 2
    target = jax.tree.map(lambda slow, fast: decay * slow + (1 - decay) * fast, state.extra["target"],
                          without_predictor(state.params))
    return state._replace(extra={**state.extra, "target": target})

  def embed_fn(params, extra, batch):
    return network.apply({"params": params, "batch_stats": extra["batch_stats"]}, batch, method="represent")

  def calibrated_extra(params, extra, batch):
    return {**extra, **calibrated(network, params, {"batch_stats": extra["batch_stats"]}, batch)}

  def layers(params, extra, batch):
    return layer_maps(encoder, variables_of(params, extra), batch)

  return gradient_model(init_params, loss_fn, embed_fn, optimizer or optax.adam(1e-3), coupled=True,
                        accumulate=accumulate, ema_decay=ema_decay, after_update=after_update,
                        outputs={"calibrated": calibrated_extra, "layers": layers}, rules=RULES)
