"""Graphs: a map of their nodes, and how often walks visit them."""
from typing import Any

import numpy as np

from embeddings_jax.figures.words import principal_plane
from embeddings_jax.types import Figure

NUM_NODES = 2000  # A sample of larger graphs.
NAMED = 100  # Nodes up to which names are written.
MAX_EDGES = 5000
MAX_CLASSES = 10
WALKS = 4096  # At least as many are drawn for the frequencies of visits.


def node_map(plt: Any, vectors: np.ndarray, dataset: Any) -> Any:
  """Draws nodes by t-SNE of the cosine distances of their vectors, or few by PCA, colored by the first label.

  Of nodes with several labels the most frequent one counts.
  """
  rows = np.sort(np.random.default_rng(0).permutation(len(vectors))[:NUM_NODES])
  chosen = vectors[rows] - vectors.mean(0)
  chosen = chosen / np.maximum(np.linalg.norm(chosen, axis=1, keepdims=True), 1e-12)
  if len(rows) <= NAMED:
    points, share = principal_plane(chosen)
    how = f"PCA of centered unit vectors: {share:.0%} of the variance"
  else:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # scikit-learn brings it.

    with threadpool_limits(1):
      points = TSNE(metric="cosine", init="random", random_state=0).fit_transform(chosen)
    how = "t-SNE of cosine distances"
  figure, axes = plt.subplots(figsize=(9, 8))
  _draw_edges(axes, dataset.graph, rows, points)
  name, group, classes = _colors(dataset, rows)
  palette = plt.get_cmap("tab10")
  for i, each in enumerate(classes):
    axes.scatter(*points[group == i].T, s=40 if len(rows) <= NAMED else 9, color=palette(i), label=str(each),
                 linewidths=0, zorder=2)
  other = group < 0
  if other.any():
    axes.scatter(*points[other].T, s=9 if len(rows) > NAMED else 40, color="0.6", linewidths=0, zorder=1,
                 label="others" if classes else None)
  if classes:
    axes.legend(title=name, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
  if len(rows) <= NAMED:
    for point, row in zip(points, rows):
      axes.annotate(str(dataset.items[row]), point, (4, 3), textcoords="offset points", fontsize=7)
  axis = "principal component" if len(rows) <= NAMED else "t-SNE axis"
  axes.set(xticks=[], yticks=[], xlabel=f"first {axis}", ylabel=f"second {axis}", title=f"{len(rows)} nodes ({how})")
  return figure


def _draw_edges(axes: Any, table: Any, rows: np.ndarray, points: np.ndarray) -> None:
  """Draws the edges among the chosen nodes, unless they are too many."""
  from matplotlib.collections import LineCollection

  index = np.full(len(table.names), -1)
  index[rows] = np.arange(len(rows))
  source = np.repeat(np.arange(len(table.names)), np.diff(table.indptr))
  ends = np.stack([index[source], index[table.indices]], 1)
  ends = ends[(ends >= 0).all(1) & (ends[:, 0] != ends[:, 1])]
  if len(ends) <= MAX_EDGES:
    axes.add_collection(LineCollection(points[ends], colors="0.85", linewidths=0.5, zorder=0))


def _colors(dataset: Any, rows: np.ndarray) -> tuple[str, np.ndarray, list[Any]]:
  """Returns the label's name, the class of each node or -1, and the most frequent classes."""
  for name, labels in dataset.labels.items():
    labels = np.asarray(labels)
    if labels.ndim == 2:
      order = np.argsort(-labels.sum(0), kind="stable")
      first = np.where(labels.any(1), order[labels[:, order].argmax(1)], -1)[rows]
      classes = order[:MAX_CLASSES].tolist()
    else:
      first = labels[rows]
      names, counts = np.unique(first[first != ""] if first.dtype.kind == "U" else first, return_counts=True)
      classes = names[np.argsort(-counts, kind="stable")][:MAX_CLASSES].tolist()
    return name, np.array([classes.index(each) if each in classes else -1 for each in first.tolist()]), classes
  return "", np.full(len(rows), -1), []


def visits(plt: Any, degree: np.ndarray, counts: np.ndarray) -> Any:
  """Draws how often walks visit each node against its degree; on an undirected graph both are in proportion."""
  known = (degree > 0) & (counts > 0)
  figure, axes = plt.subplots(figsize=(7, 6))
  share = counts / counts.sum()
  axes.scatter(degree[known], share[known], s=9, alpha=0.5, linewidths=0)
  ends = np.array([degree[known].min(), degree[known].max()])
  axes.plot(ends, ends / degree.sum(), color="tab:red", linewidth=1, label="degree / volume, where long walks lead")
  axes.set(xscale="log", yscale="log", xlabel="degree (sum of weights)", ylabel="share of visits",
           title=f"{counts.sum():,.0f} visits of {len(degree):,} nodes")
  axes.legend(frameon=False)
  axes.grid(alpha=0.3)
  return figure


def _draw_visits(plt: Any, drawing: Any) -> Any:
  """Counts the walks of some training batches."""
  source, table = drawing.splits["train"], drawing.dataset.graph
  steps = min(source.facts["steps_per_epoch"], max(1, -(-WALKS // source.batch_size)))
  counts = np.zeros(len(table.names))
  for step in range(steps):
    walks = drawing.output("walks", source.batch_at(step))
    counts += np.bincount(walks[walks >= 0], minlength=len(counts))
  weights = np.ones(len(table.indices)) if table.weights is None else table.weights
  degree = np.bincount(np.repeat(np.arange(len(counts)), np.diff(table.indptr)), weights, len(counts))
  return visits(plt, degree, counts)


def _of_graph(drawing: Any) -> bool:
  return drawing.dataset is not None and getattr(drawing.dataset, "graph", None) is not None


FIGURES = (
    Figure("nodes", lambda plt, drawing: node_map(plt, drawing.embeddings, drawing.dataset), applies=_of_graph),
    Figure("visits", _draw_visits, outputs=("walks",), applies=_of_graph),
)
