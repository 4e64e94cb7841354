"""Graphs: small ones that networkx brings, and the published ones of node classification."""
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from embeddings_jax.data import formats
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.datasets.base import NOT_STATED, Entry, Place
from embeddings_jax.data.files.graphs import build_graph, read_graph
from embeddings_jax.data.graphs import from_object, graph_dataset, read_labels

_NETWORKX = "BSD-3-Clause (networkx)"


def _karate(name: str, place: Place) -> Dataset:
  import networkx as nx

  club = nx.karate_club_graph()
  for _, _, data in club.edges(data=True):
    data["weight"] = 1.0  # Zachary's own edges; networkx adds the weights of his second table.
  return from_object(club, name)


def _bipartite(name: str, place: Place) -> Dataset:
  import networkx as nx

  women = nx.davis_southern_women_graph()
  dataset = from_object(women, name)
  return dataset._replace(labels={"side": np.array(["woman" if data["bipartite"] == 0 else "event"
                                                    for _, data in women.nodes(data=True)])})


def _of_networkx(name: str, place: Place, graph: Callable[[Any], Any]) -> Dataset:
  import networkx as nx

  return from_object(graph(nx), name)


def _blogcatalog(name: str, place: Place) -> Dataset:
  (path,) = place.files.values()
  table = read_graph(path, variable="network")
  return graph_dataset(name, table, read_labels(f"{path}:group", table.names))


def _wikipedia(name: str, place: Place) -> Dataset:
  edges, groups = (place.files[f"graphs/wikipedia.{suffix}"] for suffix in ("ungraph", "cmty"))
  table = read_graph(edges)
  return graph_dataset(name, table, read_labels(str(groups), table.names))


def _cora(name: str, place: Place) -> Dataset:
  (path,) = place.files.values()
  arrays = formats.load_npz(path)
  table = build_graph(range(len(arrays["labels"])), arrays["edges"], where=name)
  return graph_dataset(name, table, {"class": arrays["labels"].astype(str)}, {
      "train": arrays["train"], "validation": arrays["val"], "test": arrays["test"]})


DATASETS = {
    "karate": Entry("graph", "34 members of a karate club, 78 friendships, 2 factions (Zachary 1977)", _NETWORKX,
                    _karate),
    "les-miserables": Entry(
        "graph", "77 characters, 254 weighted edges: chapters they share (Knuth 1993)", _NETWORKX,
        functools.partial(_of_networkx, graph=lambda nx: nx.les_miserables_graph())),
    "davis": Entry("graph", "18 women and 14 events they attended (Davis et al. 1941)", _NETWORKX, _bipartite),
    "florentine": Entry(
        "graph", "15 Florentine families, 20 marriages (Padgett & Ansell 1993)", _NETWORKX,
        functools.partial(_of_networkx, graph=lambda nx: nx.florentine_families_graph())),
    "blogcatalog": Entry(
        "graph", "10,312 bloggers, 333,983 friendships, 39 groups (Tang & Liu 2009)", NOT_STATED, _blogcatalog,
        {"graphs/blogcatalog.mat": "d4f4fb89ce1ccd4b7e2a183386c000773cc9362cc61f1be5b246a6d9c259da8f"}),
    "wikipedia-pos": Entry(
        "graph", "4,777 words of Wikipedia that occur together, 40 parts of speech (Grover & Leskovec 2016)",
        NOT_STATED, _wikipedia,
        {"graphs/wikipedia.ungraph": "b7fb8e25ce2870a518004e1efff4a691545d358fdb401bfa2f0d2091f58de4ef",
         "graphs/wikipedia.cmty": "4637f70be5df82868d01e2fca2c9a702d35457beedf0f42c55a79b749d1f2411"}),
    "cora": Entry(
        "graph", "2,708 papers, 5,278 citations, 7 topics, Planetoid's split (Sen et al. 2008; Yang et al. 2016)",
        NOT_STATED, _cora,
        {"graphs/cora.npz": "4be8a7d412a27e02a95adfb937a53307d46882f8111577065bd22a8d1e385779"}),
}
