"""Encoders: items (rows, pictures, words, texts, clips) to batches of NumPy arrays, kept as plain files beside a run.

The leading axis of every array is the items'; the second is padded to the longest item rounded up to
a power of two, so that a compiled function sees few shapes. `mask` is 1 for every item.
"""
import hashlib
import importlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from etils import epath

from embeddings_jax.data import formats
from embeddings_jax.data.files.atomic import write_atomically
from embeddings_jax.data.images import read_picture, to_uint8
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


class RowEncoder(Encoder):
  """Numeric rows -> `x` float32 `[n, num_features]`, shifted by `mean` and divided by `std` if they are given.

  With `gaps`, entries may be NaN: values that are missing, and stay so.
  """

  kind = "rows"

  def __init__(self, num_features: int, mean: Sequence[float] | None = None, std: Sequence[float] | None = None,
               gaps: bool = False):
    self.num_features = num_features
    self.mean = None if mean is None else np.asarray(mean, np.float32)
    self.std = None if std is None else np.asarray(std, np.float32)
    self.gaps = gaps

  @classmethod
  def standardizing(cls, rows: np.ndarray, gaps: bool = False) -> "RowEncoder":
    """Gives every feature of `rows` mean 0 and deviation 1; constant features keep their scale."""
    if gaps and np.isnan(rows).all(0).any():
      raise InputError(f"column {np.isnan(rows).all(0).argmax()} (from 0): has no value in any row; leave it out")
    mean, std = (np.nanmean, np.nanstd) if gaps else (np.mean, np.std)
    deviation = std(rows, 0, dtype=np.float64)
    return cls(rows.shape[1], mean(rows, 0, dtype=np.float64), np.where(deviation > 0, deviation, 1), gaps)

  def options(self) -> dict[str, Any]:
    listed = {k: None if v is None else [float(x) for x in v] for k, v in (("mean", self.mean), ("std", self.std))}
    return {"num_features": self.num_features, **listed, **({"gaps": True} if self.gaps else {})}

  def encode(self, items: Sequence[Any]) -> Batch:
    _check_some(items)
    for i, item in enumerate(items):
      if np.shape(item) != (self.num_features,):
        raise InputError(f"row {i}: has shape {np.shape(item)}, should have {self.num_features} features")
    x = np.asarray(items, np.float32)
    bad = np.isinf(x) if self.gaps else ~np.isfinite(x)
    if bad.any():
      row, column = np.argwhere(bad)[0]
      raise InputError(f"row {row}, column {column} (from 0): {x[row, column]} is not a finite number")
    if self.mean is not None:
      x = x - self.mean
    if self.std is not None:
      x = x / self.std
    return {"x": x, "mask": _ones(items)}


class ImageEncoder(Encoder):
  """Pictures -> `image` uint8 `[n, height, width, channels]`, which models scale.

  Items are uint8 arrays `[height, width, channels]` (or without the last axis where that is 1), rows of that many
  values in [0, 1], all of the one size, or paths of picture files, which are made grey or RGB and fitted to it (see
  `images.py`).
  """

  kind = "images"
  embedded_at_once = 1 << 17  # Pixels: convolutions make many times as many numbers of them.

  def __init__(self, height: int, width: int, channels: int):
    self.shape = height, width, channels

  def options(self) -> dict[str, Any]:
    return dict(zip(("height", "width", "channels"), self.shape))

  def encode(self, items: Sequence[np.ndarray | str | os.PathLike]) -> Batch:
    _check_some(items)
    if isinstance(items, np.ndarray) and items.dtype == np.uint8 and items.shape[1:] == self.shape:
      images = np.asarray(items)
    else:
      images = np.stack([self._picture(i, item) for i, item in enumerate(items)])
    return {"image": images, "mask": _ones(items)}

  def _picture(self, i: int, item: np.ndarray | str | os.PathLike) -> np.ndarray:
    where = f"picture {i}"
    if isinstance(item, (str, os.PathLike)):
      where, item = str(item), read_picture(epath.Path(item).read_bytes(), item, self.shape[2], self.shape[:2])
    item = np.asarray(item)
    if item.ndim == 1 and item.dtype.kind == "f" and item.size == np.prod(self.shape):
      item = to_uint8(item).reshape(self.shape)
    if item.dtype != np.uint8 or item.shape != self.shape and (*item.shape, 1) != self.shape:
      raise InputError(f"{where}: is {item.dtype} {list(item.shape)}, should be uint8 {list(self.shape)}")
    return item.reshape(self.shape)


