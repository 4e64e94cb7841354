"""Speed and quality beside a peer, in the same process, by turns; ratios and medians, never single times.

  python -m experiments.benchmark loop --model=cpc --preset=small     our loop against its bare dispatches
  python -m experiments.benchmark sgns --data=enwiki-2015             skip-gram against gensim (extra `parity`)
  python -m experiments.benchmark cbow --data=enwiki-2015             continuous bag of words against gensim
  python -m experiments.benchmark glove --peer=GLOVE/build            counting and training against the C programs
  python -m experiments.benchmark ppmi                                our truncated SVD against scipy's `svds`
  python -m experiments.benchmark lsa --data=20news                   ours against scikit-learn's randomised one
  python -m experiments.benchmark lsa_stream                          a collection beyond memory: RssAnon
  python -m experiments.benchmark plsa                                topics of 20 Newsgroups against NMF
  python -m experiments.benchmark topics                              pLSA plain and tempered, LSA and tf-idf

Each prints one JSON object; `--output` writes it as well, and the README's table is made from such files.
"""
import json
import os
import statistics
import time
import warnings
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
flags.DEFINE_float("seconds", 5.0, "Length of one turn of `loop`, about.")
flags.DEFINE_integer("seed", 0, "Seed.")
flags.DEFINE_string("output", "", "File to write the result to.")


def main(argv: Sequence[str]) -> int:
  verbs = {"loop": loop, "sgns": lambda: word2vec("sgns"), "cbow": lambda: word2vec("cbow"), "glove": glove,
           "ppmi": ppmi, "lsa": lsa, "lsa_stream": lsa_stream, "plsa": plsa, "topics": topics}
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


def plsa() -> dict:
  """Seconds per iteration, and log likelihood, of `plsa` and of scikit-learn's NMF (Kullback-Leibler, multiplicative
  updates, float32) on all of 20 Newsgroups, 20,000 words, 50 topics, from the same start, by turns.

  NMF's time is that of 15 iterations by one call, less that of a call of 5. It changes the topics after, not beside
  the documents' shares, and so needs fewer iterations; so the iterations and seconds to its likelihood are told too.
  """
  import jax
  import numpy as np
  from scipy import sparse
  from sklearn.decomposition import non_negative_factorization

  from embeddings_jax.data import catalog
  from embeddings_jax.train.loop import train
  from experiments import pipeline

  config = command.load_config("plsa", "small")
  config.data.update(dict(part="all", held_out=0.0))
  config.model.update(dict(tempering=1.0, tolerance=0.0))
  data = pipeline.load_data(config, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir)
  bags = pipeline.counted_documents(catalog.load("20news", data_dir=FLAGS.data_dir), config.data, FLAGS.cache_dir)
  facts, topics = bags.facts, config.model.num_topics
  table = sparse.csr_array((np.asarray(bags.count), np.asarray(bags.col), np.asarray(bags.indptr)),
                           shape=(facts["num_documents"], facts["vocab_size"]))
  model = pipeline.make_model(config, facts, 1)
  batch = data.source.batch_at(0)
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
    train(model, data.source, steps=steps, steps_per_dispatch=10, log_every=1,
          write=lambda step, record: losses.append(record["loss"]),
          progress=lambda step, record: times.append(time.perf_counter()))
    return (times[-1] - times[-3]) / 20, np.array(losses)

  def nmf(steps):
    theta = np.full((len(table.indptr) - 1, topics), 1 / topics, np.float32) * table.sum(1)[:, None]
    began = time.perf_counter()
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # That it has not converged.
      theta, found, _ = non_negative_factorization(
          table, theta.astype(np.float32), beta.copy(), n_components=topics, init="custom", solver="mu",
          beta_loss="kullback-leibler", tol=0, max_iter=steps)
    return time.perf_counter() - began, found, theta

  seconds = {"ours": [], "nmf": []}
  for _ in range(FLAGS.repeats):
    seconds["ours"].append(ours(60)[0])
    seconds["nmf"].append((nmf(15)[0] - nmf(5)[0]) / 10)
  ratio = statistics.median(theirs / mine for mine, theirs in zip(*seconds.values()))
  losses = ours(300)[1]
  same_start = -log_likelihood(beta, np.full((facts["num_documents"], topics), 1 / topics))
  if abs(losses[0] - same_start) > 1e-4:
    raise InputError(f"plsa starts at {losses[0]}, and NMF at {same_start}")
  theirs = log_likelihood(*nmf(100)[1:])
  needed = int(np.argmax(-losses >= theirs)) if (-losses >= theirs).any() else None
  mine, peers = (statistics.median(values) for values in seconds.values())
  reached = (f"NMF's log likelihood of 100 iterations, {theirs:.4f} per occurrence, after {needed} of ours: "
             f"{needed * mine:.1f} s against {100 * peers:.1f} s" if needed else
             f"log likelihood per occurrence {-losses[-1]:.4f} (NMF, 100 iterations: {theirs:.4f})")
  return {
      "summary": f"{ratio:.1f} times as fast an iteration as NMF ({mine:.3f} s, median of {FLAGS.repeats} turns); "
                 + reached,
      "documents": facts["num_documents"], "words": facts["vocab_size"], "cells": facts["num_cells"],
      "topics": topics, "iterations_to_the_same_likelihood": needed,
      "ratio": round(ratio, 3), "seconds": {name: [round(x, 4) for x in values] for name, values in seconds.items()},
      "log_likelihoods": {"start": round(-same_start, 5), "nmf after 100": round(theirs, 5)} | {
          f"ours after {steps}": round(float(-losses[steps]), 5) for steps in (50, 100, 150, 200, 299)},
  }


