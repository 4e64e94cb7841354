"""The convolutional autoencoder of color photographs: 128 x 128 x 3 = 49,152 numbers to a code of 1,024.

Command: `python -m experiments.run --model=autoencoder_color [--preset=small --data_dir=DIR] [--data=FOLDER]`
Presets: `demo` two photographs cut into images of 32 x 32, a code of 64 for 3,072 numbers, half a minute on two
cores; `tiny` for tests; `small` 1,000 photographs of ImageNet's classes; `paper` your own photographs
(`--data=FOLDER`).
Expected: demo, held-out mean squared error .0094, PSNR 25.5, SSIM .595 (one seed); untrained .127, 9.3, .347.
"""
import ml_collections

from embeddings_jax.configs import autoencoder


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = autoencoder.get_config()
  config.factory = "autoencoder"
  config.model.update(dict(dim=64, widths=(32, 64), strides=(2, 2), upsampling="resize"))
  config.data.update(dict(name="photographs", image_size=32))
  config.update(dict(steps=500, batch_size=32, evals=("held_out", "reconstruction")))
  if preset == "tiny":
    config.update(dict(model=dict(dim=4, widths=(4, 8)), steps=20, batch_size=16, steps_per_dispatch=1, log_every=5,
                       save_every=10, eval_items=200, baselines=False))
    config.data.update(dict(image_size=16))
  elif preset in ("small", "paper"):
    config.update(dict(model=dict(dim=1024, widths=(32, 64, 128, 128), strides=(2, 2, 2, 2)), steps=2000))
    config.data.update(dict(name="imagenet-sample-128" if preset == "small" else "", image_size=128, channels=3))
  return config
