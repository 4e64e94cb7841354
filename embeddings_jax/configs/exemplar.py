"""Exemplar networks (Dosovitskiy et al. 2014, arXiv:1406.6909): tells each image from all others.

Command: `python -m experiments.run --model=exemplar [--preset=small --data_dir=DIR] [--data=FOLDER]`
Presets: `demo` digits at random places of 12 x 12 pixels; `tiny` for tests; `small` 8,000 images of CIFAR-10 as JPEG;
`paper` 32,000 images and the paper's ranges.
Triplets of many classes: `--config.model.loss=triplet --config.model.views=8 --config.data.max_images=0`.
Expected: demo, kNN .661, linear probe .786 (1 seed, 40 seconds); pixels have .819 and .331.
"""
import ml_collections

from embeddings_jax.configs import rotation


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = rotation.get_config(preset)
  config.model = dict(encoder=config.model.encoder.to_dict(), views=2, projector_dims=(128,), embed_layer="block_3",
                      embed_grid=2)
  config.pipeline = "numbered_images"
  del config.data["validation_fraction"]
  config.evals = ("knn", "linear_probe")
  if preset == "demo":
    config.model.patch = 12
    config.data.max_images = 500
  elif preset == "tiny":
    config.model.update(dict(patch=8, projector_dims=(8,), embed_layer="", embed_grid=1))
    config.data.max_images = 100
  elif preset == "small":
    config.data.max_images = 8000
    config.update(dict(batch_size=128))
  elif preset == "paper":
    config.model.update(dict(projector_dims=(512,), embed_layer=""))
    config.data.max_images = 32_000
  return config
