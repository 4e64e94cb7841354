"""Word vectors in the formats of other programs: word2vec text and binary, GloVe text, `.npy` with a vocabulary.

| format | file |
|---|---|
| `word2vec` | a line `num_words dim`, then a line `word x1 ... xd` for each word, one space between |
| `word2vec-binary` | the same first line, then for each word its UTF-8, a space, and d little-endian float32 |
| `glove` | as `word2vec`, without the first line; when reading it may be there |
| `fasttext` | a model of fastText, read only; see `fasttext.py`. Its `.vec` is `word2vec` |
| `npy` | `NAME.npy` [num_words, dim], and `NAME.vocabulary.txt`, or `vocabulary.txt` as a run has it, a word a line |

All but `npy` may be compressed, by the file's suffix: read .gz .xz .bz2 .zst, written .gz. What is written is byte
for byte what gensim's `save_word2vec_format` writes for the same vectors: every number in the fewest digits that
give the same float32 back, no space at a line's end, no line end after a binary vector. What the C programs write,
which have both of the latter, is read too. A word with a space cannot be told from its numbers: gensim writes it all
the same, and its reader then fails on text and silently mistakes binary. Here writing it is an error; in text it is
read where what follows is no number, which happens in GloVe's own files (`. . .`), or where a first line tells
how many numbers a vector has.

Nothing is ever unpickled: files of gensim, torch and HDF5 are named, with the way out. Beside the result,
reading and writing hold one block of the file in memory.
"""
import contextlib
import gzip
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from embeddings_jax.data import formats
from embeddings_jax.data.files.atomic import replacing
from embeddings_jax.data.files.names import read_names
from embeddings_jax.interop.fasttext import is_fasttext, read_fasttext
from embeddings_jax.interop.foreign import refuse_foreign
from embeddings_jax.interop.vector_rows import VectorRows, WordVectors, shown
from embeddings_jax.types import InputError

FORMATS = ("word2vec", "word2vec-binary", "glove", "npy")
READ_FORMATS = (*FORMATS, "fasttext")
_BLOCK_BYTES = 1 << 24
_BLOCK_ROWS = 1024
_BOM = b"\xef\xbb\xbf"
_LONGEST_LINE = 1 << 24  # Bytes of a first line.
_PRINTABLE = bytes(range(32, 127)) + b"\t\r\n"
_LONGEST_WORD = 1 << 16  # Bytes; a longer one means that words and vectors are out of step.


def read(path: str | os.PathLike, format: str = "", errors: str = "strict", limit: int = 0) -> WordVectors:
  """Reads a file of word vectors.

  Args:
    path: Path of the file.
    format: one of `READ_FORMATS`; by default recognized, see `recognize`.
    errors: `strict` refuses words that are not UTF-8 or occur a second time; `replace` puts replacement
      characters, and keeps the first of several equal words, as gensim does.
    limit: Words to read, the first of the file; 0: all.

  Raises:
    InputError: the file is empty, cut short or damaged; the number of words is not that of its first line; a line has
      another number of numbers; a number is not finite; a word is not UTF-8 or listed twice.
  """
  if errors not in ("strict", "replace"):
    raise InputError(f"errors={errors}: must be 'strict' or 'replace'")
  if limit < 0:
    raise InputError(f"limit={limit}: must be a number of words, or 0 for all")
  format = _checked(format, READ_FORMATS) if format else recognize(path)
  if format == "npy":
    return _read_npy(Path(path), errors, limit)
  if format == "fasttext":
    return _read_fasttext(path, errors, limit)
  refuse_foreign(path)
  with formats.opened(path) as file:
    if format == "word2vec-binary":
      rows = VectorRows(path, errors, *_header(path, _first_line(path, file), format), limit)
      _read_binary(path, file, rows)
    else:
      first = _first_line(path, file)
      if not first.strip():
        raise InputError(f"{path}: is empty, it has no word vectors")
      sizes, lines = _sizes(first), [file.readline()]
      if format == "word2vec":
        sizes = _header(path, first, format)
      elif not sizes or len(lines[0].split()) != 1 + sizes[1]:  # A vector of one number looks like a header.
        lines.insert(0, first)
        sizes = limit or _count_lines(path), _dim(first)
        if not sizes[1]:
          raise InputError(f"{path}: line 1: {shown(first)} should be a word and the numbers of its vector")
      rows = VectorRows(path, errors, *sizes, limit)
      _read_text(path, lines, file, rows, with_header=len(lines) == 1)
  return rows.finish()


