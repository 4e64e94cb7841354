"""Pictures as arrays: a set of `rows` as `images`, the other way round, and archives of picture files."""
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from embeddings_jax.data.cache import cached, digest
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.types import InputError

VERSION = 1  # Of pictures that are cached: raise it when the same files would give others.


def as_images(dataset: Dataset) -> Dataset:
  """Rows that are pictures, in [0, 1], as `images`: uint8 [n, height, width, channels]."""
  if dataset.kind == "images":
    return dataset
  if dataset.kind != "rows" or dataset.picture is None:
    raise InputError(f"--data={dataset.name}: holds {dataset.kind}, which are no pictures")
  height, width, *channels = dataset.picture
  items = to_uint8(dataset.items).reshape(len(dataset.items), height, width, *(channels or [1]))
  return dataset._replace(kind="images", items=items, picture=None, columns=None)


def as_rows(dataset: Dataset) -> Dataset:
  """`images` as rows: float32 [n, height * width * channels] in [0, 1]."""
  if dataset.kind != "images":
    return dataset
  _, height, width, channels = dataset.items.shape
  rows = dataset.items.reshape(len(dataset.items), -1) / np.float32(255)
  return dataset._replace(kind="rows", items=rows, picture=(height, width, channels) if channels > 1 else
                          (height, width))


def to_uint8(values: np.ndarray) -> np.ndarray:
  """[0, 1] to the nearest of 0 ... 255."""
  low, high = np.min(values), np.max(values)
  if not (low >= 0 and high <= 1):
    raise InputError(f"pictures given as rows must lie in [0, 1], these have values from {low} to {high}")
  return np.rint(np.asarray(values) * np.float32(255)).astype(np.uint8)


def read_picture(data: bytes, name: Any, channels: int = 3) -> np.ndarray:
  """uint8 [height, width, channels] from the bytes of a file (JPEG, PNG, ...), grey for one channel, else RGB.

  Raises:
    InputError: it cannot be decoded.
  """
  from PIL import Image, UnidentifiedImageError

  try:
    with Image.open(io.BytesIO(data)) as image:
      picture = np.asarray(image.convert("L" if channels == 1 else "RGB"))
  except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as e:
    raise InputError(f"{name}: is no picture that can be read ({str(e)[:80]})") from e
  return picture.reshape(*picture.shape[:2], channels)


def decoded(name: str, fingerprint: str, files: Iterable[tuple[str, bytes]], cache_dir: Path) -> Dataset:
  """Picture files `{split}/{class}/{name}`, all of one size: decoded once, kept in the cache, and memory-mapped.

  Args:
    name: of the data set.
    fingerprint: SHA-256 of what determines the files.
    files: names and bytes; they are put in the order of the names.
    cache_dir: where the array is kept.
  """

  def build(folder: Path) -> None:
    listed = sorted(files)
    first = read_picture(listed[0][1], listed[0][0])
    folder.mkdir()
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (len(listed), *first.shape))
    for i, (file, data) in enumerate(listed):
      picture = read_picture(data, file)
      if picture.shape != first.shape:
        raise InputError(f"{file}: has {picture.shape[:2]} pixels, {listed[0][0]} has {first.shape[:2]}")
      images[i] = picture
    images.flush()
    np.save(folder / "names.npy", np.array([file for file, _ in listed]))

  path = cached(cache_dir / f"images-{digest(VERSION, fingerprint)[:32]}", build)
  names = np.load(path / "names.npy")
  part, label, _ = (np.array(column) for column in zip(*(str(file).split("/") for file in names)))
  return Dataset(name, "images", np.load(path / "images.npy", mmap_mode="r"), names=names, labels={"class": label},
                 split={str(value): np.flatnonzero(part == value) for value in np.unique(part)},
                 fingerprint=digest(VERSION, fingerprint))
