"""Readers: from a name, or a dataset that is loaded already, to the dataset that a pipeline accepts.

Every reader is `read(name, *, dataset=None, encoder=None, data_dir, cache_dir, allow_code, **options) -> Dataset`;
its options are keys of `config.data`. `dataset` is used instead of the name's; `encoder` is a pretrained one.
"""
import re
from typing import Any

import numpy as np

from embeddings_jax.data import catalog, tasks
from embeddings_jax.data.audio import at_rate
from embeddings_jax.data.bags import as_bags
from embeddings_jax.data.dataset import Dataset, keep_columns, take_columns, without_gaps
from embeddings_jax.data.files.dialects import GAPS, TableOptions
from embeddings_jax.data.files.wav import MAX_RATE
from embeddings_jax.data.images import as_images, as_rows, fitted
from embeddings_jax.errors import check_choice
from embeddings_jax.types import InputError


def text(name: str, *, dataset: Dataset | None = None, encoder: Any = None, data_dir: str | None = None,
         cache_dir: str | None = None, allow_code: bool = False, errors: str = "strict", documents: str = "line",
         max_documents: int = 0, field: str = "") -> Dataset:
  """Reads text, or a set of bags, counts or sentences.

  Args:
    name: See `catalog.load`.
    errors: `strict` refuses text that is not UTF-8, `replace` puts replacement characters.
    documents: End of a document of the user's plain text; see `own.load_path`.
    max_documents: Keeps the first documents only; 0: all.
    field: Field of JSON, or column of a table, with the text; "": `text` or alike, or the only string of JSON.
  """
  if dataset is None:
    dataset = catalog.load(name, data_dir=data_dir, cache_dir=cache_dir, errors=errors, documents=documents,
                           field=field, allow_code=allow_code)
  if max_documents and dataset.kind not in ("bags", "matrix"):
    dataset = first_items(dataset, max_documents)
  return dataset


def documents(name: str, *, dataset: Dataset | None = None, encoder: Any = None, data_dir: str | None = None,
              cache_dir: str | None = None, allow_code: bool = False, errors: str = "strict",
              documents: str = "line", max_documents: int = 0, field: str = "") -> Dataset:
  """Reads documents of words; a matrix counts as bags. Options: see `text`."""
  dataset = text(name, dataset=dataset, data_dir=data_dir, cache_dir=cache_dir, allow_code=allow_code, errors=errors,
                 documents=documents, field=field)
  dataset = as_bags(dataset) if dataset.kind in ("text", "bags", "matrix") else dataset
  return text(name, dataset=dataset, max_documents=max_documents)


def sentences(name: str, *, dataset: Dataset | None = None, encoder: Any = None, data_dir: str | None = None,
              cache_dir: str | None = None, allow_code: bool = False, errors: str = "strict",
              documents: str = "auto", max_documents: int = 0, field: str = "") -> Dataset:
  """Reads text whose documents are made of sentences. Options: see `text`."""
  return text(name, dataset=dataset, data_dir=data_dir, cache_dir=cache_dir, allow_code=allow_code, errors=errors,
              documents=documents, max_documents=max_documents, field=field)


def audio(name: str, *, dataset: Dataset | None = None, encoder: Any = None, data_dir: str | None = None,
          cache_dir: str | None = None, allow_code: bool = False, errors: str = "strict", rate: int = 0) -> Dataset:
  """Reads waveforms.

  Args:
    name: See `catalog.load`.
    errors: See `text`.
    rate: Samples per second that clips are resampled to; 0: as they are, which must be one rate.
  """
  if rate < 0 or rate > MAX_RATE:
    raise InputError(f"rate={rate}: must be from 1 to {MAX_RATE} samples per second, or 0 (as the files are)")
  if dataset is None:
    dataset = catalog.load(name, data_dir=data_dir, cache_dir=cache_dir, errors=errors, allow_code=allow_code,
                           rate=rate)
  return at_rate(dataset, rate) if rate and dataset.kind == "audio" else dataset


