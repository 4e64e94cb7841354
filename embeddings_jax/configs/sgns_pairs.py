"""Skip-gram on pairs of a word and any context (Levy & Goldberg 2014, "Dependency-Based Word Embeddings").

Command: `python -m experiments.run --model=sgns_pairs`
Presets: `demo` documentation of Python and its libraries, contexts are neighboring words with their positions, a
minute on two cores; `tiny` for tests; `small` dependency trees of your own, or of English Web Treebank:
`--preset=small --data=en_ewt-ud-train.conllu.xz`; `paper` the same of a parsed Wikipedia, in 300 dimensions.
Expected: demo, loss 1.79; nearest to "compute": calculate, evaluate, computes; to "returns": yields, accepts.
Pairs of your own, a word and a context a line: `--preset=small --data=FILE --config.data.contexts=pairs`.
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      model=dict(),
      pipeline="word_contexts",
      data=dict(name="pydocs"),
      # word2vec ends at 1e-4 of the rate it starts with.
      optimizer=dict(schedule="linear", learning_rate=0.025, end_fraction=1e-4),
      epochs=3,
      batch_size=2048,
      steps_per_dispatch=64,
      log_every=512,
      save_every=4096,
  ))
  if preset == "tiny":
    config.model.update(dict(dim=16))
    config.data.update(dict(min_count=3, min_context_count=3, max_documents=60))
    config.update(dict(epochs=0, steps=20, batch_size=256, steps_per_dispatch=4, log_every=4, save_every=10))
  elif preset in ("small", "paper"):
    config.data.update(dict(name="", contexts="dependencies"))
    config.update(dict(epochs=10))
    if preset == "paper":
      config.model.update(dict(dim=300, num_negatives=15))
      config.data.update(dict(min_count=100, min_context_count=100))
  return config
