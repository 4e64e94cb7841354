"""Tables of Apache Arrow and Parquet, and the folders of Hugging Face `datasets`; needs the extra `parquet`."""
import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embeddings_jax.data.files.arrays import as_float32, first_not_finite
from embeddings_jax.data.files.dialects import RECOGNIZED, TableOptions
from embeddings_jax.data.files.row_buffer import Progress, RowBuffer
from embeddings_jax.data.files.streams import quoted, refusing
from embeddings_jax.data.files.tables import Table, Words, chosen_columns
from embeddings_jax.errors import InputError

FOLDER_FILES = ("dataset_info.json", "state.json", "dataset_dict.json")  # Beside .arrow files of `datasets`.
_INDEX = "__index_level_0__"  # Names of rows, as pandas writes them.
_ROWS = 1 << 14  # Rows that are decoded at once.


def column_names(path: str | os.PathLike) -> list[str]:
  """Returns the names of a file's columns."""
  with _opened(path) as (schema, _):
    return list(schema.names)


def is_text(path: str | os.PathLike, name: str) -> bool:
  """Returns whether a column holds strings."""
  pa = _pyarrow(path)
  with _opened(path) as (schema, _):
    index = schema.get_field_index(name)
    return index >= 0 and _is_string(pa, schema.field(index).type)


def read_arrow_records(path: str | os.PathLike) -> Iterator[tuple[str, Mapping[str, Any]]]:
  """Yields every row as name -> value with its place in the file, for errors.

  Numbers of classes become the names that `datasets` keeps beside them; a missing string is empty.
  """
  pa, row = _pyarrow(path), 0
  with _opened(path) as (schema, batches), refusing(path, "damaged"):
    classes = _class_names(schema, path)
    strings = [field.name for field in schema if _is_string(pa, field.type)]
    for batch in batches(None):
      for record in batch.to_pylist():
        for name in strings:
          record[name] = record[name] or ""
        for name, known in classes.items():
          value = record.get(name)
          record[name] = known[value] if isinstance(value, int) and 0 <= value < len(known) else ""
        yield f"{path}: row {row} (from 0)", record
        row += 1


def read_arrow_table(path: str | os.PathLike, gaps: bool = False, options: TableOptions = RECOGNIZED,
                     spill: str | os.PathLike | None = None) -> Table:
  """Reads a table of numbers; columns of strings are labels. See `read_csv`.

  Raises:
    InputError: It cannot be read, a column is of another type, or a value is missing or not finite.
  """
  pa = _pyarrow(path)
  with _opened(path) as (schema, batches):
    titles, classes = list(schema.names), _class_names(schema, path)
    strings = [field.name for field in schema if _is_string(pa, field.type)]
    words = [name for name in titles if name != _INDEX and (name in classes or name in strings)]
    if options.wanted and set(options.wanted) <= set(titles):
      features = list(options.wanted)
    elif options.columns:
      features = [titles[i] for i in chosen_columns(path, titles, [*options.columns, *options.words])]
      features = [name for name in dict.fromkeys(features) if name not in words or name in options.columns]
    else:
      features = [name for name in titles if name not in words and name != _INDEX]
    for name in features:
      if name in words or not _is_numeric(pa, schema.field(name).type):
        raise InputError(f"{path}: the column {quoted(name)} holds {schema.field(name).type} and no numbers; choose "
                         "others by columns")
    if not features:
      raise InputError(f"{path}: has no column of numbers; it has {', '.join(title[:40] for title in titles[:20])}")
    texts, names = {name: Words() for name in words}, []
    buffer, progress = RowBuffer(spill), Progress(path, "rows")
    # Whole numbers beyond 2**53 are kept beside the rows.
    whole: dict[int, list[np.ndarray]] = {i: [] for i, name in enumerate(features)
                                          if pa.types.is_integer(schema.field(name).type)}
    read = [*features, *words, *([_INDEX] if _INDEX in titles else [])]
    with refusing(path, "damaged"):
      for batch in batches(read):
        rows = _numbers(path, batch, features, gaps, buffer.num_rows)
        for i, kept in whole.items():
          column = batch.column(features[i])
          kept.append(column.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64))
          if buffer.num_rows > 1 << 20 and not any((np.abs(part) >= 2**53).any() for part in kept):
            kept.clear()
        for name, column in texts.items():
          known = classes.get(name)
          for value in batch.column(name).to_pylist():
            column.append((known[value] if known and value is not None else value) or "")
        if _INDEX in titles:
          names += [str(value) for value in batch.column(_INDEX).to_pylist()]
        buffer.add(rows)
        progress.show(buffer.num_rows)
  if not buffer.num_rows:
    raise InputError(f"{path}: is empty, it has no row of numbers")
  integers = {i: np.concatenate(kept) for i, kept in whole.items()
              if sum(map(len, kept)) == buffer.num_rows and any((np.abs(part) >= 2**53).any() for part in kept)}
  notes = [f"the column {quoted(name)} holds words and is a label" for name in words]
  return Table(buffer.finish(), features, names or None, integers, notes,
               {name: column.array() for name, column in texts.items()})


