"""Topics and latent semantic analysis of documents beside scikit-learn."""
import os
import statistics
import tempfile
import threading
import time
import warnings

import jax
import numpy as np
from absl import flags
from scipy import sparse
from scipy.sparse.linalg import svds
from sklearn.decomposition import TruncatedSVD, non_negative_factorization

from embeddings_jax.data import catalog, pipelines
from embeddings_jax.data.bags import Bags, bag_source
from embeddings_jax.data.features import tf_idf
from embeddings_jax.errors import InputError
from embeddings_jax.eval import topics as topic_scores
from embeddings_jax.eval.retrieval import l2_normalized, retrieval
from embeddings_jax.models.factorization.lsa import lsa as make_lsa
from embeddings_jax.runs import build, presets
from embeddings_jax.runs.evaluation import Evaluator
from embeddings_jax.train.loop import train
from experiments.benchmarks.memory import anonymous

FLAGS = flags.FLAGS


def plsa() -> dict:
  """Seconds per iteration, and log likelihood, of `plsa` and of scikit-learn's NMF (Kullback-Leibler, multiplicative
  updates, float32) on all of 20 Newsgroups, 20,000 words, 50 topics, from the same start, by turns.

  NMF's time is that of 15 iterations by one call, less that of a call of 5. It changes the topics after, not beside
  the documents' shares, and so needs fewer iterations; so the iterations and seconds to its likelihood are told too.
  """
  config = presets.load_config("plsa", "small")
  config.data.update(dict(part="all", held_out=0.0))
  config.model.update(dict(tempering=1.0, tol=0.0))
  data = build.prepare(config, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir)
  bags = pipelines.find("bags").counted(
      catalog.load("20news", data_dir=FLAGS.data_dir), FLAGS.cache_dir,
      **{key: config.data[key] for key in ("part", "unit", "window", "normalize", "min_count", "min_documents",
                                           "max_share", "min_length", "max_size", "stop_words")})
  facts, topics = bags.facts, config.model.num_topics
  table = sparse.csr_array((np.asarray(bags.count), np.asarray(bags.col), np.asarray(bags.indptr)),
                           shape=(facts["num_documents"], facts["vocab_size"]))
  model = build.make_model(config, facts, 1)
  batch = data.splits["train"].batch_at(0)
  start = jax.jit(model.init)(jax.random.split(jax.random.key(0))[0], batch)
  beta = np.ascontiguousarray(np.asarray(start.beta).T)

  def log_likelihood(beta, theta):
    """Per occurrence; theta [D, k] need not sum up to 1."""
    theta = theta / np.maximum(theta @ beta.sum(1, keepdims=True), 1e-30)
    total = 0.0
    for first in range(0, len(theta), 512):
      part = table[first:first + 512].tocoo()
      total += part.data @ np.log(np.maximum((theta[first:first + 512] @ beta)[part.row, part.col], 1e-30))
    return float(total / table.data.sum())

  def ours(steps):
    """Seconds of each iteration of the last two dispatches, compiled before; losses before each iteration."""
    times, losses = [], []
    train(model, data.splits["train"], steps=steps, steps_per_dispatch=10, log_every=1,
          write=lambda step, record: losses.append(record["loss"]),
          progress=lambda step, record: times.append(time.perf_counter()))
    return (times[-1] - times[-3]) / 20, np.array(losses)

  def nmf(steps):
    theta = np.full((len(table.indptr) - 1, topics), 1 / topics, np.float32) * table.sum(1)[:, None]
    began = time.perf_counter()
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # That it has not converged.
      theta, parts, _ = non_negative_factorization(
          table, theta.astype(np.float32), beta.copy(), n_components=topics, init="custom", solver="mu",
          beta_loss="kullback-leibler", tol=0, max_iter=steps)
    return time.perf_counter() - began, parts, theta

  seconds = {"ours": [], "nmf": []}
  for _ in range(FLAGS.repeats):
    seconds["ours"].append(ours(60)[0])
    seconds["nmf"].append((nmf(15)[0] - nmf(5)[0]) / 10)
  ratio = statistics.median(theirs / own for own, theirs in zip(*seconds.values()))
  losses = ours(300)[1]
  same_start = -log_likelihood(beta, np.full((facts["num_documents"], topics), 1 / topics))
  if abs(losses[0] - same_start) > 1e-4:
    raise InputError(f"plsa starts at {losses[0]}, and NMF at {same_start}")
  theirs = log_likelihood(*nmf(100)[1:])
  needed = int(np.argmax(-losses >= theirs)) if (-losses >= theirs).any() else None
  own, peers = (statistics.median(values) for values in seconds.values())
  reached = (f"NMF's log likelihood of 100 iterations, {theirs:.4f} per occurrence, after {needed} of ours: "
             f"{needed * own:.1f} s against {100 * peers:.1f} s" if needed else
             f"log likelihood per occurrence {-losses[-1]:.4f} (NMF, 100 iterations: {theirs:.4f})")
  return {
      "summary": f"{ratio:.1f} times as fast an iteration as NMF ({own:.3f} s, median of {FLAGS.repeats} turns); "
                 + reached,
      "documents": facts["num_documents"], "words": facts["vocab_size"], "cells": facts["num_cells"],
      "topics": topics, "iterations_to_the_same_likelihood": needed,
      "ratio": round(ratio, 3), "seconds": {name: [round(x, 4) for x in values] for name, values in seconds.items()},
      "log_likelihoods": {"start": round(-same_start, 5), "nmf after 100": round(theirs, 5)} | {
          f"ours after {steps}": round(float(-losses[steps]), 5) for steps in (50, 100, 150, 200, 299)},
  }