def topics() -> dict:
  """What Hofmann (1999) reports, on 20 Newsgroups (his collections are not at hand).

  Perplexity, by the words' frequencies, by plain EM, stopped early or after 100 iterations, and by tempered EM, for
  every number of topics: `held out`, of a tenth of the occurrences of the training part, by which early stopping and
  tempering go; and `test`, of one half of each test document given the other (`eval/topics.py`). Mean average
  precision of the training part's documents, the test part's being the queries (`eval/retrieval.py`), by the cosines
  of tf-idf, of `lsa`, and of tempered `plsa`'s theta; and by these, added up over the numbers of topics, as Hofmann
  does.
  """
  import numpy as np

  from embeddings_jax.eval import topics as topic_scores
  from embeddings_jax.eval.baselines import tf_idf
  from embeddings_jax.eval.retrieval import retrieval, unit_rows
  from embeddings_jax.train.loop import train
  from experiments import pipeline

  def trained(name, **options):
    config = command.load_config(name, "small")
    config.model.update({key: value for key, value in options.items() if key in config.model})
    config.data.update(shared | {key: value for key, value in options.items() if key in config.data})
    data = pipeline.load_data(config, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir)
    steps = options.get("steps") or config.steps or config.epochs * data.source.facts["steps_per_epoch"]
    model, records = pipeline.make_model(config, data.source.facts, steps), []
    state = train(model, data.source, steps=steps, seed=FLAGS.seed, log_every=1, steps_per_dispatch=5,
                  write=lambda step, record: records.append(record))
    found = pipeline.topics_of(model, state, data.encoder)
    return data, pipeline.embedder(model, state, data.encoder), found, records

  shared = dict(command.load_config("plsa", "small").data, held_out=0.0)
  shared = {key: shared[key] for key in ("name", "part", "unit", "normalize", "min_count", "min_documents",
                                         "max_share", "min_length", "max_size", "stop_words")}
  perplexities, vectors = {}, {}
  for num_topics in (20, 50, 128):
    for name, options in {
        "stopped": dict(tempering=1.0), "100 iterations": dict(tempering=1.0, early_stopping=False, tolerance=0.0,
                                                               steps=100), "tempered": {}}.items():
      data, embed, found, records = trained("plsa", num_topics=num_topics, held_out=0.1, **options)
      test = [data.encoder.bag(data.dataset.items[i]) for i in data.dataset.split["test"]]
      scores = topic_scores.perplexity(embed, test, found["topics"], data.encoder.vocabulary, FLAGS.seed)
      perplexities[f"{num_topics} topics, {name}"] = {
          "held out": records[-1]["held_out_perplexity"], "test": scores["perplexity"], "iterations": len(records)}
    vectors[f"plsa {num_topics}"] = embed(data.dataset.items)
  batch = data.source.batch_at(0)
  share = data.source.facts["counts"] / data.source.facts["counts"].sum()
  frequencies = float(np.exp(-(batch["held"] * np.log(share[batch["col"]])).sum() / batch["held"].sum()))
  perplexities["frequencies"] = {"held out": frequencies, "test": scores["unigram/perplexity"], "iterations": 0}
  vectors["plsa, all"] = np.concatenate([unit_rows(found, "plsa") for found in vectors.values()], 1)
  _, embed, _, _ = trained("lsa")
  vectors["lsa"] = embed(data.dataset.items)
  words = tf_idf(data.dataset.items, data.encoder.encode, len(data.encoder.vocabulary),
                 fit=data.dataset.split["train"])
  score = lambda found: retrieval(lambda items: found, data.dataset)["group/test/map"]
  precision = {"tf-idf": score(words)} | {name: score(found) for name, found in vectors.items()}
  listed = [f"{name} {row['held out']:.0f} ({row['test']:.0f})" for name, row in perplexities.items()]
  return {
      "summary": f"perplexity held out (of test documents): {', '.join(listed)}; mean average precision: "
                 + ", ".join(f"{name} {value:.3f}" for name, value in precision.items()),
      "perplexity": {name: {part: round(value, 1) for part, value in row.items()}
                     for name, row in perplexities.items()},
      "average_precision": {name: round(value, 4) for name, value in precision.items()},
  }