def recognize(path: str | os.PathLike) -> str:
  """The format of a file, by its name (`.npy`) or its first two lines."""
  if Path(path).suffix == ".npy":
    return "npy"
  if is_fasttext(path):
    return "fasttext"
  refuse_foreign(path)
  with formats.opened(path) as file:
    sizes, second = _sizes(_first_line(path, file)), file.readline(1 << 12)
  if not sizes:
    return "glove"
  numbers = second.partition(b" ")[2]
  return "word2vec" if not numbers.translate(None, _PRINTABLE) else "word2vec-binary"


def write(path: str | os.PathLike, words: Sequence[str], vectors: np.ndarray, format: str) -> None:
  """Writes word vectors by way of a draft beside the file: a kill leaves the old file or the new one.

  Args:
    path: Path of the file; text and binary are compressed where it ends in .gz.
    words: [num_words], each once.
    vectors: [num_words, dim], may be memory-mapped; written as float32.
    format: one of `FORMATS`.

  Raises:
    InputError: words and vectors do not fit each other or the format, or a number is not finite.
  """
  path, format = Path(path), _checked(format, FORMATS)
  if vectors.ndim != 2 or len(words) != len(vectors) or not vectors.size:
    raise InputError(f"{path}: {len(words)} words for vectors of shape {list(vectors.shape)} cannot be written")
  forbidden = "\n" if format == "npy" else " \n"
  for word in words:
    if not word or any(character in word for character in forbidden):
      raise InputError(f"{path}: the word {word!r} has white space or is empty, which {format} cannot hold; npy "
                       "holds all but line ends")
  if len(set(words)) < len(words):
    raise InputError(f"{path}: a word is listed twice")
  for first in range(0, len(vectors), _BLOCK_ROWS):
    if not np.isfinite(vectors[first:first + _BLOCK_ROWS]).all():
      row = first + int(np.argwhere(~np.isfinite(vectors[first:first + _BLOCK_ROWS]).all(1))[0, 0])
      raise InputError(f"{path}: the vector of {words[row]!r} is not finite and is not written")
  if format == "npy":
    if path.suffix != ".npy":
      raise InputError(f"{path}: the name of an npy file ends in .npy")
    with _draft(path) as file, _draft(_vocabulary(path)) as vocabulary:
      vocabulary.writelines(f"{word}\n".encode() for word in words)
      header = {"descr": "<f4", "fortran_order": False, "shape": vectors.shape}
      np.lib.format.write_array_header_1_0(file, header)
      for _, block in _blocks(words, vectors):
        file.write(block.tobytes())
    return
  if path.suffix in (".xz", ".bz2", ".zst"):
    raise InputError(f"{path}: word vectors are written plain or as .gz, not as {path.suffix}")
  with _draft(path) as file:
    if format != "glove":
      file.write(f"{len(words)} {vectors.shape[1]}\n".encode())
    for part, block in _blocks(words, vectors):
      if format == "word2vec-binary":
        file.write(b"".join(f"{word} ".encode() + row.tobytes() for word, row in zip(part, block)))
      else:
        file.write("".join(f"{word} {' '.join(map(str, row))}\n" for word, row in zip(part, block)).encode())


