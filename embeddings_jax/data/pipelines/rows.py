"""Rows of numbers in shuffled batches, or all in one."""
import logging
import pathlib
from typing import Any

import numpy as np

from embeddings_jax.data import formats, own, reading, stand_ins
from embeddings_jax.data.cache import digest
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders.rows import RowEncoder
from embeddings_jax.data.sources import array_source
from embeddings_jax.types import Prepared

ACCEPTS = ("rows",)
READ = reading.rows
FACTS = {"missing": "Whether rows may lack values", "num_labels": "Number of observed classes",
         "means": "Means to start from", "num_features": "Number of columns"}


def rows(dataset: Dataset, *, batch_size: int, seed: int, encoder: Any = None, standardize: bool = False,
         start: str = "", order: str = "shuffled") -> Prepared:
  """Makes batches of `x` `[batch_size, num_features]`, with `weight` and `label` beside them where there are any.

  Args:
    dataset: Rows, with the arrays `beside` them.
    batch_size: Rows of a batch; 0: all.
    seed: Random seed of the data order.
    standardize: Whether features get mean 0 and standard deviation 1.
    start: File with rows that are the means to start from.
    order: `shuffled`, or `sequential`, which is quicker for a file larger than memory.
  """
  items, beside = dataset.items, dataset.beside
  if "train" in dataset.split:
    items = items[dataset.split["train"]]
    beside = {name: values[dataset.split["train"]] for name, values in beside.items()}
  encoder = (RowEncoder.standardizing if standardize else RowEncoder.centering)(items, dataset.gaps)
  encoder.columns = dataset.columns and list(dataset.columns)
  if encoder.mean is not None and encoder.std is None:
    shifted = [str(i) if dataset.columns is None else dataset.columns[i] for i in np.flatnonzero(encoder.mean)]
    logging.warning("%s: the mean is subtracted from %s, whose values float32 cannot tell apart", dataset.name,
                    ", ".join(shifted))
  # Rows that stay as they are need not be in memory together.
  x = items if items.dtype == np.float32 and encoder.mean is None else encoder.encode_rows(items)
  facts: dict[str, Any] = {"missing": True} if dataset.gaps else {}
  if "label" in beside:
    facts["num_labels"] = int(beside["label"].max()) + 1
  if start:  # The means determine the trained parameters as well.
    facts["means"] = encoder.encode(own.read_rows(pathlib.Path(start)).rows)["x"]
    dataset = dataset._replace(fingerprint=digest(dataset.fingerprint, formats.sha256(start)))
  source = array_source({"x": x, **beside}, batch_size or None, seed=seed, order=order, remainder="pad", facts=facts)
  return Prepared({"train": source}, encoder, dataset, source.facts)


def stand_in(item: stand_ins.Item, *, batch_size: int, **_: Any) -> stand_ins.StandIn:
  """Returns facts and batch shapes; see `stand_ins`."""
  num_features = int(np.prod(item.shape)) if item.shape else 1000
  return stand_ins.stand_in({"num_features": num_features}, batch_size or stand_ins.NUM_ROWS,
                            x=(np.float32, num_features))