def without_descriptions(files: Sequence[Path]) -> list[Path]:
  """Returns files without the JSON that `datasets` writes beside .arrow files."""
  if not any(file.suffix.lower() == ".arrow" for file in files):
    return list(files)
  return [file for file in files if file.name not in FOLDER_FILES]


def _numbers(path: str | os.PathLike, batch: Any, features: Sequence[str], gaps: bool, start: int) -> np.ndarray:
  columns = []
  for name in features:
    column = batch.column(name)
    if column.null_count and not gaps:
      row = start + column.is_null().to_pylist().index(True)
      raise InputError(f"{path}: row {row} (from 0), column {quoted(name)}: the value is missing")
    columns.append(column.to_numpy(zero_copy_only=False).astype(np.float64))
  rows = np.stack(columns, 1)
  bad = first_not_finite(rows, gaps)
  if bad:
    raise InputError(f"{path}: row {start + bad[0]} (from 0), column {quoted(features[bad[1]])}: "
                     f"{as_float32(rows[bad])} is not a finite number")
  return rows


@contextlib.contextmanager
def _opened(path: str | os.PathLike) -> Iterator[tuple[Any, Any]]:
  """Opens a file as its schema and a function from names of columns to batches of rows."""
  pa = _pyarrow(path)
  with refusing(path, "not a file that pyarrow can read"):
    if str(path).lower().endswith(".parquet"):
      import pyarrow.parquet

      file = pyarrow.parquet.ParquetFile(str(path), memory_map=True)
      yield file.schema_arrow, lambda names: file.iter_batches(_ROWS, columns=names)
      return
    mapped = pa.memory_map(str(path))
    try:  # `datasets` writes streams, others files with an index.
      reader = pa.ipc.open_file(mapped)
      read = (reader.get_batch(i) for i in range(reader.num_record_batches))
    except pa.ArrowInvalid:
      mapped.seek(0)
      reader = pa.ipc.open_stream(mapped)
      read = iter(reader)

    def batches(names: Sequence[str] | None) -> Iterator[Any]:
      for batch in read:
        batch.validate(full=True)  # Else damaged offsets lead anywhere.
        for start in range(0, batch.num_rows, _ROWS):
          part = batch.slice(start, _ROWS)
          yield part if names is None else part.select(names)

    yield reader.schema, batches


def _pyarrow(path: str | os.PathLike) -> Any:
  try:
    import pyarrow
    import pyarrow.ipc
  except ImportError as error:
    raise InputError(f"{path}: the package pyarrow is missing, which reads it; pip install "
                     "'embeddings_jax[parquet]'") from error
  return pyarrow


def _is_string(pa: Any, kind: Any) -> bool:
  kind = kind.value_type if pa.types.is_dictionary(kind) else kind
  return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_numeric(pa: Any, kind: Any) -> bool:
  return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def _class_names(schema: Any, path: str | os.PathLike) -> dict[str, list[str]]:
  """Returns the names of classes by column, which `datasets` writes into the schema."""
  text = (schema.metadata or {}).get(b"huggingface")
  try:
    features = json.loads(text)["info"]["features"] if text else {}
    return {name: [str(known) for known in feature["names"]] for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")}
  except (ValueError, KeyError, TypeError, RecursionError) as error:
    raise InputError(f"{path}: damaged, its description of features is not of the form of `datasets`") from error
