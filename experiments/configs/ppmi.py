"""Positive pointwise mutual information and its truncated SVD (Levy & Goldberg 2014; Levy et al. 2015).

Command: `python -m experiments.run --model=ppmi`
Presets: `demo` documentation of Python and its libraries, seconds on two cores; `tiny` for tests; `small` English
Wikipedia of 2015 as a-z text (17 M words, `--data_dir`); `paper` about a billion words (`tfds:lm1b`).
A matrix of your own, square, as `scipy.sparse.save_npz` writes it: `--data=matrix.npz --config.model.similarity=raw`.
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      model=dict(dim=100, similarity="ppmi", shift=1.0, smoothing=0.75, factorization="svd", power=0.25, vectors="w+c",
                 block=32, blocks=8, spare=10, tolerance=1e-2),
      # window in words, on either side; memory for counting in MiB, 0: 2,048.
      data=dict(name="pydocs", encoder="words", form="cells", normalize="lower", min_count=5, max_size=0,
                boundaries="document", counting="pairs", window=10, weighting="distance", symmetric=True, memory=0,
                max_documents=0, errors="strict"),
      steps=20,  # At most; it ends when it has converged.
      log_every=1,
      save_every=0,
      evals=(),
  ))
  if preset == "tiny":
    # As many vectors as words: exact after one cycle, whatever the text, and equal on all meshes.
    config.model.update(dict(dim=8, block=32, blocks=4, spare=4, tolerance=0.0))
    config.data.update(dict(min_count=2, max_documents=60, max_size=100))
    config.update(dict(steps=40))
  elif preset == "small":
    config.data.update(dict(name="enwiki-2015", normalize="a-z"))
    config.evals = ("word_similarity:ws353", "word_similarity:simlex999", "word_similarity:men")
  elif preset == "paper":
    config.model.update(dict(dim=500))
    config.data.update(dict(name="tfds:lm1b", normalize="cased", min_count=100))
    config.evals = ("word_similarity:ws353", "word_similarity:simlex999", "word_similarity:men")
  return config
