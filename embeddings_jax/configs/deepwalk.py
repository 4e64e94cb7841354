"""DeepWalk (Perozzi et al. 2014, arXiv:1403.6652).

Command: `python -m experiments.run --model=deepwalk`
Presets: `demo` the karate club, seconds; `tiny` for tests; `small` and `paper` BlogCatalog (`--data_dir`), the
paper's 80 walks of 40 nodes from each node with window 10 in 128 dimensions, one epoch, about a minute on two cores.
Expected: BlogCatalog, micro-F1 at 10, 50, 90 % labeled nodes .356, .406, .419 (std .001 to .003), macro-F1 .204,
.268, .275 (three seeds, means of ten shuffles, oracle-k); in the same run gensim on ensmallen's walks has .347, .402,
.415 and .203, .268, .276 and takes 2.5 times as long (`benchmark deepwalk`; 2.8 times as long as `dtype=bfloat16`,
whose scores are the same); the paper .360, .410, .420 and .213, .273, .289. Negative sampling without
subsampling in all. `loss=hierarchical_softmax`, the paper's, has .355, .405, .414 and .207, .266, .273 (one seed) in
seven times the time. Cora, Planetoid's split (`--data=cora`), accuracy .723; of nodes that training has not seen
(`benchmark unseen_nodes`, a tenth, three divisions) .810 ± .016 by walks, .807 ± .025 by the mean of neighbors; the
largest class has .28. Link prediction (`--config.data.held_out=.5 --config.data.num_walks=40`): AUC .912.
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      model=dict(walks_per_step=128),
      pipeline="walks",
      data=dict(name="karate"),
      # word2vec ends at 1e-4 of the rate it starts with.
      optimizer=dict(schedule="linear", learning_rate=0.025, end_fraction=1e-4),
      epochs=1,
      batch_size=1024,  # Walks; a step of skip-gram is made for each `walks_per_step` of them.
      steps_per_dispatch=4,
      log_every=16,
      save_every=4096,
      evals=("node_classification",),
  ))
  if preset == "demo":
    config.model.update(dict(dim=16, window=5, walks_per_step=32))
    config.update(dict(batch_size=128, epochs=4))
  elif preset == "tiny":
    config.model.update(dict(dim=8, window=2, walks_per_step=16, shared_negatives=4))
    config.data.update(dict(num_walks=10, walk_length=6))
    config.update(dict(batch_size=32, epochs=2, log_every=4, save_every=10, evals=()))
  else:
    config.data.name = "blogcatalog"
  return config
