"""Speed and quality beside a peer, in the same process, by turns; ratios and medians, never single times.

  python -m experiments.benchmark loop --model=cpc --preset=small     our loop against its bare dispatches
  python -m experiments.benchmark sgns --data=enwiki-2015             skip-gram against gensim (extra `parity`)
  python -m experiments.benchmark cbow --data=enwiki-2015             continuous bag of words against gensim
  python -m experiments.benchmark glove --peer=GLOVE/build            counting and training against the C programs
  python -m experiments.benchmark ppmi                                our truncated SVD against scipy's `svds`
  python -m experiments.benchmark gmm --rows=200000                   an iteration of EM against scikit-learn's
  python -m experiments.benchmark gmm_memory --rows=20000000          exact EM of a file, and the memory that it takes

Each prints one JSON object; `--output` writes it as well, and the README's table is made from such files.
"""
import json
import os
import statistics
import time
from collections.abc import Sequence

from absl import flags

from embeddings_jax.types import InputError
from experiments import command, workdir

FLAGS = flags.FLAGS

flags.DEFINE_string("model", "", "Model of `loop`.")
flags.DEFINE_string("preset", "demo", "Preset.")
flags.DEFINE_string("data", "enwiki-2015", "Corpus.")
flags.DEFINE_string("data_dir", None, "Directory of the catalog's files (default: $EMBEDDINGS_DATA).")
flags.DEFINE_string("cache_dir", None, "Derived data (default: $EMBEDDINGS_CACHE, ~/.cache/embeddings_jax).")
flags.DEFINE_integer("repeats", 5, "Turns of each.", lower_bound=1)
flags.DEFINE_integer("epochs", 1, "Passes over the corpus, or over its cells.", lower_bound=1)
flags.DEFINE_string("peer", "", "Folder of the programs cooccur, shuffle and glove, built from stanfordnlp/GloVe.")
flags.DEFINE_integer("rows", 200_000, "Rows of `gmm` and `gmm_memory`.", lower_bound=1000)
flags.DEFINE_integer("features", 32, "Their features.", lower_bound=1)
flags.DEFINE_integer("components", 16, "Their components.", lower_bound=1)
flags.DEFINE_enum("covariance", "full", ["full", "tied", "diagonal", "spherical"], "Of their components.")
flags.DEFINE_float("seconds", 5.0, "Length of one turn of `loop`, about.")
flags.DEFINE_integer("seed", 0, "Seed.")
flags.DEFINE_string("output", "", "File to write the result to.")


def main(argv: Sequence[str]) -> int:
  verbs = {"loop": loop, "sgns": lambda: word2vec("sgns"), "cbow": lambda: word2vec("cbow"), "glove": glove,
           "ppmi": ppmi, "gmm": gmm, "gmm_memory": gmm_memory}
  if len(argv) < 2:
    raise InputError(f"which benchmark? one of {', '.join(verbs)}")
  command.check_choice("benchmark", argv[1], list(verbs))
  command.parse([argv[0], *argv[2:]])
  places = ("--output", "--data_dir", "--cache_dir", "--peer")
  shown = [argument for argument in argv[1:] if not argument.startswith(places)]
  found = {"command": " ".join(["python -m experiments.benchmark", *shown]), **verbs[argv[1]](),
           "device": f"{os.cpu_count()} cores", "versions": workdir.versions(), "commit": workdir.commit()}
  text = json.dumps(found, indent=1)
  print(text)
  if FLAGS.output:
    with open(FLAGS.output, "w") as file:
      file.write(text + "\n")
  return 0


