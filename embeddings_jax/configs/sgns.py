"""Skip-gram with negative sampling (Mikolov et al. 2013b, arXiv:1310.4546).

Command: `python -m experiments.run --model=sgns`
Presets: `demo` documentation of Python and its libraries (2.7 M words), about a minute on two cores; `tiny` for
tests; `small` English Wikipedia of 2015 as a-z text (17 M words, `--data_dir`), five epochs, about two minutes on
two cores; `paper` about a billion words (`tfds:lm1b`) in 300 dimensions, on an accelerator.
Expected: demo neighbors such as mean -> variance, deviation; `small`, three seeds, WordSim-353 .664 ± .008,
SimLex-999 .304 ± .004, MEN .613 ± .003, analogies .378 ± .009, where gensim, three seeds, has .655 ± .008,
.313 ± .009, .603 ± .001, .369 ± .004. Factors in bfloat16 are 5 % faster on two cores; float32 learns as well.
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      model=dict(dtype="bfloat16"),
      pipeline="word_blocks",
      data=dict(name="pydocs"),
      # word2vec ends at 1e-4 of the rate it starts with.
      optimizer=dict(schedule="linear", learning_rate=0.025, end_fraction=1e-4),
      epochs=8,
      batch_size=8,  # Blocks, 4,096 words an update; more of them learn worse, see the model's docstring.
      steps_per_dispatch=64,
      log_every=512,
      save_every=4096,
  ))
  if preset == "tiny":
    config.model.update(dict(dim=16))
    config.data.update(dict(window_length=128, min_count=2, max_documents=400))
    config.update(dict(epochs=0, steps=40, steps_per_dispatch=4, log_every=4, save_every=20))
  elif preset == "small":
    config.data.update(dict(name="enwiki-2015", normalize="a-z"))
    config.update(dict(epochs=5, save_every=8192))
    config.evals = ("word_similarity:ws353", "word_similarity:simlex999", "word_similarity:men", "analogies")
  elif preset == "paper":
    config.model.update(dict(dim=300, subsample=1e-5))
    config.data.update(dict(name="tfds:lm1b", normalize="cased"))
    config.update(dict(epochs=1, save_every=32768))
    config.evals = ("word_similarity:ws353", "word_similarity:simlex999", "word_similarity:men", "analogies")
  return config
