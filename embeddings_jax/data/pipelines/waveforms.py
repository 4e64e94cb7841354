"""Windows of audio."""
import logging
from typing import Any

import numpy as np

from embeddings_jax.data import reading, stand_ins
from embeddings_jax.data.audio import join_clips
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders.waveforms import WaveformEncoder
from embeddings_jax.data.sources import window_source
from embeddings_jax.errors import check_choice
from embeddings_jax.types import Prepared

ACCEPTS = ("audio",)
READ = reading.audio
UNIT = "windows of sound"
FACTS: dict[str, str] = {}


def waveforms(dataset: Dataset, *, batch_size: int, seed: int, encoder: Any = None, window_length: int = 20480,
              jitter: int = 0, group: str = "") -> Prepared:
  """Makes batches of `signal` `[batch_size, window_length]`, with `group` `[batch_size]` beside it if it is named.

  Args:
    dataset: Audio.
    batch_size: Windows of a batch.
    seed: Random seed of the data order.
    window_length: Samples of a window.
    jitter: Random offsets of windows are below this number of samples.
    group: Label whose clips are joined, as `speaker`.
  """
  label = group_label(dataset, group)
  train = np.asarray(dataset.split.get("train", np.arange(len(dataset.items))))
  groups = dataset.labels[label][train] if label else np.zeros(len(train), int)
  stream, starts, groups = join_clips([dataset.items[i] for i in train], groups, seed, window_length, jitter=jitter)
  source = window_source(stream, window_length, batch_size, name="signal", starts=starts,
                         beside={"group": groups} if label else None, jitter=jitter, seed=seed)
  return Prepared({"train": source}, WaveformEncoder(dataset.rate), dataset, source.facts)


def group_label(dataset: Dataset, group: str) -> str:
  """Returns the label that groups clips, or "": a user's folder of wav files only knows its folders."""
  if group and set(dataset.labels) <= {"folder"} and group not in dataset.labels:
    known = next(iter(dataset.labels), "")
    logging.warning("%s: has no label %r; %s", dataset.name, group,
                    f"clips are grouped by their {known}" if known else "its clips are one group")
    return known
  if group:
    check_choice("group", group, list(dataset.labels))
  return group


def stand_in(item: stand_ins.Item, *, batch_size: int, window_length: int = 20480, group: str = "",
             **_: Any) -> stand_ins.StandIn:
  """Returns facts and batch shapes; see `stand_ins`."""
  groups = {"group": (np.int32,)} if group else {}
  return stand_ins.stand_in({}, batch_size, signal=(np.int16, window_length), **groups)
