"""Units of speech: clusters of frames of audio, as targets of masked prediction (HuBERT)."""
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from embeddings_jax.data.cache import cache_root, cached, digest
from embeddings_jax.data.features import mfcc
from embeddings_jax.types import InputError

VERSION = 1  # Of what is cached: raise it when the same clips would get other units.
NUM_COEFFICIENTS = 13
REACH = 2  # Frames to each side that the deltas look at.
MAX_ROWS = 200_000  # Frames that the clusters are learned from.


def mfcc_with_deltas(signal: np.ndarray, rate: int, hop: int) -> np.ndarray:
  """Returns 13 MFCC and their first and second deltas, float32 `[num_frames, 39]`, one frame every `hop` samples.

  Frame t is that of `features.mfcc` (25 ms) that is nearest to begin at sample `t * hop`. A delta is the slope of the
  line of least squares through a frame and `REACH` frames to each side (Young et al., "The HTK Book"), ends repeated.
  """
  step = round(0.010 * rate)
  frames = mfcc(signal, rate, num_coefficients=NUM_COEFFICIENTS)
  first = deltas(frames)
  whole = np.concatenate([frames, first, deltas(first)], 1)
  number = max(1, -(-len(signal) // hop))
  return whole[np.minimum(np.rint(np.arange(number) * hop / step).astype(int), len(whole) - 1)]


def deltas(frames: np.ndarray) -> np.ndarray:
  """Returns the slope of each feature at each frame, `[num_frames, dim]`."""
  padded = np.pad(frames, ((REACH, REACH), (0, 0)), mode="edge")
  length = len(frames)
  slopes = sum(n * (padded[REACH + n:REACH + n + length] - padded[REACH - n:REACH - n + length])
               for n in range(1, REACH + 1))
  return (slopes / (2 * sum(n * n for n in range(1, REACH + 1)))).astype(np.float32)


def clustered(signal: np.ndarray, vectors: Callable[[np.ndarray], np.ndarray], num_units: int, *, key: Sequence[Any],
              seed: int = 0, num_turns: int = 50, cache_dir: str | os.PathLike | None = None,
              ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """Clusters the frames of a long signal by k-means, cached.

  Args:
    signal: int16 `[num_samples]`.
    vectors: Signal -> float32 `[num_frames, dim]`.
    num_units: Number of clusters.
    key: What determines the vectors.
    seed: Random seed of the frames and centers to start from.
    num_turns: Turns of Lloyd's algorithm at most.
    cache_dir: Directory of derived data.

  Returns:
    The unit of each frame, int32; the centers of standardized vectors, float32 `[num_units, dim]`; and the vectors'
    mean and standard deviation, `[dim]`.

  Raises:
    InputError: There are fewer distinct frames than units.
  """
  name = f"units-{digest('units', VERSION, list(map(str, key)), num_units, seed, num_turns)[:32]}"

  def build(folder):
    features = np.asarray(vectors(signal), np.float32)
    if num_units < 2 or len(features) < num_units:
      raise InputError(f"num_units={num_units}: must be from 2 to the {len(features)} frames of the clips")
    mean, spread = features.mean(0), np.maximum(features.std(0), 1e-6)
    rows = (features - mean) / spread
    rng = np.random.default_rng([seed, 5])
    chosen = rows if len(rows) <= MAX_ROWS else rows[np.sort(rng.choice(len(rows), MAX_ROWS, replace=False))]
    centers = lloyd(rng, chosen, num_units, num_turns)
    folder.mkdir()
    np.savez(folder / "units.npz", units=assigned(features, centers, mean, spread), centers=centers, mean=mean,
             spread=spread)

  with np.load(cached(cache_root(cache_dir) / name, build) / "units.npz") as stored:
    return stored["units"], stored["centers"], stored["mean"], stored["spread"]


def assigned(vectors: np.ndarray, centers: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
  """Returns the units of vectors, int32 `[num_frames]`; arguments: see `clustered`."""
  return nearest(((vectors - mean) / spread).astype(np.float32), centers)


def lloyd(rng: np.random.Generator, rows: np.ndarray, num: int, num_turns: int) -> np.ndarray:
  """Returns centers `[num, dim]` of k-means from k-means++ (Arthur & Vassilvitskii 2007); an empty one moves to a
  random row."""
  centers = rows[rng.integers(len(rows), size=1)]
  least = np.square(rows - centers[0]).sum(1)
  while len(centers) < num:
    share = least / least.sum() if least.sum() > 0 else np.full(len(rows), 1 / len(rows))
    centers = np.concatenate([centers, rows[rng.choice(len(rows), size=1, p=share / share.sum())]])
    least = np.minimum(least, np.square(rows - centers[-1]).sum(1))
  last = None
  for _ in range(num_turns):
    units = nearest(rows, centers)
    if last is not None and (units == last).all():
      break
    last, count = units, np.bincount(units, minlength=num)
    order = np.argsort(units, kind="stable")
    starts = np.cumsum(count) - count
    sums = np.add.reduceat(rows[order], np.minimum(starts, len(rows) - 1), axis=0)
    spare = rows[rng.integers(len(rows), size=num)]
    centers = np.where(count[:, None] > 0, sums / np.maximum(count, 1)[:, None], spare)
  return centers.astype(np.float32)


def nearest(rows: np.ndarray, centers: np.ndarray) -> np.ndarray:
  """Returns the nearest center of each row, int32."""
  half = np.square(centers).sum(1) / 2
  parts = [np.argmax(rows[first:first + 16_384] @ centers.T - half, 1) for first in range(0, len(rows), 16_384)]
  return np.concatenate(parts).astype(np.int32)
