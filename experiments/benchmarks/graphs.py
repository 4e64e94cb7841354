"""Random walks and node embeddings beside their peers, by turns: speed, memory and quality."""
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import jax
import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from absl import flags

import embeddings_jax as ej
from embeddings_jax.data.files.graphs import build_graph
from embeddings_jax.data.graphs import coordinates, graph_dataset, read
from embeddings_jax.errors import InputError
from embeddings_jax.eval.metrics import mean_and_std
from embeddings_jax.eval.node_classification import membership, node_classification, one_vs_rest
from experiments.walk_corpus import draw

FLAGS = flags.FLAGS
ORDERS = {"first order": (1.0, 1.0), "p = q = 1/4": (0.25, 0.25), "p = 1/4, q = 4": (0.25, 4.0),
          "p = 4, q = 1/4": (4.0, 0.25), "p = 1000, q = 1/1000": (1000.0, 1e-3),
          "p = 1/1000, q = 1000": (1e-3, 1000.0)}
NUM_WALKS, LENGTH = 10, 80
# Orders, and walks from each node and nodes of a walk as the two papers have them.
PEER_WALKS = {"first order, 80 x 40": ("first order", 80, 40), "10 x 80": ("first order", NUM_WALKS, LENGTH),
              "p = q = 1/4, 10 x 80": ("p = q = 1/4", NUM_WALKS, LENGTH)}

# Programs for the peers' own environments: arguments are an edge list, walks a node, nodes a walk, p, q and a file
# for the walks; they print seconds and CPU seconds of the walks alone. The graph is read before.
PEERS = {
    "ensmallen": """
import json, sys, time
import numpy as np
from ensmallen import Graph
path, num_walks, length, p, q, output = sys.argv[1:]
graph = Graph.from_csv(
    edge_path=path, directed=False, edge_list_separator="\\t", edge_list_header=False, sources_column_number=0,
    destinations_column_number=1, edge_list_numeric_node_ids=True, verbose=False)
start, used = time.perf_counter(), time.process_time()
walks = graph.complete_walks(walk_length=int(length), return_weight=1 / float(p), explore_weight=1 / float(q),
                             iterations=int(num_walks), max_neighbours=None)
seconds, cpu = time.perf_counter() - start, time.process_time() - used
if output:
    np.save(output, np.array([int(name) for name in graph.get_node_names()])[np.asarray(walks)])
print(json.dumps({"seconds": seconds, "cpu": cpu, "steps": int(np.size(walks) - len(walks))}))
""",
    "pecanpy": """
import json, sys, time
from pecanpy import pecanpy
path, num_walks, length, p, q, output = sys.argv[1:]
kind = pecanpy.FirstOrderUnweighted if p == q == "1.0" else pecanpy.SparseOTF
graph = kind(float(p), float(q), 0, verbose=False)
graph.read_edg(path, weighted=False, directed=False, delimiter="\\t")
graph.preprocess_transition_probs()
graph.simulate_walks(1, 2)  # Numba compiles here.
start, used = time.perf_counter(), time.process_time()
walks = graph.simulate_walks(int(num_walks), int(length) - 1)
seconds, cpu = time.perf_counter() - start, time.process_time() - used
print(json.dumps({"seconds": seconds, "cpu": cpu, "steps": sum(len(walk) - 1 for walk in walks)}))
"""}


def walks() -> dict:
  """Million steps a second of `NUM_WALKS` walks of `LENGTH` nodes from each node, by wall time and by CPU time.

  The graph is read before; tables, compilation and the transfer of the walks to the host count. Memory is the peak
  of drawing over what the process had with the graph read and JAX warm, by walks on a triangle.
  """
  table = read(FLAGS.data, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir).graph
  _drawn(build_graph(range(3), np.array([[0, 1], [1, 2], [2, 0]]), where="triangle"), 0.5, 1.0, 0)
  rates, memory = {}, {}
  for name, (p, q) in ORDERS.items():
    before = _reset_peak()
    turns = [_drawn(table, p, q, seed) for seed in range(FLAGS.repeats)]
    rates[name] = [statistics.median(column) for column in zip(*turns)]
    memory[name] = _status("VmHWM") - before
  return {"summary": f"{FLAGS.data}, million steps a second of wall time (of CPU time): " + ", ".join(
      f"{name} {wall:.1f} ({cpu:.1f})" for name, (wall, cpu) in rates.items())
                     + f"; at most {max(memory.values()):.0f} MiB over the graph",
          "rates": {name: [round(value, 3) for value in pair] for name, pair in rates.items()},
          "memory_mib": {name: round(value) for name, value in memory.items()}}


