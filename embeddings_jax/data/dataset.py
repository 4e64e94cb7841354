"""Datasets in memory or memory-mapped: items, labels and splits."""
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from embeddings_jax.data.cache import cache_root, cached, digest, naming_full_disks
from embeddings_jax.data.documents import Document, Documents, write_documents
from embeddings_jax.data.files.arrays import lossless
from embeddings_jax.data.files.tables import chosen_columns
from embeddings_jax.types import InputError

MISSING = ("", "error", "drop", "marginalize")
VERSION = 1  # Of text that is cached: raise it when the same files would give other documents.


class Dataset(NamedTuple):
  """A dataset on the host.

  Attributes:
    name: as the user gave it.
    kind: `rows`, `images`, `video`, `text`, `audio`, `bags`, `matrix` or `graph`; text in parts also `pairs`,
      `triples`, `choices`, `questions`, `words`.
    items: rows: float32 `[num_rows, num_features]`, or float64 or integers where float32 would lose digits; images:
      uint8 `[num_images, height, width, channels]`, perhaps memory-mapped; text: a sequence of strings, documents
      (read from the disk as they are asked for); audio: a list of int16 `[num_samples]`; video: see `Clips`;
      bags: see `bags.py`; matrix: see `matrix.py`; graph: names of the nodes; pairs and what follows it: see
      `task_files.py`; triples: (anchor, like it, unlike it).
    rate: Sample rate of audio, in Hz.
    names: Names of the rows, documents or clips.
    columns: Names of the features.
    labels: name -> array over the items, of integers or strings; bool `[num_items, num_classes]` where an item may
      have several. Never shown to a model in training.
    attributes: name -> numbers of the items, float64 `[num_items]`, NaN where unknown; for regression.
    split: name -> indices of items, where the dataset has an official split.
    fingerprint: SHA-256 (hex) of what determines the content.
    image_shape: `(height, width)` or `(height, width, 3)` where a row is the pixels of an image.
    integers: Column -> `[num_rows]`: whole numbers among the items that float64 cannot hold, for labels and ids.
    beside: Arrays beside the items that training reads, name -> `[num_items]`: `weight` and `label` of rows.
    gaps: Whether rows may lack values, which are NaN.
    lines: Whether each line of a document is a sentence.
    note: How the files were read, for the user to check: rows, columns, and what was recognized.
    graph: Edges between the items, a `files/graphs.py: GraphTable`.
    links: Edges that were removed from the graph before training, a `link_split.py: Links`.
    boxes: Boxes around objects of images, a `boxes.py: Boxes`.
    rows: Numbers of the items in the dataset of which this is a sample, int [num_items]; None: all are here.
  """

  name: str
  kind: str
  items: Sequence[Any]
  rate: int | None = None
  names: Sequence[str] | None = None
  columns: Sequence[str] | None = None
  labels: Mapping[str, np.ndarray] = {}
  split: Mapping[str, np.ndarray] = {}
  fingerprint: str = ""
  image_shape: tuple[int, ...] | None = None
  integers: Mapping[int, np.ndarray] = {}
  beside: Mapping[str, np.ndarray] = {}
  gaps: bool = False
  lines: bool = False
  note: str = ""
  graph: Any = None
  links: Any = None
  boxes: Any = None
  rows: np.ndarray | None = None
  attributes: Mapping[str, np.ndarray] = {}


def content_digest(arrays: Iterable[np.ndarray]) -> str:
  """SHA-256 (hex) over the types, shapes and values of arrays."""
  content = hashlib.sha256()
  for value in arrays:
    content.update(f"{value.dtype.str}{value.shape}".encode())
    content.update(np.ascontiguousarray(value).data)
  return content.hexdigest()


