"""Principal components, and what they keep of images and other rows."""
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from embeddings_jax.figures.pictures import reconstructions
from embeddings_jax.types import Figure


def principal_components(plt: Any, parts: dict[str, np.ndarray], data: Any) -> dict[str, Any]:
  """Explained variance; of images the components and reconstructions, of other rows the line and the plane."""
  x = data.encoder.encode(data.dataset.items)["x"]
  made = {"explained_variance": _explained_variance(plt, parts["explained_variance_ratio"])}
  if data.dataset.image_shape:
    pixels = _pixels(data)
    titles = [f"{i}: {ratio:.1%}" for i, ratio in enumerate(parts["explained_variance_ratio"], 1)]
    made["components"] = _component_pictures(plt, parts["components"], parts["mean"], pixels, titles,
                                             "Mean and principal components, with their shares of the variance")
    made["reconstructions"] = _reconstructions(plt, parts, x, pixels, data.dataset.labels)
  elif x.shape[1] > 1:
    made["fit"] = line_and_plane(plt, parts, x, data.dataset)
  return made


def _explained_variance(plt: Any, ratio: np.ndarray) -> Any:
  figure, axes = plt.subplots(figsize=(6, 4))
  number = np.arange(1, len(ratio) + 1)
  axes.bar(number, ratio, color="tab:blue", alpha=0.5, width=0.8, label="of each component")
  axes.plot(number, np.cumsum(ratio), color="black", marker="." if len(ratio) <= 40 else "", label="of all up to it")
  axes.set(xlabel="component", ylabel="share of the variance", ylim=(0, 1.03), title="Explained variance")
  axes.xaxis.get_major_locator().set_params(integer=True)
  axes.grid(alpha=0.3)
  axes.legend(loc="center right")
  return figure


def _pixels(data: Any) -> Callable[[np.ndarray], np.ndarray]:
  """Returns a function that turns rows of features into images."""
  std = 1 if data.encoder.std is None else data.encoder.std
  origin = 0 if data.encoder.mean is None else data.encoder.mean
  return lambda rows: np.reshape(rows * std + origin, (-1, *data.dataset.image_shape))


def _component_pictures(plt: Any, components: np.ndarray, mean: np.ndarray, pixels: Any, titles: Sequence[str],
                        title: str) -> Any:
  """The mean and the first components, each scaled to its largest weight: gray, or red and blue, is 0."""
  chosen, shape = components[:23], pixels(mean).shape[1:]
  columns = min(8, len(chosen) + 1)
  lines = -(-(len(chosen) + 1) // columns)
  figure, axes = plt.subplots(lines, columns, figsize=(1.3 * columns, 1.6 * lines), squeeze=False)
  for axis in axes.flat:
    axis.axis("off")
  axes.flat[0].imshow(np.clip(pixels(mean)[0], 0, 1), cmap="gray", vmin=0, vmax=1)
  axes.flat[0].set_title("mean", fontsize=8)
  for i, (axis, row) in enumerate(zip(axes.flat[1:], chosen)):
    weights = np.reshape(row / max(np.abs(row).max(), 1e-30), shape)
    axis.imshow((weights + 1) / 2, cmap="RdBu_r", vmin=0, vmax=1)
    axis.set_title(titles[i], fontsize=8)
  figure.suptitle(title)
  return figure


def _reconstructions(plt: Any, parts: dict[str, np.ndarray], x: np.ndarray, pixels: Any, labels: Any) -> Any:
  """Some images, one of each class where there are classes, from more and more components."""
  classes = np.asarray(next(iter(labels.values()))) if labels else np.arange(len(x))
  rows = np.unique(classes, return_index=True)[1]
  if len(rows) == len(x) or len(rows) < 4:  # Nothing to choose by.
    rows = np.linspace(0, len(x) - 1, min(10, len(x))).astype(int)
  rows = rows[:10]
  total = len(parts["components"])
  numbers = [0, *(k for k in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512) if k < total), total]
  centered = x[rows] - parts["mean"]
  codes = centered @ parts["components"].T
  figure, axes = plt.subplots(len(rows), len(numbers) + 1, figsize=(0.95 * (len(numbers) + 1), 0.95 * len(rows)),
                              squeeze=False)
  for column, k in enumerate([*numbers, None]):
    made = x[rows] if k is None else parts["mean"] + codes[:, :k] @ parts["components"][:k]
    for axis, picture in zip(axes[:, column], pixels(made)):
      axis.imshow(np.clip(picture, 0, 1), cmap="gray", vmin=0, vmax=1)
      axis.axis("off")
    axes[0, column].set_title("picture" if k is None else "mean" if not k else f"k = {k}", fontsize=8)
  figure.suptitle("Reconstructions from the first k components", y=0.94)
  figure.subplots_adjust(wspace=0.05, hspace=0.05)
  return figure


