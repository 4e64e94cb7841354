"""Tasks for fine-tuning: what is asked of which texts, clips or images, and the arrays that a model is trained on
and asked with."""
import json
import os
import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from embeddings_jax.data import catalog, formats, own, own_text, records
from embeddings_jax.data.cache import cache_root, cached, digest
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders.base import Encoder
from embeddings_jax.data.files.arrow import without_descriptions
from embeddings_jax.data.sources import array_source
from embeddings_jax.data.task_files import read_examples, task_dataset, text_columns
from embeddings_jax.types import InputError, Source

if TYPE_CHECKING:
  from embeddings_jax.data.encoders.subwords import SubwordEncoder

VERSION = 3  # Of what is cached: raise it when the same task would give other arrays.
KINDS = ("classification", "regression", "multiple_choice", "span", "tagging")
TARGETS = ("label", "start", "end", "tags")
BESIDE = ("example", "offsets", "word_starts")  # Neither read by the encoder's network nor asked of it.
MAX_CLASSES = 1000
_PART = re.compile("train|dev|valid|val|testa|testb|test")
_PART_NAMES = {"valid": "dev", "val": "dev", "validation": "dev", "validation_matched": "dev", "testa": "dev",
               "testb": "test"}
_AT_ONCE = 1024  # Examples.


class Task(NamedTuple):
  """A supervised task on texts, audio clips or images.

  Attributes:
    name: Name of the dataset, or the stem of the user's file or folder.
    kind: One of `KINDS`.
    items: per example; see `task_files.py`.
    targets: per example: class or choice (int32 [n]), score (float32 [n], 0 ... 1), a tuple of answers (first
      character, text), or tags (int32 [num_words]).
    parts: name -> examples; `train`, `dev` and where there is one `test`, and further ones for evaluation alone.
    labels: names of the classes or tags.
    span: least and greatest score of the training part, which 0 and 1 stand for.
    fingerprint: SHA-256 (hex) of what determines all this.
    encoded: Split -> arrays, see `encode_task`.
  """

  name: str
  kind: str
  items: Sequence[Any]
  targets: Sequence[Any]
  parts: Mapping[str, np.ndarray]
  labels: tuple[str, ...]
  span: tuple[float, float]
  fingerprint: str
  encoded: Mapping[str, Mapping[str, Any]] = {}

  @property
  def texts(self) -> Sequence[Any]:
    """Per example what an encoder takes: a text or a pair of texts, of choices the context, of words a line; a clip,
    an image."""
    if isinstance(self.items, np.ndarray):
      return self.items
    if self.kind == "tagging":
      return [" ".join(words) for words in self.items]
    return [choices[0][0] for choices in self.items] if self.kind == "multiple_choice" else list(self.items)


def load_examples(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
    errors: str = "strict",
    allow_code: bool = False,
) -> Dataset:
  """The labeled texts of a task by name.

  Args:
    name: a labeled set of text of the catalog (`sst2`, `rte`, ..., also `20news`), `tfds:NAME`, or a file or a
      folder of the user's, where the parts are told by the files' names, as `train.tsv`, `dev.tsv` (or `valid`,
      `val`) and `test.tsv`. Their forms: see `task_files.py`, `records.py`. Or a folder of a folder per class.
    data_dir, cache_dir, errors, allow_code: as for `catalog.load`.
  """
  if name.startswith("tfds:"):
    from embeddings_jax.data.tfds import load_tfds_task  # TFDS takes a while to import.

    return load_tfds_task(name, data_dir=data_dir)
  if name in catalog.entries() or not os.path.exists(os.path.expanduser(name)):
    return catalog.load(name, data_dir=data_dir, cache_dir=cache_dir, errors=errors, allow_code=allow_code)
  return _own_files(name, errors, cache_dir)


def _own_files(name: str, errors: str, cache_dir: str | os.PathLike | None = None) -> Dataset:
  files = without_descriptions(own.list_files(name))
  held = {own.file_kind(file) for file in files}
  if held == {"arrow"} or held <= {"text", "html"} and own_text.folder_labels(name, files):
    dataset = own.load_path(name, cache_root(cache_dir), errors, documents="file")
    return dataset._replace(name=Path(name).name.partition(".")[0] or name)
  by_split, origin, kinds = {}, {}, ""
  for file in files:
    match = _PART.search(file.name.lower())
    if not match and len(files) > 1:
      continue  # A readme beside the data.
    part = "train" if len(files) == 1 else _PART_NAMES.get(match[0], match[0])
    part += "_mismatched" if "mismatched" in file.name.lower() else ""
    kind, examples = _read(file, errors)
    if not examples:  # Without labels.
      continue
    if part in by_split:
      raise InputError(f"{file}: the part {part} was read from {origin[part]} already; keep one of them")
    if by_split and kind != kinds:
      raise InputError(f"{file}: holds {kind}, and the other files hold {kinds}")
    by_split[part], origin[part], kinds = examples, file, kind
  if "train" not in by_split:
    raise InputError(f"{name}: has no training part; a folder needs a file train.tsv, .json, .csv, .conll or .conllu")
  key = digest("task", [[part, formats.sha256(file)] for part, file in origin.items()], errors)
  return task_dataset(Path(name).name.partition(".")[0] or name, kinds, by_split, key)


