"""Probes of every layer of an image model: nearest neighbors of all layers, a linear probe of two.

Protocol. A layer's map is averaged over `cells` x `cells` cells (2 x 2; over the whole map where it is smaller), the
means side by side are the features. At most 10,000 training and 10,000 test images are used, drawn with `seed`. A
fifth of these training images, stratified by class, is the validation split. Nearest neighbors are those of `knn`
(k = 20, temperature .07), the linear probe is that of `linear_probe`.

Metrics, each with the layer's name:

  {label}/validation/{layer}/knn_accuracy   neighbors among the other four fifths
  {label}/test/{layer}/knn_accuracy         neighbors among all training images
  {label}/test/{layer}/accuracy             linear probe, of the layer with the best validation and of the last

and the test figures of the layer that validation chose as `{label}/headline/` `knn_accuracy` and `accuracy`. Linear
probes by layer of OpenSelfSup and others average to about 9,000 features and augment the training images: compare
figures within this protocol only.
"""
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from embeddings_jax.eval.knn import SETTINGS, neighbor_labels
from embeddings_jax.eval.linear_probe import labeled_parts, probe_accuracy, split_rows
from embeddings_jax.ops.feature_maps import pooled
from embeddings_jax.types import InputError, Metric, Protocol

MAX_IMAGES = 10_000  # Of each split.


def layer_probes(
    embed: Any,
    dataset: Any,
    *,
    maps: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    cells: int = 2,
    seed: int = 0,
) -> dict[str, float]:
  """Accuracies of neighbors and of linear probes by layer.

  Args:
    embed: Not used.
    dataset: Images with `labels`, maybe with the splits `train` and `test`.
    maps: Images uint8 [n, height, width, channels] -> layer -> [n, h, w, dim].
    cells: Cells per side over which a map is averaged.
    seed: Random seed of the rows and of the validation split.

  Raises:
    InputError: The dataset has no images or no labels with two classes.
  """
  del embed
  if np.ndim(dataset.items) != 4:
    raise InputError(f"layer_probes: {dataset.name} holds no images")
  results = {}
  for name, labels, train, test in labeled_parts("layer_probes", dataset, seed):
    train, test = (_chosen(rows, seed) for rows in (train, test))
    fit, validation = split_rows({}, labels[train], seed)
    features = [_features(maps, dataset.items, rows, cells) for rows in (train, test)]
    of_train, of_test = labels[train], labels[test]
    validated = {}
    for layer, vectors in features[0].items():
      validated[layer] = _accuracy(vectors[fit], of_train[fit], vectors[validation], of_train[validation])
      results[f"{name}/validation/{layer}/knn_accuracy"] = validated[layer]
      results[f"{name}/test/{layer}/knn_accuracy"] = _accuracy(vectors, of_train, features[1][layer], of_test)
    best = max(validated, key=validated.__getitem__)
    for layer in dict.fromkeys((best, list(validated)[-1])):
      results[f"{name}/test/{layer}/accuracy"] = probe_accuracy(
          features[0][layer], of_train, features[1][layer], of_test, seed=seed)
    for metric in ("knn_accuracy", "accuracy"):
      results[f"{name}/headline/{metric}"] = results[f"{name}/test/{best}/{metric}"]
  return results


def _chosen(rows: np.ndarray, seed: int) -> np.ndarray:
  """Returns at most `MAX_IMAGES` rows, in order."""
  return np.sort(np.random.default_rng(seed).permutation(rows)[:MAX_IMAGES])


def _features(maps: Callable[..., Mapping[str, np.ndarray]], images: Any, rows: np.ndarray, cells: int,
              ) -> dict[str, np.ndarray]:
  """Returns the averaged maps of all layers, [n, cells * cells * dim] each; few whole maps are held at a time."""
  pieces = []
  for first in range(0, len(rows), 500):
    by_layer = maps(np.asarray(images[rows[first:first + 500]]))
    pieces.append({layer: np.asarray(pooled(jnp.asarray(value, jnp.float32), min(cells, *value.shape[1:3])))
                   for layer, value in by_layer.items()})
  return {layer: np.concatenate([piece[layer] for piece in pieces]) for layer in pieces[0]}


def _accuracy(vectors: np.ndarray, labels: np.ndarray, queries: np.ndarray, wanted: np.ndarray) -> float:
  predicted = neighbor_labels(vectors, labels, queries, {"knn": SETTINGS["knn"]})["knn"]
  return float((predicted == wanted).mean())


PROTOCOL = Protocol(
    layer_probes, needs=("maps",), labels=True,
    metrics={"knn_accuracy": Metric(True, "fraction"), "accuracy": Metric(True, "fraction")})
