"""Restoration of images by a network: denoising, super-resolution, inpainting.

Command: `python -m experiments.run --model=restoration [--preset=small --data_dir=DIR]`
Presets: `demo` denoising of two photographs cut into images of 32 x 32, a minute on two cores; `tiny` for tests;
`small` CIFAR-10; `paper` your own images (`--data=FOLDER --config.data.image_size=64`).
Tasks: `--config.model.task=superres --config.model.noise=0`, `--config.model.task=inpaint --config.model.noise=0`.
Compare with bicubic interpolation and total variation: `python -m experiments.restore`.
Expected: demo after 150 updates (50 s on two cores beside other work) a mean PSNR of 28.6 dB, observed 21.2; these
images are smooth, and total variation, its weight chosen on training images, has 32.6 (1 seed).
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      pipeline="images",
      data=dict(name="photographs", image_size=32, validation_fraction=0.1),
      optimizer=dict(name="adam", learning_rate=2e-3, schedule="cosine", clip_norm=1.0),
      steps=500,
      batch_size=32,
      steps_per_dispatch=5,
      log_every=50,
      save_every=500,
      evals=("held_out", "reconstruction"),
  ))
  if preset == "tiny":
    config.update(dict(model=dict(widths=(8, 8)), steps=20, batch_size=16, steps_per_dispatch=1, log_every=5,
                       save_every=10, eval_items=200))
    config.data.update(dict(name="digits", image_size=0))
  elif preset == "small":
    config.update(dict(steps=1500))
    config.data.update(dict(name="cifar10-jpeg", image_size=0, validation_fraction=0.0))
    config.evals = ("reconstruction",)
  elif preset == "paper":
    config.update(dict(model=dict(widths=(64, 128, 256)), steps=100_000, batch_size=64))
    config.data.update(dict(name="", image_size=64))
  return config
