"""VQ-VAE: autoencoder with discrete codes (van den Oord et al. 2017, arXiv:1711.00937).

Command: `python -m experiments.run --model=vq_vae [--preset=small --data_dir=DIR] [--data=FOLDER]`; a prior over its
codes: `python -m experiments.run --model=gpt --config.pipeline=codes --config.data.codes=RUN`.
Presets: `demo` scikit-learn's digits, 4 x 4 codes of 64, a minute on two cores; `tiny` for tests; `small`
Fashion-MNIST, 7 x 7 codes of 512, 441 bits an image at most, 6 epochs; `paper` the paper's for your own images of 128
x 128 pixels (`--data=`).
Expected: small after 1,000 of its 3,000 updates, mean squared error on the test split .0093 and 20.9 dB with 423 bits
an image, all codes used, perplexity 395. `autoencoder` with 64 numbers after as many images: .0116 and 20.1 dB before
its codes are rounded, 20.0 dB at 255 bits (convolutions of 32, 64 and 64 channels), .0170 with dense layers (1 seed
each).
Finite scalar quantization: `--config.model.levels='(8, 8, 8)'`.
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      model=dict(num_codes=64, dim=8, levels=(), widths=(32,), num_blocks=1, commitment=0.25, decay=0.99, revival=0.1,
                 variance=0.14),
      pipeline="images",
      data=dict(name="digits", image_size=0, channels=0, bad="error", validation_fraction=0.1),
      optimizer=dict(name="adam", learning_rate=2e-3, schedule="cosine", warmup_steps=0, clip_norm=0.0),
      steps=2000,
      batch_size=64,
      steps_per_dispatch=10,
      log_every=100,
      save_every=1000,
      evals=("held_out", "reconstruction", "codebook", "linear_probe", "knn"),
      eval_items=0,
      baselines=True,
  ))
  if preset == "tiny":
    config.update(dict(model=dict(num_codes=16, dim=4, widths=(8,)), steps=20, batch_size=16, steps_per_dispatch=1,
                       log_every=5, save_every=10, evals=("codebook",), eval_items=200, baselines=False))
  elif preset == "small":
    config.update(dict(model=dict(num_codes=512, dim=16, widths=(32, 64), num_blocks=2, variance=0.125), steps=3000,
                       batch_size=128, evals=("reconstruction", "codebook"), baselines=False))
    config.data.update(dict(name="fashion-mnist", validation_fraction=0.0))
  elif preset == "paper":
    config.update(dict(model=dict(num_codes=512, dim=64, widths=(128, 256), num_blocks=2, variance=0.06),
                       steps=250_000, batch_size=128, evals=("reconstruction", "codebook"), baselines=False,
                       optimizer=dict(learning_rate=2e-4, schedule="constant")))
    config.data.update(dict(name="", image_size=128, channels=3, validation_fraction=0.0))
  return config
