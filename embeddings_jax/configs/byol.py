"""BYOL (Grill et al. 2020, arXiv:2006.07733): images by predicting a slower copy's vectors of another view.

Command: `python -m experiments.run --model=byol [--preset=small --data_dir=DIR] [--data=fashion-mnist|FOLDER]`
Presets: those of `simclr`, with its network, data and changes of images; in `paper` the target's decay of .99 that
small sets want, and 200 passes.
Expected: small, 16 minutes: kNN .472 (k = 200: .444), linear probe .499, deviation .78 (1 seed); untrained .384
(.373) and .379, pixels: see `simclr`; kNN of Fashion-MNIST, as there: .812 (.766). lightly's ResNet-18, 200 passes,
batch 512: kNN .868.
"""
import ml_collections

from embeddings_jax.configs import simclr


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = simclr.get_config(preset)
  for key in ("temperature", "chunk_size"):
    del config.model[key]
  hidden = {"tiny": 8, "small": 256, "paper": 1024}.get(preset, 64)
  config.model.update(dict(predictor_dim=hidden, target_decay=0.99))
  if preset == "small":
    config.update(dict(steps=1650, baselines=False))
  elif preset == "paper":
    config.model.projector_dims = (1024, 256)
    config.optimizer = dict(name="sgd", learning_rate=0.12, schedule="cosine", warmup_fraction=0.05,
                            weight_decay=5e-4, momentum=0.9)
  return config
