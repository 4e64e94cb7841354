"""Figures of a run, drawn from its log and from the model's named outputs. Alone in importing matplotlib."""
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from embeddings_jax.types import Model, PyTree
from experiments import workdir

NUM_WORDS = 150
SKIPPED_WORDS = 100  # The most frequent words are function words, which say little on a map.


def draw(path: epath.Path, model: Model, state: PyTree, data: Any, vectors: np.ndarray, names: Any) -> list[str]:
  """Draws what the model and its log give, into `figures/`; returns the files' names."""
  import matplotlib

  matplotlib.use("Agg")
  from matplotlib import pyplot as plt

  folder = path / "figures"
  folder.mkdir(parents=True, exist_ok=True)
  records = [record for record in workdir.read_metrics(path) if "loss" in record]
  made = {}
  if records:
    made["loss"] = _loss_curve(plt, records)
  if records and "bound_1" in records[-1]:
    made["bound"] = _bounds(plt, records)
  if "components" in model.outputs and data.encoder.kind == "rows":
    parts = jax.tree.map(np.asarray, model.outputs["components"](state, None, None))
    if {"means", "covariances"} <= parts.keys():
      made["mixture"] = _mixture(plt, parts, data, vectors)
  if data.encoder.names is not None:
    made["words"] = _word_map(plt, vectors, names)
  for name, figure in made.items():
    with (folder / f"{name}.png").open("wb") as file:
      figure.savefig(file, dpi=120, bbox_inches="tight")
    plt.close(figure)
  return [f"figures/{name}.png" for name in made]


def _loss_curve(plt: Any, records: Sequence[dict[str, float]]) -> Any:
  figure, axes = plt.subplots(figsize=(6, 4))
  axes.plot([r["step"] for r in records], [r["loss"] for r in records])
  axes.set(xlabel="step", ylabel="loss (nats)", title="Training loss")
  axes.grid(alpha=0.3)
  return figure


def _bounds(plt: Any, records: Sequence[dict[str, float]]) -> Any:
  figure, axes = plt.subplots(figsize=(6, 4))
  steps = [r["step"] for r in records]
  names = sorted((name for name in records[-1] if name.startswith("bound_")), key=lambda name: int(name[6:]))
  colors = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(names)))
  for name, color in zip(names, colors):
    axes.plot(steps, [r[name] for r in records], color=color, label=f"{name[6:]} ahead")
  if "log_num_candidates" in records[-1]:
    axes.axhline(records[-1]["log_num_candidates"], color="black", linestyle="--", label="log N")
  axes.set(xlabel="step", ylabel="nats", title="InfoNCE's lower bound on the mutual information")
  axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))  # Beside: the curves fill the axes.
  axes.grid(alpha=0.3)
  return figure


def _mixture(plt: Any, parts: dict[str, np.ndarray], data: Any, resp: np.ndarray) -> Any:
  """Ellipses of one and two deviations, over two features or the first two principal components."""
  x = data.encoder.encode(data.dataset.items)["x"]
  columns = data.dataset.columns
  if x.shape[1] == 1:
    return _mixture_1d(plt, parts, x[:, 0], columns)
  if x.shape[1] == 2:
    centre, basis = np.zeros(2), np.eye(2)
    labels = list(columns) if columns else ["first feature", "second feature"]
  else:
    centre = x.mean(0)
    basis = np.linalg.svd(x - centre, full_matrices=False)[2][:2].T
    labels = ["first principal component", "second principal component"]
  points, means = (x - centre) @ basis, (parts["means"] - centre) @ basis
  figure, axes = plt.subplots(figsize=(6, 5))
  colors = plt.get_cmap("tab10" if len(means) <= 10 else "turbo")(np.linspace(0, 1, max(len(means), 10)))
  axes.scatter(*points.T, s=8, c=colors[resp.argmax(1)], alpha=0.5, linewidths=0)
  circle = np.stack([np.cos(np.linspace(0, 2 * np.pi, 100)), np.sin(np.linspace(0, 2 * np.pi, 100))])
  for mean, covariance, color in zip(means, parts["covariances"], colors):
    values, directions = np.linalg.eigh(basis.T @ covariance @ basis)
    outline = directions @ (np.sqrt(np.maximum(values, 0))[:, None] * circle)
    for deviations in (1, 2):
      axes.plot(*(mean[:, None] + deviations * outline), color=color, linewidth=1.5 / deviations)
  axes.set(xlabel=labels[0], ylabel=labels[1], title="Components: 1 and 2 standard deviations")
  return figure


def _mixture_1d(plt: Any, parts: dict[str, np.ndarray], x: np.ndarray, columns: Any) -> Any:
  figure, axes = plt.subplots(figsize=(6, 4))
  axes.hist(x, bins=40, density=True, alpha=0.3)
  grid = np.linspace(x.min(), x.max(), 400)[:, None]
  variance = parts["covariances"][:, 0, 0]
  distance = (grid - parts["means"][:, 0]) ** 2 / variance
  density = parts["weights"] / np.sqrt(2 * np.pi * variance) * np.exp(-distance / 2)
  axes.plot(grid, density, linewidth=1)
  axes.plot(grid, density.sum(1), color="black")
  axes.set(xlabel=columns[0] if columns else "x", ylabel="density", title="Mixture and its components")
  return figure


def _word_map(plt: Any, vectors: np.ndarray, names: Sequence[str]) -> Any:
  from sklearn.manifold import TSNE

  first = SKIPPED_WORDS if len(names) >= SKIPPED_WORDS + 20 else 0
  chosen = vectors[first:first + NUM_WORDS]
  chosen = chosen / np.maximum(np.linalg.norm(chosen, axis=1, keepdims=True), 1e-12)
  perplexity = min(15, (len(chosen) - 1) / 3)
  places = TSNE(metric="cosine", init="random", perplexity=perplexity, random_state=0).fit_transform(chosen)
  figure, axes = plt.subplots(figsize=(11, 9))
  axes.scatter(*places.T, s=4)
  for (x, y), name in zip(places, names[first:]):
    axes.annotate(name, (x, y), fontsize=7)
  axes.set(xticks=[], yticks=[], title="Frequent words (t-SNE of cosine distances)")
  return figure
