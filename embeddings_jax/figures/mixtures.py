"""Mixtures of Gaussians: their components, how they came about, and who belongs to which."""
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from embeddings_jax.train.loop import programs
from embeddings_jax.types import Figure, Model, PyTree

COURSE = (0, 1, 2, 5, 10)  # Iterations of a mixture that are drawn beside its last.
COURSE_ROWS = 20_000  # Of larger sets no iteration is repeated for a figure.
SHOWN_ROWS = 300  # Rows of which responsibilities are drawn.


def mixture(plt: Any, parts: dict[str, np.ndarray], data: Any, resp: np.ndarray) -> Any:
  """Ellipses of one and two deviations, over two features or the first two principal components."""
  x = filled(data.encoder.encode(data.dataset.items)["x"])
  columns = data.dataset.columns
  if x.shape[1] == 1:
    return _mixture_1d(plt, parts, x[:, 0], columns)
  center, basis, labels = plane(x, columns)
  figure, axes = plt.subplots(figsize=(6, 5))
  _ellipses(plt, axes, parts, resp, (x - center) @ basis, center, basis)
  axes.set(xlabel=labels[0], ylabel=labels[1], title="Components: 1 and 2 standard deviations")
  return figure


def mixture_course(plt: Any, model: Model, state: PyTree, data: Any, seed: int, steps: int) -> Any:
  """The mixture after several iterations, over the rows that it learns from, in the colors of what explains them.

  The first iterations are made again: the run is a function of its seed.
  """
  make_state, many_updates = programs(model, data.splits["train"])
  resident = dict(data.splits["train"].resident)
  update = jax.jit(many_updates)
  current, at, shown = jax.jit(make_state)(np.uint32(seed), resident, {}), 0, []
  chosen = [step for step in COURSE if step < steps]
  for step in chosen:
    for number in range(at, step):
      current, _ = update(current, np.uint32(seed), np.array([number], np.int32), np.int32(1), resident, {})
    at = step
    shown.append((step, current))
  shown.append((steps, state))
  if "best_start" in model.outputs:  # Of several starts, the course of the one that is best in the end.
    best = int(model.outputs["best_start"](state))
    shown = [(step, jax.tree.map(lambda x: np.repeat(np.asarray(x)[best:best + 1], len(x), 0), at_step))
             for step, at_step in shown]
  x = resident["x"]
  whole = filled(x)
  center, basis, labels = plane(whole, data.dataset.columns)
  points = (whole - center) @ basis
  rows = -(-len(shown) // 3)
  figure, axes = plt.subplots(rows, min(len(shown), 3), figsize=(4 * min(len(shown), 3), 3.4 * rows), sharex=True,
                              sharey=True, squeeze=False)
  embed, components = jax.jit(model.embed), jax.jit(model.outputs["components"])
  for axis, (step, at_step) in zip(axes.flat, shown):
    at_step = jax.tree.map(np.asarray, at_step)
    parts, resp = jax.tree.map(np.asarray, (components(at_step), embed(at_step, {"x": x})))
    _ellipses(plt, axis, parts, resp, points, center, basis)
    axis.set_title(f"after {step} iterations" if step != 1 else "after 1 iteration", fontsize="medium")
  for axis in axes.flat[len(shown):]:
    axis.set_axis_off()
  margin = 0.15 * (points.max(0) - points.min(0)) + 1e-9
  axes[0, 0].set(xlim=(points[:, 0].min() - margin[0], points[:, 0].max() + margin[0]),
                 ylim=(points[:, 1].min() - margin[1], points[:, 1].max() + margin[1]))
  figure.supxlabel(labels[0])
  figure.supylabel(labels[1])
  figure.tight_layout()
  return figure


def _ellipses(plt: Any, axes: Any, parts: dict[str, np.ndarray], resp: np.ndarray, points: np.ndarray,
              center: np.ndarray, basis: np.ndarray) -> None:
  """Points in the mixture of their components' colors, and each component's ellipses."""
  colors = component_colors(plt, len(parts["means"]))
  axes.scatter(*points.T, s=8, c=np.clip(resp @ colors, 0, 1), alpha=0.6, linewidths=0)
  circle = np.stack([np.cos(np.linspace(0, 2 * np.pi, 100)), np.sin(np.linspace(0, 2 * np.pi, 100))])
  for mean, covariance, color in zip((parts["means"] - center) @ basis, parts["covariances"], colors):
    values, directions = np.linalg.eigh(basis.T @ covariance @ basis)
    outline = directions @ (np.sqrt(np.maximum(values, 0))[:, None] * circle)
    for num_std in (1, 2):
      axes.plot(*(mean[:, None] + num_std * outline), color=color, linewidth=1.8 / num_std)
    axes.plot(*mean, marker="x", color=color)


def responsibilities(plt: Any, resp: np.ndarray, seed: int) -> Any:
  """A bar a row, of the parts that the components have in it, sorted by the first of them and its part."""
  shown = resp
  if len(resp) > SHOWN_ROWS:
    shown = resp[np.random.default_rng(seed).choice(len(resp), SHOWN_ROWS, replace=False)]
  first = shown.argmax(1)
  shown = shown[np.lexsort((-shown[np.arange(len(shown)), first], first))]
  figure, axes = plt.subplots(figsize=(8, 2.8))
  bottom = np.zeros(len(shown))
  for k, color in enumerate(component_colors(plt, shown.shape[1])):
    axes.bar(np.arange(len(shown)), shown[:, k], 1.0, bottom, color=color, label=str(k + 1))
    bottom += shown[:, k]
  number = f"{len(shown)} of {len(resp)} rows" if len(shown) < len(resp) else f"{len(resp)} rows"
  axes.set(xlim=(-0.5, len(shown) - 0.5), ylim=(0, 1), xlabel=f"{number}, by component", ylabel="responsibility")
  if shown.shape[1] <= 20:
    axes.legend(title="component", fontsize="small", loc="upper left", bbox_to_anchor=(1, 1),
                ncols=1 + (shown.shape[1] - 1) // 10)
  return figure


def component_colors(plt: Any, num: int) -> np.ndarray:
  """RGB [num, 3]."""
  return plt.get_cmap("tab10" if num <= 10 else "turbo")(np.linspace(0, 1, max(num, 10)))[:num, :3]


def filled(x: np.ndarray) -> np.ndarray:
  """Rows with the mean of the column where a value is missing."""
  return np.where(np.isnan(x), np.nanmean(x, axis=0), x) if np.isnan(x).any() else x


def plane(x: np.ndarray, columns: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray, list[str]]:
  """Center, basis [d, 2] and labels of two features, or of the first two principal components."""
  if x.shape[1] == 2:
    return np.zeros(2), np.eye(2), list(columns) if columns else ["first feature", "second feature"]
  center = x.mean(0)
  basis = np.linalg.svd(x - center, full_matrices=False)[2][:2].T
  return center, basis, ["first principal component", "second principal component"]


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


def _is_mixture(drawing: Any) -> bool:
  return {"means", "covariances"} <= drawing.components.keys()


def _has_all_rows(drawing: Any) -> bool:
  """Returns whether there are responsibilities of all rows, which of large datasets there are not."""
  return _is_mixture(drawing) and len(drawing.embeddings) == len(drawing.dataset.items)


def _is_repeatable(drawing: Any) -> bool:
  """Returns whether the first iterations can be made again for a figure."""
  if not _is_mixture(drawing) or not drawing.log:
    return False
  source = drawing.splits["train"]
  return (source.whole and source.batch_size <= COURSE_ROWS and drawing.components["means"].shape[1] > 1
          and drawing.log[-1]["step"] > 0)


FIGURES = (
    Figure("mixture", lambda plt, drawing: mixture(plt, drawing.components, drawing, drawing.embeddings),
           outputs=("components",), applies=_has_all_rows),
    Figure("responsibilities", lambda plt, drawing: responsibilities(plt, drawing.embeddings, drawing.seed),
           outputs=("components",), applies=_has_all_rows),
    Figure("mixture_course",
           lambda plt, drawing: mixture_course(plt, drawing.model, drawing.state, drawing, drawing.seed,
                                               drawing.log[-1]["step"]),
           outputs=("components",), applies=_is_repeatable),
)
