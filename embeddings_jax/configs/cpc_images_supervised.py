"""The network of `cpc_images` trained with labels, a linear layer on the mean code of the patches.

Command: `python -m experiments.run --model=cpc_images_supervised [--preset=small] [--data=fashion-mnist]`
Presets: those of `cpc_images`.
Expected: `small` test accuracy .391 (one seed), below a linear probe of `cpc_images --preset=small`, .474: the mean
code of the patches is a poor input of a classifier.
"""
import ml_collections

from embeddings_jax.configs import cpc_images
from embeddings_jax.configs.cpc_supervised import supervised


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = supervised(cpc_images.get_config(preset))
  if preset == "tiny":
    config.data.max_examples = 200
  return config
