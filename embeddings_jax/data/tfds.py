"""Sets of TensorFlow Datasets that are prepared on this machine, read without TensorFlow."""
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embeddings_jax.data.boxes import Boxes, check_boxes
from embeddings_jax.data.cache import cached, digest
from embeddings_jax.data.dataset import Dataset, text_dataset
from embeddings_jax.data.documents import Document
from embeddings_jax.data.files.arrays import create_npy, first_not_finite, lossless
from embeddings_jax.data.images import from_pixels
from embeddings_jax.data.task_files import LABELS, PAIRS, SCORES, TEXT, TRIPLES, Example, task_dataset
from embeddings_jax.types import InputError

VERSION = 1  # Of what is cached: raise it when the same set would give other rows.


def load_tfds(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    cache_dir: Path,
    image_size: int = 0,
    channels: int = 0,
    bad: str = "error",
) -> Dataset:
  """Loads `tfds:<name>[/config][:split]`; without a split, `train` and, as the dataset's split, `test`.

  The first feature that is text, audio (a feature `Audio`, or a vector of integers of any length), an
  image or a vector of numbers is what is learnt from; `ClassLabel`s are the labels. A feature `Image`
  gives `images`; with `objects` that have a `bbox` and a `label`, as of `tfds:voc/2007`, and without `image_size`,
  images with boxes, for detection. Texts whose names `task_files.py` knows for those of pairs or triples (`premise`
  and `hypothesis`) are one, with their label or score; examples of pairs whose class is -1 have none and are left
  out.

  Args:
    name: as above; a split may be a slice like `train[:10%]`.
    data_dir: looked into first; then where TFDS keeps its data ($TFDS_DATA_DIR, ~/tensorflow_datasets).
    cache_dir: where decoded rows and text are kept.
    image_size, channels: Size and channels of images; see `images.decoded`.
    bad: has no meaning here, where images were decoded when the set was prepared.

  Raises:
    InputError: not prepared here, an unknown split, features of none of these kinds, or images of several sizes
      without `image_size`.
  """
  match = re.fullmatch(r"tfds:([\w/.-]+)(?::(.+))?", name)
  if not match:
    raise InputError(f"data={name}: should read tfds:<name>[/config][:split]")
  builder = open_builder(name, match[1], data_dir)
  splits = [match[2]] if match[2] else [part for part in ("train", "test") if part in builder.info.splits]
  if not splits:
    raise InputError(f"data={name}: no split train; name one of {', '.join(builder.info.splits)}: {name}:<split>")
  texts = _texts(dict(_features(builder.info.features)))
  if texts and texts[0] != "text":
    dataset = _text_dataset(name, builder, splits, *texts)
    return dataset if len(splits) > 1 else dataset._replace(split={})
  objects = dict(_features(builder.info.features)).get("objects")
  if not image_size and {"bbox", "label"} <= set(getattr(objects, "feature", None) or {}):
    return _boxed(name, builder, splits, objects.feature["label"].names)
  kind, feature = _content(name, builder.info.features)
  parts = {split: open_reader(name, builder, split) for split in splits}
  label_names = [k for k, v in _features(builder.info.features) if type(v).__name__ == "ClassLabel"]
  # TFDS does not say what its files' content is, but a version of a set never changes.
  key = digest("tfds", VERSION, builder.info.full_name, int(builder.info.dataset_size), splits, kind, feature,
               [len(reader) for reader in parts.values()],
               *([image_size, channels] if kind == "images" and (image_size or channels) else []))
  ends = np.cumsum([len(reader) for reader in parts.values()])
  split = {}
  if len(splits) > 1:
    split = {part: np.arange(end - len(parts[part]), end) for part, end in zip(splits, ends)}

  if kind == "text":
    def documents() -> Iterator[Document]:
      for example in _examples(name, parts):
        labels = {label: str(example[label]) for label in label_names}
        yield Document(example[feature].decode("utf-8", "replace"), labels=labels)

    dataset = text_dataset(name, key, documents, cache_dir)
    labels = {label: value.astype(np.int64) for label, value in dataset.labels.items()}
    return dataset._replace(labels=labels, split=split)

  def build_images(folder: Path) -> None:
    folder.mkdir()
    labels = {label: np.zeros(ends[-1], np.int64) for label in label_names}
    size = (image_size, image_size) if image_size else None
    images = None
    for i, example in enumerate(_examples(name, parts)):
      picture = from_pixels(np.asarray(example[feature]), f"{name}: example {i}", channels, size)
      if images is None:
        images = create_npy(folder / "values.npy", np.uint8, (int(ends[-1]), *picture.shape))
      if picture.shape != images.shape[1:]:
        first, other = ("x".join(map(str, shape)) for shape in (images.shape[1:], picture.shape))
        raise InputError(f"data={name}: the {feature}s have several shapes, example 0 {first}, {i} {other}; "
                         "image_size=N makes all of them N x N, channels=3 RGB")
      images[i] = picture
      for label in label_names:
        labels[label][i] = example[label]
    images.flush()
    for label, value in labels.items():
      np.save(folder / f"label-{label}.npy", value)

  def build(folder: Path) -> None:
    folder.mkdir()
    values, labels = [], {label: [] for label in label_names}
    for example in _examples(name, parts):
      values.append(np.asarray(example[feature]))
      for label in label_names:
        labels[label].append(example[label])
    flat = np.concatenate([value.reshape(-1) for value in values])
    np.save(folder / "lengths.npy", np.array([value.size for value in values], np.int64))
    np.save(folder / "values.npy", flat)
    for label, value in labels.items():
      np.save(folder / f"label-{label}.npy", np.array(value, np.int64))

  path = cached(cache_dir / f"tfds-{key[:32]}", build_images if kind == "images" else build)
  values = np.load(path / "values.npy", mmap_mode="r")
  labels = {label: np.load(path / f"label-{label}.npy") for label in label_names}
  if kind == "images":
    return Dataset(name, "images", values, labels=labels, split=split, fingerprint=key)
  lengths = np.load(path / "lengths.npy")
  if kind == "audio":
    rate = getattr(dict(_features(builder.info.features))[feature], "sample_rate", None)
    clips = np.split(_as_int16(name, values), np.cumsum(lengths)[:-1])
    return Dataset(name, "audio", clips, rate, labels=labels, split=split, fingerprint=key)
  if len(set(lengths)) > 1:
    raise InputError(f"data={name}: the {feature}s have several sizes; a set of one size is needed")
  rows = values.reshape(len(lengths), -1)
  rows = rows / np.float32(255) if rows.dtype == np.uint8 else lossless(rows)
  bad = first_not_finite(rows)
  if bad:
    raise InputError(f"data={name}: row {bad[0]} has a value that is not finite")
  return Dataset(name, "rows", rows, labels=labels, split=split, fingerprint=key)


