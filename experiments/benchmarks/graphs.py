"""Random walks: steps a second; DeepWalk beside gensim on the same kind of walks."""
import resource
import statistics
import time

import numpy as np
from absl import flags

import embeddings_jax as ej
from embeddings_jax.data.graphs import read
from embeddings_jax.eval.node_classification import node_classification
from experiments.walk_corpus import draw

FLAGS = flags.FLAGS
ORDERS = {"first order": (1.0, 1.0), "p = q = 1/4": (0.25, 0.25), "p = 1/4, q = 4": (0.25, 4.0),
          "p = 4, q = 1/4": (4.0, 0.25), "p = 1000, q = 1/1000": (1000.0, 1e-3),
          "p = 1/1000, q = 1000": (1e-3, 1000.0)}
NUM_WALKS, LENGTH = 10, 80


def walks() -> dict:
  """Steps a second of `NUM_WALKS` walks of `LENGTH` nodes from each node, by wall time and by CPU time.

  The graph is read before; tables, compilation and the transfer of the walks to the host count.
  """
  table = read(FLAGS.data, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir).graph
  rates = {}
  for name, (p, q) in ORDERS.items():
    turns = []
    for turn in range(FLAGS.repeats):
      start, used = time.perf_counter(), time.process_time()
      steps = sum(int((part[:, 1:] >= 0).sum()) for part in draw(
          table, num_walks=NUM_WALKS, length=LENGTH, p=p, q=q, seed=turn))
      turns.append((steps / (time.perf_counter() - start), steps / (time.process_time() - used)))
    rates[name] = [statistics.median(column) / 1e6 for column in zip(*turns)]
  memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  return {"summary": f"{FLAGS.data}, million steps a second of wall time (of CPU time): " + ", ".join(
      f"{name} {wall:.1f} ({cpu:.1f})" for name, (wall, cpu) in rates.items()) + f"; {memory:.0f} MiB at most in all",
          "rates": {name: [round(value, 3) for value in pair] for name, pair in rates.items()},
          "memory_mib": round(memory)}


def deepwalk() -> dict:
  """One epoch of 80 walks of 40 nodes, ours from graph to vectors beside gensim on walks that lie ready.

  Both: window 10, 128 dimensions, 5 negatives, no subsampling, a rate that falls from .025, negative sampling.
  """
  import gensim

  dataset = read(FLAGS.data, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir)
  start = time.perf_counter()
  run = ej.fit("deepwalk", dataset, preset="small", seed=FLAGS.seed)
  ours = time.perf_counter() - start
  names = np.array(dataset.items, object)
  start = time.perf_counter()
  sentences = [list(names[walk[walk >= 0]]) for part in draw(dataset.graph, num_walks=80, length=40, seed=FLAGS.seed)
               for walk in part]
  walking = time.perf_counter() - start
  start = time.perf_counter()
  model = gensim.models.Word2Vec(sentences, vector_size=128, window=10, min_count=0, sg=1, negative=5, sample=0,
                                 epochs=1, workers=2, seed=FLAGS.seed)
  theirs = time.perf_counter() - start
  scores = {}
  if dataset.labels:
    for name, vectors in (("", run.embed(dataset.items)), ("gensim ", model.wv[list(dataset.items)])):
      results = node_classification(lambda items, vectors=vectors: vectors, dataset, seed=FLAGS.seed)
      scores[name] = {key: round(value, 4) for key, value in results.items() if "oracle-k" in key}
  shown = [f"{key.split('/', 2)[2]} {value:.3f} ({scores['gensim '][key]:.3f})" for key, value in scores.get(
      "", {}).items() if not key.endswith("std")]
  return {"summary": f"{theirs / ours:.2f} x as fast as gensim on ready walks, {ours:.0f} s against {theirs:.0f} s "
                     f"(beside {walking:.0f} s to write them as words); (gensim) {', '.join(shown)}",
          "seconds": round(ours, 1), "seconds_peer": round(theirs, 1), "seconds_walks_peer": round(walking, 1),
          "metrics": scores.get("", {}), "metrics_peer": scores.get("gensim ", {})}
