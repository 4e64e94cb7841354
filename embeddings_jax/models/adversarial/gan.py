"""Generative adversarial networks: a generator G learns to fool a discriminator D.

Goodfellow, Pouget-Abadie, Mirza, Xu, Warde-Farley, Ozair, Courville & Bengio 2014, "Generative Adversarial Nets",
arXiv:1406.2661. With z ~ N(0, I), D = sigmoid(l), and means over rows (`ops/adversarial.py` has all losses):

  D:  L_D = -log D(x) - log(1 - D(G(z)))
  G:  minimax L_G = log(1 - D(G(z))), or non-saturating L_G = -log D(G(z))

| symbol | code | shape |
|---|---|---|
| x | image, or x | [n, H, W, C], to D in [-1, 1], or [n, d] |
| z | | [n, `latent_dim`] |
| G | `params["generator"]`, `sample` | rows like x |
| l, D | `params["discriminator"]`; `embed` is its last features | [n] |

Schedules, how the players take turns in an update:

- `simultaneous`: both gradients are those at the old players.
- `alternating`: D moves `discriminator_steps` times, each on its part of the batch, then G against the new D.
- `to_convergence`: D makes `convergence_steps` moves on the same rows and noise, then G as many against that D.

G's BatchNorm has the statistics of its own rows in training; for samples they are computed from fixed z, so that they
fit the averaged G, too (`ema_decay`, which rises from .1 as (1 + t) / (10 + t)). D's running statistics are those of
real rows. A GAN has no held-out loss: `real_score` and `fake_score` are mean D(x) and D(G(z)) (mean logits of `hinge`
and `wasserstein`), near 0 and 1 where G's gradient saturates; `spread` is the standard deviation of samples over that
of the data, near 0 where G has collapsed.

Deviations: hyperparameters are those of DCGAN (Radford, Metz & Chintala 2016, arXiv:1511.06434), the loss of G is the
non-saturating one. Expected: `embeddings_jax/configs/gan.py`.

Split: image and noise | the image, or one made of the noise | whether it is an image of the data.
"""
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec as P

from embeddings_jax.gradient import GradientState
from embeddings_jax.nets.gan import gan_networks
from embeddings_jax.nets.pretext import masked_mean
from embeddings_jax.ops import adversarial
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.diff_augment import check_changes, diff_augment
from embeddings_jax.ops.feature_maps import pooled
from embeddings_jax.ops.pixels import to_float
from embeddings_jax.ops.sharding import DATA_AXES, constrain
from embeddings_jax.types import Fact, InputError, Model

SCHEDULES = ("simultaneous", "alternating", "to_convergence")
PLAYERS = ("generator", "discriminator")
CALIBRATION = 512  # Draws of z from which samples have their BatchNorm statistics.


