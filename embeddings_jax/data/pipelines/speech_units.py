"""Windows of audio with the units of their frames, as masked prediction reads them."""
from collections.abc import Callable
from typing import Any

import numpy as np

from embeddings_jax.data import reading, stand_ins
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders.waveforms import WaveformEncoder
from embeddings_jax.data.pipelines.waveforms import group_label
from embeddings_jax.data.sources import window_source
from embeddings_jax.data.units import assigned, clustered, mfcc_with_deltas
from embeddings_jax.types import InputError, Prepared, Source

ACCEPTS = ("audio",)
READ = reading.audio
UNIT = "windows of sound"
FACTS = {"num_units": "Number of units", "hop_length": "Samples from one frame to the next"}
HELD_OUT = 20  # One clip of so many is held out.


def speech_units(dataset: Dataset, *, batch_size: int, seed: int, encoder: Any = None, cache_dir: str | None = None,
                 vectors_of: Callable[[str, int, int], tuple[Callable[[np.ndarray], np.ndarray], str]] | None = None,
                 window_length: int = 8000, window_step: int = 0, group: str = "", units: str = "mfcc",
                 num_units: int = 100, hop_length: int = 160) -> Prepared:
  """Makes batches of `signal` int16 `[batch_size, window_length]` and `units` int32 `[batch_size, num_frames]`.

  A twentieth of the training clips is held out. Units are the clusters of the frames of the others: k-means of 39-
  dimensional MFCC, or of a layer of an earlier run.

  Args:
    dataset: Audio.
    batch_size: Windows of a batch.
    seed: Random seed of the data order and of the clusters.
    cache_dir: Directory of derived data.
    vectors_of: (run, layer, hop) -> (signal -> vectors of its frames), and the checksum of the run.
    window_length: Samples of a window.
    window_step: Samples from the start of a window to that of the next, in whole frames; 0: a quarter window.
    group: Label whose clips are joined, as `speaker`.
    units: `mfcc`, or RUN:LAYER, a work directory and the number of a layer of its network, 0 for its features.
    num_units: Number of clusters.
    hop_length: Samples from one frame to the next, those of the network.
  """
  if hop_length < 1 or window_length < hop_length or window_step < 0:
    raise InputError(f"hop_length={hop_length}, window_length={window_length}, window_step={window_step}: a hop is "
                     "1 sample or more, a window a hop or more, a step at least 0")
  label = group_label(dataset, group)
  train = np.asarray(dataset.split.get("train", np.arange(len(dataset.items))))
  held = np.random.default_rng([seed, 7]).permutation(len(train)) < len(train) // HELD_OUT
  vectors, checksum = _vectors(units, vectors_of, dataset.rate, hop_length)
  step = max(1, (window_step or window_length // 4) // hop_length) * hop_length
  stream, starts = _joined(dataset, train[~held], label, seed, window_length, step, hop_length)
  key = (dataset.fingerprint, checksum, hop_length, seed, label)
  of_frames, *clusters = clustered(stream, vectors, num_units, key=key, seed=seed, cache_dir=cache_dir)
  num_frames = window_length // hop_length
  facts = {"num_units": num_units, "hop_length": hop_length}

  def windows(stream: np.ndarray, starts: np.ndarray, of_frames: np.ndarray, **options: Any) -> Source:
    index = np.minimum(starts[:, None] // hop_length + np.arange(num_frames), len(of_frames) - 1)
    return window_source(stream, window_length, batch_size, name="signal", starts=starts,
                         beside={"units": of_frames[index]}, facts=facts, **options)

  splits = {"train": windows(stream, starts, of_frames, seed=seed)}
  rest = np.concatenate([dataset.items[i] for i in train[held]]) if held.any() else np.zeros(0, np.int16)
  if len(rest) >= window_length:
    starts = np.arange(0, len(rest) - window_length + 1, window_length) // hop_length * hop_length
    splits["validation"] = windows(rest, starts, assigned(vectors(rest), *clusters), order="sequential",
                                   remainder="pad")
  return Prepared(splits, WaveformEncoder(dataset.rate), dataset, splits["train"].facts)


def _vectors(units: str, vectors_of: Any, rate: int, hop: int) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
  """Returns signal -> vectors of its frames, and what determines them."""
  if units == "mfcc":
    return lambda signal: mfcc_with_deltas(signal, rate, hop), f"mfcc {rate}"
  run, _, layer = units.rpartition(":")
  if not run or not layer.isdecimal() or vectors_of is None:
    raise InputError(f"units={units}: must be mfcc, or RUN:LAYER, a work directory and the number of a layer")
  return vectors_of(run, int(layer), hop)


def _joined(dataset: Dataset, chosen: np.ndarray, label: str, seed: int, length: int, step: int,
            hop: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns the clips of each group one after another, in random order, and where windows within groups begin."""
  groups = dataset.labels[label][chosen] if label else np.zeros(len(chosen), int)
  rng, pieces, starts, place = np.random.default_rng(seed), [], [], 0
  for group in np.unique(groups):
    members = [dataset.items[i] for i in rng.permutation(chosen[groups == group])]
    pieces += members
    end = place + sum(map(len, members))
    starts.append(np.arange(-(-place // hop) * hop, end - length + 1, step, dtype=np.int64))
    place = end
  if not sum(map(len, starts)):
    raise InputError(f"window_length={length}: no group of clips has so many samples; use shorter windows")
  return np.concatenate(pieces), np.concatenate(starts)


def stand_in(item: stand_ins.Item, *, batch_size: int, window_length: int = 8000, num_units: int = 100,
             hop_length: int = 160, **_: Any) -> stand_ins.StandIn:
  """Returns facts and batch shapes; see `stand_ins`."""
  return stand_ins.stand_in({"num_units": num_units, "hop_length": hop_length}, batch_size,
                            signal=(np.int16, window_length), units=(np.int32, window_length // hop_length))
