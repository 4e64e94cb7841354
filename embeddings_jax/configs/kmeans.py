"""k-means (Lloyd 1982), the hard limit of a Gaussian mixture.

Command: `python -m experiments.run --model=kmeans`
Presets: `demo` scikit-learn's wine, 3 clusters, the best of 10 starts, seconds on two cores; `tiny` for tests;
`small` Fashion-MNIST (`--data_dir`), 10 clusters, a minute or two on two cores; `paper` any matrix that is larger
than memory, over the batches of an epoch: `--preset=paper --data=rows.npy --config.model.num_components=256`.
Expected: `demo` purity .966, adjusted Rand index .897 (three seeds, no difference).
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      model=dict(num_components=3, num_init=10),
      # As for gmm.
      pipeline="rows",
      data=dict(name="wine", standardize=True),
      epochs=300,
      batch_size=0,  # The whole set is one batch.
      steps_per_dispatch=20,
      log_every=1,
      save_every=0,
      evals=("clustering",),
  ))
  if preset == "tiny":
    config.update(dict(model=dict(num_init=2), data=dict(name="iris", standardize=False), epochs=20))
  elif preset == "small":
    config.update(dict(model=dict(num_components=10, num_init=1, tol=1e-4)))
    config.data.update(dict(name="fashion-mnist", standardize=False))
  elif preset == "paper":
    config.update(dict(model=dict(num_components=256, num_init=1), batch_size=65536, steps_per_dispatch=1, evals=(),
                       eval_items=10_000))
    config.data.update(dict(name="", standardize=False))
  return config