def topics() -> dict:
  """Repeats what Hofmann (1999) reports, on 20 Newsgroups (his collections are not at hand).

  Perplexity, by the words' frequencies, by plain EM, stopped early or after 100 iterations, and by tempered EM, for
  every number of topics: `held out`, of a tenth of the occurrences of the training part, by which early stopping and
  tempering go; and `test`, of one half of each test document given the other (`eval/topics.py`). Mean average
  precision of the training part's documents, the test part's being the queries (`eval/retrieval.py`), by the cosines
  of tf-idf, of `lsa`, and of tempered `plsa`'s theta; and by these, added up over the numbers of topics, as Hofmann
  does.
  """
  def trained(name, **options):
    config = presets.load_config(name, "small")
    config.model.update({key: value for key, value in options.items() if key in config.model})
    config.data.update(shared | {key: value for key, value in options.items() if key in config.data})
    data = build.prepare(config, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir)
    steps = options.get("steps") or config.steps or config.epochs * data.facts["steps_per_epoch"]
    model, records = build.make_model(config, data.facts, steps), []
    state = train(model, data.splits["train"], steps=steps, seed=FLAGS.seed, log_every=1, steps_per_dispatch=5,
                  write=lambda step, record: records.append(record))
    evaluator = Evaluator(model, state, data.encoder)
    return data, evaluator.embed, evaluator.provided("topics"), records

  shared = dict(presets.load_config("plsa", "small").data, held_out=0.0)
  shared = {key: shared[key] for key in ("name", "part", "unit", "normalize", "min_count", "min_documents",
                                         "max_share", "min_length", "max_size", "stop_words")}
  perplexities, vectors = {}, {}
  for num_topics in (20, 50, 128):
    for name, options in {
        "stopped": dict(tempering=1.0), "100 iterations": dict(tempering=1.0, early_stopping=False, tol=0.0,
                                                               steps=100), "tempered": {}}.items():
      data, embed, trained_state, records = trained("plsa", num_topics=num_topics, held_out=0.1, **options)
      test = [data.encoder.bag(data.dataset.items[i]) for i in data.dataset.split["test"]]
      scores = topic_scores.perplexity(embed, test, trained_state["topics"], data.encoder.vocabulary, FLAGS.seed)
      perplexities[f"{num_topics} topics, {name}"] = {
          "held out": records[-1]["held_out_perplexity"], "test": scores["perplexity"], "iterations": len(records)}
    vectors[f"plsa {num_topics}"] = embed(data.dataset.items)
  batch = data.splits["train"].batch_at(0)
  share = data.facts["counts"] / data.facts["counts"].sum()
  frequencies = float(np.exp(-(batch["held"] * np.log(share[batch["col"]])).sum() / batch["held"].sum()))
  perplexities["frequencies"] = {"held out": frequencies, "test": scores["unigram/perplexity"], "iterations": 0}
  vectors["plsa, all"] = np.concatenate([l2_normalized(state, "plsa") for state in vectors.values()], 1)
  _, embed, _, _ = trained("lsa")
  vectors["lsa"] = embed(data.dataset.items)
  words = tf_idf(data.dataset.items, data.encoder.encode, len(data.encoder.vocabulary),
                 fit=data.dataset.split["train"])
  score = lambda trained_state: retrieval(lambda items: trained_state, data.dataset)["group/test/map"]
  precision = {"tf-idf": score(words)} | {name: score(trained_state) for name, trained_state in vectors.items()}
  listed = [f"{name} {row['held out']:.0f} ({row['test']:.0f})" for name, row in perplexities.items()]
  return {
      "summary": f"perplexity held out (of test documents): {', '.join(listed)}; mean average precision: "
                 + ", ".join(f"{name} {value:.3f}" for name, value in precision.items()),
      "perplexity": {name: {part: round(value, 1) for part, value in row.items()}
                     for name, row in perplexities.items()},
      "average_precision": {name: round(value, 4) for name, value in precision.items()},
  }