def loop() -> dict:
  """Steps per second of `train` over those of its compiled dispatch, called on data that lies ready.

  Ours includes drawing and placing the batches, fetching and checking the metrics, and a call of
  `write` for every log; the dispatch alone is the ceiling.
  """
  import jax
  import numpy as np
  from jax.sharding import NamedSharding
  from jax.sharding import PartitionSpec as P

  from embeddings_jax.train import loop as loop_lib
  from embeddings_jax.train import mesh as mesh_lib
  from experiments import pipeline

  config = command.load_config(FLAGS.model, FLAGS.preset)
  if "tolerance" in config.model:
    config.model.tolerance = 0.0  # A model that converged would end the run.
  mesh = mesh_lib.make_mesh()
  data = pipeline.load_data(config, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir)
  source, size = data.source, config.steps_per_dispatch
  model = pipeline.make_model(config, source.facts, 100_000)

  with jax.set_mesh(mesh):
    make_state, many_updates = loop_lib.programs(model, source)
    feeder = mesh_lib.Feeder(mesh, source.batch_size)
    resident = mesh_lib.put(source.resident, NamedSharding(mesh, P()))
    seed, numbers = np.uint32(0), np.arange(size, dtype=np.int32)
    feeds = feeder([source.feed_at(step) for step in range(size)])
    state = jax.jit(make_state)(seed, resident, feeds)
    dispatch = jax.jit(many_updates, donate_argnums=0)
    state, metrics = jax.block_until_ready(dispatch(state, seed, numbers, resident, feeds))
    start = time.perf_counter()
    state, metrics = jax.block_until_ready(dispatch(state, seed, numbers, resident, feeds))
    count = max(4, int(FLAGS.seconds / (time.perf_counter() - start)))

    def bare() -> float:
      nonlocal state
      start = time.perf_counter()
      for _ in range(count):
        state, metrics = dispatch(state, seed, numbers, resident, feeds)
      jax.block_until_ready((state, metrics))
      return count * size / (time.perf_counter() - start)

    def ours() -> float:
      began = []  # When the first dispatch, which compiles, was done.
      trained = loop_lib.train(model, source, steps=(count + 1) * size, mesh=mesh, steps_per_dispatch=size,
                               log_every=config.log_every, write=lambda step, record: None,
                               progress=lambda step, record: began or began.append(time.perf_counter()))
      jax.block_until_ready(trained)
      return count * size / (time.perf_counter() - began[0])

    turns = [(ours(), bare()) for _ in range(FLAGS.repeats)]
  ratio = statistics.median(mine / ceiling for mine, ceiling in turns)
  return {
      "summary": f"{ratio:.3f} of the bare dispatch's steps per second (median of {FLAGS.repeats} turns)",
      "steps_per_dispatch": size,
      "ratios": [round(mine / ceiling, 3) for mine, ceiling in turns],
      "ours_steps_per_second": round(statistics.median(mine for mine, _ in turns), 2),
      "bare_steps_per_second": round(statistics.median(ceiling for _, ceiling in turns), 2),
  }


