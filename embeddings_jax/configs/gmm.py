"""Gaussian mixture by EM (Dempster, Laird & Rubin 1977).

Command: `python -m experiments.run --model=gmm`
Presets: `demo` scikit-learn's wine, exact EM, 3 components, seconds on two cores; `tiny` for tests;
`small` Old Faithful (`--data_dir`), 2 components; `paper` any matrix that is larger than memory, exact
EM accumulated over the batches of an epoch: `--preset=paper --data=rows.npy --config.model.num_components=256`.
Expected: demo NMI .77 (deviation .09 over 3 seeds: EM has local optima) with the cultivars on standardized columns;
the mean log likelihood never falls.
How many components: `for k in 1 2 3 4 5 6; do python -m experiments.run --model=gmm --preset=small
--config.model.num_components=$k --config.model.num_init=10 --workdir=runs/k$k; done`, then the least `bic` of
`grep '"bic"' runs/k*/results.json` (Old Faithful: 2).
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      model=dict(num_components=3, reg_covar=1e-3),
      # missing: error, drop or marginalize. weight, label: columns, by name or number; of label (or one of the data
      # set's labels) values below 0 are not known. start: a file with rows that are the means to start from.
      # order of the rows of an epoch: shuffled, or sequential, which is quicker for a file larger than memory.
      pipeline="rows",
      data=dict(name="wine", standardize=True),
      epochs=500,
      batch_size=0,  # The whole set is one batch.
      steps_per_dispatch=100,
      log_every=5,
      save_every=100,
      evals=("clustering",),
  ))
  if preset == "tiny":
    config.update(dict(data=dict(name="iris", standardize=False), epochs=20, save_every=5))
  elif preset == "small":
    config.update(dict(model=dict(num_components=2, reg_covar=1e-6), evals=()))
    config.data.update(dict(name="faithful", standardize=False))
  elif preset == "paper":
    config.update(dict(model=dict(num_components=16, reg_covar=1e-6), batch_size=65536, steps_per_dispatch=1,
                       evals=(), eval_items=10_000))
    config.data.update(dict(name="", standardize=False))
  return config
