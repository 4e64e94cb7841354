"""Linear autoencoder (Bourlard & Kamp 1988; Baldi & Hornik 1989): PCA's objective by gradients.

Command: `python -m experiments.run --model=linear_autoencoder`
Presets: `demo` scikit-learn's digits, 16 dimensions; `tiny` for tests; `small` bags of the 2,000 most frequent words
of 20 Newsgroups (`--data_dir`); `paper` any matrix: `--preset=paper --data=rows.npy`.
Expected: `small` mean average precision .121, accuracy of a linear classifier .508 (one seed).
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      model=dict(dim=16),
      pipeline="rows",
      data=dict(name="digits"),
      optimizer=dict(name="adam", learning_rate=1e-2, schedule="cosine"),
      steps=2000,
      batch_size=0,  # The whole set is one batch.
      steps_per_dispatch=100,
      evals=("linear_probe", "knn"),
  ))
  if preset == "tiny":
    config.update(dict(model=dict(dim=2), batch_size=64, steps=20, steps_per_dispatch=5, log_every=5, save_every=10,
                       evals=("knn",)))
    config.data.update(dict(name="iris"))
  elif preset == "small":
    config.update(dict(model=dict(dim=100, center=False), batch_size=8, steps_per_dispatch=10))
    config.data = dict(name="20news", max_size=2000, blocks=64)
    config.pipeline = "bags"
    config.evals = ("retrieval", "knn", "clustering", "linear_probe")
  elif preset == "paper":
    config.update(dict(model=dict(dim=64), batch_size=1024, steps=100_000, evals=()))
    config.data.update(dict(name=""))
  return config
