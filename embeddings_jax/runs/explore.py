"""Pages and files to explore embeddings with: a self-contained HTML map, and files of TensorBoard's projector."""
import importlib.resources
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from embeddings_jax.data.files.arrays import read_npy
from embeddings_jax.data.files.atomic import replacing, write_atomically
from embeddings_jax.errors import InputError, check_choice
from embeddings_jax.eval.neighbors import neighbors
from embeddings_jax.runs import row_index

PROJECTIONS = ("pca", "tsne")
_BESIDE = ("row", "item", "name", "text")  # Columns of an index that are no labels.


class Points(NamedTuple):
  """Embeddings with their names and labels.

  Attributes:
    names: Names of the rows.
    vectors: float32 `[num_rows, dim]`.
    labels: Name -> label of each row, strings.
    title: Name of the whole.
  """

  names: Sequence[str]
  vectors: np.ndarray
  labels: Mapping[str, Sequence[str]]
  title: str


def of_run(run: Any) -> Points:
  """Returns the words of a run, or the rows of the `embeddings.npy` that it left.

  Raises:
    InputError: The run left none, or its index has another length.
  """
  title = f"{run.config['name']}" + (f", {run.path.name}" if run.path else "")
  if run.encoder.names is not None:
    names = list(run.encoder.names)
    return Points(names, run.embed(names), {}, title)
  if run.path is None or not (run.path / "embeddings.npy").exists():
    raise InputError("explore: the run left no embeddings.npy; use the work directory of a run that ended")
  vectors, listed = read_npy(run.path / "embeddings.npy"), run.path / row_index.NAME
  if not listed.exists():
    return Points([f"row {i}" for i in range(len(vectors))], vectors, {}, title)
  columns = row_index.read(listed)
  names = row_index.titles(columns)
  if len(names) != len(vectors):
    raise InputError(f"{listed}: has {len(names)} rows for the {len(vectors)} of embeddings.npy; evaluate the run "
                     "again to write both")
  return Points(names, vectors, {name: column for name, column in columns.items() if name not in _BESIDE}, title)


def write(points: Points, output: str, *, max_items: int = 20000, k: int = 10, projection: str = "pca",
          seed: int = 0, report: Callable[[str], None] = lambda line: None) -> list[str]:
  """Writes `index.html` and the files of TensorBoard's projector into a directory.

  Args:
    points: What is shown.
    output: Directory, made if it is not there.
    max_items: Rows that are shown: the first, most frequent words, or, where there are labels, a random sample; 0:
      all.
    k: Neighbors of each row, by cosine.
    projection: Map to two dimensions, `pca` or `tsne`.
    seed: Random seed of the sample and of `tsne`.
    report: Receives a line where fewer rows are shown than there are.

  Returns:
    Names of the files.

  Raises:
    InputError: There are fewer than three rows, or no such projection.
  """
  check_choice("projection", projection, PROJECTIONS)
  if len(points.vectors) < 3:
    raise InputError(f"explore: {len(points.vectors)} rows are too few for a map")
  note = f"{len(points.vectors):,} rows"
  if max_items and len(points.vectors) > max_items:
    note = f"the first {max_items:,} of {len(points.vectors):,} rows"
    rows = np.arange(max_items)
    if points.labels:
      note = f"a random sample of {max_items:,} of {len(points.vectors):,} rows"
      rows = np.sort(np.random.default_rng(seed).choice(len(points.vectors), max_items, replace=False))
    report(note)
    chosen = rows.tolist()
    points = points._replace(names=[points.names[i] for i in chosen], vectors=points.vectors[rows], labels={
        name: [values[i] for i in chosen] for name, values in points.labels.items()})
  folder = epath.Path(output)
  folder.mkdir(parents=True, exist_ok=True)
  write_atomically(folder / "index.html", page(points, note, k=k, projection=projection, seed=seed).encode())
  _write_projector(folder, points)
  return ["index.html", "vectors.tsv", "metadata.tsv", "projector_config.pbtxt"]


def page(points: Points, note: str = "", *, k: int = 10, projection: str = "pca", seed: int = 0) -> str:
  """Returns the HTML page: a map with a search, the neighbors of each row, and colors by label."""
  k = min(k, len(points.vectors) - 1)
  numbers = [str(i) for i in range(len(points.vectors))]  # Names may occur twice.
  nearest = neighbors(points.vectors, numbers, numbers, k=k)
  place = projected(points.vectors, projection, seed)
  names = {"pca": "principal components", "tsne": "t-SNE"}
  content = {
      "title": points.title, "note": f"{note}; the map shows {names[projection]}, neighbors are by cosine in all "
                                     f"{points.vectors.shape[1]} dimensions",
      "names": [str(name) for name in points.names], "labels": {name: list(map(str, values))
                                                                for name, values in points.labels.items()},
      "x": place[:, 0].round(4).tolist(), "y": place[:, 1].round(4).tolist(), "k": k,
      "near": [int(name) for row in numbers for name, _ in nearest[row]],
      "cosine": [round(1000 * value) for row in numbers for _, value in nearest[row]]}
  # Within a script element only `<` could end it; lone surrogates have no UTF-8.
  data = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c").replace(">", "\\u003e").replace(
      "&", "\\u0026")
  template = importlib.resources.files("embeddings_jax.runs").joinpath("explore.html").read_text("utf-8")
  return template.replace("__DATA__", data)


def projected(vectors: np.ndarray, projection: str, seed: int = 0) -> np.ndarray:
  """Returns places on a map, float `[num_rows, 2]`, of standard deviation 1 on the wider axis."""
  centered = vectors - vectors.mean(0)
  if projection == "tsne":
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(vectors) - 1) / 3)
    place = TSNE(init="pca", random_state=seed, perplexity=perplexity, metric="cosine").fit_transform(vectors)
  else:
    _, axes = np.linalg.eigh(centered.T.astype(np.float64) @ centered)
    axes = axes[:, ::-1][:, :2]
    axes = axes * np.where(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])] < 0, -1, 1)  # Signs are arbitrary.
    place = centered @ axes
    place = np.pad(place, [(0, 0), (0, 2 - place.shape[1])])
  place = place - place.mean(0)
  return place / max(place.std(0).max(), 1e-12)


def _write_projector(folder: epath.Path, points: Points) -> None:
  """Writes the files that TensorBoard's projector reads from a log directory."""
  with replacing(folder / "vectors.tsv") as file:
    for row in points.vectors:
      file.write(("\t".join(f"{value:.6g}" for value in row) + "\n").encode())
  clean = lambda value: " ".join(str(value).split()) or "-"
  with replacing(folder / "metadata.tsv") as file:
    if points.labels:  # One column has no header.
      file.write(("\t".join(["name", *map(clean, points.labels)]) + "\n").encode())
    for cells in zip(points.names, *points.labels.values()):
      file.write(("\t".join(map(clean, cells)) + "\n").encode("utf-8", "replace"))
  write_atomically(folder / "projector_config.pbtxt", b'embeddings {\n  tensor_name: "embeddings"\n  tensor_path: '
                                                      b'"vectors.tsv"\n  metadata_path: "metadata.tsv"\n}\n')
