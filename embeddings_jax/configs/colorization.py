"""Colorization (Zhang et al. 2016, arXiv:1603.08511): predicts colors from lightness.

Command: `python -m experiments.run --model=colorization [--preset=small --data_dir=DIR] [--data=FOLDER]`
Presets: `demo` two photographs cut into 2,080 images of 16 x 16 pixels; `tiny` for tests; `small` CIFAR-10 as JPEG;
`paper` a ResNet-18 on your own images of 176 x 176 pixels.
The baseline of regression: `--config.model.loss=regression`; without rarity weights: `--config.model.rarity_mix=1`.
Expected: demo, held-out raw accuracy .935 (gray .874), balanced .876 (gray .760), kNN .976 (1 seed, 36 seconds).
"""
import ml_collections

from embeddings_jax.configs import rotation


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = rotation.get_config(preset)
  config.model = dict(encoder=config.model.encoder.to_dict(), embed_layer="block_3", embed_grid=2)
  if preset == "demo":
    config.data.update(dict(name="photographs", image_size=16))
    config.update(dict(steps=200))
  elif preset == "tiny":
    config.model.update(dict(bin_size=20, embed_layer="", embed_grid=1))
    config.data.update(dict(name="photographs"))
  elif preset == "small":
    config.update(dict(batch_size=256))
  elif preset == "paper":
    config.model.encoder = dict(name="resnet", dtype="bfloat16")
    config.model.update(dict(embed_layer="", embed_grid=1))
    config.data.update(dict(name="", image_size=176))
    config.optimizer = dict(name="adamw", learning_rate=3e-4, schedule="cosine", warmup_fraction=0.02,
                            weight_decay=1e-3)
    config.update(dict(epochs=35, batch_size=256))
  return config