def without_gaps(dataset: Dataset, missing: str) -> Dataset:
  """Rows that may have NaN where a value is missing, treated as `missing` says.

  Args:
    dataset: rows.
    missing: `error` refuses them; `drop` leaves out the rows that lack a value, and says so; `marginalize` lets them
      be, for models that can do with what there is.
  """
  if missing not in MISSING:
    raise InputError(f"missing={missing}: must be one of {', '.join(MISSING[1:])}")
  if missing == "marginalize":
    return dataset
  gaps = np.isnan(dataset.items)
  whole = ~gaps.any(1)
  if whole.all():
    return dataset
  if missing == "error":
    row, column = np.argwhere(gaps)[0]
    raise InputError(f"{dataset.name}: row {row}, column {column} (from 0): the value is missing; leave such rows "
                     "out by missing=drop, or let gmm do with the others by marginalize")
  if not whole.any():
    raise InputError(f"{dataset.name}: every row lacks a value; missing=drop leaves none")
  logging.warning("%s: %d rows of %d lack a value and are left out", dataset.name, (~whole).sum(), len(whole))
  index = np.cumsum(whole) - 1
  return dataset._replace(
      items=dataset.items[whole], integers={column: value[whole] for column, value in dataset.integers.items()},
      names=None if dataset.names is None else [name for name, kept in zip(dataset.names, whole) if kept],
      labels={name: label[whole] for name, label in dataset.labels.items()},
      split={name: index[rows[whole[rows]]] for name, rows in dataset.split.items()})


def keep_columns(dataset: Dataset, names: Sequence[str]) -> Dataset:
  """Returns rows with some of their columns, in the order of `names`, which are names or numbers from 0."""
  titles = list(dataset.columns or map(str, range(np.shape(dataset.items)[1])))
  places = list(dict.fromkeys(chosen_columns(dataset.name, titles, names)))
  if places == list(range(len(titles))):
    return dataset
  return dataset._replace(
      items=dataset.items[:, places], columns=[titles[i] for i in places],
      integers={places.index(i): value for i, value in dataset.integers.items() if i in places}, image_shape=None,
      fingerprint=digest(dataset.fingerprint, [titles[i] for i in places]))


def take_columns(dataset: Dataset, names: Sequence[str]) -> tuple[Dataset, list[np.ndarray]]:
  """Removes columns from rows.

  Args:
    dataset: Rows.
    names: Names of the columns, or their numbers from 0.

  Returns:
    The dataset without them, and the columns, `[num_rows]` each; whole numbers are exact.
  """
  columns, width = dataset.columns, np.shape(dataset.items)[1]
  taken = []
  for name in names:
    if columns is not None and name in columns:
      taken.append(list(columns).index(name))
    elif name.isdecimal() and len(name) < 10 and int(name) < width:
      taken.append(int(name))
    else:
      known = ", ".join(column[:40] for column in columns[:20]) if columns else f"they are 0 to {width - 1}"
      raise InputError(f"{dataset.name}: has no column {name!r}; {known}")
  kept = [i for i in range(width) if i not in taken]
  if not kept:
    raise InputError(f"{dataset.name}: has no column but {', '.join(names)}")
  # A slice is a view, so that rows on the disk stay there.
  consecutive = kept == list(range(kept[0], kept[-1] + 1))
  items = dataset.items[:, kept[0]:kept[-1] + 1] if consecutive else dataset.items[:, kept]
  columns = None if columns is None else [columns[i] for i in kept]
  values = [dataset.integers.get(i, np.array(dataset.items[:, i])) for i in taken]
  return dataset._replace(items=items, columns=columns, integers={}), values


def text_dataset(
    name: str,
    fingerprint: str,
    documents: Callable[[], Iterable[Document]],
    cache_dir: Path,
    by_content: bool = False,
) -> Dataset:
  """Text, written to the cache once for every `fingerprint`; a label `split` becomes the split.

  Args:
    name: Name of the dataset.
    fingerprint: Hash of the files and options that determine the documents.
    documents: reads them.
    cache_dir: where they are kept.
    by_content: let the text itself be the dataset's fingerprint.
  """
  path = cached(cache_dir / f"text-{digest(VERSION, fingerprint)[:32]}",
                lambda folder: write_documents(folder, documents(), name))
  items = Documents(path)
  labels = dict(items.labels)
  parts = labels.pop("split", np.array([]))
  split = {str(part): np.flatnonzero(parts == part) for part in np.unique(parts)}
  return Dataset(name, "text", items, names=items.names, labels=labels, split=split,
                 fingerprint=items.fingerprint if by_content else digest(VERSION, fingerprint))


