"""Draws what a trunk looks for: the library behind `experiments/visualize.py`."""
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from embeddings_jax.data import catalog
from embeddings_jax.errors import InputError
from embeddings_jax.eval.image_similarity import pairs_of
from embeddings_jax.figures import canvas
from embeddings_jax.figures import seeing as figures
from embeddings_jax.ops.activation_maps import enlarged, scaled
from embeddings_jax.runs import build, seeing
from embeddings_jax.runs.trunks import Trunk

NUM_SHOWN = 8  # Images of `cam`, `inversion`.
NUM_PAIRS = 6  # Of each kind.
SMOOTH = 3.0  # Weight of the differences of neighboring pixels in `inversion`.
NUM_PROBED = 2048  # Images to which a linear classifier is fitted.


class Portrait:
  """Figures of a trunk."""

  def __init__(
      self,
      trunk: Trunk,
      *,
      layer: str = "",
      units: Sequence[int] = (),
      files: Sequence[str] = (),
      data: str = "",
      data_dir: str | None = None,
      cache_dir: str | None = None,
      num_images: int = 4096,
      seed: int = 0,
      ascent: Mapping[str, Any] | None = None,
  ):
    """Checks what is asked.

    Args:
      trunk: The trunk.
      layer: Name of the layer; "" for the last.
      units: Numbers of its units; none: the first 64.
      files: Image files that are shown instead of images of the dataset.
      data: Name of a dataset; "" for the run's own.
      data_dir, cache_dir: Directories of the catalog's files and of derived data.
      num_images: Images that are searched for exciting ones.
      seed: Random seed.
      ascent: Options of `ops/ascent.py: ascend`.

    Raises:
      InputError: There is no such layer, unit or file.
    """
    self.trunk, self.layer = trunk, trunk.layer(layer)
    self.units = seeing.chosen_units(trunk, self.layer, units)
    for file in files:
      if not os.path.isfile(file):
        raise InputError(f"image={file}: there is no such file")
    self.files, self.data, self.seed, self.num_images = list(files), data, seed, num_images
    self.data_dir, self.cache_dir, self.ascent = data_dir, cache_dir, dict(ascent or {})

  def draw(self, name: str, folder: str | os.PathLike) -> str:
    """Draws one figure into a folder, and returns the path of its file."""
    plt = canvas.pyplot()
    figure = getattr(self, f"_{name}")(plt)
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"{name}.png")
    canvas.save(plt, figure, path)
    return path

  def lacks(self, name: str) -> str:
    """Returns why a figure cannot be drawn, "" if it can."""
    if not self._has_data and (name in ("crops", "pairs") or not self.files and name in ("maps", "cam", "inversion")):
      return "needs a dataset" + ("" if name in ("crops", "pairs") else " or image files")
    if name == "pairs" and self.labels is None:
      return f"dataset {self.dataset.name!r} has no labels"
    return ""

  @property
  def _has_data(self) -> bool:
    run = self.trunk.run
    return bool(self.data or run is not None and (run.prepared or run.config.get("data", {}).get("name")))

  @functools.cached_property
  def dataset(self) -> Any:
    """The dataset, in the encoder's size."""
    config = {} if self.trunk.run is None else self.trunk.run.config
    own = not self.data and config.get("pipeline")
    if not self.data and self.trunk.run.prepared:
      dataset = self.trunk.run.prepared.dataset
    elif own:
      dataset = build.read_dataset(config, encoder=self.trunk.encoder, data_dir=self.data_dir,
                                   cache_dir=self.cache_dir)
    else:
      dataset = catalog.load(self.data or config["data"]["name"], data_dir=self.data_dir, cache_dir=self.cache_dir)
    if dataset.kind not in ("images", "rows"):
      raise InputError(f"data={dataset.name}: holds {dataset.kind}, which are no images")
    return self.trunk.encoder.adapt(dataset, self.cache_dir)

  @functools.cached_property
  def rows(self) -> np.ndarray:
    """Numbers of the training images that are searched, a seeded sample if there are more."""
    rows = np.asarray(self.dataset.split.get("train", np.arange(len(self.dataset.items))))
    if len(rows) <= self.num_images:
      return rows
    return np.sort(np.random.default_rng(self.seed).choice(rows, self.num_images, replace=False))

  @functools.cached_property
  def searched(self) -> np.ndarray:
    """The training images that are searched, uint8."""
    return self.trunk.images([self.dataset.items[i] for i in self.rows])

  @functools.cached_property
  def shown(self) -> np.ndarray:
    """Images that are shown: the files, else images of the test split, or of the dataset."""
    if self.files:
      return self.trunk.images(self.files)
    rows = np.asarray(self.dataset.split.get("test", np.arange(len(self.dataset.items))))
    rows = rows[np.linspace(0, len(rows) - 1, NUM_SHOWN).astype(int)]
    return self.trunk.images([self.dataset.items[i] for i in rows])

  @functools.cached_property
  def labels(self) -> tuple[np.ndarray, np.ndarray] | None:
    """Names of the classes, and the classes of the images that are searched, or None."""
    for values in self.dataset.labels.values():
      if np.ndim(values) == 1:
        names, numbers = np.unique(np.asarray(values)[self.rows], return_inverse=True)
        if 1 < len(names) <= len(numbers) // 2:
          return names, numbers
    return None

  def vectors(self, images: np.ndarray) -> np.ndarray:
    """Returns means over the places of the last map."""
    return self.trunk.maps(images, self.trunk.layer()).mean((1, 2))

  def _filters(self, plt: Any) -> Any:
    return figures.filters(plt, np.asarray(self.trunk.network.first_filters(self.trunk.variables["params"])))

  def _maps(self, plt: Any) -> Any:
    return figures.maps(plt, self.shown[0], self.trunk.maps(self.shown[:1], self.layer)[0], self.layer)

  def _crops(self, plt: Any) -> Any:
    exciting = seeing.exciting_images(self.trunk, self.searched, self.layer, self.units)
    return figures.crops(plt, self.units, exciting.crops, self.layer)

  def _ascent(self, plt: Any) -> Any:
    noise = np.random.default_rng(self.seed).integers(0, 256, (64, *self.trunk.shape)).astype(np.uint8)
    known = self.searched[:512] if self._has_data else noise
    values, _ = seeing.excitations(self.trunk, known, self.layer, self.units)
    images, _ = seeing.exciting_inputs(
        self.trunk, self.layer, self.units, colors=known / np.float32(255) if self._has_data else None,
        scales=values.max(0), seed=self.seed, **self.ascent)
    return figures.inputs(plt, self.units, images, self.layer)

  def _cam(self, plt: Any) -> Any:
    images, weights, titles = self.shown, None, []
    if self._has_data and self.labels is not None:
      names, numbers = self.labels
      table, bias = seeing.class_weights(self.vectors(self.searched[:NUM_PROBED]), numbers[:NUM_PROBED])
      guessed = (self.vectors(images) @ table + bias).argmax(1)
      weights, titles = table.T[guessed], [str(names[i]) for i in guessed]
    methods = [name for name in seeing.MAPS if name != "rollout" or hasattr(self.trunk.network, "attention")]
    maps = {name: seeing.looked_at(self.trunk, images, name, layer=self.layer, weights=weights) for name in methods}
    heat = {name: np.asarray(scaled(enlarged(jnp.asarray(value), *self.trunk.shape[:2])))
            for name, value in maps.items()}
    return figures.overlays(plt, images / np.float32(255), heat, titles)

  def _inversion(self, plt: Any) -> Any:
    options = {key: value for key, value in self.ascent.items() if key in ("steps", "parameterization")}
    restored, distances = seeing.inverted(self.trunk, self.shown, layer=self.layer, pooled=False, seed=self.seed,
                                          variation=SMOOTH, **options)
    return figures.inversion(plt, self.shown / np.float32(255), restored, distances, self.layer)

  def _pairs(self, plt: Any) -> Any:
    """Pairs of the same class and of different ones, drawn with the seed."""
    _, numbers = self.labels
    one, other, same = pairs_of(numbers, NUM_PAIRS, self.seed)
    vectors = self.vectors(self.searched[np.concatenate([one, other])])
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    cosines = (unit[:len(one)] * unit[len(one):]).sum(1)
    return figures.pairs(plt, self.searched[one], self.searched[other], cosines, same)
