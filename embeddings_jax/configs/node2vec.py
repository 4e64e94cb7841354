"""node2vec (Grover & Leskovec 2016, arXiv:1607.00653).

Command: `python -m experiments.run --model=node2vec`
Presets: `demo` the karate club, seconds; `tiny` for tests; `small` and `paper` BlogCatalog (`--data_dir`), the
paper's 10 walks of 80 nodes from each node with window 10 in 128 dimensions, p = q = 1/4 (the paper's choice for
BlogCatalog), five epochs, one to two minutes on two cores.
Expected: BlogCatalog, micro-F1 at 10, 50, 90 % labeled nodes .359, .411, .429 (std .001, .003, .007), macro-F1
.211, .275, .287 (three seeds, means of ten shuffles, oracle-k); gensim on the same kind of walks .343, .399, .420
and .199, .268, .285, the paper macro-F1 .258 at 50 %. Negative sampling without subsampling in all.
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      model=dict(p=0.25, q=0.25),
      pipeline="walks",
      data=dict(name="karate", num_walks=10, walk_length=80),
      # word2vec ends at 1e-4 of the rate it starts with.
      optimizer=dict(schedule="linear", learning_rate=0.025, end_fraction=1e-4),
      epochs=5,
      batch_size=512,  # Walks; a step of skip-gram is made for each `walks_per_step` of them.
      steps_per_dispatch=4,
      log_every=16,
      save_every=4096,
      evals=("node_classification",),
  ))
  if preset == "demo":
    config.model.update(dict(dim=16, window=5, walks_per_step=32))
    config.update(dict(batch_size=128, epochs=10))
  elif preset == "tiny":
    config.model.update(dict(dim=8, window=2, walks_per_step=16, shared_negatives=4))
    config.data.update(dict(walk_length=6))
    config.update(dict(batch_size=32, epochs=2, log_every=4, save_every=10, evals=()))
  else:
    config.data.name = "blogcatalog"
  return config
