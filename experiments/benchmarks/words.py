"""Word vectors beside gensim, the GloVe C programs and scipy's `svds`."""
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence

import jax
import numpy as np
from absl import flags
from scipy import sparse
from scipy.sparse.linalg import svds

from embeddings_jax.data import catalog, pipelines, text, wordsets
from embeddings_jax.data.tiles import tile_source
from embeddings_jax.errors import InputError
from embeddings_jax.eval.analogies import analogies
from embeddings_jax.eval.word_similarity import word_similarity
from embeddings_jax.interop import word_vectors
from embeddings_jax.runs import build, inference, presets
from embeddings_jax.train.loop import train
from experiments.spread import described

FLAGS = flags.FLAGS
RATES = {"sgns": 0.025, "cbow": 0.05}  # Initial learning rates of word2vec.c.


def sgns() -> dict:
  """Skip-gram with negative sampling against gensim's."""
  return _word2vec("sgns")


def cbow() -> dict:
  """Continuous bag of words, with negative sampling, against gensim's."""
  return _word2vec("cbow")


def _word2vec(name: str) -> dict:
  """Word similarity and words per second of `sgns` or `cbow` and of gensim, on the same tokens, seed by seed.

  Gensim has our settings, apart from the learning rate: word2vec.c's own for each model, .025 for skip-gram and .05
  for CBOW.
  Gensim gets the words of the documents in lines of at most 10,000, as it wants them; both read text
  that was normalized beforehand, so that neither is charged for it. Ours is charged for compiling.
  """
  try:
    import gensim
  except ImportError as error:
    raise InputError("gensim is missing: pip install -e '.[parity]'") from error

  config = presets.load_config(name, "small")
  config.data.name, config.epochs = FLAGS.data, FLAGS.epochs
  model = config.model
  scores = {"ours": [], "gensim": []}
  for seed in range(FLAGS.seed, FLAGS.seed + FLAGS.seeds):
    config.seed = seed
    data = build.prepare(config, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir)
    facts, names = data.facts, data.encoder.names
    steps, words = FLAGS.epochs * facts["steps_per_epoch"], FLAGS.epochs * facts["num_words"]

    jax.clear_caches()
    start = time.perf_counter()
    state = train(build.make_model(config, facts, steps), data.splits["train"], steps=steps, seed=seed,
                  steps_per_dispatch=config.steps_per_dispatch)
    vectors = np.asarray(state.input)[:len(names)]
    seconds = time.perf_counter() - start
    scores["ours"].append({"words_per_second": round(words / seconds)} | quality(names, vectors))

    tokens = np.asarray(data.splits["train"].resident["stream"])
    lines = [[names[i] for i in part[part >= 0]] for document in np.split(tokens, np.flatnonzero(tokens < 0))
             for part in np.array_split(document, len(document) // 10_000 + 1)]
    start = time.perf_counter()
    peer = gensim.models.Word2Vec(
        lines, sg=int(name == "sgns"), cbow_mean=1, hs=0, alpha=RATES[name], vector_size=model.dim,
        window=model.window, negative=model.num_negatives, sample=model.subsample, min_count=1,
        epochs=FLAGS.epochs, seed=seed + 1, workers=os.cpu_count())
    seconds = time.perf_counter() - start
    scores["gensim"].append({"words_per_second": round(words / seconds)} | quality(names, peer.wv[names]))

  ratios = [ours["words_per_second"] / peer["words_per_second"] for ours, peer in zip(*scores.values())]
  return {
      "summary": f"{compared(*scores.values(), 'gensim')}; {statistics.median(ratios):.1f} times gensim's words per "
                 f"second ({FLAGS.seeds} seed{'s: mean ± standard deviation, median' if FLAGS.seeds > 1 else ''})",
      "ratio": round(statistics.median(ratios), 3), "vocabulary": len(names), "words": words, **scores,
      "speed_ratios": [round(ratio, 3) for ratio in ratios],
  }


def glove() -> dict:
  """Counting and training of `glove` and of the authors' C programs: the same words, settings and memory.

  The C programs read the words of the vocabulary, a document a line. Both count with 4 GB at most. Ours starts with
  an empty cache of counts; the time until training can start is compared with `cooccur` and `shuffle` together.
  """
  if not all(os.path.isfile(os.path.join(FLAGS.peer, program)) for program in ("cooccur", "shuffle", "glove")):
    raise InputError("--peer=FOLDER: must hold the programs cooccur, shuffle and glove of stanfordnlp/GloVe")
  config = presets.load_config("glove", "small")
  config.data.name, config.epochs, config.seed, config.data.memory = FLAGS.data, FLAGS.epochs, FLAGS.seed, 4000
  options = config.data
  dataset = catalog.load(options.name, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir)
  tokens = text.tokenize(dataset, normalize=options.normalize, min_count=options.min_count, cache_dir=FLAGS.cache_dir)
  names, threads = tokens.encoder.names, str(os.cpu_count())
  seconds = {}

  def timed(name, function):
    start = time.perf_counter()
    result = function()
    seconds[name] = time.perf_counter() - start
    return result

  with tempfile.TemporaryDirectory() as folder:
    cells = timed("counting", lambda: pipelines.find("cells").count(
        tokens, cache_dir=folder, progress=lambda *_: None, **{key: options[key] for key in (
            "window", "weighting", "symmetric", "counting", "memory")}))
    source = timed("dealing out", lambda: tile_source(
        cells, config.batch_size, seed=FLAGS.seed, cells_per_tile=options.cells_per_tile, memory=options.memory << 20,
        cache_dir=folder))
    source = source._replace(facts={**tokens.facts, **source.facts})
    steps = FLAGS.epochs * source.facts["steps_per_epoch"]
    state = timed("training", lambda: train(
        build.make_model(config, source.facts, steps), source, steps=steps, seed=FLAGS.seed,
        steps_per_dispatch=config.steps_per_dispatch))
    vectors = inference.embedder(build.make_model(config, source.facts, steps), state, tokens.encoder)(names)

    path = lambda name: os.path.join(folder, name)
    stream = np.asarray(tokens.tokens)
    with open(path("text"), "w") as file:
      for document in np.split(stream, np.flatnonzero(stream < 0)):
        file.write(" ".join([names[i] for i in document[document >= 0]]) + "\n")
    with open(path("vocabulary"), "w") as file:
      file.writelines(f"{name} {count}\n" for name, count in zip(names, tokens.facts["counts"]))

    def run(program, *arguments, stdin=None, stdout=None):
      with open(path(stdin) if stdin else os.devnull, "rb") as source, open(path(stdout) if stdout else os.devnull,
                                                                            "wb") as target:
        subprocess.run([os.path.join(FLAGS.peer, program), "-verbose", "0", *arguments], stdin=source, stdout=target,
                       stderr=subprocess.DEVNULL, check=True)

    memory = ("-memory", "4.0")
    timed("cooccur", lambda: run("cooccur", *memory, "-vocab-file", path("vocabulary"), "-window-size",
                                 str(options.window), "-overflow-file", path("overflow"), stdin="text",
                                 stdout="cells"))
    timed("shuffle", lambda: run("shuffle", *memory, "-seed", "1", "-temp-file", path("shuffled"), stdin="cells",
                                 stdout="order"))
    model = config.model
    timed("glove", lambda: run(
        "glove", "-input-file", path("order"), "-vocab-file", path("vocabulary"), "-save-file", path("vectors"),
        "-gradsq-file", path("squares"), "-threads", threads, "-iter", str(FLAGS.epochs), "-vector-size",
        str(model.dim), "-x-max", str(model.x_max), "-alpha", str(model.alpha), "-eta", str(model.learning_rate),
        "-binary", "0", "-model", "2", "-seed", str(FLAGS.seed + 1)))
    peer = word_vectors.read(path("vectors.txt"), "glove")
  index = {name: i for i, name in enumerate(peer.words)}
  peer_vectors = peer.vectors[[index[name] for name in names]]

  visited = FLAGS.epochs * len(cells.row)
  record = {"vocabulary": len(names), "cells": len(cells.row),
            "seconds": {k: round(v, 1) for k, v in seconds.items()},
            "ours": {"cells_per_second": round(visited / seconds["training"])} | quality(names, vectors),
            "C": {"cells_per_second": round(visited / seconds["glove"])} | quality(names, peer_vectors)}
  record["speed_ratio"] = round(seconds["glove"] / seconds["training"], 3)
  record["preparation_ratio"] = round(
      (seconds["cooccur"] + seconds["shuffle"]) / (seconds["counting"] + seconds["dealing out"]), 3)
  scores = compared([record["ours"]], [record["C"]], "C")
  record["summary"] = (f"{scores}; {record['speed_ratio']:.1f} times the C program's cells per second, "
                       f"{record['preparation_ratio']:.1f} times as fast to count and shuffle")
  return record


def ppmi() -> dict:
  """Seconds and singular values of `ppmi`, compiling included, and of scipy's `svds` on the same matrix, by turns."""
  config = presets.load_config("ppmi", "small")
  config.data.name = FLAGS.data
  data = build.prepare(config, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir)
  names, cells = data.encoder.names, data.splits["train"].batch_at(0)
  model = build.make_model(config, data.facts, config.steps)
  initial = jax.jit(model.init)(jax.random.key(0), cells)
  values = np.asarray(jax.jit(model.outputs["similarities"])(initial, cells))
  matrix = sparse.csr_array((values, (cells["row"], cells["col"])), shape=(len(names),) * 2)
  matrix.eliminate_zeros()
  seconds = {"ours": [], "svds": []}
  for turn in range(FLAGS.repeats):
    jax.clear_caches()
    start = time.perf_counter()
    state = train(model, data.splits["train"], steps=config.steps, seed=FLAGS.seed + turn,
                  steps_per_dispatch=config.steps_per_dispatch)
    singular_values = np.asarray(state.values)[:config.model.dim]
    seconds["ours"].append(round(time.perf_counter() - start, 1))
    start = time.perf_counter()
    exact = np.sort(svds(matrix, k=config.model.dim)[1])[::-1]
    seconds["svds"].append(round(time.perf_counter() - start, 1))
  ratio = statistics.median(theirs / ours for ours, theirs in zip(*seconds.values()))
  error = float(np.abs(singular_values / exact - 1).max())
  ours = quality(names, inference.embedder(model, state, data.encoder)(names))
  return {
      "summary": ", ".join(f"{name} {score:.3f}" for name, score in ours.items())
                 + f"; {ratio:.1f} times as fast as `svds` (median of {FLAGS.repeats} turns), singular values within "
                   f"{error:.0e}",
      "cells": int(matrix.nnz), "ours": ours, "seconds": seconds, "ratio": round(ratio, 3), "largest_error": error,
  }


def quality(names: Sequence[str], vectors) -> dict[str, float]:
  """Spearman on three sets of pairs, and accuracy on the analogies of the 30,000 most frequent words."""
  index = {name: i for i, name in enumerate(names)}
  embed = lambda words: vectors[[index[word] for word in words]]
  scores = {name: word_similarity(embed, wordsets.word_similarity(name, FLAGS.data_dir), vocabulary=index)["spearman"]
            for name in ("ws353", "simlex999", "men")}
  answers = analogies(embed, wordsets.analogies(data_dir=FLAGS.data_dir), vocabulary=names)
  return {name: round(score, 4) for name, score in (scores | {"analogies": answers["cosadd/total/accuracy"]}).items()}


def compared(ours: Sequence[dict], theirs: Sequence[dict], peer: str) -> str:
  """Scores of runs with several seeds beside a peer's."""
  score = lambda runs, name: described([run[name] for run in runs])
  return ", ".join(f"{name} {score(ours, name)} ({peer} {score(theirs, name)})"
                   for name in ("ws353", "simlex999", "men", "analogies"))
