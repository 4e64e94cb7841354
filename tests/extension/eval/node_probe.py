"""Classes of nodes from those of half of them, by a linear probe on a seeded, stratified half."""
import numpy as np

from embeddings_jax.eval.linear_probe import probe_accuracy, split_rows
from embeddings_jax.types import Metric, Protocol


def node_probe(embed, dataset, *, seed=0):
  vectors, labels = np.asarray(embed(dataset.items)), dataset.labels["class"]
  train, test = split_rows({}, labels, seed)
  return {"test/node_accuracy": probe_accuracy(vectors[train], labels[train], vectors[test], labels[test], seed=seed)}


PROTOCOL = Protocol(node_probe, labels=True, metrics={"node_accuracy": Metric(True, "fraction")})
