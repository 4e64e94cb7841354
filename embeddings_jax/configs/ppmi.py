"""Positive pointwise mutual information and its truncated SVD (Levy & Goldberg 2014; Levy et al. 2015).

Command: `python -m experiments.run --model=ppmi`
Presets: `demo` documentation of Python and its libraries, seconds on two cores; `tiny` for tests; `small` English
Wikipedia of 2015 as a-z text (17 M words, `--data_dir`), half a minute on two cores; `paper` a setting of the paper's
(500 dimensions, words that occur 100 times, 2 words to either side) on about a billion words (`tfds:lm1b`).
Expected: `small` WordSim-353 .69, SimLex-999 .28, MEN .67. There, unweighted counts at window 5 gave .68, .27, .66,
at window 2 .60, .25, .58; no smoothing .68, .28, .68; power 0 .69, .28, .67 and 1/2 .67, .28, .67; w alone .68, .28,
.66; shift 5 (unweighted, window 5) .65, .27, .66.
A matrix of your own, square, as `scipy.sparse.save_npz` writes it: `--data=matrix.npz --config.model.similarity=raw`.
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      model=dict(power=0.25, vectors="w+c"),
      # window in words, on either side; memory for counting in MiB.
      pipeline="cells",
      data=dict(name="pydocs"),
      steps=20,  # At most; it ends when it has converged.
      log_every=1,
      save_every=0,
  ))
  if preset == "tiny":
    # As many vectors as words: exact after one cycle, whatever the text, and equal on all meshes.
    config.model.update(dict(dim=8, blocks=4, num_oversamples=4, tol=0.0))
    config.data.update(dict(min_count=2, max_documents=60, max_size=100))
    config.update(dict(steps=40))
  elif preset == "small":
    config.data.update(dict(name="enwiki-2015", normalize="a-z"))
    config.evals = ("word_similarity:ws353", "word_similarity:simlex999", "word_similarity:men", "analogies")
  elif preset == "paper":
    config.model.update(dict(dim=500, power=0.5))
    config.data.update(dict(name="tfds:lm1b", min_count=100, window=2, weighting="none"))
    config.evals = ("word_similarity:ws353", "word_similarity:simlex999", "word_similarity:men", "analogies")
  return config
