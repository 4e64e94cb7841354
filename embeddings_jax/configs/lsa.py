"""Latent semantic analysis (Deerwester et al. 1990): truncated SVD of weighted counts of words in documents.

Command: `python -m experiments.run --model=lsa`
Presets: `demo` documentation of Python and its libraries, seconds on two cores; `tiny` for tests; `small` 20
Newsgroups (`--data_dir`), its training part, 100 dimensions; `paper` for a collection that is larger than memory,
blocks of documents read from the disk: `--preset=paper --data='articles/*.txt'`.
Expected: `small` mean average precision .227 (tf-idf .142), precision at 10 .486 (.490), kNN .61 (.70), NMI .39
(.31), linear probe .67 (.73).
The demo leaves kNN out, where tf-idf is ahead (.81 against .75); it shows retrieval (mean average precision .356,
tf-idf .313), clustering and the linear probe (.778, .764; 1 seed).
Documents nearest to a text: `python -m experiments.neighbors --workdir=W --query='orbit of a satellite'`.
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      model=dict(),
      # unit: document, paragraph or window (of so many words); part: train, where there is one, or all.
      pipeline="bags",
      data=dict(name="pydocs"),
      epochs=40,  # At most: it ends when it has converged.
      batch_size=0,  # All blocks are one batch.
      log_every=1,
      save_every=0,
      evals=("retrieval", "clustering", "linear_probe"),
      eval_items=4000,
      baselines=True,
  ))
  if preset == "tiny":
    # As many vectors as words: exact after one search, whatever the text, and equal on all meshes.
    config.model.update(dict(dim=4, basis=112, num_oversamples=4, tol=0.0))
    config.data.update(dict(max_size=100, max_documents=200))
    config.update(dict(epochs=20, evals=(), baselines=False))
  elif preset == "small":
    config.data.update(dict(name="20news"))
    config.evals = ("retrieval", "knn", "clustering", "linear_probe")
  elif preset == "paper":
    config.model.update(dict(dim=300, block=310, basis=1240, weighting="log-entropy"))
    config.data.update(dict(name="", blocks=256, max_size=100000))
    config.update(dict(batch_size=8, evals=(), baselines=False))
  return config
