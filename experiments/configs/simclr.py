"""SimCLR (Chen et al. 2020, arXiv:2002.05709): pictures by contrast of two views.

Command: `python -m experiments.run --model=simclr [--preset=small --data_dir=DIR] [--data=fashion-mnist]`
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      model=dict(
          encoder=dict(name="resnet", depth=8, width=16, stem="cifar", image_size=0, pixel_mean=0.5, pixel_std=0.5,
                       norm_decay=0.9, dtype="float32"),
          projector_dims=(64, 64), temperature=0.5, augmentation="simclr", strength=0.5, blur=False, min_scale=0.2,
          chunk_size=0),
      data=dict(name="digits", encoder="images", errors="strict"),
      optimizer=dict(name="adamw", learning_rate=2e-3, schedule="cosine", warmup_steps=50, weight_decay=1e-4),
      steps=400,
      batch_size=128,
      steps_per_dispatch=1,
      log_every=50,
      save_every=500,
      evals=("knn", "linear_probe"),
      eval_items=0,
      baselines=True,
  ))
  if preset == "tiny":
    config.model.encoder.width = 4
    config.update(dict(model=dict(projector_dims=(8, 8)), steps=20, batch_size=16, log_every=5, save_every=10,
                       eval_items=200, baselines=False))
  elif preset == "small":
    config.model.encoder.update(dict(depth=8, width=32, image_size=16))
    config.model.update(dict(projector_dims=(256, 128), temperature=0.2))
    config.data.name = "cifar10-jpeg"
    config.update(dict(steps=2500, batch_size=256, log_every=50, save_every=500))
  elif preset == "paper":
    config.model.encoder.update(dict(depth=18, width=64))
    config.model.update(dict(projector_dims=(512, 128), min_scale=0.08))
    config.data.name = "cifar10-jpeg"
    config.update(dict(steps=0, epochs=200, batch_size=512, save_every=2000, baselines=False))
  return config