def _read(file: Path, errors: str) -> tuple[str, list[Any]]:
  """Returns the kind and the examples of a file: records with texts and labels, or see `read_examples`."""
  listed = own.file_kind(file) == "json" and (
      not file.name.lower().endswith(".json") or records.is_list(file))
  if own.file_kind(file) == "rows" and ".csv" in file.suffixes:
    listed = text_columns(list(next(records.read_records(file, errors), ("", {}))[1]))[0] is not None
  return (records.read_record_examples if listed else read_examples)(file, errors)


def as_task(dataset: Dataset, label: str = "", max_examples: int = 0, max_train: int = 0, seed: int = 0) -> Task:
  """The task that a labeled dataset is.

  A set without a part `dev` (or `test`) gives a tenth of its training part for it, chosen by a hash of the text; no
  `test` is made of a set that has `dev`. The classes and tags are those of the training part.

  Args:
    dataset: as `load_examples` gives it.
    label: which of its labels, where it has several.
    max_examples: Limit of each split, drawn once and for all; 0: all.
    max_train: Limit of the training split; 0: all. Classes keep their proportions; the examples of a smaller limit
      are among those of a larger one. Classes, tags and `span` stay those of the whole training part.
    seed: Random seed of the draw of `max_train`.

  Raises:
    InputError: it has no labels, several and none is named, or one that the training part lacks.
  """
  if dataset.kind not in ("text", "pairs", "choices", "questions", "words", "audio", "images"):
    raise InputError(f"data={dataset.name}: holds {dataset.kind}, a task needs labeled text, clips or "
                     "images")
  if not dataset.labels or (label and label not in dataset.labels) or (not label and len(dataset.labels) > 1):
    known = ", ".join(dataset.labels) or "none"
    raise InputError(f"data={dataset.name}: name one of its labels by label; it has {known}")
  label = label or next(iter(dataset.labels))
  values = dataset.labels[label]
  where = lambda i: f"{dataset.name}: example {i}" if dataset.names is None or dataset.kind == "text" and not str(
      dataset.names[i]).startswith(("/", ".")) else str(dataset.names[i])
  parts = _parts(dataset)
  if max_examples:
    parts = {name: np.sort(np.random.default_rng(0).permutation(rows)[:max_examples]) for name, rows in parts.items()}
  train, labels, span, targets = parts["train"], (), (0.0, 1.0), values
  if dataset.kind == "choices":
    kind = "multiple_choice"
    sizes = np.array([len(item) for item in dataset.items])
    if (sizes != sizes[0]).any():
      i = (sizes != sizes[0]).argmax()
      raise InputError(f"{where(i)}: has {sizes[i]} choices, the first example has {sizes[0]}")
  elif dataset.kind == "questions":
    kind = "span"
  elif dataset.kind == "words":
    kind = "tagging"
    labels = tuple(sorted({tag for i in train for tag in values[i]}))
    number = {tag: i for i, tag in enumerate(labels)}
    targets = []
    for i, tags in enumerate(values):
      for word, tag in enumerate(tags):
        if tag not in number:
          raise InputError(f"{where(i)}: the tag {formats.quoted(tag)} of word {word + 1} is not in the training "
                           f"part, which has {_listed(labels)}")
      targets.append(np.array([number[tag] for tag in tags], np.int32))
  elif values.dtype.kind == "f":
    kind = "regression"
    span = float(values[train].min()), float(values[train].max())
    if span[0] == span[1]:
      raise InputError(f"{dataset.name}: all scores of the training part are {span[0]}")
    targets = ((values - span[0]) / (span[1] - span[0])).astype(np.float32)
  else:
    kind = "classification"
    classes = np.unique(values[train])
    examples = np.concatenate(list(parts.values()))
    strange = examples[~np.isin(values[examples], classes)]
    if len(strange):
      raise InputError(f"{where(strange[0])}: the label {formats.quoted(str(values[strange[0]]))} is not in the "
                       f"training part, which has {_listed(classes)}")
    if not 2 <= len(classes) <= MAX_CLASSES:
      raise InputError(f"{dataset.name}: {label} has {len(classes)} classes in the training part, as "
                       f"{_listed(classes)}; a task has 2 to {MAX_CLASSES}")
    labels = tuple(str(value) for value in classes)
    targets = np.searchsorted(classes, values).astype(np.int32)
  if kind == "tagging" and len(labels) < 2:
    raise InputError(f"{dataset.name}: the training part has the one tag {formats.quoted(labels[0])}")
  if max_train:
    parts |= {"train": _share(train, np.asarray(targets) if kind == "classification" else None, max_train, seed)}
  drawn = [max_train, *([seed] if seed else [])] if max_train else []
  return Task(dataset.name.removeprefix("tfds:").replace("/", "-"), kind, dataset.items, targets, parts, labels, span,
              digest(dataset.fingerprint, label, max_examples, *drawn))


