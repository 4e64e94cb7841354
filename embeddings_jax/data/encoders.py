"""Encoders: items (rows, pictures, words, texts, clips) to batches of NumPy arrays, kept as plain files beside a run.

The leading axis of every array is the items'; the second is padded to the longest item rounded up to
a power of two, so that a compiled function sees few shapes. `mask` is 1 for every item.
"""
import hashlib
import importlib
import inspect
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from etils import epath

from embeddings_jax import extensions
from embeddings_jax.data import features, formats
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.files.arrays import parse_npy
from embeddings_jax.data.files.atomic import write_atomically
from embeddings_jax.data.files.json import json_field, read_json
from embeddings_jax.data.files.names import format_names, read_names
from embeddings_jax.data.images import as_images, as_rows, fitted, read_picture, to_uint8
from embeddings_jax.data.processor import Processor
from embeddings_jax.data.words import Vocabulary, split_words
from embeddings_jax.types import InputError

Batch = dict[str, np.ndarray]


class Encoder:
  """What all encoders share: they are their files.

  A subclass has a `kind`, `encode(items)`, `files()` and `from_files(options, folder)`.
  """

  kind: ClassVar[str]
  embedded_at_once: ClassVar[int] = 1 << 21  # Elements of encoded items that a model is given at once, about.
  encoded_at_once: ClassVar[int] = 1024  # Items.
  num_widths: ClassVar[int] = 0  # Lengths that rows are padded to, chosen by the items; 0: by `bucket`.
  padding: ClassVar[Mapping[str, int]] = {"tokens": -1, "words": -1}  # What rows are filled up with, else 0.
  names: Sequence[str] | None = None  # One per row of the table that is learnt, where there is one.

  def encode(self, items: Sequence[Any]) -> Batch:
    raise NotImplementedError

  def lengths(self, batch: Batch) -> np.ndarray | None:
    """What of each item's row is no padding, where rows are padded and may be cut to `bucket`s; int `[n]`."""
    return None

  def bucket(self, length: int) -> int:
    """The length that rows of up to `length` elements are padded to."""
    return bucket(length)

  def read(self, path: str, errors: str = "strict") -> list[Any]:
    """Reads a user's file, or a folder or glob of files, as items in order; each becomes one row of the result.

    Args:
      path: The file, folder or glob.
      errors: `strict` refuses text that is not UTF-8, `replace` puts replacement characters.
    """
    raise NotImplementedError

  def example(self) -> Batch:
    """Returns a batch of one item, for its shapes."""
    raise NotImplementedError

  def adapt(self, dataset: Dataset, cache_dir: str | os.PathLike | None = None) -> Dataset:
    """Returns another dataset with items that `encode` takes."""
    return dataset

  def baselines(self, dataset: Dataset) -> dict[str, Callable[[Sequence[Any]], Any]]:
    """Returns features without learning by name, `items -> [num_items, dim]`, for the items of a dataset."""
    return {}

  def options(self) -> dict[str, Any]:
    """What `preprocess.json` says beside the kind."""
    raise NotImplementedError

  def files(self) -> dict[str, bytes]:
    """Further files, by name."""
    return {}

  @classmethod
  def from_files(cls, options: Mapping[str, Any], folder: epath.Path) -> "Encoder":
    return cls(**options)

  def save(self, folder: str | os.PathLike) -> None:
    """Writes the files; `preprocess.json` comes last, so a folder that has it is complete."""
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in self._all_files().items():
      write_atomically(folder / name, data)

  @classmethod
  def load(cls, folder: str | os.PathLike) -> "Encoder":
    encoder = load_encoder(folder)
    if not isinstance(encoder, cls):
      raise InputError(f"{folder}: holds an encoder of {encoder.kind}, not of {cls.kind}")
    return encoder

  @property
  def fingerprint(self) -> str:
    """SHA-256 (hex) over the names and bytes of the files."""
    content = hashlib.sha256()
    for name, data in sorted(self._all_files().items()):
      content.update(f"{name}\0{len(data)}\0".encode() + data)
    return content.hexdigest()

  def _all_files(self) -> dict[str, bytes]:
    options = json.dumps({"kind": self.kind, **self.options()}, indent=2, sort_keys=True) + "\n"
    return self.files() | {"preprocess.json": options.encode()}