def walk_peers() -> dict:
  """DeepWalk's and node2vec's walks beside ensmallen, not approximated, and PecanPy, without a table of edge pairs.

  Numba's compilation counts for PecanPy as little as its reading; ours compiles while it is measured. The first turn
  with each peer is not counted. `rates` are ours, the peer's and the median of their ratios.
  """
  peers = _peers()
  table = read(FLAGS.data, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir).graph
  rows: dict[str, dict] = {}
  with tempfile.TemporaryDirectory() as folder:
    edges = _edge_list(table, folder)
    for kind, (order, num_walks, length) in PEER_WALKS.items():
      p, q = ORDERS[order]
      rows[kind] = {}
      for name, python in peers.items():
        turns = []
        for turn in range(1 + FLAGS.repeats):
          result = _walks_of(name, python, edges, num_walks, length, p, q)
          turns.append((_drawn(table, p, q, turn, num_walks, length)[1], result["steps"] / result["cpu"] / 1e6))
        rates = [statistics.median(column) for column in zip(*turns[1:])]
        rows[kind][name] = [round(rate, 3) for rate in rates] + [round(statistics.median(
            own / other for own, other in turns[1:]), 2)]
  return {"summary": f"{FLAGS.data}, million steps per CPU second: " + "; ".join(
      f"{kind} " + ", ".join(f"{ours:.1f} beside {name} {theirs:.2f} ({ratio:.1f} x)"
                             for name, (ours, theirs, ratio) in row.items()) for kind, row in rows.items()),
          "rates": rows}


def deepwalk() -> dict:
  """One epoch of 80 walks of 40 nodes, ours from graph to vectors beside ensmallen's walks and gensim.

  Both: window 10, 128 dimensions, 5 negatives, no subsampling, a rate that falls from .025, negative sampling. gensim
  reads a file of walks, its fastest way; writing the file does not count, nor does reading the graph. `bfloat16` is
  ours with the factors of products in that type.
  """
  import gensim

  peers = _peers("ensmallen")
  dataset = read(FLAGS.data, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir)
  turns, scores = [], {}
  with tempfile.TemporaryDirectory() as folder:
    edges, corpus, array = _edge_list(dataset.graph, folder), f"{folder}/walks.txt", f"{folder}/walks.npy"
    for turn in range(FLAGS.repeats):
      vectors, seconds = {}, []
      for name, options in (("ours", {}), ("bfloat16", {"dtype": "bfloat16"})):
        start = time.perf_counter()
        run = ej.fit("deepwalk", dataset, preset="small", seed=FLAGS.seed + turn, **options)
        seconds.append(time.perf_counter() - start)
        vectors[name] = run.embed(dataset.items)
      walking = _walks_of("ensmallen", peers["ensmallen"], edges, 80, 40, 1.0, 1.0, array)["seconds"]
      with open(corpus, "w") as file:
        file.writelines(" ".join(map(str, walk)) + "\n" for walk in np.load(array).tolist())
      start = time.perf_counter()
      model = gensim.models.Word2Vec(corpus_file=corpus, vector_size=128, window=10, min_count=0, sg=1, negative=5,
                                     sample=0, epochs=1, workers=2, seed=FLAGS.seed + turn)
      turns.append((*seconds, walking, time.perf_counter() - start))
      if dataset.labels:
        vectors["gensim"] = model.wv[[str(i) for i in range(len(dataset.items))]]
        for name, rows in vectors.items():
          results = node_classification(lambda items, rows=rows: rows, dataset, seed=FLAGS.seed)
          for key, value in results.items():
            if "oracle-k" in key and not key.endswith("std"):
              scores.setdefault(key.split("/", 2)[2], {}).setdefault(name, []).append(value)
  table = {key: {name: [round(float(np.mean(values)), 4), round(float(np.std(values, ddof=len(values) > 1)), 4)]
                 for name, values in row.items()} for key, row in scores.items()}
  ours, narrow, walking, training = (statistics.median(column) for column in zip(*turns))
  ratio, of_narrow = (statistics.median((turn[2] + turn[3]) / turn[i] for turn in turns) for i in range(2))
  return {"summary": f"{ratio:.2f} x as fast as ensmallen's walks and gensim, {ours:.0f} s against {walking:.0f} + "
                     f"{training:.0f} s (median of {len(turns)} turns), in bfloat16 {of_narrow:.2f} x, "
                     f"{narrow:.0f} s; (bfloat16; gensim) " + ", ".join(
                         f"{key} {row['ours'][0]:.3f} ({row['bfloat16'][0]:.3f}; {row['gensim'][0]:.3f})"
                         for key, row in table.items()),
          "ratio": {"float32": round(ratio, 3), "bfloat16": round(of_narrow, 3)},
          "seconds": [[round(x, 1) for x in turn] for turn in turns], "metrics": table}