@takes(image=4, x=2, label=None)
def gan(
    *,
    height: Fact[int | None] = None,
    width: Fact[int | None] = None,
    channels: Fact[int | None] = None,
    num_features: Fact[int | None] = None,
    num_labels: Fact[int] = 0,
    latent_dim: int = 100,
    conditional: bool = False,
    network: str = "auto",
    generator_widths: Sequence[int] = (1024, 512, 256, 128),
    discriminator_widths: Sequence[int] = (128, 256, 512, 1024),
    generator_norm: str = "batch",
    discriminator_norm: str = "batch",
    kernel_size: int = 5,
    loss: str = "non_saturating",
    penalty: str = "none",
    penalty_weight: float = 10.0,
    schedule: str = "alternating",
    discriminator_steps: int = 1,
    convergence_steps: int = 20,
    augmentation: Sequence[str] = (),
    embed_grid: int = 1,
    optimizer: optax.GradientTransformation | Mapping[str, optax.GradientTransformation] | None = None,
    ema_decay: float | None = None,
) -> Model:
  """A generative adversarial network of images or rows.

  Args:
    height, width, channels: Shape of the images.
    num_features: Features of rows.
    num_labels: Number of observed classes.
    latent_dim: Size of z.
    conditional: Whether both players know the class, the batch's `label`.
    network: `dcgan`, `dense`, or `auto`: convolutional for images and dense for rows.
    generator_widths: Channels before each transposed convolution of stride 2, or widths of dense hidden layers.
    discriminator_widths: Channels after each convolution of stride 2, or widths of dense hidden layers.
    generator_norm: `batch` or `none`.
    discriminator_norm: `batch`, `spectral` or `none`.
    kernel_size: Height and width of the kernels.
    loss: `minimax`, `non_saturating`, `hinge` or `wasserstein`.
    penalty: Of D's slopes: `none`, `r1` or `gradient` (WGAN-GP); not with `batch`, which couples rows.
    penalty_weight: lambda of `gradient`, gamma of `r1`.
    schedule: `simultaneous`, `alternating` or `to_convergence`.
    discriminator_steps: Moves of D for each of G, which split a batch; of `alternating`.
    convergence_steps: Moves of each player in a turn; of `to_convergence`.
    augmentation: Differentiable changes of D's inputs: of `color`, `translation`, `cutout`.
    embed_grid: Cells per side over which D's last map is averaged.
    optimizer: For both players, or a dict of `generator` and `discriminator`; by default Adam with a learning rate of
      2e-4 and b1 = .5.
    ema_decay: Decay of the averaged generator, which then makes the samples.

  Returns:
    A `Model` whose `embed` gives D's last features. Outputs: `sample` (images in [0, 1]; `batch` may have `label`),
    `interpolate`. Metrics: `generator_loss`, `discriminator_loss` (also `loss`), `real_score`, `fake_score`,
    `spread`, `generator_gradient`, `discriminator_gradient` (norms), `penalty`.
  """
  adversarial.check_loss(loss, penalty)
  check_changes(tuple(augmentation))
  images = height is not None
  if not images and num_features is None:
    raise InputError("gan: needs images or rows; use pipeline=images or pipeline=rows")
  if schedule not in SCHEDULES:
    raise InputError(f"schedule={schedule!r}: must be one of {', '.join(SCHEDULES)}")
  if min(latent_dim, discriminator_steps, convergence_steps, embed_grid) < 1 or penalty_weight < 0:
    raise InputError(f"latent_dim={latent_dim}, discriminator_steps={discriminator_steps}, convergence_steps="
                     f"{convergence_steps}, embed_grid={embed_grid}: must be at least 1, and penalty_weight="
                     f"{penalty_weight} at least 0")
  if discriminator_steps > 1 and schedule != "alternating":
    raise InputError(f"discriminator_steps={discriminator_steps}: needs schedule='alternating', not {schedule!r}")
  if penalty != "none" and discriminator_norm == "batch":
    raise InputError(f"penalty={penalty!r}: is of one row's slope, and discriminator_norm='batch' couples rows; use "
                     "'spectral' or 'none'")
  if conditional and not num_labels:
    raise InputError("conditional=True: the data has no labels; set data.label to one of them, as data.label=class")
  if augmentation and not images:
    raise InputError(f"augmentation={tuple(augmentation)}: is of images, and these are rows; use ()")
  shape = (height, width, channels) if images else (num_features,)
  generator, discriminator = gan_networks(
      shape, network=network, generator_widths=generator_widths, discriminator_widths=discriminator_widths,
      generator_norm=generator_norm, discriminator_norm=discriminator_norm, kernel_size=kernel_size,
      num_labels=num_labels if conditional else 0)
  optimizers = for_players(optimizer)
  bounded = loss in ("minimax", "non_saturating")

  def rows_of(batch):
    """Rows as D sees them, with their weight and class."""
    if conditional and "label" not in batch:
      raise InputError("conditional=True: the batch has no 'label'; set data.label to one of the dataset's labels")
    x = 2 * to_float(batch["image"]) - 1 if images else batch["x"].astype(jnp.float32)
    rows = {"x": x, "mask": row_mask(batch)}
    return rows | ({"label": batch["label"]} if conditional else {})

  def changed(rng, x):
    return diff_augment(rng, x, tuple(augmentation)) if augmentation else x

  def generated(params, rng, num, label):
    """Rows of G with the statistics of these rows."""
    z = constrain(jax.random.normal(rng, (num, latent_dim)), P(DATA_AXES))
    return generator.apply({"params": params}, z, label, deterministic=False, mutable=["batch_stats"])[0]

  def judged(params, extra, x, label, mask=None, keep=False):
    """Logits in training, and `extra` after them where it is kept."""
    moving = list(extra) if keep else ["batch_stats"]
    logits, moved = discriminator.apply({"params": params, **extra}, x, label, mask, deterministic=False,
                                        mutable=moving)
    return logits, {**extra, **moved} if keep else extra

  def discriminator_loss(params, generator_params, extra, rows, rng):
    rng_z, rng_real, rng_fake, rng_share = jax.random.split(rng, 4)
    label, mask = rows.get("label"), rows["mask"]
    made = jax.lax.stop_gradient(generated(generator_params, rng_z, len(mask), label))
    real, fake = changed(rng_real, rows["x"]), changed(rng_fake, made)
    real_logits, moved = judged(params, extra, real, label, mask, keep=True)
    fake_logits, _ = judged(params, extra, fake, label)
    of_real, of_fake = adversarial.discriminator_losses(loss, real_logits, fake_logits)
    value = masked_mean(of_real, mask) + of_fake.mean()
    score = jax.nn.sigmoid if bounded else lambda logits: logits
    metrics = {"discriminator_loss": value, "real_score": masked_mean(score(real_logits), mask),
               "fake_score": score(fake_logits).mean(),
               "spread": adversarial.spread(made, jnp.ones(len(made))) / jnp.maximum(
                   adversarial.spread(rows["x"], mask), adversarial.TINY)}
    if penalty != "none":
      logits = lambda x: discriminator.apply({"params": params, **extra}, x, label)
      if penalty == "r1":
        each = adversarial.r1_penalties(logits, real)
      else:
        each = adversarial.gradient_penalties(logits, real, fake, jax.random.uniform(rng_share, (len(real),)))
      metrics["penalty"] = penalty_weight * masked_mean(each, mask)
      value += metrics["penalty"]
    return value, (metrics, moved)

  def generator_loss(params, discriminator_params, extra, num, label, rng):
    rng_z, rng_fake = jax.random.split(rng)
    fake = changed(rng_fake, generated(params, rng_z, num, label))
    return adversarial.generator_losses(loss, judged(discriminator_params, extra, fake, label)[0]).mean()

  def move_discriminator(params, extra, opt_state, rows, rng):
    """Returns D after one step of its own: parameters, `extra`, state of the optimizer, metrics."""
    (_, (metrics, extra)), grads = jax.value_and_grad(discriminator_loss, has_aux=True)(
        params["discriminator"], params["generator"], extra, rows, rng)
    updates, opt_state = optimizers["discriminator"].update(grads, opt_state, params["discriminator"])
    metrics["discriminator_gradient"] = optax.tree.norm(grads)
    return optax.apply_updates(params["discriminator"], updates), extra, opt_state, metrics

  def move_generator(params, extra, opt_state, num, label, rng):
    """Returns G after one step against the D of `params`: parameters, state of the optimizer, metrics."""
    value, grads = jax.value_and_grad(generator_loss)(params["generator"], params["discriminator"], extra, num, label,
                                                      rng)
    updates, opt_state = optimizers["generator"].update(grads, opt_state, params["generator"])
    metrics = {"generator_loss": value, "generator_gradient": optax.tree.norm(grads)}
    return optax.apply_updates(params["generator"], updates), opt_state, metrics

  def parts_of(rows):
    """`[n, ...] -> [discriminator_steps, n / discriminator_steps, ...]`, strided: no row changes its device."""
    if len(rows["mask"]) % discriminator_steps:
      raise InputError(f"discriminator_steps={discriminator_steps}: does not divide the {len(rows['mask'])} rows of "
                       "a batch")
    parts = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, discriminator_steps, *x.shape[1:]), 1, 0), rows)
    return constrain(parts, P(None, DATA_AXES))

  def update(state, batch, rng):
    params, rows = dict(state.params), rows_of(batch)
    rng_d, rng_g = jax.random.split(rng)
    turns = convergence_steps if schedule == "to_convergence" else discriminator_steps
    parts = parts_of(rows)
    last = jax.tree.map(lambda x: x[-1], parts)

    def one(carry, turn):
      own, extra, opt_state = carry
      # Near convergence all turns have the same rows and noise, so that there is something to converge to.
      part, key = (last, rng_d) if schedule == "to_convergence" else (
          jax.tree.map(lambda x: x[turn], parts), jax.random.fold_in(rng_d, turn))
      *carry, metrics = move_discriminator({**params, "discriminator": own}, extra, opt_state, part, key)
      return tuple(carry), metrics

    def repeated(one, carry, turns):
      """Moves one after another, and their mean metrics."""
      if turns == 1:
        return one(carry, 0)
      carry, metrics = jax.lax.scan(one, carry, jnp.arange(turns))
      return carry, jax.tree.map(lambda x: x.mean(0), metrics)

    start = params["discriminator"], state.extra, state.opt_state["discriminator"]
    (own, extra, opt_d), metrics = repeated(one, start, turns)
    against = (params["discriminator"], state.extra) if schedule == "simultaneous" else (own, extra)
    num, label = len(last["mask"]), last.get("label")

    def move(carry, turn):
      of_g, opt_state = carry
      players = {"generator": of_g, "discriminator": against[0]}
      of_g, opt_state, values = move_generator(players, against[1], opt_state, num, label, rng_g)
      return (of_g, opt_state), values

    (of_g, opt_g), of_generator = repeated(move, (params["generator"], state.opt_state["generator"]),
                                           turns if schedule == "to_convergence" else 1)
    metrics |= of_generator
    average = state.average
    if ema_decay is not None:
      decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
      average = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, average, of_g)
    new = GradientState(state.step + 1, {"generator": of_g, "discriminator": own}, extra,
                        {"generator": opt_g, "discriminator": opt_d}, average)
    norm = jnp.hypot(metrics["generator_gradient"], metrics["discriminator_gradient"])
    return new, {"loss": metrics["discriminator_loss"], "gradient_norm": norm, **metrics}

  @jax.jit
  def init(rng, batch):
    rows, (first, second) = rows_of(batch), jax.random.split(rng)
    one = jax.tree.map(lambda x: x[:1], rows)
    of_g = generator.init(first, jnp.zeros((1, latent_dim)), one.get("label"))["params"]
    extra = dict(discriminator.init(second, one["x"], one.get("label")))
    params = {"generator": of_g, "discriminator": extra.pop("params")}
    average = jax.tree.map(jnp.array, of_g) if ema_decay is not None else ()
    return GradientState(jnp.zeros((), jnp.int32), params, extra,
                         {name: optimizers[name].init(params[name]) for name in PLAYERS}, average)

  def embed(state, batch):
    x = 2 * to_float(batch["image"]) - 1 if images else batch["x"].astype(jnp.float32)
    maps = discriminator.apply({"params": state.params["discriminator"], **state.extra}, x, method="features")
    return pooled(maps, embed_grid) if maps.ndim == 4 else maps

  def sampler(state):
    """Returns `(z, label) -> rows` of the averaged G, with statistics of fixed z."""
    variables = {"params": state.params["generator"] if ema_decay is None else state.average}
    if generator_norm == "batch":
      z = jax.random.normal(jax.random.key(0), (CALIBRATION, latent_dim))
      label = jnp.arange(CALIBRATION) % num_labels if conditional else None
      variables |= generator.clone(norm_decay=0.0).apply(variables, z, label, deterministic=False,
                                                         mutable=["batch_stats"])[1]

    def rows(z, label):
      made = generator.apply(variables, z, label)
      return (made + 1) / 2 if images else made

    return rows

  def classes(rng, num, batch):
    if not conditional:
      return None
    if batch is None:
      return jax.random.randint(rng, (num,), 0, num_labels)
    if "label" not in batch or len(batch["label"]) not in (1, num):
      raise InputError(f"num={num}: the condition must have `label` of one row or of {num}")
    return jnp.broadcast_to(batch["label"], (num,))

  def sample(state, rng, num, batch=None):
    rng_z, rng_label = jax.random.split(rng)
    return sampler(state)(jax.random.normal(rng_z, (num, latent_dim)), classes(rng_label, num, batch))

  def interpolate(state, rng, num):
    """Rows of z on the arc between two draws, of one class."""
    rng_z, rng_label = jax.random.split(rng)
    label = None if not conditional else jnp.broadcast_to(classes(rng_label, 1, None), (num,))
    return sampler(state)(adversarial.arc(*jax.random.normal(rng_z, (2, latent_dim)), num), label)

  return Model(init, update, embed, {"sample": sample, "interpolate": interpolate})


def for_players(optimizer: Any) -> Mapping[str, optax.GradientTransformation]:
  """Returns the optimizer of each player."""
  if optimizer is None:
    optimizer = optax.adam(2e-4, b1=0.5)
  if not isinstance(optimizer, Mapping):
    return dict.fromkeys(PLAYERS, optimizer)
  if set(optimizer) != set(PLAYERS):
    raise InputError(f"optimizer: of {', '.join(optimizer)}; give one for each of {', '.join(PLAYERS)}")
  return optimizer