def from_texts(texts: Iterable[str], name: str = "texts", cache_dir: str | os.PathLike | None = None) -> Dataset:
  """A text dataset from any iterable of strings, such as a generator; each is a document.

  The iterable is read to its end, once, and written to the cache, so it may be larger than memory. What the cache
  has of equal texts is used again; nothing is taken for known because of its name.

  Args:
    texts: the documents.
    name: Name of the dataset.
    cache_dir: default `$EMBEDDINGS_CACHE`, then `~/.cache/embeddings_jax`.

  Raises:
    InputError: there is no text, or something that is not a string.
  """

  def documents() -> Iterator[Document]:
    for i, text in enumerate(texts):
      if not isinstance(text, str):
        raise InputError(f"{name}: document {i} is of type {type(text).__name__}, should be str")
      yield Document(text)

  root = cache_root(cache_dir)
  try:
    root.mkdir(parents=True, exist_ok=True)
    temporary = tempfile.TemporaryDirectory(dir=root, prefix="texts-")
  except OSError as e:
    raise InputError(f"{root}: the cache cannot be written ({e.strerror}); choose another folder with cache_dir or "
                     "$EMBEDDINGS_CACHE") from e
  with temporary as folder:
    draft = Path(folder) / "text"
    with naming_full_disks(root):
      write_documents(draft, documents(), name)
    fingerprint = Documents(draft).fingerprint
    path = cached(root / f"text-{digest(VERSION, 'texts', fingerprint)[:32]}", draft.rename)
  return Dataset(name, "text", Documents(path), fingerprint=fingerprint)


def as_dataset(data: Any, name: str = "", cache_dir: str | os.PathLike | None = None) -> Dataset:
  """Returns data in memory as a dataset.

  Args:
    data: Rows [n, num_features]; images [n, height, width] or [n, height, width, channels], uint8 or floats in
      [0, 1]; clips uint8 [n, frames, height, width, channels]; an iterable of texts; a graph: of networkx, or a
      square sparse matrix of scipy; or a `Dataset`, which is returned as it is.
    name: Name of the dataset; by default its kind.
    cache_dir: Directory of derived data, where texts are kept.

  Raises:
    InputError: Neither of these.
  """
  if isinstance(data, Dataset):
    return data
  if isinstance(data, str):
    raise InputError(f"data: {data[:60]!r} is one string; give a list of texts")
  from embeddings_jax.data import graphs  # Imports this module.

  graph = graphs.from_object(data, name or "graph")
  if graph is not None:
    return graph
  if not hasattr(data, "ndim"):
    return from_texts(data, name or "texts", cache_dir)
  array = np.asarray(data)
  if array.ndim == 5 and array.dtype == np.uint8 and array.size:
    from embeddings_jax.data.video import Clips  # Imports this module.

    clips = Clips(array.reshape(-1, *array.shape[2:]), [array.shape[1]] * len(array))
    return Dataset(name or "clips", "video", clips, fingerprint=content_digest([array]))
  if array.dtype.kind not in "fiub" or array.ndim not in (2, 3, 4) or not array.size:
    raise InputError(f"data: is {array.dtype} {list(array.shape)}; expected rows [n, num_features] or images [n, "
                     "height, width, channels]")
  if array.ndim == 2:
    infinite = np.argwhere(np.isinf(array))
    if len(infinite):
      row, column = infinite[0]
      raise InputError(f"data: row {row}, column {column} (from 0): {array[row, column]} is not a finite number")
    return Dataset(name or "rows", "rows", lossless(array), fingerprint=content_digest([array]))
  images = array if array.ndim == 4 else array[..., None]
  if images.dtype != np.uint8:
    if not (images.dtype.kind == "f" and images.min() >= 0 and images.max() <= 1):
      raise InputError(f"data: images are {images.dtype} from {images.min()} to {images.max()}; expected uint8, or "
                       "floats from 0 to 1")
    images = np.rint(images * 255).astype(np.uint8)
  return Dataset(name or "images", "images", images, fingerprint=content_digest([images]))