def lsa() -> dict:
  """Seconds and singular values of `lsa` and of scikit-learn's randomized TruncatedSVD on the same matrix, by turns.

  All documents, k = 100. Ours is timed from `init` to the end of training, compiled beforehand, weights included;
  what compiling costs is told as well. Theirs is given the weighted matrix. Exact values are those of `svds`.
  """
  config = presets.load_config("lsa", "small")
  config.data.part, config.data.blocks = "all", 1
  data = build.prepare(config, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir)
  facts, batch = data.facts, data.splits["train"].batch_at(0)
  model = build.make_model(config, facts, config.epochs)
  batch = jax.tree.map(jax.numpy.asarray, batch)
  init, update = jax.jit(model.init), jax.jit(model.update, donate_argnums=0)

  def ours(seed):
    state, converged = init(jax.random.key(seed), batch), 0
    while not converged:
      state, metrics = update(state, batch, None)
      converged = float(metrics["converged"])
    return np.asarray(state.values), state

  start = time.perf_counter()
  _, state = ours(FLAGS.seed)
  compiling = time.perf_counter() - start
  values = np.asarray(jax.jit(model.outputs["weighted"])(state, batch))[0]
  valid = np.asarray(batch["count"][0]) > 0
  row = np.asarray(batch["document"][0])[np.asarray(batch["row"][0])]
  matrix = sparse.csr_array((values[valid], (row[valid], np.asarray(batch["col"][0])[valid])),
                            shape=(facts["num_rows"], facts["vocab_size"]))
  exact = np.sort(svds(matrix.astype(np.float64), k=config.model.dim)[1])[::-1]
  seconds, errors = {"ours": [], "scikit-learn": []}, {"ours": [], "scikit-learn": []}
  for turn in range(FLAGS.repeats):
    peer = TruncatedSVD(config.model.dim, random_state=FLAGS.seed + turn)
    for who in seconds:
      start = time.perf_counter()
      singular_values = ours(FLAGS.seed + turn)[0] if who == "ours" else peer.fit(matrix).singular_values_
      seconds[who].append(round(time.perf_counter() - start, 3))
      errors[who].append(float(np.abs(np.sort(singular_values)[::-1] / exact - 1).max()))
  ratio = statistics.median(theirs / own for own, theirs in zip(*seconds.values()))
  error = {who: statistics.median(singular_values) for who, singular_values in errors.items()}
  return {
      "summary": f"{statistics.median(seconds['ours']):.2f} s, {ratio:.2f} times as fast as scikit-learn's "
                 f"randomized TruncatedSVD (median of {FLAGS.repeats} turns); singular values within "
                 f"{max(errors['ours']):.0e} (scikit-learn: {error['scikit-learn']:.0e})",
      "documents": facts["num_rows"], "words": facts["vocab_size"], "cells": int(matrix.nnz), "seconds": seconds,
      "with_compiling": round(compiling, 2), "ratio": round(ratio, 3), "largest_error": error,
  }


