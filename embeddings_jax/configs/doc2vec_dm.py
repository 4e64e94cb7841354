"""Paragraph vectors with a distributed memory, PV-DM (Le & Mikolov 2014, arXiv:1405.4053).

Command: `python -m experiments.run --model=doc2vec_dm [--preset=small --data_dir=DIR]`; documents nearest to a text:
`python -m experiments.neighbors --workdir=W --query='orbit of a satellite'`.
Presets: `demo` docstrings of Python and its libraries; `tiny` for tests; `small` the training part of 20 Newsgroups;
`paper` 400 dimensions on a collection of one's own (`--data=`), in the paper of reviews.
Expected: small, four minutes on two cores (1 seed): mean average precision of test documents' groups .123, .298 of
the first ten right; `doc2vec` has .154 and .386.
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      factory="doc2vec",
      model=dict(dim=100, dm=True, ridge=0.2),
      pipeline="document_words",
      data=dict(name="pydocs", min_count=2, max_size=20_000, blocks=256),
      epochs=10,
      batch_size=4,
      steps_per_dispatch=8,
      log_every=64,
      save_every=512,
      evals=("clustering", "retrieval", "linear_probe"),
      eval_items=4000,
      baselines=True,
  ))
  if preset == "tiny":
    config.model.update(dict(dim=6, window=2, num_noise=16, infer_steps=5))
    config.data.update(dict(max_documents=60, max_size=100, blocks=8))
    config.update(dict(epochs=0, steps=20, batch_size=8, steps_per_dispatch=1, log_every=5, save_every=10,
                       eval_items=40, evals=("retrieval",), baselines=False))
  elif preset == "small":
    config.data.update(dict(name="20news", blocks=256))
    config.update(dict(eval_items=0))
  elif preset == "paper":
    config.model.dim = 400
    config.data.update(dict(name="20news", max_size=0, blocks=1024))
  return config
