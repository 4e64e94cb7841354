"""NetMF (Qiu et al. 2018, arXiv:1710.02971).

Command: `python -m experiments.run --model=netmf`
Presets: `demo` the karate club, seconds; `tiny` for tests; `small` and `paper` BlogCatalog (`--data_dir`), T = 10 by
256 eigenpairs, half a minute on two cores.
Expected: micro-F1 at 10, 50, 90 % labeled nodes, then macro-F1 (means of ten shuffles, oracle-k): BlogCatalog .384,
.426, .435, .226, .281, .290, as the same formula in scipy to .001, in an eighth of the time (`benchmark netmf`);
Wikipedia at T = 1 (`--data=wikipedia-pos --config.model.window=1`) .476, .540, .558, .082, .118, .125, as scipy, in
.6 of its time where the program is compiled already (`--compilation_cache`), else in 1.6 times that. Accuracy on
Cora, Planetoid's split (`--data=cora`), .747 (.743). Of 10 % of Cora's nodes that are held out and projected .81 ±
.02 are classified rightly (three divisions; the largest class has .30; the mean of their neighbors' vectors gives
.82 ± .03). Half of BlogCatalog's edges held out (`--config.data.held_out=.5
--config.evals="('link_prediction',)"`): AUC .874 by the best operator, average, where preferential attachment has
.954, Adamic-Adar .930 and `deepwalk` .912.
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      model=dict(),
      pipeline="edges",
      data=dict(name="karate"),
      steps=2,  # One does it all, the second ends the run.
      log_every=1,
      save_every=0,
      evals=("node_classification",),
  ))
  if preset == "demo":
    config.model.dim = 16
  elif preset == "tiny":
    config.model.update(dict(dim=4, window=3, block=8, blocks=5, num_oversamples=4, tol=0.0, max_cycles=2))
    config.evals = ()
  else:
    config.data.name = "blogcatalog"
  return config