def lsa_stream(num_documents: int = 1_500_000, num_cells: int = 100, num_words: int = 50_000) -> dict:
  """`lsa` of a made-up collection that is read from the disk batch by batch, and how much memory that takes.

  Documents of `num_cells` words of a Zipf distribution, half of them of one of 50 subjects: a gigabyte of cells.
  RssAnon is what the process has beyond the files that it maps; its peak while it trains is watched by a thread.
  """
  noise = np.random.default_rng(FLAGS.seed)
  frequency, logs, counts = np.zeros(num_words, np.int64), np.zeros(num_words), np.zeros(num_words)
  with tempfile.TemporaryDirectory(dir=FLAGS.cache_dir) as folder:
    paths = [os.path.join(folder, name) for name in ("col", "count")]
    ends = [np.zeros(1, np.int64)]
    with open(paths[0], "wb") as cols, open(paths[1], "wb") as values:
      for first in range(0, num_documents, 20_000):
        number = min(20_000, num_documents - first)
        word = (num_words ** noise.random((number, num_cells))).astype(np.int64) - 1
        subject = noise.integers(0, 50, (number, 1))
        word[:, ::2] = word[:, ::2] // 50 * 50 + subject  # Every fiftieth word belongs to the same subject.
        cell, count = np.unique(np.arange(number)[:, None] * num_words + word % num_words, return_counts=True)
        document, word = cell // num_words, cell % num_words
        word.astype(np.int32).tofile(cols)
        count.astype(np.float32).tofile(values)
        ends.append(ends[-1][-1] + np.searchsorted(document, np.arange(1, number + 1)))
        frequency += np.bincount(word, minlength=num_words)
        counts += np.bincount(word, count, num_words)
        logs += np.bincount(word, count * np.log(count), num_words)
    indptr = np.concatenate(ends)
    entropy = np.log(np.maximum(counts, 1)) - logs / np.maximum(counts, 1)
    facts = {"vocab_size": num_words, "num_documents": num_documents, "num_cells": int(indptr[-1]), "num_empty": 0,
             "counts": counts, "entropy": entropy, "document_frequency": frequency}
    bags = Bags(np.memmap(paths[0], np.int32, "r"), np.memmap(paths[1], np.float32, "r"), indptr, facts, None, "")
    size = sum(os.path.getsize(path) for path in paths)
    source = bag_source(bags, 1, blocks=200, seed=FLAGS.seed, resident=False)
    steps = source.facts["steps_per_epoch"]
    known = {name: facts[name] for name in ("vocab_size", "num_documents", "document_frequency", "entropy")}
    model = make_lsa(**known, steps_per_epoch=steps, dim=40, block=50, basis=200, tol=0.0)
    before, peak, done = anonymous(), [0.0], threading.Event()

    def watch():
      while not done.wait(0.05):
        peak[0] = max(peak[0], anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    try:
      state = train(model, source, steps=4 * steps, seed=FLAGS.seed)
      values = np.asarray(jax.device_get(state.values))
    finally:
      done.set()
      watcher.join()
    taken = time.perf_counter() - start
  return {
      "summary": f"{size / 1e9:.1f} GB of cells, four passes in {taken:.0f} s: RssAnon at most {peak[0]:.0f} MB",
      "documents": num_documents, "words": num_words, "cells": facts["num_cells"], "bytes": size,
      "rss_anon_mb": {"before": round(before), "peak": round(peak[0])}, "seconds": round(taken, 1),
      "values": [round(float(value), 3) for value in values[:5]], "residual": float(state.residual),
  }
