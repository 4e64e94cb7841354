"""Convolutional and other autoencoders of images (Foster, "Generative Deep Learning"; Vincent et al. 2008).

Command: `python -m experiments.run --model=autoencoder [--preset=small --data_dir=DIR] [--data=FOLDER]`
Presets: `demo` scikit-learn's digits, codes of 2, a minute on two cores; `tiny` for tests; `small` Fashion-MNIST,
codes of 2 (`--config.model.dim=16` for 16) and dense networks, 20 epochs in two minutes; `paper` the book's: 6,250
updates of 32 of your own 28 x 28 images (`--data=`).
Expected: small, mean squared error on the test split .0253 with codes of 2 (principal components .0461), .0114 with
codes of 16 (.0205), 1 seed.
Denoising: `--config.model.corruption=gaussian --config.model.corruption_level=0.3`. Linear:
`--config.model.strides='()' --config.model.widths='()'`.
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      model=dict(),
      pipeline="images",
      data=dict(name="digits", validation_fraction=0.1),
      optimizer=dict(name="adam", learning_rate=1e-3, schedule="cosine"),
      steps=2000,
      batch_size=64,
      steps_per_dispatch=10,
      evals=("held_out", "reconstruction", "linear_probe", "knn"),
      baselines=True,
  ))
  if preset == "tiny":
    config.update(dict(model=dict(dim=4, widths=(4, 8), strides=(2, 2)), steps=20, batch_size=16,
                       steps_per_dispatch=1, log_every=5, save_every=10, eval_items=200, baselines=False))
  elif preset == "small":
    config.update(dict(model=dict(widths=(512, 256, 128), strides=()), steps=4700, batch_size=256,
                       evals=("reconstruction", "linear_probe", "knn")))
    config.data.update(dict(name="fashion-mnist", validation_fraction=0.0))
  elif preset == "paper":
    config.update(dict(steps=6250, batch_size=32, optimizer=dict(learning_rate=5e-4, schedule="constant")))
    config.data.update(dict(name="", validation_fraction=0.0))
  return config