def images(name: str, *, dataset: Dataset | None = None, encoder: Any = None, data_dir: str | None = None,
           cache_dir: str | None = None, allow_code: bool = False, errors: str = "strict", image_size: int = 0,
           channels: int = 0, bad: str = "error") -> Dataset:
  """Reads images, or rows that are images.

  Args:
    name: See `catalog.load`.
    errors: See `text`.
    image_size: Height and width in pixels; 0: as they are.
    channels: 1 for gray, 3 for color; 0: as they are.
    bad: `error` refuses damaged files, `skip` leaves them out.
  """
  if dataset is None:
    dataset = catalog.load(name, data_dir=data_dir, cache_dir=cache_dir, errors=errors, allow_code=allow_code,
                           image_size=image_size, channels=channels, bad=bad)
  return fitted(as_images(dataset), image_size, image_size, channels, cache_dir=cache_dir)


def codes(name: str, *, dataset: Dataset | None = None, encoder: Any = None, data_dir: str | None = None,
          cache_dir: str | None = None, allow_code: bool = False, errors: str = "strict", codes: str = "") -> Dataset:
  """Reads images whose codes another run makes; `runs/codes.py` makes them.

  Args:
    name: See `catalog.load`.
    errors: See `text`.
    codes: Work directory of the run.
  """
  if not codes:
    raise InputError("data.codes is missing: the work directory of a run with discrete codes, as vq_vae")
  return dataset or catalog.load(name, data_dir=data_dir, cache_dir=cache_dir, errors=errors, allow_code=allow_code)


def rows(name: str, *, dataset: Dataset | None = None, encoder: Any = None, data_dir: str | None = None,
         cache_dir: str | None = None, allow_code: bool = False, errors: str = "strict", missing: str = "",
         weight: str = "", label: str = "", columns: str = "", header: str = "", separator: str = "",
         decimal: str = "", image_size: int = 0, channels: int = 0, bad: str = "error") -> Dataset:
  """Reads rows, or images as rows of pixels.

  Args:
    name: See `catalog.load`.
    errors: See `text`.
    missing: `error`, `drop` or `marginalize` rows that lack a value; see `catalog.load`.
    weight: Column with the weights of the rows, by name or number.
    label: One of the dataset's labels, or a column of words or whole numbers, by name or number; numbers below 0 and
      missing ones are not known.
    columns: Columns that are features, by name or number, separated by commas; "": all with numbers.
    header: Whether the first line of a table has the names of the columns, `yes` or `no`; "": recognized.
    separator: Separator of a table's cells, `comma`, `semicolon`, `tab` or `bar`; "": recognized.
    decimal: Decimal mark of a table, `point` or `comma`; "": recognized.
    image_size, channels, bad: See `images`.
  """
  features = [column.strip() for column in columns.split(",")] if columns else []
  if dataset is None:
    table = TableOptions([*features, weight] if features and weight else features, [label] if label else [], header,
                         separator, decimal)
    dataset = catalog.load(name, data_dir=data_dir, cache_dir=cache_dir, errors=errors, missing=missing, table=table,
                           allow_code=allow_code, image_size=image_size, channels=channels, bad=bad)
  elif dataset.kind == "rows":
    dataset = without_gaps(dataset, missing or "error")
  if image_size or channels:
    dataset = fitted(as_images(dataset), image_size, image_size, channels, cache_dir=cache_dir)
  dataset = as_rows(dataset)
  if features:
    dataset = keep_columns(dataset, [*features, *(column for column in (label, weight) if column not in
                                                  ("", *dataset.labels))])
  roles = {role: column for role, column in (("label", label), ("weight", weight)) if column}
  columns = [column for column in roles.values() if column not in dataset.labels]
  dataset, values = take_columns(dataset, columns) if columns else (dataset, [])
  beside = {role: dataset.labels[column] if column in dataset.labels else values[columns.index(column)]
            for role, column in roles.items()}
  if "label" in beside:
    beside["label"] = _checked_labels(beside["label"], label)
  if "weight" in beside:
    beside["weight"] = _checked_weights(beside["weight"], weight)
  return dataset._replace(beside=beside, gaps=missing == "marginalize")