def _share(rows: np.ndarray, classes: np.ndarray | None, number: int, seed: int) -> np.ndarray:
  """`number` of the rows, of each class in its share, sorted; those of fewer are among those of more."""
  rows = np.random.default_rng(seed).permutation(rows)
  if classes is not None:
    order = np.argsort(classes[rows], kind="stable")
    counts = np.bincount(classes[rows])
    # The i-th of n examples of a class stands at (i + 1/2) / n of the whole.
    quantile = np.concatenate([(np.arange(count) + 0.5) / count for count in counts if count])
    rows = rows[order[np.argsort(quantile, kind="stable")]]
  return np.sort(rows[:number])


def _parts(dataset: Dataset) -> dict[str, np.ndarray]:
  parts = {}
  for name, rows in dataset.split.items():
    parts.setdefault(_PART_NAMES.get(name, name), np.asarray(rows))
  if "train" not in parts:
    if parts:
      raise InputError(f"data={dataset.name}: has no training part, only {', '.join(parts)}")
    parts["train"] = np.arange(len(dataset.items))
  missing = [] if "dev" in parts else ["dev"] if "test" in parts else ["dev", "test"]
  if missing:
    train = parts["train"]
    # A question's paragraph decides, so that it stays in one part.
    text = lambda i: dataset.items[i][1] if dataset.kind == "questions" else dataset.items[i]
    content = lambda item: item.tobytes() if isinstance(item, np.ndarray) else repr(item).encode("utf-8", "replace")
    hashes = (blake2b(content(text(i)), digest_size=8).digest() for i in train)
    drawn = np.array([int.from_bytes(value, "little") % 10 for value in hashes])
    for number, name in enumerate(missing):
      parts[name] = train[drawn == number]
    parts["train"] = train[drawn >= len(missing)]
    empty = [name for name in ("train", *missing) if not len(parts[name])]
    if empty:
      raise InputError(f"data={dataset.name}: {len(train)} examples are too few to hold a tenth out for "
                       f"{empty[0]}; give files for train, dev and test")
  return parts


def _listed(labels: Sequence[Any]) -> str:
  return ", ".join(str(label)[:40] for label in labels[:20]) + (", ..." if len(labels) > 20 else "")


