"""Images in .zip and .tar archives. Nothing is written to the disk, so the paths in an archive lead nowhere."""
import contextlib
import logging
import os
import posixpath
import zipfile
from collections.abc import Iterator
from typing import Any

from embeddings_jax.data.files.streams import opened, quoted, refusing, tar_members
from embeddings_jax.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm")
MAX_MEMBER = 1 << 28  # Bytes of an image.
MAX_TAR = 1 << 31  # Bytes of all images of a .tar, which are in memory together; a .zip is read as it is needed.
_MAX_MEMBERS = 10_000_000
_WAY = "unpack it and give the folder"


@contextlib.contextmanager
def archived_images(path: str | os.PathLike) -> Iterator[list[tuple[str, Any]]]:
  """Lists the images of an archive, by names below the folder that all have in common.

  Yields:
    Names, and bytes or what has `read_bytes()`. Hidden files and macOS's `__MACOSX` are left out, as is what is no
    image by its name, which is reported.

  Raises:
    InputError: It is damaged, encrypted, holds no image, two of one name, or more than memory should hold.
  """
  with contextlib.ExitStack() as stack:
    members = _zip(path, stack) if str(path).lower().endswith(".zip") else _tar(path)
    images, others = [], []
    for name, content in members:
      parts = posixpath.normpath(name.replace("\\", "/")).split("/")
      if any(part.startswith((".", "__MACOSX")) and part not in (".", "..") for part in parts):
        continue
      (images if name.lower().endswith(SUFFIXES) else others).append((parts, content))
    if not images:
      raise InputError(f"{path}: holds no image; {_WAY}" if not others else
                       f"{path}: holds {quoted('/'.join(others[0][0]))} and no image; only archives of images are "
                       f"read, {_WAY}")
    if others:
      logging.warning("%s: %d files that are no images are left out, as %s", path, len(others),
                      quoted("/".join(others[0][0])))
    # An archive of a folder begins with its name, which is no class.
    while all(len(parts) > 1 for parts, _ in images) and len({parts[0] for parts, _ in images}) == 1:
      images = [(parts[1:], content) for parts, content in images]
    named = {"/".join(parts): content for parts, content in images}
    if len(named) < len(images):
      raise InputError(f"{path}: has two images of one name; {_WAY}")
    yield list(named.items())


class _Member:
  """An image of a .zip; several threads may read at once."""

  def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: str | os.PathLike):
    self._archive, self._info, self._path = archive, info, path

  def read_bytes(self) -> bytes:
    with refusing(self._path, f"damaged archive, {quoted(self._info.filename)} cannot be read"):
      with self._archive.open(self._info) as file:
        # The stated size may be a lie.
        return file.read(self._info.file_size)


def _zip(path: str | os.PathLike, stack: contextlib.ExitStack) -> Iterator[tuple[str, Any]]:
  with refusing(path, "not a .zip archive"):
    archive = stack.enter_context(zipfile.ZipFile(path))
  infos = archive.infolist()
  if len(infos) > _MAX_MEMBERS:
    raise InputError(f"{path}: has {len(infos):,} members; {_WAY}")
  for info in infos:
    if info.is_dir():
      continue
    if info.flag_bits & 1:
      raise InputError(f"{path}: {quoted(info.filename)} is encrypted; {_WAY}")
    if info.file_size > MAX_MEMBER and info.filename.lower().endswith(SUFFIXES):
      raise InputError(f"{path}: {quoted(info.filename)} has {info.file_size:,} bytes, too many for an image")
    yield info.filename, _Member(archive, info, path)


def _tar(path: str | os.PathLike) -> Iterator[tuple[str, bytes]]:
  with opened(path) as file:
    if not file.read(1):
      raise InputError(f"{path}: is empty")
  total = 0
  for name, content in tar_members(path, MAX_MEMBER):
    total += len(content)
    if total > MAX_TAR:
      raise InputError(f"{path}: holds more than {MAX_TAR >> 30} GiB; {_WAY}")
    yield name, content if name.lower().endswith(SUFFIXES) else b""