class WordEncoder(Encoder):
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
    words = "".join(f"{word}\n" for word in self.vocabulary.words)
    return {"vocabulary.txt": words.encode(), "counts.npy": counts.getvalue()}

  @classmethod
  def from_files(cls, options: Mapping[str, Any], folder: epath.Path) -> "WordEncoder":
    # Not splitlines: a word may hold one of the rarer line ends of Unicode.
    words = (folder / "vocabulary.txt").read_bytes().decode().split("\n")[:-1]
    counts = np.load(io.BytesIO((folder / "counts.npy").read_bytes()), allow_pickle=False)
    return cls(Vocabulary(words, counts), **options)

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
    self.rate, self.max_length = rate, max_length

  def options(self) -> dict[str, Any]:
    return {"rate": self.rate, **({"max_length": self.max_length} if self.max_length else {})}

  def encode(self, items: Sequence[np.ndarray | str | os.PathLike]) -> Batch:
    clips = [self._samples(i, item)[:self.max_length or None] for i, item in enumerate(items)]
    return _signals(clips, np.int16, self.max_length or None)

  def _samples(self, i: int, item: np.ndarray | str | os.PathLike) -> np.ndarray:
    if isinstance(item, (str, os.PathLike)):
      return resampled(*formats.read_wav(item), self.rate)
    item = np.asarray(item)
    if item.dtype != np.int16 or item.ndim != 1 or not len(item):
      raise InputError(f"clip {i}: is {item.dtype} {list(item.shape)}, should be int16 [num_samples] and not empty")
    return item


class ByteEncoder(Encoder):
  """Strings -> `signal` uint8 `[n, num_bytes]` of UTF-8, cut at `max_length`, padded with 0; `length` int32 `[n]`."""

  kind = "bytes"

  def __init__(self, max_length: int):
    self.max_length = max_length

  def options(self) -> dict[str, Any]:
    return {"max_length": self.max_length}

  def encode(self, items: Sequence[str]) -> Batch:
    # A character has at most four bytes, so a long text need not be encoded to its end.
    data = [item[:self.max_length].encode("utf-8", "replace")[:self.max_length] for item in items]
    return _signals([np.frombuffer(item, np.uint8) for item in data], np.uint8, self.max_length)


# Those of subwords and characters are in files of their own, which add them here when they are asked for.
ELSEWHERE = ("subwords", "characters")
ENCODERS = {cls.kind: cls for cls in (RowEncoder, ImageEncoder, WordEncoder, BagEncoder, WaveformEncoder,
                                     ByteEncoder)}


def load_encoder(folder: str | os.PathLike) -> Encoder:
  """The encoder that was saved in a folder."""
  folder = epath.Path(folder)
  path = folder / "preprocess.json"
  if not path.exists():
    raise InputError(f"{folder}: is no encoder, preprocess.json is missing; give the folder `encoder` of a run")
  try:
    options = json.loads(path.read_text())
    kind = options.pop("kind")
    if kind in ELSEWHERE:
      importlib.import_module(f"embeddings_jax.data.{kind}")
    return ENCODERS[kind].from_files(options, folder)
  except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as e:
    raise InputError(f"{folder}: damaged encoder ({type(e).__name__}: {e})") from e


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
