"""Benchmark of latent Dirichlet allocation beside scikit-learn."""
import statistics
import time

import jax
import numpy as np
from absl import flags
from scipy import sparse
from sklearn.decomposition import LatentDirichletAllocation

from embeddings_jax.data import pipelines
from embeddings_jax.runs import build, presets

FLAGS = flags.FLAGS


def lda() -> dict:
  """Seconds of a batch update of `lda`, from a start at 1 and from where the last update ended (`warm_start`), and of
  scikit-learn's (float32, as many processes as there are cores), on `--data`, by turns from the same topics, with the
  same tolerance of the E step; and how far the topics of the first two are apart.

  scikit-learn's update is that of its method `_em_step`, of which the mixtures start at 1.
  """
  config = presets.load_config("lda", "small")
  config.data.update(dict(name=FLAGS.data, part="train"))
  config.model.tol = 0.0
  data = build.prepare(config, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir)
  dataset = build.read_dataset(config, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir)
  own = pipelines.own_options(pipelines.find("bags"))
  options = {key: config.data[key] for key in own if key not in ("blocks", "held_out")}
  bags = pipelines.find("bags").counted(dataset, FLAGS.cache_dir, **options)
  table = sparse.csr_matrix((np.asarray(bags.count, np.float32), np.asarray(bags.col), np.asarray(bags.indptr)),
                            shape=(bags.facts["num_documents"], bags.facts["vocab_size"]))
  k = config.model.num_topics
  batch = jax.device_put(data.splits["train"].batch_at(0))
  updates, states = {}, {}
  for name, warm in (("cold", False), ("warm", True)):
    config.model.warm_start = warm
    model = build.make_model(config, data.facts, 1)
    updates[name] = jax.jit(model.update)
    states[name] = jax.jit(model.init)(jax.random.key(FLAGS.seed), batch)
    jax.block_until_ready(updates[name](states[name], batch, jax.random.key(0)))
  peer = LatentDirichletAllocation(k, n_jobs=-1, total_samples=table.shape[0], random_state=0)
  peer._init_latent_vars(table.shape[1], dtype=np.float32)
  inner = peer._e_step
  peer._e_step = lambda X, cal_sstats, random_init, parallel=None: inner(X, cal_sstats, False, parallel)
  peer._check_params = lambda: None
  turns, apart = [], []
  for _ in range(FLAGS.repeats + 1):
    topics = np.asarray(states["cold"].topics).T
    peer.components_ = topics.copy()
    peer.exp_dirichlet_component_ = np.exp(_expected_log(topics)).astype(np.float32)
    times = []
    for name, update in updates.items():
      began = time.perf_counter()
      states[name], _ = jax.block_until_ready(update(states[name], batch, jax.random.key(0)))
      times.append(time.perf_counter() - began)
    began = time.perf_counter()
    peer._em_step(table, total_samples=table.shape[0], batch_update=True)
    turns.append((*times, time.perf_counter() - began))
    difference = np.asarray(states["cold"].topics).T - peer.components_
    apart.append(float(np.abs(difference).max() / peer.components_.max()))
  turns = turns[1:]  # Of the first update there is no other to go on from.
  cold, warm, theirs = (statistics.median(column) for column in zip(*turns))
  ratios = [statistics.median(turn[2] / turn[i] for turn in turns) for i in (0, 1)]
  return {"summary": f"{ratios[1]:.1f} times as fast a batch update as scikit-learn, {ratios[0]:.1f} times from a "
                     f"cold start ({warm:.2f} s, {cold:.2f} s, {theirs:.2f} s, {FLAGS.data}, {k} topics, median of "
                     f"{len(turns)} turns); topics apart by at most {max(apart):.1e} of the largest entry",
          "ratio": round(ratios[1], 3), "ratio_cold": round(ratios[0], 3),
          "turns": [[round(x, 4) for x in turn] for turn in turns], "apart": apart,
          "documents": table.shape[0], "words": table.shape[1], "cells": table.nnz}


def _expected_log(topics: np.ndarray) -> np.ndarray:
  from scipy.special import digamma

  return digamma(topics) - digamma(topics.sum(1, keepdims=True))