class TextEncoder(Encoder):
  """Encoders of texts, of which a file holds one a line."""

  def read(self, path: str, errors: str = "strict") -> list[str]:
    """See `Encoder.read`; a blank line is an empty item, so that rows stay aligned with lines."""
    from embeddings_jax.data import own

    files = own.list_files(path)
    for file in files:
      own.check_text(file)
    items = [line for file in files for line in formats.read_lines(file, errors)]
    if not any(items):
      raise InputError(f"{path}: is empty, it has no text")
    return items

  def example(self) -> Batch:
    return self.encode(["a"])


class RowEncoder(Encoder):
  """Numeric rows -> `x` float32 `[n, num_features]`, shifted by `mean` and divided by `std` if they are given.

  Rows of other types than float32 are shifted and divided in float64, and rounded last: of the seconds since 1970
  float32 alone keeps one number for two minutes. With `gaps`, entries may be NaN: missing values, which stay so.
  `columns` are the names of the features, by which tables are read.
  """

  kind = "rows"

  def __init__(self, num_features: int, mean: Sequence[float] | None = None, std: Sequence[float] | None = None,
               gaps: bool = False, columns: Sequence[str] | None = None):
    check_size("num_features", num_features)
    if columns is not None and not (isinstance(columns, (list, tuple)) and len(columns) == num_features
                                    and all(isinstance(name, str) for name in columns)):
      raise InputError(f"columns: expected the names of {num_features} features")
    self.columns = None if columns is None else list(columns)
    self.num_features = num_features
    self.mean, self.std = (None if values is None else np.asarray(values, np.float64) for values in (mean, std))
    for name, values in (("mean", self.mean), ("std", self.std)):
      if values is not None and (values.shape != (num_features,) or not np.isfinite(values).all()):
        raise InputError(f"{name}: expected {num_features} finite numbers")
    if self.std is not None and not (self.std > 0).all():
      raise InputError("std: expected numbers above 0")
    self.gaps = gaps

  @classmethod
  def standardizing(cls, rows: np.ndarray, gaps: bool = False) -> "RowEncoder":
    """Gives every feature of `rows` mean 0 and standard deviation 1; constant features keep their scale."""
    mean, std = _moments(rows, gaps)
    # Float32 is enough but for features that lie far from 0.
    near = np.abs(mean) * _EPSILON <= _TOLERANCE * std
    std = np.where(std > 0, std, 1)
    return cls(rows.shape[1], np.where(near, mean.astype(np.float32), mean), std.astype(np.float32), gaps)

  @classmethod
  def centering(cls, rows: np.ndarray, gaps: bool = False) -> "RowEncoder":
    """Shifts the features to mean 0 whose values float32 cannot tell apart; the others stay as they are."""
    if rows.dtype == np.float32:
      return cls(rows.shape[1], gaps=gaps)
    mean, std = _moments(rows, gaps)
    far = np.abs(mean) * _EPSILON > _TOLERANCE * std
    return cls(rows.shape[1], np.where(far & (std > 0), mean, 0) if (far & (std > 0)).any() else None, gaps=gaps)

  def options(self) -> dict[str, Any]:
    listed = {k: None if v is None else [float(x) for x in v] for k, v in (("mean", self.mean), ("std", self.std))}
    return {"num_features": self.num_features, **listed, **({"gaps": True} if self.gaps else {}),
            **({"columns": self.columns} if self.columns else {})}

  def encode(self, items: Sequence[Any]) -> Batch:
    _check_some(items)
    for i, item in enumerate(items):
      if np.shape(item) != (self.num_features,):
        raise InputError(f"row {i}: has shape {np.shape(item)}, should have {self.num_features} features")
    return {"x": self.encode_rows(np.asarray(items)), "mask": _ones(items)}

  def read(self, path: str, errors: str = "strict") -> list[np.ndarray]:
    """See `Encoder.read`: a .csv, .tsv or .npy file.

    A table with a header gives the columns of the run in their order, whatever its own is; it may have further ones.
    """
    from embeddings_jax.data import own

    file, *others = own.list_files(path)
    if others:
      raise InputError(f"{path}: {1 + len(others)} files, give one")
    table = own.read_rows(file, self.gaps, errors)
    if not self.columns or not table.columns or list(self.columns) == list(table.columns):
      return list(table.rows)
    missing = [name for name in self.columns if name not in table.columns]
    if missing or len(set(table.columns)) < len(table.columns):
      what = f"has no column {formats.quoted(missing[0])}" if missing else "has two columns of one name"
      raise InputError(f"{file}: {what}; the run's columns are {', '.join(self.columns)[:200]}")
    return list(table.rows[:, [table.columns.index(name) for name in self.columns]])

  def example(self) -> Batch:
    return self.encode(np.zeros((1, self.num_features), np.float32))

  def adapt(self, dataset: Dataset, cache_dir: str | os.PathLike | None = None) -> Dataset:
    return as_rows(dataset)

  def encode_rows(self, rows: np.ndarray) -> np.ndarray:
    """Returns `x` of an array `[n, num_features]`, some at a time: rows may be memory-mapped."""
    x = np.empty(rows.shape, np.float32)
    step = max(1, _ROWS_AT_ONCE // rows.shape[1])
    for start in range(0, len(rows), step):
      part = rows[start:start + step]
      bad = ~np.isfinite(part) & ~(self.gaps & np.isnan(part))
      if bad.any():
        row, column = np.argwhere(bad)[0]
        raise InputError(f"row {start + row}, column {column} (from 0): {part[row, column]} is not a finite number")
      # Float32 stays float32 where the shift is one too.
      exact = part.dtype == np.float32 and (self.mean is None or (self.mean == self.mean.astype(np.float32)).all())
      part = part.astype(np.float32 if exact else np.float64)
      if self.mean is not None:
        part = part - self.mean.astype(part.dtype)
      if self.std is not None:
        part = part / self.std.astype(part.dtype)
      with np.errstate(over="ignore"):
        x[start:start + step] = part
      if np.isinf(x[start:start + step]).any():
        row, column = np.argwhere(np.isinf(x[start:start + step]))[0]
        raise InputError(f"row {start + row}, column {column} (from 0): {part[row, column]} is beyond float32")
    return x


_MAX_PIXELS = 256  # Values of an image whose pixels are a baseline of each run: a probe of more takes minutes.
_EPSILON, _TOLERANCE = 2.0**-24, 1e-3  # Rounding of float32, and how much of a standard deviation it may be.
_ROWS_AT_ONCE = 1 << 22  # Elements.


def _moments(rows: np.ndarray, gaps: bool) -> tuple[np.ndarray, np.ndarray]:
  """Mean and standard deviation of each column in float64, some rows at a time."""
  if gaps and np.isnan(rows).all(0).any():
    raise InputError(f"column {np.isnan(rows).all(0).argmax()} (from 0): has no value in any row; leave it out")
  add, step = (np.nansum if gaps else np.sum), max(1, _ROWS_AT_ONCE // rows.shape[1])
  parts = [slice(start, start + step) for start in range(0, len(rows), step)]
  number = sum((~np.isnan(rows[part])).sum(0) for part in parts) if gaps else len(rows)
  mean = sum(add(rows[part], 0, dtype=np.float64) for part in parts) / number
  square = sum(add((rows[part] - mean) ** 2, 0) for part in parts)
  return mean, np.sqrt(square / number)


class ImageEncoder(Encoder):
  """Images -> `image` uint8 `[n, height, width, channels]`, which models scale.

  Items are uint8 arrays `[height, width, channels]` (or without the last axis where that is 1), rows of that many
  values in [0, 1], or paths of image files, which become gray or RGB. Files are fitted to the size (see `images.py`),
  arrays must have it; with a `processor` both are resized and cropped by it.
  """

  kind = "images"
  embedded_at_once = 1 << 17  # Pixels: convolutions make many times as many numbers of them.

  def __init__(self, height: int, width: int, channels: int, processor: Processor | Mapping[str, Any] | None = None):
    for name, value, most in (("height", height, 1 << 16), ("width", width, 1 << 16), ("channels", channels, 4)):
      check_size(name, value, 1, most)
    self.shape = height, width, channels
    self.processor = Processor.from_options(processor) if isinstance(processor, Mapping) else processor

  def options(self) -> dict[str, Any]:
    return dict(zip(("height", "width", "channels"), self.shape)) | (
        {"processor": self.processor.options()} if self.processor else {})

  def encode(self, items: Sequence[np.ndarray | str | os.PathLike]) -> Batch:
    _check_some(items)
    if isinstance(items, np.ndarray) and items.dtype == np.uint8 and items.shape[1:] == self.shape and (
        not self.processor or self.processor.keeps(*self.shape[:2])):
      images = np.asarray(items)
    else:
      images = np.stack([self._image(i, item) for i, item in enumerate(items)])
    return {"image": images, "mask": _ones(items)}

  def read(self, path: str, errors: str = "strict") -> list[Any]:
    """See `Encoder.read`: .npy (uint8 [n, height, width, channels]), or image files, of which the paths are items."""
    from embeddings_jax.data import own

    files = own.list_files(path)
    if files[0].suffix == ".npy":
      images = formats.load_npy(files[0])
      if images.ndim < 2 or images.dtype.kind not in "fiub":
        raise InputError(f"{files[0]}: holds {images.dtype} {list(images.shape)}, should be uint8 [n, height, width, "
                         "channels]")
      return list(images)
    images = [file for file in files if own.file_kind(file) == "images"]
    return [str(file) for file in images or files]  # A readme beside images is none.

  def example(self) -> Batch:
    return self.encode(np.zeros((1, *self.shape), np.uint8))

  def for_task(self, max_length: int) -> "ImageEncoder":
    """Returns the encoder for a task; images have no length."""
    return self

  def adapt(self, dataset: Dataset, cache_dir: str | os.PathLike | None = None) -> Dataset:
    """Returns another dataset's images with the encoder's size and channels; a processor resizes them itself."""
    size = (0, 0) if self.processor else self.shape[:2]
    return fitted(as_images(dataset), *size, self.shape[2], cache_dir=cache_dir)

  def baselines(self, dataset: Dataset) -> dict[str, Callable[[Sequence[Any]], Any]]:
    return {"pixels": features.pixels} if np.prod(self.shape) <= _MAX_PIXELS else {}

  def _image(self, i: int, item: np.ndarray | str | os.PathLike) -> np.ndarray:
    where = f"image {i}"
    if isinstance(item, (str, os.PathLike)):
      size = None if self.processor else self.shape[:2]
      where, item = str(item), read_picture(epath.Path(item).read_bytes(), item, self.shape[2], size)
    item = np.asarray(item)
    if item.ndim == 1 and item.dtype.kind == "f" and item.size == np.prod(self.shape):
      item = to_uint8(item).reshape(self.shape)
    if item.ndim == 2 and self.shape[2] == 1:
      item = item[..., None]
    if self.processor and item.ndim == 3 and item.dtype == np.uint8 and item.size and item.shape[2] == self.shape[2]:
      item = self.processor.apply(item)
    if item.dtype != np.uint8 or item.shape != self.shape:
      raise InputError(f"{where}: is {item.dtype} {list(item.shape)}, expected uint8 {list(self.shape)}"
                       + (" (after the steps of preprocessor_config.json)" if self.processor else ""))
    return item


class WordEncoder(TextEncoder):
  """Words or lines -> `tokens` int32 `[n, length]`, padded with -1; words out of the vocabulary are dropped.

  An item that is itself in the vocabulary is that word, so that imported names like `New_York` are found.
  """

  kind = "words"

  def __init__(self, vocabulary: Vocabulary, normalize: str):
    self.vocabulary = vocabulary
    self.normalize = normalize

  @property
  def names(self) -> list[str]:
    return self.vocabulary.words

  def options(self) -> dict[str, Any]:
    return {"normalize": self.normalize}

  def files(self) -> dict[str, bytes]:
    counts = io.BytesIO()
    np.save(counts, self.vocabulary.counts)
    return {"vocabulary.txt": format_names(self.vocabulary.words).encode(), "counts.npy": counts.getvalue()}

  @classmethod
  def from_files(cls, options: Mapping[str, Any], folder: epath.Path) -> "WordEncoder":
    words = read_names(folder / "vocabulary.txt")
    encoder = cls(Vocabulary(words, _read_counts(folder / "counts.npy", len(words))), **options)
    split_words("", encoder.normalize)  # Raises for an unknown one.
    return encoder

  def encode(self, items: Sequence[str]) -> Batch:
    index = self.vocabulary.index
    found = []
    for item in items:
      words = [item] if item in index else split_words(item, self.normalize)
      found.append(np.array([index[word] for word in words if word in index], np.int32))
    return {"tokens": _padded(found, np.int32, -1), "mask": _ones(items)}


class BagEncoder(WordEncoder):
  """Documents -> `words` int32 `[n, length]`, sorted, padded with -1, and `counts` float32 `[n, length]`.

  An item is a text, or a mapping from words to counts. Words out of the vocabulary are dropped; a document without a
  known word is all padding.
  """

  kind = "bags"
  names = None

  def tokens(self, text: str) -> np.ndarray:
    """The known words of a text in their order: int32 `[num_tokens]`."""
    index = self.vocabulary.index
    return np.array([index[word] for word in split_words(text, self.normalize) if word in index], np.int32)

  def encode(self, items: Sequence[str | Mapping[str, float]]) -> Batch:
    words, counts = zip(*(self.bag(item, i) for i, item in enumerate(items))) if len(items) else ((), ())
    return {"words": _padded(words, np.int32, -1), "counts": _padded(counts, np.float32, 0), "mask": _ones(items)}

  def lengths(self, batch: Batch) -> np.ndarray:
    return (batch["words"] >= 0).sum(1)

  def baselines(self, dataset: Dataset) -> dict[str, Callable[[Sequence[Any]], Any]]:
    # Frequencies are of the training split, as far as the dataset itself is embedded.
    fit = lambda items: dataset.split.get("train") if items is dataset.items else None
    return {"tf_idf": lambda items: features.tf_idf(items, self.encode, len(self.vocabulary), fit=fit(items))}

  def bag(self, item: str | Mapping[str, float], i: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The known words of one item, sorted, and their counts; `i` is what an error calls it."""
    if isinstance(item, str):
      return np.unique(self.tokens(item), return_counts=True)
    index = self.vocabulary.index
    for word, count in item.items():
      if not 0 <= count < np.inf:
        raise InputError(f"document {i}: a count of {count} for {word!r}; it must be a number and not negative")
    known = sorted((index[word], count) for word, count in item.items() if count and word in index)
    return np.array([word for word, _ in known], np.int32), np.array([count for _, count in known], np.float32)


class WaveformEncoder(Encoder):
  """Clips -> `signal` int16 `[n, num_samples]`, padded with 0, and `length` int32 `[n]`.

  Items are int16 arrays at `rate` samples per second, or paths of wav files, which are resampled to it; with
  `max_length` they are cut after so many samples.
  """

  kind = "waveforms"

  def __init__(self, rate: int, max_length: int = 0):
    check_size("rate", rate, 1, 1 << 24)
    check_size("max_length", max_length, 0)
    self.rate, self.max_length = rate, max_length

  def options(self) -> dict[str, Any]:
    return {"rate": self.rate, **({"max_length": self.max_length} if self.max_length else {})}

  def encode(self, items: Sequence[np.ndarray | str | os.PathLike]) -> Batch:
    clips = [self._samples(i, item)[:self.max_length or None] for i, item in enumerate(items)]
    return _signals(clips, np.int16, self.max_length or None)

  def read(self, path: str, errors: str = "strict") -> list[str]:
    """See `Encoder.read`: wav files, or a text file with a path of one a line, relative to that file."""
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
      return resampled(*formats.read_wav(item), self.rate)
    item = np.asarray(item)
    if item.dtype != np.int16 or item.ndim != 1 or not len(item):
      raise InputError(f"clip {i}: is {item.dtype} {list(item.shape)}, should be int16 [num_samples] and not empty")
    return item


class ByteEncoder(TextEncoder):
  """Strings -> `signal` uint8 `[n, num_bytes]` of UTF-8, cut at `max_length`, padded with 0; `length` int32 `[n]`."""

  kind = "bytes"

  def __init__(self, max_length: int):
    check_size("max_length", max_length)
    self.max_length = max_length

  def options(self) -> dict[str, Any]:
    return {"max_length": self.max_length}

  def for_task(self, max_length: int) -> "ByteEncoder":
    """Returns the encoder for a task, which cuts texts at `max_length` bytes."""
    return ByteEncoder(max_length)

  def baselines(self, dataset: Dataset) -> dict[str, Callable[[Sequence[Any]], Any]]:
    return {"byte_ngrams": features.byte_ngrams}

  def encode(self, items: Sequence[str]) -> Batch:
    # A character has at most four bytes, so a long text need not be encoded to its end.
    data = [item[:self.max_length].encode("utf-8", "replace")[:self.max_length] for item in items]
    return _signals([np.frombuffer(item, np.uint8) for item in data], np.uint8, self.max_length)


# Those of subwords and characters are in files of their own, which add them here when they are asked for.
ELSEWHERE = ("subwords", "characters")
ENCODERS = {cls.kind: cls for cls in (RowEncoder, ImageEncoder, WordEncoder, BagEncoder, WaveformEncoder,
                                     ByteEncoder)}


def load_encoder(folder: str | os.PathLike) -> Encoder:
  """Loads the encoder saved in a folder.

  Raises:
    InputError: No encoder, a damaged one, or one of an unknown kind.
  """
  folder = epath.Path(folder)
  path = folder / "preprocess.json"
  if not path.exists():
    raise InputError(f"{folder}: is no encoder, preprocess.json is missing; give the folder `encoder` of a run")
  options = read_json(path)
  kind = json_field(options, "kind", str, path)
  if kind in ELSEWHERE:
    importlib.import_module(f"embeddings_jax.data.{kind}")
  elif kind not in ENCODERS:
    extensions.modules("encoders")  # They add theirs.
  if kind not in ENCODERS:
    raise InputError(f"{path}: unknown kind {kind[:60]!r}; known: {', '.join(sorted({*ENCODERS, *ELSEWHERE}))}")
  cls = ENCODERS[kind]
  known = inspect.signature(cls.__init__).parameters
  options = {key: value for key, value in options.items() if key != "kind"}
  if unknown := sorted(set(options) - set(known)):
    raise InputError(f"{path}: {kind} has no option {unknown[0][:60]!r}")
  try:
    return cls.from_files(options, folder)
  except (OSError, ArithmeticError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise InputError(f"{folder}: damaged encoder ({' '.join(str(error).split())[:300]})") from error


def check_size(name: str, value: Any, least: int = 1, most: int = 1 << 31) -> None:
  """Raises unless an option is an integer within bounds."""
  if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not least <= value <= most:
    raise InputError(f"{name}={str(value)[:40]}: expected an integer from {least} to {most}")


def _read_counts(path: epath.Path, number: int) -> np.ndarray:
  """int64 [number], none negative, of a `.npy` file."""
  counts = parse_npy(path.read_bytes(), path)
  if counts.shape != (number,) or counts.dtype != np.int64 or counts.min(initial=0) < 0:
    raise InputError(f"{path}: does not hold the counts of {number} words as int64")
  return counts


def resampled(samples: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
  """int16 `[num_samples]` at another rate, by a polyphase filter."""
  if rate == new_rate:
    return samples
  from scipy.signal import resample_poly

  divisor = int(np.gcd(rate, new_rate))
  values = resample_poly(samples.astype(np.float64), new_rate // divisor, rate // divisor)
  return np.clip(np.rint(values), -32768, 32767).astype(np.int16)


def bucket(length: int) -> int:
  """The least power of two that is not below `length`, at least 1."""
  return 1 << max(0, length - 1).bit_length()


def part_of(limit: int, length: int) -> int:
  """The least of `limit` / 8, / 4, / 2, / 1 (rounded up) that is not below `length`, at most `limit`."""
  return next(size for size in (-(-limit >> i) for i in (3, 2, 1, 0)) if size >= min(length, limit))


def best_widths(lengths: np.ndarray, number: int, step: int = 8) -> list[int]:
  """The at most `number` widths, multiples of `step`, to which rows of these lengths are padded with least waste."""
  widths, counts = np.unique(-(-np.maximum(lengths, 1) // step) * step, return_counts=True)
  below = np.concatenate([[0], np.cumsum(counts)]).tolist()
  widths = widths.tolist()
  best = {0: (0, ())}  # How many of the widths are dealt with -> (elements, buckets).
  for _ in range(number):
    best |= {j: min(([best[j]] if j in best else []) + [
        (cost + (below[j] - below[i]) * widths[j - 1], (*chosen, widths[j - 1]))
        for i, (cost, chosen) in best.items() if i < j]) for j in range(1, len(widths) + 1)}
  return list(best[len(widths)][1])


def _check_some(items: Sequence[Any]) -> None:
  if not len(items):
    raise InputError("no items to encode: the input is empty")


def _ones(items: Sequence[Any]) -> np.ndarray:
  return np.ones(len(items), np.float32)


def _padded(rows: Sequence[np.ndarray], dtype: Any, pad: int, limit: int | None = None) -> np.ndarray:
  _check_some(rows)
  length = bucket(max(map(len, rows)))
  table = np.full((len(rows), length if limit is None else min(length, limit)), pad, dtype)
  for target, row in zip(table, rows):
    target[:len(row)] = row
  return table


def _signals(rows: Sequence[np.ndarray], dtype: Any, limit: int | None = None) -> Batch:
  signal = _padded(rows, dtype, 0, limit)
  return {"signal": signal, "length": np.array([len(row) for row in rows], np.int32), "mask": _ones(rows)}
