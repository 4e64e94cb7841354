"""Files that grow while others read them, also where storage only has whole objects."""
import time
from typing import Any

from etils import epath

PATIENCE = 60.0  # Seconds between two uploads of an object.


def growing(path: epath.Path, *, append: bool = False) -> Any:
  """Opens a binary file whose `flush` makes what was written visible.

  Args:
    path: Local file, or object of a bucket, which is written as a whole, at most once a minute and when it is closed.
    append: Whether to continue the file.
  """
  if "://" not in str(path):
    return path.open("ab" if append else "wb")
  return _Object(path, path.read_bytes() if append and path.exists() else b"")


class _Object:
  """The whole of an object, and when it was last written."""

  def __init__(self, path: epath.Path, content: bytes):
    self._path, self._content = path, bytearray(content)
    self._uploaded, self._changed = -PATIENCE, True

  def write(self, content: bytes) -> int:
    self._content += content
    self._changed = True
    return len(content)

  def flush(self) -> None:
    if time.monotonic() - self._uploaded >= PATIENCE:
      self._upload()

  def close(self) -> None:
    self._upload()

  def _upload(self) -> None:
    if self._changed:
      self._path.write_bytes(bytes(self._content))
      self._uploaded, self._changed = time.monotonic(), False