def word2vec(name: str) -> dict:
  """Word similarity and words per second of `sgns` or `cbow` and of gensim, on the same tokens.

  Gensim has our settings, apart from the learning rate, which is its default (CBOW's differs, see `models.cbow`).
  Gensim gets the words of the documents in lines of at most 10,000, as it wants them; both read text
  that was normalised beforehand, so that neither is charged for it.
  """
  import numpy as np

  try:
    import gensim
  except ImportError as error:
    raise InputError("gensim is missing: pip install -e '.[parity]'") from error
  from embeddings_jax.train.loop import train
  from experiments import pipeline

  config = command.load_config(name, "small")
  config.data.name, config.epochs, config.seed = FLAGS.data, FLAGS.epochs, FLAGS.seed
  data = pipeline.load_data(config, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir)
  facts, names = data.source.facts, data.encoder.names
  steps = FLAGS.epochs * facts["steps_per_epoch"]
  words = facts["num_words"] * FLAGS.epochs

  start = time.perf_counter()
  state = train(pipeline.make_model(config, facts, steps), data.source, steps=steps, seed=FLAGS.seed,
                steps_per_dispatch=config.steps_per_dispatch)
  ours = {"seconds": time.perf_counter() - start, "vectors": np.asarray(state.input)[:len(names)]}

  tokens = np.asarray(data.source.resident["stream"])
  lines = [[names[i] for i in part[part >= 0]] for document in np.split(tokens, np.flatnonzero(tokens < 0))
           for part in np.array_split(document, len(document) // 10_000 + 1)]
  model = config.model
  start = time.perf_counter()
  peer = gensim.models.Word2Vec(
      lines, sg=int(name == "sgns"), cbow_mean=1, hs=0, alpha=0.025, vector_size=model.dim, window=model.window,
      negative=model.num_negatives, sample=model.subsample, min_count=1, epochs=FLAGS.epochs, seed=FLAGS.seed + 1,
      workers=os.cpu_count())
  theirs = {"seconds": time.perf_counter() - start, "vectors": peer.wv[names]}

  found = {"vocabulary": len(names), "words": words}
  for who, result in (("ours", ours), ("gensim", theirs)):
    found[who] = {"words_per_second": round(words / result["seconds"])} | quality(names, result["vectors"])
  found["speed_ratio"] = round(theirs["seconds"] / ours["seconds"], 3)
  found["summary"] = (f"{compared(found, 'gensim')}; {found['speed_ratio']:.1f} times gensim's words per second")
  return found


def glove() -> dict:
  """Counting and training of `glove` and of the authors' C programs: the same words, settings and memory.

  The C programs read the words of the vocabulary, a document a line. Both count with 4 GB at most. Ours starts with
  an empty cache of counts; the time until training can start is compared with `cooccur` and `shuffle` together.
  """
  import subprocess
  import tempfile

  import numpy as np

  from embeddings_jax.data import catalog, text
  from embeddings_jax.interop import word_vectors
  from embeddings_jax.train.loop import train
  from experiments import pipeline

  if not all(os.path.isfile(os.path.join(FLAGS.peer, program)) for program in ("cooccur", "shuffle", "glove")):
    raise InputError("--peer=FOLDER: must hold the programs cooccur, shuffle and glove of stanfordnlp/GloVe")
  config = command.load_config("glove", "small")
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
    cells = timed("counting", lambda: pipeline.counted(tokens, options, folder))
    source = timed("dealing out", lambda: pipeline.cells_in_form(
        "tiles", cells, tokens.facts, options, config.batch_size, FLAGS.seed, folder))
    steps = FLAGS.epochs * source.facts["steps_per_epoch"]
    state = timed("training", lambda: train(
        pipeline.make_model(config, source.facts, steps), source, steps=steps, seed=FLAGS.seed,
        steps_per_dispatch=config.steps_per_dispatch))
    vectors = pipeline.embedder(pipeline.make_model(config, source.facts, steps), state, tokens.encoder)(names)

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
  place = {name: i for i, name in enumerate(peer.words)}
  peer_vectors = peer.vectors[[place[name] for name in names]]

  visited = FLAGS.epochs * len(cells.row)
  found = {"vocabulary": len(names), "cells": len(cells.row), "seconds": {k: round(v, 1) for k, v in seconds.items()},
           "ours": {"cells_per_second": round(visited / seconds["training"])} | quality(names, vectors),
           "C": {"cells_per_second": round(visited / seconds["glove"])} | quality(names, peer_vectors)}
  found["speed_ratio"] = round(seconds["glove"] / seconds["training"], 3)
  found["preparation_ratio"] = round(
      (seconds["cooccur"] + seconds["shuffle"]) / (seconds["counting"] + seconds["dealing out"]), 3)
  found["summary"] = (f"{compared(found, 'C')}; {found['speed_ratio']:.1f} times the C program's cells per second, "
                      f"{found['preparation_ratio']:.1f} times as fast to count and shuffle")
  return found


def ppmi() -> dict:
  """Seconds and singular values of `ppmi`, compiling included, and of scipy's `svds` on the same matrix, by turns."""
  import jax
  import numpy as np
  from scipy import sparse
  from scipy.sparse.linalg import svds

  from embeddings_jax.train.loop import train
  from experiments import pipeline

  config = command.load_config("ppmi", "small")
  config.data.name = FLAGS.data
  data = pipeline.load_data(config, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir)
  names, cells = data.encoder.names, data.source.batch_at(0)
  model = pipeline.make_model(config, data.source.facts, config.steps)
  initial = jax.jit(model.init)(jax.random.key(0), cells)
  values = np.asarray(jax.jit(model.outputs["similarities"])(initial, cells, None))
  matrix = sparse.csr_array((values, (cells["row"], cells["col"])), shape=(len(names),) * 2)
  matrix.eliminate_zeros()
  seconds = {"ours": [], "svds": []}
  for turn in range(FLAGS.repeats):
    jax.clear_caches()
    start = time.perf_counter()
    state = train(model, data.source, steps=config.steps, seed=FLAGS.seed + turn,
                  steps_per_dispatch=config.steps_per_dispatch)
    found = np.asarray(state.values)[:config.model.dim]
    seconds["ours"].append(round(time.perf_counter() - start, 1))
    start = time.perf_counter()
    exact = np.sort(svds(matrix, k=config.model.dim)[1])[::-1]
    seconds["svds"].append(round(time.perf_counter() - start, 1))
  ratio = statistics.median(theirs / ours for ours, theirs in zip(*seconds.values()))
  error = float(np.abs(found / exact - 1).max())
  ours = quality(names, pipeline.embedder(model, state, data.encoder)(names))
  return {
      "summary": ", ".join(f"{name} {score:.3f}" for name, score in ours.items())
                 + f"; {ratio:.1f} times as fast as `svds` (median of {FLAGS.repeats} turns), singular values within "
                   f"{error:.0e}",
      "cells": int(matrix.nnz), "ours": ours, "seconds": seconds, "ratio": round(ratio, 3), "largest_error": error,
  }


def mixture_rows(rng, size: int):
  """Rows of a mixture of Gaussians whose ranges overlap, float32; the means are the same for every call."""
  import numpy as np

  means = 1.5 * np.random.default_rng(1).normal(size=(FLAGS.components, FLAGS.features)).astype(np.float32)
  return means[rng.integers(FLAGS.components, size=size)] + rng.standard_normal((size, FLAGS.features), np.float32)


def gmm() -> dict:
  """Seconds of an iteration of exact EM, ours in float32 and scikit-learn's in float64 (and float32), by turns.

  All start alike: rows as means, unit covariances. Scikit-learn's iteration is the difference of two fits.
  """
  import warnings

  import jax
  import numpy as np
  from sklearn.exceptions import ConvergenceWarning
  from sklearn.mixture import GaussianMixture

  from embeddings_jax.models.gmm import gmm as make

  warnings.simplefilter("ignore", ConvergenceWarning)
  k, dim = FLAGS.components, FLAGS.features
  x = mixture_rows(np.random.default_rng(FLAGS.seed), FLAGS.rows)
  unit = {"full": np.tile(np.eye(dim), (k, 1, 1)), "tied": np.eye(dim), "diagonal": np.ones((k, dim)),
          "spherical": np.ones(k)}[FLAGS.covariance]
  weights, means, floor, more = np.full(k, 1 / k), x[:k], 1e-6, 4

  model = make(num_components=k, covariance=FLAGS.covariance, floor=floor, tolerance=0, weights=weights, means=means,
               covariances=unit)
  batch = {"x": jax.numpy.asarray(x)}
  start = jax.jit(model.init)(jax.random.key(0), batch)
  update = jax.jit(model.update)
  jax.block_until_ready(update(start, batch, None))

  def ours() -> tuple[float, float]:
    state = jax.block_until_ready(update(start, batch, None))[0]
    begun = time.perf_counter()
    for _ in range(more):
      state, metrics = update(state, batch, None)
    jax.block_until_ready(state)
    return (time.perf_counter() - begun) / more, float(metrics["log_likelihood"])

  def theirs(rows) -> tuple[float, float]:
    def fit(iterations):
      begun = time.perf_counter()
      fitted = GaussianMixture(
          k, covariance_type=FLAGS.covariance.replace("diagonal", "diag"), reg_covar=floor, tol=0,
          max_iter=iterations, weights_init=weights.astype(rows.dtype), means_init=means.astype(rows.dtype),
          precisions_init=unit.astype(rows.dtype)).fit(rows)
      return time.perf_counter() - begun, fitted.lower_bound_
    seconds, _ = fit(1)
    longer, log_likelihood = fit(1 + more)
    return (longer - seconds) / more, log_likelihood

  exact = x.astype(np.float64)
  turns = [(ours(), theirs(exact), theirs(x)) for _ in range(FLAGS.repeats)]
  seconds = [[round(who[0], 4) for who in turn] for turn in turns]
  ratios = [[round(turn[i] / turn[0], 2) for turn in seconds] for i in (1, 2)]
  log_likelihood, expected = turns[0][0][1], turns[0][1][1]
  difference = abs(log_likelihood - expected) / max(1, abs(expected))
  return {
      "summary": f"{statistics.median(ratios[0]):.1f} times as fast an iteration as scikit-learn in float64, "
                 f"{statistics.median(ratios[1]):.1f} times as in float32 (median of {FLAGS.repeats} turns), "
                 f"log likelihood within {difference:.0e}",
      "rows": FLAGS.rows, "features": dim, "components": k, "covariance": FLAGS.covariance,
      "seconds": {name: [turn[i] for turn in seconds] for i, name in enumerate(("ours", "float64", "float32"))},
      "ratios": ratios[0], "ratios_float32": ratios[1], "log_likelihood": log_likelihood,
      "log_likelihood_float64": expected, "relative_difference": difference,
  }


def gmm_memory() -> dict:
  """Exact EM of `gmm`'s `paper` preset over a file of `--rows` rows, by `--epochs` passes, and its resident memory.

  RssAnon is what the process needs; pages of the mapped file are the system's to drop. Then the same on the first
  rows of the file, of which the last batch is a short one, against exact EM with all of them in memory.
  """
  import tempfile

  import jax
  import numpy as np

  from embeddings_jax.data.sources import array_source
  from embeddings_jax.train.loop import train
  from experiments import pipeline

  def anonymous() -> float:
    with open("/proc/self/status") as file:
      return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) / 1024

  config = command.load_config("gmm", "paper")
  config.model.num_components, config.model.covariance, config.data.order = (
      FLAGS.components, FLAGS.covariance, "sequential")
  config.model.tolerance = 0.0
  rng, piece = np.random.default_rng(FLAGS.seed), 500_000
  with tempfile.TemporaryDirectory(dir=FLAGS.cache_dir) as folder:
    path = os.path.join(folder, "rows.npy")
    table = np.lib.format.open_memmap(path, "w+", np.float32, (FLAGS.rows, FLAGS.features))
    for first in range(0, FLAGS.rows, piece):
      table[first:first + piece] = mixture_rows(rng, min(piece, FLAGS.rows - first))
    table.flush()
    del table
    config.data.name = path
    data = pipeline.load_data(config, data_dir=None, cache_dir=FLAGS.cache_dir)
    facts = data.source.facts
    steps = FLAGS.epochs * facts["steps_per_epoch"]
    memory, begun, times = [anonymous()], time.perf_counter(), []

    def look(step, record):
      memory.append(anonymous())
      times.append(time.perf_counter())

    state = jax.block_until_ready(train(
        pipeline.make_model(config, facts, steps), data.source, steps=steps, progress=look))
    seconds, largest = time.perf_counter() - begun, max(memory)
    # Without the first dispatches, which compile.
    rate = data.source.batch_size * (len(times) - 1 - len(times) // 4) / max(times[-1] - times[len(times) // 4], 1e-9)
    some = np.load(path, mmap_mode="r")[:min(FLAGS.rows, 5 * config.batch_size // 2 + 7)]
    source = array_source({"x": some}, config.batch_size, order="sequential", remainder="pad", resident=False)
    passes, per_pass = 3, source.facts["steps_per_epoch"]
    parts = train(pipeline.make_model(config, source.facts, passes), source, steps=passes * per_pass)
    whole_source = array_source({"x": np.array(some)})
    whole_model = pipeline.make_model(config, whole_source.facts, passes)
    whole = train(pipeline.make_model(config, source.facts, 0), source, steps=0)  # The same start.
    update = jax.jit(whole_model.update)
    for _ in range(passes):
      whole, _ = update(whole, whole_source.batch_at(0), None)
  differences = {name: float(np.linalg.norm(getattr(parts, name) - getattr(whole, name))
                             / np.linalg.norm(getattr(whole, name)))
                 for name in ("log_likelihood", "weights", "offsets", "covariances")}
  return {
      "summary": f"{FLAGS.rows:,} rows x {FLAGS.features} of a file of "
                 f"{FLAGS.rows * FLAGS.features * 4 / 2**30:.1f} GiB, {FLAGS.components} components: RssAnon at most "
                 f"{largest:.0f} MiB, {rate / 1e6:.2f} M rows a second; "
                 f"the same as in memory to {max(differences.values()):.0e}",
      "rows": FLAGS.rows, "features": FLAGS.features, "components": FLAGS.components, "covariance": FLAGS.covariance,
      "batch_size": data.source.batch_size, "passes": FLAGS.epochs, "log_likelihood": float(state.log_likelihood),
      "anonymous_mib": round(largest, 1), "anonymous_mib_before": round(memory[0], 1),
      "seconds": round(seconds, 1), "rows_per_second": round(rate), "subset_rows": len(some),
      "relative_differences": differences,
  }


def quality(names: Sequence[str], vectors) -> dict[str, float]:
  """Spearman on three sets of pairs, and accuracy on the analogies of the 30,000 most frequent words."""
  from embeddings_jax.data import wordsets
  from embeddings_jax.eval.analogies import analogies
  from embeddings_jax.eval.word_similarity import word_similarity

  place = {name: i for i, name in enumerate(names)}
  embed = lambda words: vectors[[place[word] for word in words]]
  scores = {name: word_similarity(embed, wordsets.word_similarity(name, FLAGS.data_dir), vocabulary=place)["spearman"]
            for name in ("ws353", "simlex999", "men")}
  asked = analogies(embed, wordsets.analogies(data_dir=FLAGS.data_dir), vocabulary=names)
  return {name: round(score, 4) for name, score in (scores | {"analogies": asked["cosadd/total/accuracy"]}).items()}


def compared(found: dict, peer: str) -> str:
  return ", ".join(f"{name} {found['ours'][name]:.3f} ({peer} {found[peer][name]:.3f})"
                   for name in ("ws353", "simlex999", "men", "analogies"))


if __name__ == "__main__":
  command.call(main)
