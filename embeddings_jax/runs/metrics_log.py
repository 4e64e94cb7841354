"""The log of a run: `metrics.jsonl`, which the reports are made from, and TensorBoard events."""
import json
import math
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from etils import epath

from embeddings_jax.data.files.atomic import write_atomically
from embeddings_jax.data.files.growing import growing
from embeddings_jax.data.files.json import parse_json
from embeddings_jax.types import InputError

FILE = "metrics.jsonl"


def read_metrics(path: epath.Path, report: Callable[[str], None] = print) -> list[dict[str, Any]]:
  """Returns the records of a run's log: a step, and finite numbers.

  Args:
    path: The work directory.
    report: Receives a line for each damaged line, which is skipped; the last one is silently skipped if a kill cut
      it short.
  """
  file = path / FILE
  if not file.exists():
    return []
  *lines, rest = file.read_bytes().split(b"\n")
  records = []
  for number, line in enumerate(lines, 1):
    try:
      records.append(_record(parse_json(line, f"{file}, line {number}"), f"{file}, line {number}"))
    except InputError as error:
      report(f"{error}; the line is skipped")
  try:
    return [*records, _record(parse_json(rest, file), file)] if rest else records
  except InputError:
    return records


def _record(values: Mapping[str, Any], where: object) -> dict[str, Any]:
  step = values.get("step")
  if not isinstance(step, int) or isinstance(step, bool) or step < 0:
    raise InputError(f"{where}: has no step")
  return {key: value for key, value in values.items() if _is_finite(value)}


def _is_finite(value: Any) -> bool:
  try:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
  except OverflowError:  # An integer beyond the range of floats.
    return False


class MetricsLog:
  """Writes the log; after a resume it reads as if nothing had happened."""

  def __init__(self, path: epath.Path, report: Callable[[str], None] = print):
    self._path, self._report = path, report
    self._file: Any = None
    self._events: _Events | None = None
    self._begun, self._seconds_before = time.perf_counter(), 0.0

  def start(self, step: int) -> None:
    """Opens the log of a run that continues from `step`; records of later steps are dropped."""
    records = [record for record in read_metrics(self._path, self._report) if record["step"] <= step]
    write_atomically(self._path / FILE, "".join(json.dumps(record) + "\n" for record in records))
    self._seconds_before = max((record.get("seconds", 0.0) for record in records), default=0.0)
    self._file = growing(self._path / FILE, append=True)
    self._events = _Events(self._path / "tensorboard", step + 1 if step else None, self._report)

  def seconds(self) -> float:
    """Wall time of the run, interruptions not counted."""
    return self._seconds_before + time.perf_counter() - self._begun

  def write(self, step: int, record: Mapping[str, float]) -> None:
    """Adds a record; values that are not finite are left out, as JSON has none.

    Raises:
      OSError: The log cannot be written; `filename` names it.
    """
    record = {"step": step, **record, "seconds": round(self.seconds(), 3)}
    record = {key: value for key, value in record.items() if math.isfinite(value)}
    try:
      self._file.write(json.dumps(record).encode() + b"\n")
      self._file.flush()
    except OSError as error:
      error.filename = str(self._path / FILE)
      raise
    self._events.write(step, {key: value for key, value in record.items() if key != "step"})

  def close(self) -> None:
    for file in filter(None, (self._file, self._events)):
      try:
        file.close()
      except OSError:  # Of what could not be written, which was said.
        pass
    self._file = self._events = None


class _Events:
  """Appends TensorBoard events to a file of their own, without a queue; gives up at the first error.

  tensorboardX's writer passes events to a thread through a bounded queue: when the thread dies of a full disk, the
  next event blocks the run forever.
  """

  def __init__(self, folder: epath.Path, purge_step: int | None, report: Callable[[str], None]):
    """Opens a new file.

    Args:
      folder: Directory of the event files.
      purge_step: Events of earlier files from this step on are hidden.
      report: Receives the line that says why there are no events.
    """
    self._folder, self._report, self._file = folder, report, None
    self._protos, self._crc = _tensorboard_format()
    seconds, rest = divmod(time.time_ns(), 10**9)  # TensorBoard reads files in the order of their names.
    name = f"events.out.tfevents.{seconds:010d}.{socket.gethostname()}.{rest:09d}"
    try:
      folder.mkdir(parents=True, exist_ok=True)
      self._file = growing(folder / name)
    except OSError as error:
      self._give_up(error)
    self._append(file_version="brain.Event:2")
    if purge_step is not None:
      self._append(step=purge_step, session_log=self._protos.SessionLog(status=self._protos.SessionLog.START))

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Adds the scalars of a step."""
    from tensorboardX.proto.summary_pb2 import Summary

    summary = Summary(value=[Summary.Value(tag=key, simple_value=value) for key, value in values.items()])
    self._append(step=step, summary=summary)

  def close(self) -> None:
    if self._file:
      self._file.close()

  def _append(self, **fields: Any) -> None:
    if not self._file:
      return
    data = self._protos.Event(wall_time=time.time(), **fields).SerializeToString()
    length = struct.pack("<Q", len(data))
    try:  # A TFRecord.
      self._file.write(length + self._masked_crc(length) + data + self._masked_crc(data))
      self._file.flush()
    except OSError as error:
      self._give_up(error)

  def _masked_crc(self, data: bytes) -> bytes:
    crc = self._crc(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xa282ead8) & 0xffffffff)

  def _give_up(self, error: OSError) -> None:
    self._report(f"{self._folder}: {error.strerror or error}; the run continues without TensorBoard events")
    file, self._file = self._file, None
    try:
      if file:
        file.close()
    except OSError:
      pass


def _tensorboard_format() -> tuple[Any, Callable[[bytes], int]]:
  """Returns TensorBoard's messages and its checksum."""
  # The library imports torch where that is installed, which takes two seconds and is not used.
  absent = sys.modules.setdefault("torch", None) is None
  try:
    from tensorboardX.crc32c import crc32c
    from tensorboardX.proto import event_pb2
  finally:
    if absent:
      del sys.modules["torch"]
  return event_pb2, crc32c