def netmf() -> dict:
  """NetMF from graph to vectors beside the same formula in scipy, `eigsh` and `svds` at their defaults, by turns.

  T = 10 by 256 eigenpairs; for Wikipedia T = 1. Each turn compiles anew; then as many read compiled programs from a
  directory, as later runs with `--compilation_cache` do.
  """
  dataset = read(FLAGS.data, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir)
  window = 1 if FLAGS.data == "wikipedia-pos" else 10
  turns: dict[str, list[tuple[float, float]]] = {"compiling": [], "cached": []}

  def fit(seed):
    start = time.perf_counter()
    run = ej.fit("netmf", dataset, preset="small", seed=seed, window=window)
    return run, time.perf_counter() - start

  with tempfile.TemporaryDirectory() as folder:
    for how in turns:
      if how == "cached":
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        fit(FLAGS.seed)
      for turn in range(FLAGS.repeats):
        run, own = fit(FLAGS.seed + turn)
        start = time.perf_counter()
        theirs = _scipy_netmf(dataset.graph, window)
        turns[how].append((own, time.perf_counter() - start))
    ours = run.embed(dataset.items)
    jax.config.update("jax_compilation_cache_dir", None)
  scores = {name: {key.split("/", 2)[2]: round(value, 4) for key, value in node_classification(
      lambda items, vectors=vectors: vectors, dataset, seed=FLAGS.seed).items()
                   if "oracle-k" in key and not key.endswith("std")} for name, vectors in (("ours", ours),
                                                                                         ("scipy", theirs))}
  gram = ours @ ours.T
  error = float(np.abs(gram - theirs @ theirs.T).max() / np.abs(gram).max())
  ratios = {how: statistics.median(theirs / own for own, theirs in pairs) for how, pairs in turns.items()}
  medians = {how: statistics.median(own for own, _ in pairs) for how, pairs in turns.items()}
  return {"summary": f"{ratios['cached']:.2f} x as fast as scipy, {medians['cached']:.1f} s, "
                     f"{ratios['compiling']:.2f} x where it compiles first, {medians['compiling']:.1f} s; "
                     f"Gram matrices differ by {error:.1e}; (scipy) " + ", ".join(
                         f"{key} {value:.3f} ({scores['scipy'][key]:.3f})" for key, value in scores["ours"].items()),
          "ratio": {how: round(ratio, 3) for how, ratio in ratios.items()},
          "seconds": {how: [[round(x, 2) for x in turn] for turn in pairs] for how, pairs in turns.items()},
          "error_of_gram": float(f"{error:.1e}"), "metrics": scores}