def encode_task(
    task: Task,
    encoder: Encoder,
    *,
    stride: int = 128,
    cache_dir: str | os.PathLike | None = None,
) -> dict[str, dict[str, Any]]:
  """Arrays of each part; of texts cached by the task's and the encoder's fingerprints.

  Args:
    task: what to encode.
    encoder: its `max_length` is the longest row. What is longer is cut (of pairs the longer text first), counted and
      reported; contexts of questions are gone over by windows instead.
    stride: tokens from one window of a context to the next, but for the rest of a word.
    cache_dir: default `$EMBEDDINGS_CACHE`, then `~/.cache/embeddings_jax`.

  Returns:
    part -> `inputs`: what the encoder gives without its mask (`tokens` int32 [rows, length], of choices
    [rows, choices, length]); `targets` as `models/supervised/finetune.py` has them; and `example` int32 [rows], the
    number of a row's example in the task. Of spans also `offsets` int32 [rows, length, 2], first character and the
    one behind the last in the context, -1 where a token is none of it; of tags `word_starts` int32 [rows, words], the
    index of a word's first token, -1 where it is cut off.
  """
  if not hasattr(encoder, "encode_words"):
    if task.kind not in ("classification", "regression"):
      raise InputError(f"data={task.name}: an encoder of {encoder.kind} knows classification and regression")
    return {part: _supervised(_encode_plain(task, rows, encoder)) for part, rows in task.parts.items()}
  if encoder.kind != "subwords" and (task.kind not in ("classification", "regression", "tagging")
                                     or not isinstance(task.texts[0], str)):
    raise InputError(f"data={task.name}: an encoder of {encoder.kind} reads one text at a time")
  if task.kind == "span" and not 0 < stride < encoder.max_length:
    raise InputError(f"stride={stride}: must lie between 0 and max_length={encoder.max_length}")
  key = digest("task", VERSION, task.fingerprint, encoder.fingerprint, stride,
               {name: digest(rows.tolist()) for name, rows in task.parts.items()})

  def build(folder: Path) -> None:
    folder.mkdir()
    names = {}
    for part, rows in task.parts.items():
      arrays = _encode_part(task, rows, encoder, stride)
      names[part] = list(arrays)
      for name, value in arrays.items():
        np.save(folder / f"{part}-{name}.npy", value)
    (folder / "parts.json").write_text(json.dumps(names))

  path = cached(cache_root(cache_dir) / f"task-{key[:32]}", build)
  names = json.loads((path / "parts.json").read_text())
  return {part: _supervised({name: np.load(path / f"{part}-{name}.npy", mmap_mode="r") for name in listed})
          for part, listed in names.items()}


