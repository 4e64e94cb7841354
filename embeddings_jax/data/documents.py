"""Collections of text: one memory-mapped file of UTF-8, with a 0 byte between documents."""
import array
import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from embeddings_jax.data import formats
from embeddings_jax.data.files.row_buffer import Progress
from embeddings_jax.types import InputError

_DOC = re.compile(r'<doc [^\n]*?title="(.*)"')


class Document(NamedTuple):
  text: str
  name: str = ""
  labels: Mapping[str, str] = {}


class Documents(Sequence):
  """Strings read from a folder that `write_documents` made: nothing but the document asked for is in memory.

  Attributes:
    stream: uint8 `[num_bytes]`, memory-mapped: the documents with a 0 byte between them.
    starts: int64 `[num_documents]`, the first byte of each.
    names: one per document, or None.
    labels: name -> array `[num_documents]` of strings.
    fingerprint: SHA-256 of the stream.
  """

  def __init__(self, directory: str | os.PathLike):
    directory = Path(directory)
    meta = json.loads((directory / "meta.json").read_text())
    self.stream = np.memmap(directory / "stream.bin", np.uint8, "r")
    self.starts = np.load(directory / "starts.npy")
    self.names = np.load(directory / "names.npy") if meta["names"] else None
    self.labels = {k: np.load(directory / f"label-{i}.npy") for i, k in enumerate(meta["labels"])}
    self.fingerprint = meta["fingerprint"]
    self._ends = np.append(self.starts[1:] - 1, len(self.stream))

  def __len__(self) -> int:
    return len(self.starts)

  def __getitem__(self, index):
    if isinstance(index, slice):
      return [self[i] for i in range(*index.indices(len(self)))]
    return self.stream[self.starts[index]:self._ends[index]].tobytes().decode()

  def __iter__(self) -> Iterator[str]:
    return (self[i] for i in range(len(self)))


def write_documents(directory: Path, documents: Iterable[Document], source: Any) -> None:
  """Writes documents as `Documents` reads them; `source` is what an error about an empty collection names."""
  directory.mkdir()
  starts, names, labels = array.array("q"), [], {}
  kept: dict[str, str] = {}  # Equal labels are one string.
  progress = Progress(source, "documents")
  content, position = hashlib.sha256(), 0
  with open(directory / "stream.bin", "wb") as file:
    for text, name, label in documents:
      # A string literal may hold lone surrogates, which have no UTF-8.
      data = text.replace("\0", " ").encode("utf-8", "replace")
      if starts:
        data = b"\0" + data
      starts.append(position + (1 if starts else 0))
      position += len(data)
      content.update(data)
      file.write(data)
      for key in label.keys() - labels.keys():
        labels[key] = [""] * len(names)  # The documents before it have none.
      for key, values in labels.items():
        value = label.get(key, "")
        values.append(kept.setdefault(value, value))
      names.append(name)
      progress.show(len(starts))
  if not position:
    raise InputError(f"{source}: is empty, it has no text")
  np.save(directory / "starts.npy", np.frombuffer(starts, np.int64))
  if any(names):
    np.save(directory / "names.npy", np.array(names))
  for i, values in enumerate(labels.values()):
    np.save(directory / f"label-{i}.npy", np.array(values))
  meta = {"names": any(names), "labels": list(labels), "fingerprint": content.hexdigest()}
  (directory / "meta.json").write_text(json.dumps(meta))


def read_documents(path: str | os.PathLike, errors: str = "strict", blank: bool = False) -> Iterator[Document]:
  """Reads the documents of a text file.

  Args:
    path: The file. If it has WikiExtractor's <doc> marks, documents stand between them.
    errors: `strict` or `replace`; see `formats.read_lines`.
    blank: Blank lines end documents, as in BERT's corpus format, instead of every line.

  Raises:
    InputError: There is no text.
  """
  lines = formats.read_lines(path, errors)
  first = next((line for line in lines if line.strip()), None)
  if first is None:
    raise InputError(f"{path}: is empty, it has no text")
  if not first.startswith("<doc "):
    lines = itertools.chain([first], lines)
    if blank:
      for has_text, block in itertools.groupby(lines, lambda line: bool(line.strip())):
        if has_text:
          yield Document("\n".join(block))
    else:
      yield from (Document(line) for line in lines if line.strip())
    return
  title, body = first, []
  for line in lines:
    if line.startswith(("<doc ", "</doc>")):
      if any(body):
        match = _DOC.match(title)
        yield Document("\n".join(body).strip("\n"), match[1] if match else "")
      title, body = line, []
    else:
      body.append(line)
  if any(body):
    yield Document("\n".join(body).strip("\n"))


def has_marks(path: str | os.PathLike, errors: str = "strict") -> bool:
  """Returns whether WikiExtractor's <doc> marks bound the documents of a text file."""
  return next((line for line in formats.read_lines(path, errors) if line.strip()), "").startswith("<doc ")


def count_blocks(path: str | os.PathLike, errors: str = "strict") -> tuple[int, int]:
  """Returns how many lines of a text file are not blank, and in how many blocks blank lines part them."""
  num_lines = num_blocks = 0
  for has_text, lines in itertools.groupby(formats.read_lines(path, errors), lambda line: bool(line.strip())):
    if has_text:
      num_lines, num_blocks = num_lines + sum(1 for _ in lines), num_blocks + 1
  return num_lines, num_blocks


def byte_stream(dataset: Any) -> tuple[np.ndarray, np.ndarray]:
  """A text dataset as running bytes: `(uint8 [num_bytes], int64 [num_documents] first bytes)`.

  A 0 byte stands between documents. `Documents` give their memory-mapped stream; other strings are
  joined in memory.
  """
  if isinstance(dataset.items, Documents):
    return dataset.items.stream, dataset.items.starts
  data = [text.replace("\0", " ").encode("utf-8", "replace") for text in dataset.items]
  lengths = np.array([len(text) + 1 for text in data], np.int64)
  return np.frombuffer(b"\0".join(data), np.uint8), np.cumsum(lengths) - lengths


def is_validation(text: str) -> bool:
  """Returns whether a document of an unlabeled corpus is held out: 1 % of them, fixed by a hash."""
  value = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
  return int.from_bytes(value, "little") % 100 == 0
