"""The convolutional autoencoder with a perceptual loss (Johnson et al. 2016, arXiv:1603.08155): distances of features
of a trunk that is not trained.

Command: `python -m experiments.run --model=autoencoder_perceptual --init_from=RUN`, RUN a run with a trunk of images,
as `rotation` or `simclr`; without it the features are random.
Presets: `demo` two photographs cut into images of 32 x 32 pixels, a code of 64; `tiny` for tests; `small` CIFAR-10 as
JPEG; `paper` your own images (`--data=FOLDER`).
Expected: demo, a minute on two cores, with random features: held-out PSNR 24.0, SSIM .564 (one seed), where squared
errors alone (`autoencoder_color`) have 25.5, .595.
"""
import ml_collections

from embeddings_jax.configs import autoencoder_color, rotation


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = autoencoder_color.get_config("tiny" if preset == "tiny" else "demo")
  config.model.update(dict(loss="perceptual", encoder=dict(rotation.TINY if preset == "tiny" else rotation.TRUNK),
                           layer="" if preset == "tiny" else "block_1"))
  if preset in ("small", "paper"):
    config.update(dict(model=dict(dim=128), steps=2000))
    config.data.update(dict(name="cifar10-jpeg" if preset == "small" else "", image_size=32, channels=3))
  return config
