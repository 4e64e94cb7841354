"""Clusters with hard assignments: their rows and centers."""
from typing import Any

import numpy as np

from embeddings_jax.figures.mixtures import component_colors, filled, plane
from embeddings_jax.types import Figure

MAX_ROWS = 5000  # Of more rows a sample is drawn.
MAX_NAMED = 20  # Clusters up to which a legend names them.


def clusters(plt: Any, x: np.ndarray, assigned: np.ndarray, centers: np.ndarray, columns: Any,
             subject: str = "") -> Any:
  """Draws rows in the colors of their clusters, with the centers, over two features or principal components.

  Args:
    plt: Pyplot.
    x: Rows `[num_rows, num_features]`.
    assigned: Number of each row's cluster, int `[num_rows]`.
    centers: `[num_clusters, num_features]`.
    columns: Names of the features, or None.
    subject: Name of the model and its data.
  """
  x = filled(x)
  if x.shape[1] == 1:
    x, centers = (np.pad(values, [(0, 0), (0, 1)]) for values in (x, centers))
    columns = [columns[0] if columns else "feature", ""]
  center, basis, labels = plane(x, columns)
  rows = np.sort(np.random.default_rng(0).permutation(len(x))[:MAX_ROWS])
  points, places = (x[rows] - center) @ basis, (centers - center) @ basis
  colors = component_colors(plt, len(centers))
  figure, axes = plt.subplots(figsize=(6, 5))
  named = len(centers) <= MAX_NAMED
  for k, color in enumerate(colors):
    members = assigned[rows] == k
    axes.scatter(*points[members].T, s=8, color=color, alpha=0.6, linewidths=0,
                 label=f"{k + 1} ({(assigned == k).sum():,} rows)" if named else None)
  axes.scatter(*places.T, marker="X", s=70, color=colors, edgecolors="black", linewidths=0.8,
               label="centers" if named else None)
  if named:
    axes.legend(title="cluster", fontsize="small", loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
  title = f"{len(centers)} clusters" + (f": {subject}" if subject else "")
  axes.set(xlabel=labels[0], ylabel=labels[1], title=title)
  return figure


def _draw(plt: Any, drawing: Any) -> Any:
  x = drawing.encoder.encode(drawing.dataset.items)["x"]
  return clusters(plt, x, drawing.embeddings.argmax(1), drawing.components["means"], drawing.dataset.columns,
                  drawing.subject)


def _has_clusters(drawing: Any) -> bool:
  return ("means" in drawing.components and "covariances" not in drawing.components
          and getattr(drawing.dataset, "kind", "") == "rows"
          and len(drawing.embeddings) == len(drawing.dataset.items))


FIGURES = (Figure("clusters", _draw, outputs=("components", "distances"), applies=_has_clusters),)
