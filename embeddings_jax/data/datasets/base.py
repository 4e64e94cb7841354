"""Entries of the catalog."""
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from embeddings_jax.data.dataset import Dataset

NOT_STATED = "not stated at the origin"
WIKIPEDIA = "CC BY-SA 3.0"
SKLEARN = "BSD-3-Clause (scikit-learn)"


class Place(NamedTuple):
  """Files and options for a loader: verified `files` by their catalog names, and the cache directory."""

  files: Mapping[str, Path]
  cache_dir: Path
  errors: str
  fingerprint: str
  missing: str = ""
  image_options: Mapping[str, Any] = {}


class Entry(NamedTuple):
  """One line of the catalog; without `files` the set is embedded in what is installed."""

  kind: str
  description: str
  license: str
  load: Callable[[str, Place], Dataset]
  files: Mapping[str, str] = {}  # Path below the data directory -> SHA-256.
  shape: tuple[int, ...] = ()  # Of an item, where all have the same: (features,) or (height, width, channels).
