"""Variational autoencoder of images (Kingma & Welling 2014, arXiv:1312.6114).

Command: `python -m experiments.run --model=vae [--preset=small --data_dir=DIR] [--data=FOLDER]`
Presets: `demo` scikit-learn's digits, codes of 2, a Gaussian with a learnt scale, a minute on two cores; `tiny` for
tests; `small` Fashion-MNIST, codes of 16, dense networks and a discretized logistic likelihood of 8-bit values;
`paper` dense networks with 500 hidden units, a Bernoulli likelihood and codes of 20 on your own images (`--data=`;
the paper's: MNIST, batches of 100, Adagrad).
Expected: small, bound on the 10,000 test images 3.461 bits per dimension, 3.429 with 50 draws, 14 active units of 16
(1 seed, 21 minutes beside other work, at 45 updates a second 5). 8,000 updates have 3.503; hidden layers of 512 and
256 after 6,000 have 3.56.
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
      evals=("held_out", "likelihood", "reconstruction", "linear_probe", "knn"),
      baselines=True,
  ))
  if preset == "tiny":
    config.update(dict(model=dict(dim=4, widths=(4, 8), strides=(2, 2)), steps=20, batch_size=16,
                       steps_per_dispatch=1, log_every=5, save_every=10, eval_items=200, baselines=False))
  elif preset == "small":
    config.update(dict(model=dict(dim=16, widths=(1024, 512), strides=(), likelihood="discretized_logistic",
                                  scale="output", output_activation="linear"),
                       optimizer=dict(clip_norm=100.0), steps=14000, batch_size=128,
                       evals=("likelihood", "reconstruction", "linear_probe", "knn")))
    config.data.update(dict(name="fashion-mnist", validation_fraction=0.0))
  elif preset == "paper":
    config.model.update(dict(dim=20, widths=(500,), strides=(), likelihood="bernoulli"))
    config.update(dict(steps=100_000, batch_size=100, baselines=False,
                       optimizer=dict(name="adagrad", learning_rate=0.02, schedule="constant")))
    config.data.update(dict(name="", validation_fraction=0.0))
  return config
