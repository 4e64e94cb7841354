"""Figures of sweeps by `experiments.benchmark`."""
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embeddings_jax.figures import canvas


def draw_information_bounds(path: str, rows: Sequence[Mapping[str, Any]]) -> None:
  """Draws what `experiments.benchmark mutual_information` found into the file `path`.

  Args:
    path: Path of the figure.
    rows: each with `bound`, `num`, `truth`, and the means `trained` and `best` and their `_std` over batches.
  """
  plt = canvas.pyplot()
  figure = _information_bounds(plt, rows)
  canvas.save(plt, figure, path)


def draw_label_gain(path: str, rows: Sequence[Mapping[str, Any]], title: str) -> None:
  """Draws what `experiments.benchmark labels` found into the file `path`.

  Args:
    path: Path of the figure.
    rows: each with the number of `labels`, and for each way to learn from them its accuracy and `... std`.
    title: Title of the figure.
  """
  ways = [name for name in rows[0] if name != "labels" and not name.endswith(" std")]
  _draw_lines(path, [row["labels"] for row in rows],
              {name: [(row[name], row[f"{name} std"]) for row in rows] for name in ways},
              title, "labels of the training part", "accuracy on the test part", log=True)


def draw_mask_ratios(path: str, rows: Sequence[Mapping[str, Any]], title: str) -> None:
  """Draws what `experiments.benchmark mask_ratios` found into the file `path`.

  Args:
    path: Path of the figure.
    rows: each with `mask_ratio`, `accuracy` and its standard deviation `std`.
    title: Title of the figure.
  """
  _draw_lines(path, [row["mask_ratio"] for row in rows],
              {"linear probe": [(row["accuracy"], row["std"]) for row in rows]},
              title, "share of patches that is hidden", "accuracy on the test part")


def _draw_lines(path: str, x: Sequence[float], lines: Mapping[str, Sequence[tuple[float, float]]], title: str,
                xlabel: str, ylabel: str, log: bool = False) -> None:
  """A line for each name, of (value, deviation) by x."""
  plt = canvas.pyplot()
  figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
  for name, points in lines.items():
    values, std = np.transpose(points)
    axes.errorbar(x, values, std if std.any() else None, marker="o", capsize=3, label=name)
  if log:
    axes.set_xscale("log")
  axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
  axes.grid(alpha=0.3)
  if len(lines) > 1:
    axes.legend(frameon=False)
  canvas.save(plt, figure, path)


def _information_bounds(plt: Any, rows: Sequence[Mapping[str, Any]]) -> Any:
  """InfoNCE against the truth for each number of pairs, below log N; and the bounds beside each other for one."""
  names = {"info_nce": "InfoNCE", "nwj": "NWJ", "donsker_varadhan": "Donsker-Varadhan (MINE)"}
  column = lambda name, num, key: np.array([row[key] for row in rows if (row["bound"], row["num"]) == (name, num)])
  sizes = sorted({row["num"] for row in rows if row["bound"] == "info_nce"})
  compared = next((row["num"] for row in rows if row["bound"] != "info_nce"), sizes[-1])
  largest = max(row["truth"] for row in rows)
  figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), sharex=True, sharey=True)
  for axes in (left, right):
    axes.plot([0, largest], [0, largest], color="black", linewidth=1, label="the truth")
    axes.set(xlabel="mutual information (nats)", xlim=(0, 1.04 * largest), ylim=(0, 1.04 * largest))
    axes.grid(alpha=0.3)
  note = dict(textcoords="offset points", fontsize=8)
  for i, num in enumerate(sizes):
    color, truth = f"C{i}", column("info_nce", num, "truth")
    left.axhline(np.log(num), color=color, linestyle="--", linewidth=0.8)
    left.annotate(f"log {num}", (0, np.log(num)), (4, 2), color=color, **note)
    left.plot(truth, column("info_nce", num, "best"), color=color, linewidth=1)
    left.plot(truth, column("info_nce", num, "trained"), color=color, marker="o", markersize=5, linestyle="",
              label=f"N = {num}")
  left.plot([], [], color="0.4", linewidth=1, label="with the best critic")
  left.set(ylabel="lower bound (nats)", title="InfoNCE (points: trained critics)")
  left.legend(fontsize="small", loc="lower right", ncols=3)
  right.axhline(np.log(compared), color="0.4", linestyle="--", linewidth=0.8)
  right.annotate(f"log {compared}", (0, np.log(compared)), (4, 2), color="0.4", **note)
  for i, (name, label) in enumerate(names.items()):
    truth = column(name, compared, "truth")
    if len(truth):
      mean, std = (column(name, compared, key) for key in ("trained", "trained_std"))
      right.errorbar(truth + 0.06 * (i - 1), mean, std, color=f"C{len(sizes) + i}", marker="os^"[i],
                     markersize=5, linewidth=1, elinewidth=1, capsize=2, label=label)
  right.set(title=f"Trained critics, N = {compared} (bars: standard deviation over batches)")
  right.legend(fontsize="small", loc="lower right")
  figure.tight_layout()
  return figure