def _supervised(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Returns encoded examples as `inputs`, `targets` and what belongs to neither."""
  inputs = {name: value for name, value in arrays.items() if name not in (*TARGETS, *BESIDE)}
  targets = {name: value for name, value in arrays.items() if name in TARGETS}
  return {"inputs": inputs, "targets": targets} | {name: arrays[name] for name in BESIDE if name in arrays}


def task_source(
    task: Task,
    encoded: Mapping[str, Mapping[str, Any]],
    encoder: Encoder,
    batch_size: int,
    *,
    seed: int = 0,
) -> Source:
  """The training part, each example once per epoch; `facts` have the encoder's, `task`, `num_classes` and
  `padding_fraction`."""
  inputs = encoded["train"]["inputs"]
  facts = {**getattr(encoder, "facts", {}), "task": task.kind, "num_classes": max(1, len(task.labels))}
  if "tokens" in inputs:
    facts["padding_fraction"] = float((inputs["tokens"] < 0).mean())
  elif "length" in inputs:
    facts["padding_fraction"] = 1 - float(inputs["length"].mean()) / inputs["signal"].shape[1]
  arrays = {"inputs": inputs, "targets": encoded["train"]["targets"]}
  return array_source(arrays, batch_size, seed=seed, remainder="pad", facts=facts)


def _encode_plain(task: Task, rows: np.ndarray, encoder: Encoder) -> dict[str, np.ndarray]:
  """Clips, bytes and images, in memory; signals are as long as the longest."""
  items = task.items[rows] if isinstance(task.items, np.ndarray) else [task.items[i] for i in rows]
  batch = encoder.encode(items)
  del batch["mask"]
  if "signal" in batch:
    batch["signal"] = np.ascontiguousarray(batch["signal"][:, :batch["length"].max()])
  return batch | {"label": np.asarray(task.targets)[rows], "example": rows.astype(np.int32)}


def _encode_part(task: Task, rows: np.ndarray, encoder: "SubwordEncoder", stride: int) -> dict[str, np.ndarray]:
  pieces = [_ENCODE[task.kind](task, rows[i:i + _AT_ONCE], encoder, stride) for i in range(0, len(rows), _AT_ONCE)]
  axes = {"tokens": -1, "segments": -1, "tags": -1, "word_starts": -1, "offsets": -2, "characters": -2}
  columns = {}
  for name in pieces[0]:
    axis, listed = axes.get(name), [piece[name] for piece in pieces]
    if axis:
      width = max(value.shape[axis] for value in listed)
      listed = [_widened(value, axis, width, 0 if name in ("segments", "characters") else -1) for value in listed]
    columns[name] = np.concatenate(listed)
  # The batch's length is a bucket's; that of the longest row, in eights, is as good and shorter.
  longest = int((columns["tokens"] >= 0).sum(-1).max())
  length = min(columns["tokens"].shape[-1], -(-longest // 8) * 8)
  for name in ("tokens", "segments", "tags"):
    if name in columns:
      columns[name] = np.ascontiguousarray(columns[name][..., :length])
  for name in ("offsets", "characters"):
    if name in columns:
      columns[name] = np.ascontiguousarray(columns[name][:, :length])
  return columns


def _widened(value: np.ndarray, axis: int, width: int, fill: int) -> np.ndarray:
  margins = [(0, 0)] * value.ndim
  margins[axis] = (0, width - value.shape[axis])
  return np.pad(value, margins, constant_values=fill)


def _texts(batch: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
  inputs = {name: value for name, value in batch.items() if name not in ("mask", *BESIDE)}
  return inputs | {"example": rows.astype(np.int32)}


def _encode_classes(task: Task, rows: np.ndarray, encoder: "SubwordEncoder", stride: int) -> dict[str, np.ndarray]:
  return _texts(encoder.encode([task.items[i] for i in rows]), rows) | {"label": np.asarray(task.targets)[rows]}


def _encode_choices(task: Task, rows: np.ndarray, encoder: "SubwordEncoder", stride: int) -> dict[str, np.ndarray]:
  batch = encoder.encode([choice for i in rows for choice in task.items[i]])
  folded = {name: batch[name].reshape(len(rows), -1, batch[name].shape[-1]) for name in ("tokens", "segments")}
  return _texts(folded, rows) | {"label": np.asarray(task.targets)[rows]}


def _encode_tags(task: Task, rows: np.ndarray, encoder: "SubwordEncoder", stride: int) -> dict[str, np.ndarray]:
  batch = encoder.encode_words([task.items[i] for i in rows])
  tags = np.full(batch["tokens"].shape, -1, np.int32)
  for row, i in enumerate(rows):
    starts = batch["word_starts"][row, :len(task.items[i])]
    tags[row, starts[starts >= 0]] = task.targets[i][starts >= 0]
  return _texts(batch, rows) | {"tags": tags, "word_starts": batch["word_starts"]}


def _encode_spans(task: Task, rows: np.ndarray, encoder: "SubwordEncoder", stride: int) -> dict[str, np.ndarray]:
  """A row for every window. Windows begin with a word, so that its tokens are those of the whole context."""
  clean = lambda text: text.encode("utf-8", "replace").decode()  # A lone surrogate is one character, as `?` is.
  contexts = list(dict.fromkeys(clean(task.items[i][1]) for i in rows))
  begins = {}
  for context, encoding in zip(contexts, encoder.tokenizer.encode_batch(contexts, add_special_tokens=False)):
    first = np.array([start + (context[start:end][:1].isspace()) for start, end in encoding.offsets] or [0])
    opens = np.array([start == 0 or context[start - 1].isspace() for start in first])
    opens[0] = True
    last_open = np.maximum.accumulate(np.where(opens, np.arange(len(first)), 0))
    begins[context] = first[np.unique(last_open[::stride])]
    begins[context][0] = 0
  items, examples, shifts = [], [], []
  for i in rows:
    question, context = clean(task.items[i][0]), clean(task.items[i][1])
    for start in begins[context]:
      items.append((question, context[start:]))
      examples.append(i)
      shifts.append(start)
  counted, encoder.num_truncated = encoder.num_truncated, 1  # Nothing is lost: the next window has it.
  batch = encoder.encode(items, offsets=True)
  encoder.num_truncated = counted
  moved = batch["offsets"] + np.array(shifts, np.int32)[:, None, None]
  offsets = np.where((batch["text"] == 1)[..., None], moved, -1)
  examples = np.array(examples, np.int32)
  needed, reached = np.ones(len(items), bool), -1
  for row, end in enumerate(offsets[..., 1].max(1)):  # A window that ends where the one before it did adds nothing.
    first = not row or examples[row] != examples[row - 1]
    needed[row] = first or end > reached
    reached = end if first else max(end, reached)
  start, end = (np.zeros(len(items), np.int32) for _ in range(2))
  for row, example in enumerate(examples):
    if task.targets[example]:
      first, text = task.targets[example][0]
      inside = np.flatnonzero((offsets[row, :, 0] < first + len(text)) & (offsets[row, :, 1] > first))
      whole = len(inside) and offsets[row, inside[0], 0] <= first and offsets[row, inside[-1], 1] >= first + len(text)
      # An answer that the window cuts is none there: both ends point at the first token.
      if whole:
        start[row], end[row] = inside[0], inside[-1]
  spans = {"tokens": batch["tokens"], "segments": batch["segments"], "example": examples, "start": start, "end": end,
           "offsets": offsets.astype(np.int32)}
  return {name: value[needed] for name, value in spans.items()}


_ENCODE = {"classification": _encode_classes, "regression": _encode_classes, "multiple_choice": _encode_choices,
           "tagging": _encode_tags, "span": _encode_spans}
