"""Generative adversarial networks (Goodfellow et al. 2014, arXiv:1406.2661; DCGAN: Radford et al. 2016).

Command: `python -m experiments.run --model=gan [--preset=small --data_dir=DIR] [--data=FOLDER]`
Presets: `demo` a ring of 8 Gaussians in the plane, dense networks, a minute on two cores; `tiny` for tests; `small`
Fashion-MNIST, small DCGAN networks with spectral normalization and an averaged generator, 4 epochs; `paper` DCGAN for
your own images of 64 x 64 pixels (`--data=`).
Expected: demo, all 8 modes, each with 11 % of the samples or more, 95 to 97 % of them within three standard
deviations of one (3 seeds); with `--data=ring-narrow` 94 % (1 seed); `experiments.benchmark gan_ring` has other
losses and schedules, of which those to convergence find no mode. small, test split in features of the protocol's
classifier, Fréchet distance 16.3 (floor .13, uniform codes of an autoencoder 62.7), every class at least 6.4 % of the
samples (1 seed).
By class: `--config.model.conditional=True --config.data.label=class`. Collapse to see:
`--config.model.schedule=to_convergence --config.model.loss=minimax`.
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  optimizer = dict(name="adam", learning_rate=1e-3, schedule="cosine", end_fraction=0.0, b1=0.5)
  config = ml_collections.ConfigDict(dict(
      model=dict(latent_dim=2, conditional=False, network="dense", generator_widths=(128,) * 3,
                 discriminator_widths=(128,) * 3, generator_norm="none", discriminator_norm="none", kernel_size=5,
                 loss="non_saturating", penalty="none", penalty_weight=10.0, schedule="alternating",
                 discriminator_steps=1, convergence_steps=20, augmentation=(), embed_grid=1),
      pipeline="rows",
      data=dict(name="ring"),
      optimizer=dict(generator=optimizer, discriminator=optimizer),
      steps=5000,
      batch_size=256,
      steps_per_dispatch=100,
      log_every=100,
      save_every=2000,
      evals=("generation",),
      eval_items=0,
      baselines=False,
  ))
  if preset == "tiny":
    config.update(dict(
        model=dict(latent_dim=4, conditional=True, network="dcgan", generator_widths=(4,), discriminator_widths=(4,),
                   generator_norm="batch", discriminator_norm="spectral", kernel_size=2,
                   augmentation=("translation",), ema_decay=0.9),
        pipeline="images", steps=20, batch_size=16, steps_per_dispatch=1, log_every=5, save_every=10, evals=(),
        eval_items=200))
    config.data.update(dict(name="digits", label="class"))
  elif preset == "small":
    config.update(dict(
        model=dict(latent_dim=64, network="dcgan", generator_widths=(128, 64), discriminator_widths=(64, 128),
                   generator_norm="batch", discriminator_norm="spectral", kernel_size=4,
                   augmentation=("translation",), ema_decay=0.999),
        pipeline="images", steps=4000, batch_size=64, steps_per_dispatch=10, evals=("generation", "linear_probe")))
    for player in ("generator", "discriminator"):
      config.optimizer[player].update(dict(learning_rate=4e-4, schedule="linear", end_fraction=0.1))
    config.data.update(dict(name="fashion-mnist"))
  elif preset == "paper":
    config.update(dict(
        model=dict(latent_dim=100, network="dcgan", generator_widths=(1024, 512, 256, 128),
                   discriminator_widths=(128, 256, 512, 1024), generator_norm="batch", discriminator_norm="batch"),
        pipeline="images", steps=100_000, batch_size=128, steps_per_dispatch=1, evals=("generation",)))
    for player in ("generator", "discriminator"):
      config.optimizer[player].update(dict(learning_rate=2e-4, schedule="constant"))
    config.data.update(dict(name="", image_size=64, channels=3))
  return config