def lsa() -> dict:
  """Seconds and singular values of `lsa` and of scikit-learn's randomised TruncatedSVD on the same matrix, by turns.

  All documents, k = 100. Ours is timed from `init` to the end of training, compiled beforehand, weights included;
  what compiling costs is told as well. Theirs is given the weighted matrix. Exact values are those of `svds`.
  """
  import jax
  import numpy as np
  from scipy import sparse
  from scipy.sparse.linalg import svds
  from sklearn.decomposition import TruncatedSVD

  from experiments import pipeline

  config = command.load_config("lsa", "small")
  config.data.name, config.data.part, config.data.blocks = FLAGS.data, "all", 1
  data = pipeline.load_data(config, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir)
  facts, batch = data.source.facts, data.source.batch_at(0)
  model = pipeline.make_model(config, facts, config.epochs)
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
  values = np.asarray(jax.jit(model.outputs["weighted"])(state, batch, None))[0]
  there = np.asarray(batch["count"][0]) > 0
  row = np.asarray(batch["document"][0])[np.asarray(batch["row"][0])]
  matrix = sparse.csr_array((values[there], (row[there], np.asarray(batch["col"][0])[there])),
                            shape=(facts["num_rows"], facts["vocab_size"]))
  exact = np.sort(svds(matrix.astype(np.float64), k=config.model.dim)[1])[::-1]
  seconds, errors = {"ours": [], "scikit-learn": []}, {"ours": [], "scikit-learn": []}
  for turn in range(FLAGS.repeats):
    peer = TruncatedSVD(config.model.dim, random_state=FLAGS.seed + turn)
    for who in seconds:
      start = time.perf_counter()
      found = ours(FLAGS.seed + turn)[0] if who == "ours" else peer.fit(matrix).singular_values_
      seconds[who].append(round(time.perf_counter() - start, 3))
      errors[who].append(float(np.abs(np.sort(found)[::-1] / exact - 1).max()))
  ratio = statistics.median(theirs / mine for mine, theirs in zip(*seconds.values()))
  error = {who: statistics.median(found) for who, found in errors.items()}
  return {
      "summary": f"{statistics.median(seconds['ours']):.2f} s, {ratio:.2f} times as fast as scikit-learn's "
                 f"randomised TruncatedSVD (median of {FLAGS.repeats} turns); singular values within "
                 f"{max(errors['ours']):.0e} (scikit-learn: {error['scikit-learn']:.0e})",
      "documents": facts["num_rows"], "words": facts["vocab_size"], "cells": int(matrix.nnz), "seconds": seconds,
      "with_compiling": round(compiling, 2), "ratio": round(ratio, 3), "largest_error": error,
  }


def lsa_stream(num_documents: int = 1_500_000, num_cells: int = 100, num_words: int = 50_000) -> dict:
  """`lsa` of a made-up collection that is read from the disk batch by batch, and how much memory that takes.

  Documents of `num_cells` words of a Zipf distribution, half of them of one of 50 subjects: a gigabyte of cells.
  RssAnon is what the process has beyond the files that it maps; its peak while it trains is watched by a thread.
  """
  import tempfile
  import threading

  import jax
  import numpy as np

  from embeddings_jax.data.bags import Bags, bag_source
  from embeddings_jax.models.lsa import lsa as make_lsa
  from embeddings_jax.train.loop import train

  def resident() -> float:
    with open("/proc/self/status") as file:
      return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) / 1024

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
    model = make_lsa(**known, steps_per_epoch=steps, dim=40, block=50, basis=200, tolerance=0.0)
    before, peak, done = resident(), [0.0], threading.Event()

    def watch():
      while not done.wait(0.05):
        peak[0] = max(peak[0], resident())

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
