"""Topics of documents by latent Dirichlet allocation (Blei et al. 2003), variational Bayes.

Command: `python -m experiments.run --model=lda`
Presets: `demo` docstrings of Python and its libraries, under a minute on two cores; `tiny` for tests; `small` the
training part of 20 Newsgroups (`--data_dir`), 50 topics; `paper` 100 topics of the same by online updates (Hoffman et
al. 2010).
Expected: demo, 20 topics: perplexity 1,059 (frequencies of words 1,862), mean average precision of a docstring's
package .288, NPMI of the topics .277 (one seed).
Streams of documents: `--config.model.online=True --config.data.blocks=64 --batch_size=1`.
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      model=dict(num_topics=20, tol=1e-4),
      pipeline="bags",
      data=dict(name="pydocs", min_count=1, min_documents=5, max_share=0.3, blocks=8),
      steps=100,  # At most; it ends when it has converged.
      batch_size=0,  # The whole set is one batch.
      steps_per_dispatch=5,
      log_every=5,
      save_every=50,
      evals=("clustering", "retrieval", "topics"),
      eval_items=4000,
  ))
  if preset == "tiny":
    config.model.update(dict(num_topics=3, tol=0.0, inner_steps=5))
    config.data.update(dict(max_documents=60, min_documents=2, max_size=100))
    config.update(dict(steps=20, steps_per_dispatch=1, eval_items=40, evals=("retrieval",)))
  elif preset == "small":
    config.model.num_topics = 50
    config.data.update(dict(name="20news", max_share=0.5))
  elif preset == "paper":
    config.model.update(dict(num_topics=100, online=True, offset=1024.0, power=0.7))
    config.data.update(dict(name="20news", max_share=0.5, blocks=64))
    config.update(dict(steps=0, epochs=10, batch_size=1))
  return config
