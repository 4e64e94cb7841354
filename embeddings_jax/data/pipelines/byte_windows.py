"""Windows of the running text as bytes."""
from typing import Any

import numpy as np

from embeddings_jax.data import reading, stand_ins
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.documents import byte_stream
from embeddings_jax.data.encoders.bytes import ByteEncoder
from embeddings_jax.data.sources import window_source
from embeddings_jax.types import Prepared

ACCEPTS = ("text",)
READ = reading.text
UNIT = "windows of bytes"
FACTS: dict[str, str] = {}


def byte_windows(dataset: Dataset, *, batch_size: int, seed: int, encoder: Any = None, window_length: int = 256,
                 max_length: int = 1024) -> Prepared:
  """Makes batches of `signal` uint8 `[batch_size, window_length]`.

  Args:
    dataset: Text.
    batch_size: Windows of a batch.
    seed: Random seed of the data order.
    window_length: Bytes of a window.
    max_length: Bytes of an item that is embedded.
  """
  stream, _ = byte_stream(reading.training_split(dataset))
  source = window_source(stream, window_length, batch_size, name="signal", pad=0, seed=seed)
  return Prepared({"train": source}, ByteEncoder(max_length), dataset, source.facts)


def stand_in(item: stand_ins.Item, *, batch_size: int, window_length: int = 256, **_: Any) -> stand_ins.StandIn:
  """Returns facts and batch shapes; see `stand_ins`."""
  return stand_ins.stand_in({}, batch_size, signal=(np.uint8, window_length))
