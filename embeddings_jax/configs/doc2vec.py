"""Paragraph vectors, PV-DBOW (Le & Mikolov 2014, arXiv:1405.4053), with deterministic inference.

Command: `python -m experiments.run --model=doc2vec [--preset=small --data_dir=DIR]`; documents nearest to a text:
`python -m experiments.neighbors --workdir=W --query='orbit of a satellite'`.
Presets: `demo` docstrings of Python and its libraries, a minute on two cores; `tiny` for tests; `small` the training
part of 20 Newsgroups; `paper` 400 dimensions on a collection of one's own (`--data=`), in the paper of reviews.
Expected: small, 12 to 20 seconds of training on two busy cores (1 seed): every sixth test document retrieves those of
its group with a mean average precision of .154, .386 of the first ten being right (gensim's PV-DBOW, as many epochs,
dimensions and words, 43 CPU seconds: .236 and .494; of all, tf-idf .142, `lsa` .227). With `ridge=1` it is .101.
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      model=dict(dim=100),
      pipeline="bags",
      data=dict(name="pydocs", min_count=2, max_size=20_000, blocks=32),
      epochs=20,
      batch_size=4,
      steps_per_dispatch=8,
      log_every=20,
      save_every=100,
      evals=("clustering", "retrieval", "linear_probe"),
      eval_items=4000,
      baselines=True,
  ))
  if preset == "tiny":
    config.model.update(dict(dim=6, num_noise=16, infer_steps=5))
    config.data.update(dict(max_documents=60, max_size=100, blocks=8))
    config.update(dict(epochs=0, steps=20, batch_size=8, steps_per_dispatch=1, log_every=5, save_every=10,
                       eval_items=40, evals=("retrieval",), baselines=False))
  elif preset == "small":
    config.data.update(dict(name="20news", blocks=64))
    config.update(dict(eval_items=0))
  elif preset == "paper":
    config.model.dim = 400
    config.data.update(dict(name="20news", max_size=0, blocks=256))
  return config