class Records(Sequence):
  """Images of records, uint8 [height, width, 3] each, decoded as they are asked for."""

  def __init__(self, name: str, parts: Mapping[str, Any]):
    self._name, self._parts = name, parts

  def __len__(self) -> int:
    return sum(map(len, self._parts.values()))

  def __getitem__(self, i: Any) -> Any:
    if isinstance(i, slice):
      return [self[j] for j in range(*i.indices(len(self)))]
    return from_pixels(np.asarray(self.record(i)["image"]), f"{self._name}: example {i}", 3)

  def record(self, i: int) -> Mapping[str, Any]:
    """Returns the i-th record of all parts."""
    for split, reader in self._parts.items():
      if i < len(reader):
        return _record(self._name, split, reader, int(i))
      i -= len(reader)
    raise IndexError(i)


def _boxed(name: str, builder: Any, splits: Sequence[str], classes: Sequence[str]) -> Dataset:
  """Images with boxes. Those of VOC are stored as its files have them, from 1 on and inclusive."""
  parts = {split: open_reader(name, builder, split) for split in splits}
  items, fields = Records(name, parts), []
  first = 1 if builder.name.endswith("voc") else 0
  for i in range(len(items)):
    record = items.record(i)
    objects, (height, width) = record["objects"], np.shape(record["image"])[:2]
    corners = np.asarray(objects["bbox"], np.float64).reshape(-1, 4) * [height, width, height, width]
    corners = check_boxes(np.round(corners - [first, first, 0, 0], 2), height, width, f"{name}: example {i}")
    label = np.asarray(objects["label"], np.int32)
    fields.append((corners, np.full(len(label), i, np.int32), label,
                  np.asarray(objects.get("is_difficult", np.zeros(len(label))), bool)))
  ends = np.cumsum([len(reader) for reader in parts.values()])
  split = {part: np.arange(end - len(parts[part]), end) for part, end in zip(splits, ends)}
  boxes = Boxes(*(np.concatenate(values) for values in zip(*fields)), classes)
  return Dataset(name, "boxes", items, split=split if len(splits) > 1 else {}, boxes=boxes,
                 fingerprint=digest("tfds boxes", VERSION, builder.info.full_name, splits))