def large_graph() -> dict:
  """DeepWalk on a power-law graph of --rows nodes, ten times as many edges and a hub of a tenth of the nodes.

  Half of the edges are held out; one walk of 40 nodes from each node is learnt from, links are evaluated. Memory is
  the process' peak in GB, of the steps up to then; a hub should cost the logarithm of its neighbors, so first-order
  walks are timed beside a ring with as many edges.
  """
  size, peak = FLAGS.rows, {}
  noise = np.random.default_rng(FLAGS.seed)
  mass = np.cumsum((np.arange(size) + 10.0) ** -0.6)
  edges = np.stack([np.searchsorted(mass, noise.random(10 * size) * mass[-1]), noise.integers(0, size, 10 * size)], 1)
  hub = noise.permutation(size)[:size // 10]
  edges[:len(hub)] = np.stack([np.zeros(len(hub), np.int64), hub], 1)
  table = build_graph(range(size), edges, where="power-law graph")
  del edges
  degree = int(np.diff(table.indptr).max())
  dataset = read("power-law graph", dataset=graph_dataset("power-law graph", table), held_out=0.5)
  del table
  peak["graph"] = _status("VmHWM") / 1024
  start = time.perf_counter()
  run = ej.fit("deepwalk", dataset, preset="small", data_options={"num_walks": 1}, seed=FLAGS.seed)
  seconds = time.perf_counter() - start
  peak["training"] = _status("VmHWM") / 1024
  links = run.evaluate("link_prediction")
  peak["evaluation"] = _status("VmHWM") / 1024
  rates = {}
  reach = np.arange(1, 11)
  ring = build_graph(range(size), (np.arange(size)[:, None, None] + np.stack(
      [np.zeros(10, np.int64), reach], 1)).reshape(-1, 2) % size, where="ring")
  for name, graph in (("power law", dataset.graph), ("ring", ring)):
    rates[name] = statistics.median(_drawn(graph, 1.0, 1.0, turn, num_walks=1)[0] for turn in range(FLAGS.repeats))
  shown = {key.rsplit("/", 1)[0].rsplit("/", 1)[-1]: round(value, 3) for key, value in links.items()
           if "test/" in key and key.endswith("/auc")}
  return {"summary": f"{size:,} nodes, {len(dataset.graph.indices) // 2:,} edges and as many held out, a hub of "
                     f"{degree:,}: peak {max(peak.values()):.2f} GB, training {seconds:.0f} s; walks "
                     f"{rates['power law']:.1f} million steps a second, of a ring {rates['ring']:.1f}; AUC of "
                     + ", ".join(f"{name} {value}" for name, value in shown.items()),
          "peak_gb": {name: round(value, 2) for name, value in peak.items()}, "seconds": round(seconds),
          "rates": {name: round(value, 2) for name, value in rates.items()}, "auc": shown}


def unseen_nodes() -> dict:
  """Accuracy on nodes that training has not seen, a tenth of all, by the ways to embed them; means over divisions.

  The classifier, that of `node_classification`, learns from all other nodes. `majority` predicts their largest class.
  """
  dataset = read(FLAGS.data, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir)
  (labels,) = dataset.labels.values()
  if np.ndim(labels) > 1:
    raise InputError(f"--data={FLAGS.data}: nodes with one label each are needed, as cora has")
  member = membership(np.asarray(labels))[0]
  source, target, _ = coordinates(dataset.graph)
  scores: dict[str, list[float]] = {}
  for seed in range(FLAGS.seed, FLAGS.seed + FLAGS.seeds):
    unseen = np.random.default_rng(seed).random(len(dataset.items)) < 0.1
    kept = np.flatnonzero(~unseen)
    inside = ~unseen[source] & ~unseen[target] & (source <= target)
    edges = np.searchsorted(kept, np.stack([source[inside], target[inside]], 1))
    rest = graph_dataset(dataset.name, build_graph([dataset.items[i] for i in kept], edges, where=dataset.name))
    around = {i: target[(source == i) & ~unseen[target]] for i in np.flatnonzero(unseen)}
    asked = [i for i, neighbors in around.items() if len(neighbors)]
    new = [(dataset.items[i], [dataset.items[j] for j in around[i]]) for i in asked]
    means = [np.searchsorted(kept, around[i]) for i in asked]
    ways = {}
    for name, options in (("deepwalk", {"data_options": {"unseen": "walks"}}), ("netmf", {})):
      run = ej.fit(name, rest, preset="small", seed=seed, **options)
      seen = run.embed(rest.items)
      ways[f"{name}, {'walks' if name == 'deepwalk' else 'projection'}"] = seen, run.embed(new)
      ways[f"{name}, mean of neighbors"] = seen, np.stack([seen[rows].mean(0) for rows in means])
    right = member[asked]
    for way, (seen, vectors) in ways.items():
      predicted = one_vs_rest(seen.astype(np.float64), member[kept])(vectors.astype(np.float64)).argmax(1)
      scores.setdefault(way, []).append(float(right[np.arange(len(asked)), predicted].mean()))
    scores.setdefault("majority", []).append(float(right[:, member[kept].sum(0).argmax()].mean()))
  rows = {way: [round(value, 4) for value in mean_and_std(values)] for way, values in scores.items()}
  return {"summary": f"{FLAGS.data}, accuracy on unseen nodes: " + ", ".join(
      f"{way} {mean:.3f} +- {std:.3f}" for way, (mean, std) in rows.items()), "accuracy": rows}


def _scipy_netmf(graph, window: int, dim: int = 128, rank: int = 256) -> np.ndarray:
  """Returns vectors [n, dim] by algorithms 3 (T = 1) and 4 of Qiu et al. 2018."""
  n = len(graph.names)
  weights = np.ones(len(graph.indices)) if graph.weights is None else graph.weights
  adjacency = scipy.sparse.csr_matrix((weights, graph.indices, graph.indptr), shape=(n, n))
  degrees = np.asarray(adjacency.sum(1)).ravel()
  inverse = np.divide(1, degrees, out=np.zeros(n), where=degrees > 0)
  if window == 1:
    matrix = degrees.sum() * scipy.sparse.diags(inverse) @ adjacency @ scipy.sparse.diags(inverse)
    matrix.data = np.log(np.maximum(1, matrix.data))
  else:
    root = scipy.sparse.diags(np.sqrt(inverse))
    values, vectors = scipy.sparse.linalg.eigsh(root @ adjacency @ root, rank, which="LA")
    kept = np.maximum(np.mean([values**r for r in range(1, window + 1)], 0), 0)
    factor = root @ vectors * np.sqrt(kept * degrees.sum())
    matrix = np.log(np.maximum(1, factor @ factor.T))
  left, magnitudes, _ = scipy.sparse.linalg.svds(matrix, dim)
  return (left * np.sqrt(magnitudes)).astype(np.float32)


def _drawn(table, p: float, q: float, seed: int, num_walks: int = NUM_WALKS,
           length: int = LENGTH) -> tuple[float, float]:
  """Returns million steps per second of wall time and of CPU time."""
  start, used = time.perf_counter(), time.process_time()
  steps = sum(int((part[:, 1:] >= 0).sum()) for part in draw(
      table, num_walks=num_walks, length=length, p=p, q=q, seed=seed)) / 1e6
  return steps / (time.perf_counter() - start), steps / (time.process_time() - used)


def _peers(*names: str) -> dict[str, str]:
  """Returns the Python interpreter of each peer."""
  names = names or tuple(PEERS)
  peers = dict(one.split("=", 1) for one in FLAGS.peer.split(",") if "=" in one)
  missing = [name for name in names if not pathlib.Path(peers.get(name, "")).is_file()]
  if missing:
    raise InputError(f"--peer={FLAGS.peer}: the Python of an environment with {missing[0]} is needed, as in "
                     + ",".join(f"{name}=FOLDER/bin/python" for name in names))
  return {name: peers[name] for name in names}


def _walks_of(name: str, python: str, edges: str, num_walks: int, length: int, p: float, q: float,
              output: str = "") -> dict:
  done = subprocess.run([python, "-c", PEERS[name], edges, *map(str, (num_walks, length, p, q)), output],
                        capture_output=True, text=True)
  if done.returncode:
    raise InputError(f"--peer: {name} ended with {(done.stderr.strip().splitlines() or [done.returncode])[-1]}")
  return json.loads(done.stdout.splitlines()[-1])


def _edge_list(table, folder: str) -> str:
  """Writes the undirected, unweighted graph, each edge once, nodes as numbers; returns the file."""
  if table.directed or table.weights is not None:
    raise InputError(f"--data={FLAGS.data}: peers are compared on undirected graphs without weights")
  rows = np.repeat(np.arange(len(table.names)), np.diff(table.indptr))
  once = rows <= table.indices
  path = f"{folder}/edges.tsv"
  np.savetxt(path, np.stack([rows[once], table.indices[once]], 1), fmt="%d", delimiter="\t")
  return path


def _reset_peak() -> float:
  """Resets the process' peak of memory and returns what it has now, in MiB."""
  pathlib.Path("/proc/self/clear_refs").write_text("5")
  return _status("VmRSS")


def _status(field: str) -> float:
  lines = pathlib.Path("/proc/self/status").read_text().splitlines()
  return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":"))
