"""A linear VAE on images: `python -m experiments.run --config_file=tests/extension/linear_vae.py`."""


def get_config(preset="tiny"):
  return dict(name="linear_vae", model=dict(dim=4), pipeline="images",
              data=dict(name="digits", validation_fraction=0.1), optimizer=dict(name="adam", learning_rate=2e-2),
              steps=200, batch_size=64, log_every=10, save_every=50, evals=("held_out", "linear_probe"))