def _checked_labels(values: np.ndarray, column: str) -> np.ndarray:
  """Returns labels as int32 `[num_rows]`, -1 where they are not known."""
  if values.dtype.kind == "f":
    values = np.where(np.isnan(values), -1, values)
    if (wrong := values != np.rint(values)).any():
      raise InputError(f"label={column}: row {wrong.argmax()} has {values[wrong.argmax()]}, labels are whole numbers")
  known = values >= 0 if values.dtype.kind in "fi" else ~np.isin(np.char.lower(values.astype(str)), GAPS)
  if not known.any():
    raise InputError(f"label={column}: no row has one; leave the option out")
  labels = np.full(len(values), -1, np.int32)
  labels[known] = np.unique(values[known], return_inverse=True)[1]
  return labels


def _checked_weights(values: np.ndarray, column: str) -> np.ndarray:
  """Returns weights as float32 `[num_rows]`."""
  with np.errstate(over="ignore"):
    weights = values.astype(np.float32)
  bad = ~(np.isfinite(weights) & (weights >= 0))
  if bad.any() or not weights.any():
    raise InputError(f"weight={column}: row {bad.argmax()} has {weights[bad.argmax()]}; weights are numbers from 0 "
                     "up, and not all 0")
  return weights


# What `examples` reads, and the encoders' kinds that read it.
MODALITIES = {"text": ("subwords", "bytes", "characters"), "audio": ("waveforms",), "images": ("images",)}


def examples(name: str, *, dataset: Dataset | None = None, encoder: Any = None, data_dir: str | None = None,
             cache_dir: str | None = None, allow_code: bool = False, errors: str = "strict", modality: str = "text",
             image_size: int = 0, channels: int = 0, bad: str = "error") -> Dataset:
  """Reads the examples of a task; see `tasks.load_examples`.

  Args:
    name: See `tasks.load_examples`.
    encoder: Pretrained encoder, whose modality is read.
    errors: See `text`.
    modality: `text`, `audio` or `images`.
    image_size, channels, bad: See `images`.
  """
  check_choice("modality", modality, list(MODALITIES))
  if encoder is not None:
    modality = next(name for name, kinds in MODALITIES.items() if encoder.kind in kinds)
  if modality == "images":
    loaded = images(name, dataset=dataset, data_dir=data_dir, cache_dir=cache_dir, allow_code=allow_code,
                    errors=errors, image_size=image_size, channels=channels, bad=bad)
    refuse_test_split(loaded, name)
    return encoder.adapt(loaded, cache_dir) if encoder else loaded
  loaded = dataset or tasks.load_examples(name, data_dir=data_dir, cache_dir=cache_dir, errors=errors,
                                          allow_code=allow_code)
  if modality != (loaded.kind if loaded.kind in ("audio", "images", "rows") else "text"):
    raise InputError(f"task={name}: holds {loaded.kind}, and a network that reads "
                     f"{encoder.kind if encoder else modality} needs modality={modality}; take another encoder, as "
                     "the model cpc_supervised does")
  return loaded


def refuse_test_split(dataset: Dataset, name: str) -> None:
  """Raises where there is nothing but a test split to train on."""
  if "test" in dataset.split and "train" not in dataset.split or re.match(r"tfds:[^:]+:test", name):
    raise InputError(f"data={name}: is a test set, which is not to be trained on; give one with a part train, and "
                     "evaluate on this by protocols")


def training_split(dataset: Dataset) -> Dataset:
  """Returns the training split of text as a dataset of its own; one without a split is all training data."""
  if "train" not in dataset.split:
    return dataset
  return dataset._replace(items=[dataset.items[i] for i in dataset.split["train"]], split={},
                          fingerprint=f"{dataset.fingerprint}:train")


def first_items(dataset: Any, number: int) -> Any:
  """Returns the first items of a dataset without a split, for tests and trials."""
  total = len(dataset.items)
  note = f"the first {number:,} of {total:,} items of {dataset.name}" if number < total else ""
  return dataset._replace(
      items=dataset.items[:number], labels={name: label[:number] for name, label in dataset.labels.items()},
      note="; ".join(filter(None, [dataset.note, note])),
      names=None if dataset.names is None else dataset.names[:number],
      fingerprint=f"{dataset.fingerprint}:{number}")
