"""Skip-gram with the full softmax (Mikolov et al. 2013a, arXiv:1301.3781).

Command: `python -m experiments.run --model=skipgram`
Presets: `demo` documentation of Python and its libraries (2.7 M words), its 2,000 most frequent words, about a minute
on two cores; `tiny` for tests; `small` English Wikipedia of 2015 as a-z text (17 M words, `--data_dir`), its 5,000
most frequent words, one epoch, some ten minutes on two cores; `paper` about a billion words (`tfds:lm1b`), 30,000
words in 300 dimensions, on an accelerator.
Expected: demo neighbors such as iterable -> container, iterator; `small` after a third of the epoch (`--steps=600`,
one seed) WordSim-353 .64 (197 pairs in the vocabulary), SimLex-999 .21 (373), MEN .66 (653). The gradient is that of
a mean, so the rate is high: at Adam's .002 the same run gives .13, .04, .12.
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      model=dict(),
      pipeline="word_blocks",
      data=dict(name="pydocs", max_size=2000),
      optimizer=dict(name="adam", schedule="linear", learning_rate=0.03, end_fraction=1e-4),
      epochs=2,
      batch_size=8,
      steps_per_dispatch=16,
      log_every=64,
      save_every=1024,
  ))
  if preset == "tiny":
    config.model.update(dict(dim=16))
    config.data.update(dict(window_length=128, min_count=2, max_size=500, max_documents=400))
    config.update(dict(epochs=0, steps=40, steps_per_dispatch=4, log_every=4, save_every=20))
  elif preset == "small":
    config.data.update(dict(name="enwiki-2015", normalize="a-z", max_size=5000))
    config.update(dict(epochs=1, batch_size=16))
    config.evals = ("word_similarity:ws353", "word_similarity:simlex999", "word_similarity:men", "analogies")
  elif preset == "paper":
    config.model.update(dict(dim=300, subsample=1e-5, chunk=4096, max_memory=16.0))
    config.data.update(dict(name="tfds:lm1b", normalize="cased", max_size=30_000))
    config.update(dict(epochs=1, batch_size=64, save_every=32768))
    config.evals = ("word_similarity:ws353", "word_similarity:simlex999", "word_similarity:men", "analogies")
  return config
