"""Relative patches (Doersch et al. 2015, arXiv:1505.05192): predicts which of eight neighbors a patch is.

Command: `python -m experiments.run --model=relative_patch [--preset=small --data_dir=DIR] [--data=FOLDER]`
Presets: `demo` digits of 16 x 16 pixels, patches of 4; `tiny` for tests; `small` CIFAR-10 as JPEG, patches of 8 x 8
pixels with gaps of 2; `paper` patches of 96 pixels with gaps of 48 on your own images of 400 x 400 pixels. Images of
128 x 128 pixels: `--preset=small --data=imagenet-sample-128 --config.model.patch=28 --config.model.gap=14
--config.model.jitter=5`.
Expected: demo, held-out neighbors .779 (chance .125), kNN .956, linear probe .972 (1 seed, 58 seconds beside other
work).
"""
import ml_collections

from embeddings_jax.configs import rotation


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = rotation.get_config(preset)
  config.model = dict(encoder=config.model.encoder.to_dict(), patch=8, gap=2, jitter=1, pairs=8, color="gray",
                      downsample=0.0, projector_dims=(64,), predictor_dims=(256,), embed_layer="block_3",
                      embed_grid=2)
  if preset == "demo":
    config.model.update(dict(patch=4, gap=1, grid=1))
    config.data.update(dict(name="digits", image_size=16))
    config.update(dict(steps=200))
  elif preset == "tiny":
    config.model.update(dict(patch=2, gap=0, pairs=2, projector_dims=(8,), predictor_dims=(8,), embed_layer="",
                             embed_grid=1, grid=1))
  elif preset == "small":
    config.update(dict(batch_size=448))  # As many operations as 256 whole images.
  elif preset == "paper":
    config.model.encoder = dict(name="resnet", depth=50, stem="imagenet", dtype="bfloat16")
    config.model.update(dict(patch=96, gap=48, jitter=7, color="drop", downsample=1 / 3, projector_dims=(512,),
                             predictor_dims=(4096,), embed_layer="", embed_grid=1))
    config.data.update(dict(name="", image_size=400))
    config.optimizer.learning_rate = 0.1
    config.update(dict(epochs=35, batch_size=256))
  return config
