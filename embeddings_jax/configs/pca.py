"""Principal component analysis (Pearson 1901; Hotelling 1933).

Command: `python -m experiments.run --model=pca`
Presets: `demo` scikit-learn's wine, two components of standardized columns, seconds; `tiny` for tests; `small`
Fashion-MNIST (`--data_dir`), 50 components by one pass over batches; `paper` any matrix that is larger than memory,
by randomized passes over it: `--preset=paper --data=rows.npy --config.model.dim=500`.
Expected: demo explains .55 of the variance.
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      model=dict(dim=2),
      pipeline="rows",
      data=dict(name="wine", standardize=True),
      epochs=40,  # At most: it ends with the first pass, or when it has converged.
      batch_size=0,  # The whole set is one batch.
      log_every=1,
      save_every=100,
      evals=("linear_probe", "knn"),
  ))
  if preset == "tiny":
    config.update(dict(model=dict(tol=0.0), batch_size=64, data=dict(name="iris", standardize=False), epochs=2))
  elif preset == "small":
    config.update(dict(model=dict(dim=50), batch_size=4096))
    config.data.update(dict(name="fashion-mnist", standardize=False))
  elif preset == "paper":
    config.update(dict(model=dict(dim=500, solver="randomized"), batch_size=65536, evals=()))
    config.data.update(dict(name="", standardize=False))
  return config
