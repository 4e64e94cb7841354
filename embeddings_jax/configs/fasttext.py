"""Skip-gram with subwords, fastText (Bojanowski et al. 2017, arXiv:1607.04606): any word has a vector.

Command: `python -m experiments.run --model=fasttext`; words it has not seen: `python -m experiments.neighbors
--workdir=W --word=unseenly`, or `python -m experiments.embed --workdir=W --input=WORDS.txt --output=W.npy`.
Presets: `demo` documentation of Python and its libraries; `tiny` for tests; `small` English Wikipedia of 2015 as a-z
text (17 M words, `--data_dir`), five epochs; `paper` Wikipedia's size (`tfds:lm1b`) in 300 dimensions and two million
rows of n-grams, on an accelerator.
Expected: `small` (one seed, 17 minutes beside other work): WordSim-353 .669, SimLex-999 .287, MEN .656 with no word
left out; Google's analogies .565, semantic .341, syntactic .660, where `sgns --preset=small` has .385, .308, .418: as
in the paper, subwords help most with syntax. `max_mass=32` learns more slowly, as rows of n-grams gather the
gradients of many words; for a vocabulary of a few dozen words the default is too large. For rare words leave out all
that occur less than, say, 50 times, `--config.data.min_count=50`: `sgns` leaves such pairs out, this model judges
them by n-grams.
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      factory="sgns",
      model=dict(),
      pipeline="ngram_blocks",
      data=dict(name="pydocs", bucket=100_000),
      # fastText's rate for skip-gram; word2vec's schedule.
      optimizer=dict(schedule="linear", learning_rate=0.05, end_fraction=1e-4),
      epochs=3,
      batch_size=8,
      steps_per_dispatch=64,
      log_every=512,
      save_every=4096,
  ))
  if preset == "tiny":
    config.model.update(dict(dim=8))
    config.data.update(dict(window_length=128, min_count=5, max_documents=100, max_n=4, bucket=500))
    config.update(dict(epochs=0, steps=20, steps_per_dispatch=4, log_every=4, save_every=10))
  elif preset == "small":
    config.data.update(dict(name="enwiki-2015", normalize="a-z", bucket=500_000))
    config.update(dict(epochs=5, save_every=8192))
    config.evals = ("word_similarity:ws353", "word_similarity:simlex999", "word_similarity:men", "analogies")
  elif preset == "paper":
    config.model.update(dict(dim=300, subsample=1e-4))
    config.data.update(dict(name="tfds:lm1b", normalize="cased", bucket=2_000_000))
    config.update(dict(epochs=5, save_every=32768))
    config.evals = ("word_similarity:ws353", "word_similarity:simlex999", "word_similarity:men", "analogies")
  return config
