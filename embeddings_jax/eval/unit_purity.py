"""Purity of the units of speech that k-means finds in the layers of a network (Hsu et al. 2021, section IV-F).

Protocol. Frames of at most `MAX_CLIPS` clips of the training split, evenly spaced, are clustered by k-means in each
layer's standardized vectors, `num_units` clusters; frames of as many test clips get the nearest one. Without a split
all clips serve for both (`all`). `mfcc` are 39-dimensional MFCC, the paper's first units, as the floor. The paper's
labels are phones of a forced alignment; here a frame y has a label of its clip, and under `{label}_position` that
label and the third of the clip in which it lies. Of the joint distribution p(y, z) of frames' labels and units:

  label_purity    sum_z max_y p(y, z): accuracy of the best label of each unit (the paper's phone purity)
  cluster_purity  sum_y max_z p(y, z): accuracy of the best unit of each label; it falls with more units
  pnmi            I(y; z) / H(y): share of the labels' uncertainty that the unit removes (phone-normalized)

under `{label}/{part}/{layer}/`. Layers are numbered, 0 the features before the first. Units that know the label have
label purity and PNMI 1; those that ignore it have the share of the most frequent label, and about 0.
"""
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from embeddings_jax.data.units import assigned, lloyd, mfcc_with_deltas
from embeddings_jax.types import InputError, Metric, Protocol

MAX_CLIPS = 1000
MAX_FRAMES = 20_000  # Frames that the clusters are learned from.
TURNS = 20
THIRDS = 3
HOP = 0.020  # Seconds from one frame of MFCC to the next.


def unit_purity(
    embed: Any,
    dataset: Any,
    *,
    frames: Callable[[Any], Mapping[str, list[np.ndarray]]],
    seed: int = 0,
    num_units: int = 100,
) -> dict[str, float]:
  """Purity of the clusters of each layer's frames against the clips' labels.

  Args:
    embed: Not used.
    dataset: Clips with `labels`: name -> [num_clips].
    frames: Clips -> layer -> the vectors of each clip's frames, [num_frames, dim].
    seed: Random seed of k-means.
    num_units: Number of clusters.

  Returns:
    `{label}/{part}/{layer}/{metric}`.

  Raises:
    InputError: No label has two classes, or there are fewer frames than units.
  """
  del embed
  everything = np.arange(len(dataset.items))
  part = "test" if {"train", "test"} <= set(dataset.split) else "all"
  train, test = (_spaced(np.asarray(dataset.split[name]) if part == "test" else everything)
                 for name in ("train", "test"))
  labels = {name: np.asarray(values) for name, values in dataset.labels.items()
            if np.ndim(values) == 1 and len(np.unique(np.asarray(values)[test])) > 1}
  if not labels:
    raise InputError("unit_purity: no label of the clips has two classes; there is nothing to tell apart")
  clips = lambda rows: [dataset.items[i] for i in rows]
  layers = [dict(frames(clips(rows))) for rows in (train, test)]
  if getattr(dataset, "rate", 0):
    for rows, vectors in zip((train, test), layers):
      vectors["mfcc"] = [mfcc_with_deltas(clip, dataset.rate, round(HOP * dataset.rate)) for clip in clips(rows)]
  metrics = {}
  for layer, vectors in layers[1].items():
    units = clustered(np.concatenate(layers[0][layer]), np.concatenate(vectors), num_units, seed)
    lengths = [len(clip) for clip in vectors]
    thirds = np.concatenate([np.arange(length) * THIRDS // length for length in lengths])
    for name, values in labels.items():
      number = np.repeat(np.unique(values[test], return_inverse=True)[1], lengths)
      for key, label in ((name, number), (f"{name}_position", number * THIRDS + thirds)):
        metrics |= {f"{key}/{part}/{layer}/{metric}": value for metric, value in purity(label, units).items()}
  return metrics


def clustered(train: np.ndarray, test: np.ndarray, num_units: int, seed: int) -> np.ndarray:
  """Returns the units of test frames, int32 [num_frames], by clusters of training frames."""
  if not 2 <= num_units <= len(train):
    raise InputError(f"unit_purity: num_units={num_units}: must be from 2 to the {len(train)} frames of the clips")
  rng = np.random.default_rng([seed, 11])
  mean, spread = train.mean(0), np.maximum(train.std(0), 1e-6)
  chosen = np.sort(rng.permutation(len(train))[:MAX_FRAMES])
  centers = lloyd(rng, ((train[chosen] - mean) / spread).astype(np.float32), num_units, TURNS)
  return assigned(test, centers, mean, spread)


def purity(labels: np.ndarray, units: np.ndarray) -> dict[str, float]:
  """Returns the metrics of labels and units, integers [num_frames] each."""
  joint = np.zeros((labels.max() + 1, units.max() + 1))
  np.add.at(joint, (labels, units), 1 / len(labels))
  entropy = lambda share: float(-(share[share > 0] * np.log(share[share > 0])).sum())
  of_labels = entropy(joint.sum(1))
  information = of_labels + entropy(joint.sum(0)) - entropy(joint)
  return {"label_purity": float(joint.max(0).sum()), "cluster_purity": float(joint.max(1).sum()),
          "pnmi": information / max(of_labels, 1e-30)}


def _spaced(rows: np.ndarray) -> np.ndarray:
  """Returns at most `MAX_CLIPS` rows, evenly spaced."""
  return rows[np.linspace(0, len(rows) - 1, min(len(rows), MAX_CLIPS)).astype(int)]


PROTOCOL = Protocol(
    unit_purity, needs=("frames",), labels=True,
    metrics={"label_purity": Metric(True, "fraction"), "cluster_purity": Metric(True, "fraction"),
             "pnmi": Metric(True, "fraction")})