def load_tfds_task(name: str, *, data_dir: str | os.PathLike | None = None) -> Dataset:
  """The labeled texts of `tfds:<name>[/config]`: all its splits, as the kinds of `data/task_files.py`.

  `questions`: features `question`, `context` and `answers`; `words`: `tokens` with `ner`, `upos`, `pos` or `tags`;
  `pairs` and `text`: the names that `task_files.py` knows, with a `label` or `score`. Examples whose class is -1 have
  none, as those of GLUE's test parts; they are left out.

  Raises:
    InputError: as `load_tfds`; or features of none of these kinds.
  """
  path = name.removeprefix("tfds:")
  builder = open_builder(name, path, data_dir)
  features = dict(_features(builder.info.features))
  names = {key.lower(): key for key in features}
  texts = _texts(features)
  tags = next((key for key in ("ner", "upos", "pos", "tags") if key in names), None)

  if {"question", "context", "answers"} <= names.keys():
    kind = "questions"

    def convert(example, place):
      answers = example["answers"]
      answer_spans = zip((int(start) for start in answers["answer_start"]), map(_decoded, answers["text"]))
      return Example((_decoded(example["question"]), _decoded(example["context"])), tuple(answer_spans), place)
  elif "tokens" in names and tags:
    kind, classes = "words", features[names[tags]].feature

    def convert(example, place):
      words = tuple(map(_decoded, example["tokens"]))
      marks = tuple(classes.int2str(int(tag)) if hasattr(classes, "int2str") else _decoded(tag)
                    for tag in example[names[tags]])
      return Example(words, marks, place)
  elif texts and texts[1]:
    kind, _, convert = texts
  else:
    raise InputError(f"data={name}: no task is known by its features {', '.join(sorted(features))}")
  return _text_dataset(name, builder, list(builder.info.splits), kind, True, convert)


def _texts(features: Mapping[str, Any]) -> tuple[str, bool, Callable[[Mapping[str, Any], str], Example]] | None:
  """`triples`, `pairs` or `text`, whether they have labels, and what makes an example of a record; None for features
  that have other names. Triples have no label."""
  names = {key.lower(): key for key in features}
  known = lambda groups: next((group for group in groups if set(group) <= names.keys()), None)
  texts = known(TRIPLES) or known(PAIRS) or known((key,) for key in TEXT)
  if not texts:
    return None
  label = None if len(texts) > 2 else next((key for key in (*LABELS, *SCORES) if key in names), None)
  feature = label and features[names[label]]

  def convert(example, place):
    items = tuple(_decoded(example[names[key]]) for key in texts)
    value = example[names[label]] if label else None
    if hasattr(feature, "int2str"):
      value = feature.int2str(int(value)) if value >= 0 else None
    elif label and np.dtype(feature.np_dtype).kind == "f":
      value = float(value) if value >= 0 else None
    elif label:
      value = _decoded(value)
    return Example(items if len(items) > 1 else items[0], value, place)

  return {1: "text", 2: "pairs", 3: "triples"}[len(texts)], label is not None, convert


