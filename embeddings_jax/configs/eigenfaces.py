"""Eigenfaces (Sirovich & Kirby 1987; Turk & Pentland 1991): principal component analysis of images, with its
images: the mean, the components, and reconstructions from more and more of them, in `figures/`.

Command: `python -m experiments.run --model=eigenfaces`
Presets: `demo` scikit-learn's digits, seconds; `tiny` for tests; `small` Fashion-MNIST (`--data_dir`), 100 components
by one pass over batches; `paper` images of your own: `--preset=paper --data=FOLDER --config.data.image_size=64
--config.data.channels=1`, or in idx format.
Expected: demo: 32 components explain .97 of the variance.
"""
import ml_collections

from embeddings_jax.configs import pca


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = pca.get_config()
  config.factory = "pca"
  config.model.dim = 32
  config.data.update(dict(name="digits", standardize=False))
  if preset == "tiny":
    config.update(dict(model=dict(dim=4, tol=0.0), batch_size=512, epochs=2))
  elif preset == "small":
    config.update(dict(model=dict(dim=100), batch_size=4096))
    config.data.update(dict(name="fashion-mnist"))
  elif preset == "paper":
    config.update(dict(model=dict(dim=100), batch_size=4096, evals=()))
    config.data.update(dict(name=""))
  return config
