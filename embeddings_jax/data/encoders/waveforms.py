"""Encoder of audio clips."""
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from embeddings_jax.data import features, formats
from embeddings_jax.data.audio import at_rate, resampled
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders.base import Batch, Encoder, check_size, signals
from embeddings_jax.errors import InputError


class WaveformEncoder(Encoder):
  """Clips -> `signal` int16 `[n, num_samples]`, padded with 0, and `length` int32 `[n]`.

  Items are int16 arrays at `rate` samples per second, or paths of sound files, which are resampled to it; with
  `max_length` they are cut after so many samples.
  """

  kind = "waveforms"

  def __init__(self, rate: int, max_length: int = 0):
    check_size("rate", rate, 1, 1 << 24)
    check_size("max_length", max_length, 0)
    self.rate, self.max_length = rate, max_length
    self._told: set[int] = set()  # Rates that were reported.

  def options(self) -> dict[str, Any]:
    return {"rate": self.rate, **({"max_length": self.max_length} if self.max_length else {})}

  def encode(self, items: Sequence[np.ndarray | str | os.PathLike]) -> Batch:
    clips = [self._samples(i, item)[:self.max_length or None] for i, item in enumerate(items)]
    return signals(clips, np.int16, self.max_length or None)

  def read(self, path: str, errors: str = "strict") -> list[str]:
    """See `Encoder.read`: sound files, or a text file with a path of one a line, relative to that file."""
    from embeddings_jax.data import own

    files = own.list_files(path)
    if len(files) == 1 and own.file_kind(files[0]) in ("text", "unknown"):
      lines = [line.strip() for line in formats.read_lines(files[0], errors)]
      clips = [files[0].parent / line for line in lines if line]
    else:
      clips = [file for file in files if own.file_kind(file) == "audio"]
    if not clips:
      raise InputError(f"{path}: has no wav file, nor a list of them")
    return [str(clip) for clip in clips]

  def adapt(self, dataset: Dataset, cache_dir: str | os.PathLike | None = None) -> Dataset:
    """See `Encoder.adapt`; clips of another rate are resampled."""
    return at_rate(dataset, self.rate) if dataset.kind == "audio" else dataset

  def example(self) -> Batch:
    return self.encode([np.zeros(self.max_length or self.rate, np.int16)])

  def for_task(self, max_length: int) -> "WaveformEncoder":
    """Returns the encoder for a task, which cuts clips at `max_length` samples."""
    return WaveformEncoder(self.rate, max_length)

  def baselines(self, dataset: Dataset) -> dict[str, Callable[[Sequence[Any]], Any]]:
    return {"mfcc_mean": lambda items: features.mfcc_features(items, dataset.rate, deviation=False),
            "mfcc_mean_deviation": lambda items: features.mfcc_features(items, dataset.rate)}

  def _samples(self, i: int, item: np.ndarray | str | os.PathLike) -> np.ndarray:
    if isinstance(item, (str, os.PathLike)):
      samples, rate = formats.read_sound(item)
      if rate != self.rate and rate not in self._told:
        self._told.add(rate)
        logging.warning("%s: is resampled from %d to %d samples per second, and so are others like it", item, rate,
                        self.rate)
      return resampled(samples, rate, self.rate)
    item = np.asarray(item)
    if item.dtype != np.int16 or item.ndim != 1 or not len(item):
      raise InputError(f"clip {i}: is {item.dtype} {list(item.shape)}, should be int16 [num_samples] and not empty")
    return item
