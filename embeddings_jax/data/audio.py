"""Clips joined to long signals, for models that look further than one clip, and clips at another sample rate."""
import logging
from collections.abc import Sequence

import numpy as np

from embeddings_jax.data.cache import digest
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.types import InputError


def join_clips(
    items: Sequence[np.ndarray],
    groups: Sequence,
    order_seed: int,
    length: int,
    *,
    jitter: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Joins the clips of each group (of one speaker) in a random order and lays windows over them.

  Args:
    items: int16 `[num_samples]` each.
    groups: the group of each clip.
    order_seed: Random seed of the order of clips within a group.
    length: samples of a window.
    jitter: room left behind each window, for `window_source`'s jitter.

  Returns:
    The stream, int16 `[num_samples]`, the windows' starts, int64 `[num_windows]`, and the number of the group that
    each is of, int32 `[num_windows]`. Windows do not overlap (but for the jitter) and never reach into another group;
    a rest shorter than a window is in none.

  Raises:
    InputError: no group is as long as a window.
  """
  groups = np.asarray(groups)
  if len(items) != len(groups):
    raise InputError(f"{len(items)} clips and {len(groups)} groups: each clip needs one")
  rng = np.random.default_rng(order_seed)
  pieces, starts, start = [], [], 0
  for group in np.unique(groups):
    members = rng.permutation(np.flatnonzero(groups == group))
    pieces += [items[i] for i in members]
    end = start + sum(len(items[i]) for i in members)
    starts.append(np.arange(start, end - length - jitter + 1, length, dtype=np.int64))
    start = end
  if not sum(map(len, starts)):
    raise InputError(f"no group of clips has the {length + jitter} samples of one window; lower its length")
  numbers = np.repeat(np.arange(len(starts), dtype=np.int32), [len(part) for part in starts])
  return np.concatenate(pieces), np.concatenate(starts), numbers

def resampled(samples: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
  """int16 `[num_samples]` at another rate, by a polyphase filter."""
  if rate == new_rate:
    return samples
  from scipy.signal import resample_poly

  divisor = int(np.gcd(rate, new_rate))
  values = resample_poly(samples.astype(np.float64), new_rate // divisor, rate // divisor)
  return np.clip(np.rint(values), -32768, 32767).astype(np.int16)


def at_rate(dataset: Dataset, rate: int) -> Dataset:
  """Returns audio at another number of samples per second, and says so."""
  if dataset.rate == rate:
    return dataset
  logging.warning("%s: is resampled from %d to %d samples per second", dataset.name, dataset.rate, rate)
  items = [resampled(np.asarray(item), dataset.rate, rate) for item in dataset.items]
  return dataset._replace(items=items, rate=rate, fingerprint=digest(dataset.fingerprint, "rate", rate))