def _read_text(path: str | os.PathLike, lines: list[bytes], file: BinaryIO, rows: VectorRows,
               with_header: bool) -> None:
  number = 1 if with_header else 0
  while lines:
    numbers, targets = [], []
    for line in lines:
      number += 1
      line = line.rstrip()
      if not line:
        continue
      word, _, rest = line.partition(b" ")
      if rest.count(b" ") != rows.dim - 1:
        word, rest = _split(path, line, number, rows.dim, with_header)
        rows.numbered += len(word.split()) > 1 and _numbers(word.split()[-1]) is not None
      if rows.full():
        break
      if len(rows) == rows.num_words:
        raise InputError(f"{path}: line {number}: there are more words than the {rows.num_words} that line 1 tells "
                         "of")
      row = rows.add(word, f"line {number}")
      if row is not None:
        numbers.append(rest)
        targets.append((row, number))
    if targets:
      values = _numbers(b" ".join(numbers))
      if values is None or len(values) != len(targets) * rows.dim:
        for rest, (_, at) in zip(numbers, targets):
          if (one := _numbers(rest)) is None or len(one) != rows.dim:
            raise InputError(f"{path}: line {at}: {shown(rest)} should be {rows.dim} numbers")
      first = targets[0][0]
      rows.vectors[first:first + len(targets)] = values.reshape(-1, rows.dim)
    lines = [] if rows.full() else file.readlines(_BLOCK_BYTES)
  if with_header and rows.numbered == len(rows) > 0:
    word = next(iter(rows.seen))
    raise InputError(f"{path}: {rows.seen[word]}: {word[:60]!r} and all other words end with a number, so their "
                     f"vectors have more than the {rows.dim} numbers that line 1 tells of")
  if rows.full():
    return
  if with_header and len(rows) < rows.num_words:
    raise InputError(f"{path}: ends after {len(rows)} of the {rows.num_words} words that line 1 tells of; it was cut "
                     "short, or line 1 is wrong")


def _split(path: str | os.PathLike, line: bytes, number: int, dim: int,
           sure: bool) -> tuple[bytes, bytes]:
  """Word and numbers of a line that has more or fewer single spaces than it should; `sure`: a header tells `dim`."""
  fields = line.split()
  if len(fields) > dim + 1 and (sure or _numbers(fields[1]) is None):  # The word itself has spaces.
    return line.rsplit(None, dim)[0], b" ".join(fields[-dim:])
  if len(fields) != dim + 1:
    raise InputError(f"{path}: line {number}: the word {shown(fields[0])} has a vector of {len(fields) - 1} "
                     f"numbers, should have {dim}")
  return fields[0], b" ".join(fields[1:])


def _read_binary(path: str | os.PathLike, file: BinaryIO, rows: VectorRows) -> None:
  data, at, size = b"", 0, 4 * rows.dim
  for number in range(1, rows.num_words + 1):
    while (space := data.find(b" ", at)) < 0 or len(data) <= space + size:
      if len(data) - at > _LONGEST_WORD + size:
        break
      more = file.read(_BLOCK_BYTES)
      if not more:
        raise InputError(f"{path}: ends within word {number} of the {rows.num_words} words that its first line tells "
                         "of; it was cut short, or that line is wrong")
      data, at = data[at:] + more, 0
    word = data[at:space if space >= 0 else len(data)].lstrip(b"\n")  # word2vec's own files have a line end there.
    if len(word) > _LONGEST_WORD:
      raise InputError(f"{path}: word {number} is longer than {_LONGEST_WORD} bytes; the vectors have not the "
                       f"{rows.dim} numbers that the first line tells of")
    row = rows.add(word, f"word {number}")
    if row is not None:
      rows.vectors[row] = np.frombuffer(data, "<f4", rows.dim, space + 1)
    at = space + 1 + size
    if rows.full():
      return
  if (data[at:] + file.read(_BLOCK_BYTES)).strip(b"\n"):
    raise InputError(f"{path}: goes on after the {rows.num_words} words of {rows.dim} numbers that its first line "
                     "tells of")


def _read_fasttext(path: str | os.PathLike, errors: str, limit: int) -> WordVectors:
  words, vectors = read_fasttext(path, limit)
  rows = VectorRows(path, errors, len(words), vectors.shape[1])
  for number, (word, vector) in enumerate(zip(words, vectors), 1):
    row = rows.add(word, f"word {number}")
    if row is not None:
      rows.vectors[row] = vector
  return rows.finish()


