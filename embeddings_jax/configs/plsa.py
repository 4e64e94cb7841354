"""Topics of documents by probabilistic latent semantic analysis (Hofmann 1999, 2001), tempered EM.

Command: `python -m experiments.run --model=plsa`
Presets: `demo` documentation of Python and its libraries, a document for each docstring, seconds on two cores; `tiny`
for tests; `small` the training part of 20 Newsgroups (`--data_dir`), 50 topics; `paper` 128 topics of the same, the
most that Hofmann (1999) learns.
Expected: `small`: one half of a test document has a perplexity of 3,080 given the other (6,770 by the words'
frequencies); test documents retrieve training documents of their group with a mean average precision of .34, .52 of
the first ten being right; NMI of topics and groups .42, NPMI .32. `python -m experiments.benchmark topics` has more.
Streams of documents: `--config.model.stepwise=True --config.model.tempering=1 --config.data.held_out=0
--config.data.blocks=64 --batch_size=1`.
Counts of your own: `--data=FILE.dat` (lda-c, with vocab.txt) or `--data=FILE.npz` (scipy's, documents x words).
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      model=dict(num_topics=20, tempering=0.9, tol=1e-4),
      # `blocks` of documents are what devices share out; `held_out` is the share of the words that tempering goes by.
      pipeline="bags",
      data=dict(name="pydocs", min_count=1, min_documents=5, max_share=0.3, held_out=0.1),
      steps=300,  # At most; it ends when it has converged.
      batch_size=0,  # The whole set is one batch.
      steps_per_dispatch=5,
      log_every=5,
      save_every=100,
      evals=("clustering", "retrieval", "topics"),
      eval_items=4000,
  ))
  if preset == "tiny":
    config.model.update(dict(num_topics=4, tempering=1.0, early_stopping=False, tol=0.0, fold_in_steps=5))
    config.data.update(dict(max_documents=60, min_documents=2, max_size=100))
    config.update(dict(steps=40, steps_per_dispatch=1))
  elif preset == "small":
    config.model.num_topics = 50
    config.data.update(dict(name="20news", max_share=0.5))
  elif preset == "paper":
    config.model.num_topics = 128
    config.data.update(dict(name="20news", max_share=0.5))
  return config