def line_and_plane(plt: Any, parts: dict[str, np.ndarray], x: np.ndarray, dataset: Any) -> Any:
  """The line of the first component, over two features, and the plane of the first two, over three: the cloud's best
  ones, or where it has more features their images in those that vary most along them. Each point is tied to its
  reconstruction."""
  rows = np.sort(np.random.default_rng(0).permutation(len(x))[:300])
  name, label = next(((name, np.asarray(values)[rows]) for name, values in dataset.labels.items()
                      if len(np.unique(values)) <= 10), ("", None))
  classes, color = ([], np.zeros(len(rows), int)) if label is None else np.unique(label, return_inverse=True)
  color = plt.get_cmap("tab10")(color)
  names = dataset.columns or [f"feature {i + 1}" for i in range(x.shape[1])]
  panels = [k for k in (1, 2) if x.shape[1] > k and len(parts["components"]) >= k]
  figure = plt.figure(figsize=(6 * len(panels), 5))
  for panel, k in enumerate(panels, 1):
    basis = parts["components"][:k]
    seen = np.sort(np.argsort(-(parts["explained_variance"][:k] @ basis ** 2), kind="stable")[:k + 1])
    points = x[rows]
    codes = (points - parts["mean"]) @ basis.T
    on, points = (parts["mean"] + codes @ basis)[:, seen], points[:, seen]
    axes = figure.add_subplot(1, len(panels), panel, projection="3d" if k == 2 else None)
    ties = np.stack([points, on, np.full_like(on, np.nan)], 1).reshape(-1, k + 1)
    axes.plot(*ties.T, color="0.6", linewidth=0.5)
    axes.scatter(*points.T, c=color, s=12, linewidths=0, alpha=0.9, depthshade=False) if k == 2 else axes.scatter(
        *points.T, c=color, s=12, linewidths=0, zorder=3)
    ends = [codes.min(0), codes.max(0)]
    grid = np.stack(np.meshgrid(*[np.linspace(*end, 2) for end in np.transpose(ends)], indexing="ij"), -1)
    surface = (parts["mean"] + grid @ basis)[..., seen]
    if k == 1:
      axes.plot(*surface.T, color="black")
      axes.set_aspect("equal", "datalim")
    else:
      axes.plot_surface(*np.moveaxis(surface, -1, 0), color="0.5", alpha=0.25)
      axes.set_zlabel(names[seen[2]])
      axes.set_aspect("equal")
    subspace, many = ("line", "two") if k == 1 else ("plane", "three")
    where = "" if x.shape[1] == k + 1 else f", seen in {many} of {x.shape[1]} features"
    axes.set(xlabel=names[seen[0]], ylabel=names[seen[1]], title=f"Best {subspace}{where}")
    if panel == 1:
      for i, each in enumerate(classes):
        axes.scatter([], [], s=12, color=plt.get_cmap("tab10")(i), label=str(each))
      if len(classes):
        axes.legend(title=name, fontsize="small")
  return figure


def _is_linear_code_of_images(drawing: Any) -> bool:
  return {"encoder", "decoder", "mean"} <= drawing.components.keys() and bool(drawing.dataset.image_shape)


def _draw_linear_code(plt: Any, drawing: Any) -> dict[str, Any]:
  """The rows of a linear decoder, which may be any basis of the span of the principal components, and images beside
  their reconstructions."""
  parts, pixels = drawing.components, _pixels(drawing)
  titles = [str(i) for i in range(1, len(parts["decoder"]) + 1)]
  items = drawing.dataset.items
  batch = drawing.encoder.encode(items[np.linspace(0, len(items) - 1, min(12, len(items))).astype(int)])
  images = {name: pixels(rows) for name, rows in drawing.output("reconstruct", batch).items()}
  return {"components": _component_pictures(plt, parts["decoder"], parts["mean"], pixels, titles,
                                            "Mean and rows of the linear decoder"),
          "reconstructions": reconstructions(plt, images)}


FIGURES = (
    Figure("linear_code", _draw_linear_code, outputs=("components", "reconstruct"),
           applies=_is_linear_code_of_images),
    Figure("principal_components", lambda plt, drawing: principal_components(plt, drawing.components, drawing),
           outputs=("components",), applies=lambda drawing: "explained_variance_ratio" in drawing.components),
)
