"""Eigenfaces (Sirovich & Kirby 1987; Turk & Pentland 1991): principal component analysis of pictures, with its
pictures: the mean, the components, and reconstructions from more and more of them, in `figures/`.

Command: `python -m experiments.run --model=eigenfaces`
Presets: `demo` scikit-learn's digits, seconds; `tiny` for tests; `small` Fashion-MNIST (`--data_dir`), 100 components
by one pass over batches; `paper` pictures of your own, in idx format: `--preset=paper --data='faces-*-ubyte'`.
Expected: demo: 32 components explain .97 of the variance.
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      factory="pca",
      model=dict(dim=32, solver="auto", center=True, whiten=False, passes=4, spare=10, tolerance=1e-2,
                 chunk_size=16384),
      data=dict(name="digits", encoder="rows", standardize=False, errors="strict"),
      epochs=40,  # At most: it ends with the first pass, or when it has converged.
      batch_size=0,  # The whole set is one batch.
      steps_per_dispatch=1,
      log_every=1,
      save_every=100,
      evals=("linear_probe", "knn"),
  ))
  if preset == "tiny":
    config.update(dict(model=dict(dim=4, tolerance=0.0), batch_size=512, epochs=2))
  elif preset == "small":
    config.update(dict(model=dict(dim=100), batch_size=4096))
    config.data.update(dict(name="fashion-mnist"))
  elif preset == "paper":
    config.update(dict(model=dict(dim=100), batch_size=4096, evals=()))
    config.data.update(dict(name=""))
  return config