def _text_dataset(name: str, builder: Any, splits: Sequence[str], kind: str, labeled: bool,
                  convert: Callable[[Mapping[str, Any], str], Example]) -> Dataset:
  parts = {}
  for split in splits:
    reader = open_reader(name, builder, split)
    examples = [convert(reader[i], f"{name}:{split}: example {i}") for i in range(len(reader))]
    parts[split] = [example for example in examples if example.target is not None or not labeled]
  key = digest("tfds task", VERSION, builder.info.full_name, int(builder.info.dataset_size), kind,
               {split: len(examples) for split, examples in parts.items()})
  return task_dataset(name, kind, parts, key)


def _decoded(value: Any) -> str:
  return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def open_builder(name: str, path: str, data_dir: str | os.PathLike | None) -> Any:
  import tensorflow_datasets as tfds

  ours = data_dir or os.environ.get("EMBEDDINGS_DATA")
  for folder in ([os.path.expanduser(ours)] if ours else []) + [None]:
    try:
      builder = tfds.builder(path, data_dir=folder)
      if builder.info.splits:
        return builder
    except Exception as e:  # What TFDS raises for a set it cannot open differs from set to set.
      if isinstance(e, ImportError) and "tensorflow" in str(e):
        raise InputError(f"data={name}: TFDS cannot open this set without TensorFlow; "
                         "pip install embeddings_jax[tensorflow]") from e
  raise InputError(
      f"--data={name}: not prepared on this machine; prepare it once where TensorFlow is (pip install "
      f"embeddings_jax[tensorflow]) by tfds.builder('{path}', file_format='array_record').download_and_prepare()")


def open_reader(name: str, builder: Any, split: str) -> Any:
  try:
    return builder.as_data_source(split)
  except NotImplementedError as e:
    raise InputError(f"data={name}: is prepared as {builder.info.file_format}, which cannot be read at random; "
                     "prepare it with file_format='array_record'") from e
  except Exception as e:
    raise InputError(f"data={name}: split {split!r} cannot be opened; there are {', '.join(builder.info.splits)} "
                     f"({str(e).splitlines()[0]})") from e


def _features(features: Any) -> list[tuple[str, Any]]:
  return list(features.items()) if hasattr(features, "items") else []


def _content(name: str, features: Any) -> tuple[str, str]:
  """Kind (`audio`, `images`, `rows` or `text`) and name of the feature that is learnt from."""
  columns = {}
  for key, feature in _features(features):
    kind, shape = type(feature).__name__, feature.shape
    if kind in ("ClassLabel", "Sequence", "FeaturesDict", "Dataset"):
      continue
    if kind == "Text":
      columns.setdefault("text", key)
    elif kind == "Audio" or (len(shape) == 1 and shape[0] is None and np.issubdtype(feature.np_dtype, np.integer)):
      columns.setdefault("audio", key)
    elif kind == "Image" and np.dtype(feature.np_dtype) in (np.uint8, np.uint16):
      columns.setdefault("images", key)
    elif kind == "Image" or (shape and None not in shape and np.dtype(feature.np_dtype).kind in "fiu"):
      columns.setdefault("rows", key)
  for kind in ("audio", "images", "rows", "text"):  # Texts beside images or clips are their captions or names.
    if kind in columns:
      return kind, columns[kind]
  others = ", ".join(key for key, _ in _features(features)) or features
  raise InputError(f"data={name}: has no text, audio, image or vector, only {others}")


def _examples(name: str, parts: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
  for split, reader in parts.items():
    for i in range(len(reader)):
      yield _record(name, split, reader, i)


def _record(name: str, split: str, reader: Any, i: int) -> Mapping[str, Any]:
  try:
    return reader[i]
  except (ValueError, OSError, SyntaxError, TypeError) as error:  # Damaged, or of 16 bits without OpenCV.
    raise InputError(f"data={name}: example {i} of {split} cannot be decoded "
                     f"({' '.join(str(error).split())[:120]})") from error


def _as_int16(name: str, values: np.ndarray) -> np.ndarray:
  if len(values) and (values.min() < -32768 or values.max() > 32767):
    raise InputError(f"data={name}: has samples beyond 16 bits")
  return np.asarray(values, np.int16)
