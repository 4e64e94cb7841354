"""Training curves of several runs in one figure."""
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embeddings_jax.figures import canvas

MAX_PANELS = 12


def draw_curves(path: Any, logs: Mapping[str, Sequence[Mapping[str, float]]], metrics: Sequence[str]) -> None:
  """Draws a panel for each metric, with a line for each run, into the file `path`.

  Args:
    path: Path of the figure.
    logs: Name of each run -> records of its log.
    metrics: Names of the metrics, of which the first twelve are drawn.
  """
  plt = canvas.pyplot()
  canvas.save(plt, curves(plt, logs, metrics[:MAX_PANELS]), path)


def curves(plt: Any, logs: Mapping[str, Sequence[Mapping[str, float]]], metrics: Sequence[str]) -> Any:
  """Returns a figure with a panel for each metric."""
  columns = min(3, len(metrics))
  rows = -(-len(metrics) // columns)
  figure, grid = plt.subplots(rows, columns, figsize=(4.2 * columns, 3.2 * rows), squeeze=False, layout="constrained")
  colors = plt.get_cmap("tab10")
  for axes, metric in zip(grid.flat, metrics):
    for i, (name, records) in enumerate(logs.items()):
      points = [(record["step"], record[metric]) for record in records if metric in record]
      if points:
        axes.plot(*np.transpose(points), color=colors(i % 10), linestyle=("-", "--", ":")[i // 10 % 3], label=name,
                  marker="o" if len(points) < 3 else None)
    axes.set(xlabel="step (updates)", ylabel=metric)
    axes.grid(alpha=0.3)
  for axes in grid.flat[len(metrics):]:
    axes.set_axis_off()
  handles, labels = grid[0, 0].get_legend_handles_labels()
  figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 3), fontsize="small")
  return figure