def _read_npy(path: Path, errors: str, limit: int) -> WordVectors:
  vectors = formats.read_npy(path)
  vocabulary = _vocabulary(path)
  if not vocabulary.exists():
    vocabulary = path.with_name("vocabulary.txt")
  if not vocabulary.exists():
    raise InputError(f"{path}: its words are not there, neither {_vocabulary(path).name} nor vocabulary.txt beside "
                     "it")
  words = read_names(vocabulary, errors)
  if len(words) != len(vectors):
    raise InputError(f"{vocabulary}: has {len(words)} words for the {len(vectors)} vectors of {path.name}")
  words, vectors = words[:limit or None], vectors[:limit or None]
  first = dict(zip(reversed(words), reversed(range(len(words)))))
  if len(first) < len(words):
    if errors == "strict":
      row = next(i for i, word in enumerate(words) if first[word] < i)
      raise InputError(f"{vocabulary}: line {row + 1}: the word {words[row][:60]!r} was in line "
                       f"{first[words[row]] + 1} already; errors=replace keeps the first")
    kept = sorted(first.values())
    words, vectors = [words[i] for i in kept], vectors[kept]
  return WordVectors(words, vectors)


def _first_line(path: str | os.PathLike, file: BinaryIO) -> bytes:
  """The first line without a byte order mark."""
  line = file.readline(_LONGEST_LINE)
  if len(line) == _LONGEST_LINE:
    raise InputError(f"{path}: line 1 is longer than {_LONGEST_LINE >> 20} MiB; this is no file of word vectors")
  return line.removeprefix(_BOM)


def _checked(format: str, formats_: Sequence[str]) -> str:
  if format not in formats_:
    raise InputError(f"format={format}: unknown; one of {', '.join(formats_)}")
  return format


def _sizes(line: bytes) -> tuple[int, int] | None:
  """The two numbers of a first line, if that is what it holds."""
  fields = line.split()
  if len(fields) == 2 and all(field.isdigit() and len(field) < 16 for field in fields) and int(fields[1]) > 0:
    return int(fields[0]), int(fields[1])
  return None


def _header(path: str | os.PathLike, line: bytes, format: str) -> tuple[int, int]:
  if not line:
    raise InputError(f"{path}: is empty, it has no word vectors")
  sizes = _sizes(line)
  if not sizes:
    raise InputError(f"{path}: line 1: {shown(line)} should be the numbers of words and dimensions, for {format}; "
                     "text without that line is read by format=glove")
  return sizes


def _dim(line: bytes) -> int:
  """Returns how many numbers a line ends with, not counting its first field, the word."""
  fields = line.split()[1:]
  return next((i for i, field in enumerate(reversed(fields)) if _numbers(field) is None), len(fields))


def _count_lines(path: str | os.PathLike) -> int:
  with formats.opened(path) as file:
    return 1 + sum(block.count(b"\n") for block in iter(lambda: file.read(_BLOCK_BYTES), b""))


def _numbers(text: bytes) -> np.ndarray | None:
  """Numbers with white space between them, None if there is anything else."""
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    try:
      return np.fromstring(text, np.float32, sep=" ")
    except (ValueError, DeprecationWarning, RuntimeWarning):
      return None


def _vocabulary(path: Path) -> Path:
  return path.with_name(path.stem + ".vocabulary.txt")


def _blocks(words: Sequence[str], vectors: np.ndarray) -> Iterator[tuple[Sequence[str], np.ndarray]]:
  for first in range(0, len(words), _BLOCK_ROWS):
    rows = slice(first, first + _BLOCK_ROWS)
    yield words[rows], np.ascontiguousarray(vectors[rows], "<f4")


@contextlib.contextmanager
def _draft(path: Path) -> Iterator[BinaryIO | gzip.GzipFile]:
  """Opens a binary file that replaces `path` when it is complete; compressed where the name ends in .gz."""
  with replacing(path) as file:
    if path.suffix == ".gz":
      # Without name and time the same vectors give the same bytes.
      with gzip.GzipFile("", "wb", 6, file, mtime=0) as compressed:
        yield compressed
    else:
      yield file
