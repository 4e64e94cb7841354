"""Images as arrays: files decoded, fitted to one size and kept; a set of `rows` as `images`, and back.

A file becomes 8-bit gray or RGB. The orientation that EXIF tells is applied. 16-bit gray is divided by 257, which
takes 65535 to 255 (of 16-bit color Pillow gives the upper byte); palettes and CMYK become RGB, CMYK by Pillow's
formula, without a color profile; what is transparent is laid on white; of several frames the first is taken. To
another size an image is resized until it covers it, by Pillow's bicubic filter, which widens to average when it
makes smaller, and cropped around its center: to N x N its short side becomes N.
"""
import io
import json
import logging
import operator
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embeddings_jax.data.cache import cache_root, cached, digest
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.files.archives import SUFFIXES as SUFFIXES
from embeddings_jax.data.files.arrays import create_npy
from embeddings_jax.data.threads import WORKERS, map_in_order
from embeddings_jax.types import InputError

VERSION = 1  # Of images that are cached: raise it when the same files would give others.
MIN_SIDE = 8  # Pixels; a file with less is taken for an icon or a mistake.
BAD = ("error", "skip")
# Leading folders that are parts of a set, and the parts' names.
PARTS = {"train": "train", "val": "dev", "valid": "dev", "validation": "dev", "dev": "dev", "test": "test"}
MAX_PIXELS = 1 << 27  # Of an image, which takes 7 bytes each while it is decoded.
MAX_COMPRESSION = 2048  # Pixels of a byte; a file that claims more, and many, is damaged or a bomb.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # Other readers of Pillow start programs.
_GREY = ("1", "L", "LA", "La")
_KNOWN = (*_GREY, "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
_WORKERS = min(32, WORKERS)  # Pillow decodes without the interpreter's lock.
_AT_ONCE = 1024  # Images that may wait to be written.


class UnusablePicture(InputError):
  """One file that gives no image; `why` is a word or two for the count."""

  def __init__(self, name: Any, why: str, detail: str = ""):
    super().__init__(f"{name}: is no image that can be used ({why}{detail and ': '}{detail})")
    self.why = why


def check_options(image_size: int = 0, channels: int = 0, bad: str = "error") -> None:
  """Raises unless these are options of `decoded`."""
  if image_size and image_size < MIN_SIDE:
    raise InputError(f"image_size={image_size}: must be 0 (as they are) or at least {MIN_SIDE}")
  if channels not in (0, 1, 3):
    raise InputError(f"channels={channels}: must be 1 (gray), 3 (RGB) or 0 (as the files are)")
  if bad not in BAD:
    raise InputError(f"bad={bad}: must be one of {', '.join(BAD)}")


def as_images(dataset: Dataset) -> Dataset:
  """Rows that are images, in [0, 1], as `images`: uint8 [n, height, width, channels]."""
  if dataset.kind == "images":
    return dataset
  if dataset.kind != "rows" or dataset.image_shape is None:
    raise InputError(f"data={dataset.name}: holds {dataset.kind}, which are no images")
  height, width, *channels = dataset.image_shape
  items = to_uint8(dataset.items).reshape(len(dataset.items), height, width, *(channels or [1]))
  return dataset._replace(kind="images", items=items, image_shape=None, columns=None)


def as_rows(dataset: Dataset) -> Dataset:
  """`images` as rows: float32 [n, height * width * channels] in [0, 1]."""
  if dataset.kind != "images":
    return dataset
  _, height, width, channels = dataset.items.shape
  rows = dataset.items.reshape(len(dataset.items), -1) / np.float32(255)
  return dataset._replace(kind="rows", items=rows, image_shape=(height, width, channels) if channels > 1 else
                          (height, width))


def to_uint8(values: np.ndarray) -> np.ndarray:
  """[0, 1] to the nearest of 0 ... 255."""
  low, high = np.min(values), np.max(values)
  if not (low >= 0 and high <= 1):
    raise InputError(f"images given as rows must lie in [0, 1], these have values from {low} to {high}")
  return np.rint(np.asarray(values) * np.float32(255)).astype(np.uint8)


def read_picture(data: bytes, name: Any, channels: int = 0, size: tuple[int, int] | None = None,
                 min_side: int = 1) -> np.ndarray:
  """uint8 [height, width, channels] from the bytes of a file, as above.

  Args:
    data: Content of a JPEG, PNG, ... file.
    name: what an error calls it.
    channels: 1 (gray) or 3 (RGB); 0: as the file is.
    size: height and width that it is fitted to; None: as the file is.
    min_side: pixels that the file must have each way.

  Raises:
    UnusablePicture: it is broken, truncated, tiny, ...
  """
  from PIL import Image, ImageOps, UnidentifiedImageError

  if not data:
    raise UnusablePicture(name, "empty")
  try:
    with Image.open(io.BytesIO(data), formats=FORMATS) as file:
      pixels = file.width * file.height
      if min(file.size) < min_side:
        raise UnusablePicture(name, "tiny", f"{file.width} x {file.height} pixels, at least {min_side} are needed")
      if pixels > MAX_PIXELS or pixels > max(1 << 24, MAX_COMPRESSION * len(data)):
        raise UnusablePicture(name, "too large", f"{file.width} x {file.height} pixels in {len(data)} bytes")
      file.load()
      ImageOps.exif_transpose(file, in_place=True)
      return _pixels(_in_8_bits(file, name), channels, size)
  except (UnusablePicture, MemoryError):
    raise
  except Image.DecompressionBombError as error:
    raise UnusablePicture(name, "too large", f"over {2 * Image.MAX_IMAGE_PIXELS} pixels") from error
  except UnidentifiedImageError as error:
    raise UnusablePicture(name, "broken") from error
  except Exception as error:  # What readers of formats raise over damaged files has no common class.
    why = "truncated" if "truncated" in str(error).lower() else "broken"
    raise UnusablePicture(name, why, " ".join(str(error).split())[:80]) from error


def from_pixels(values: np.ndarray, name: Any, channels: int = 0,
                size: tuple[int, int] | None = None) -> np.ndarray:
  """`read_picture` of what is decoded already: uint8 or uint16 [height, width, 1, 3 or 4 (with alpha)]."""
  from PIL import Image

  if values.dtype == np.uint16:
    values = np.rint(values / 257).astype(np.uint8)
  image = Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)
  return _pixels(_in_8_bits(image, name), channels, size)


def _in_8_bits(image: Any, name: Any) -> Any:
  """An image of Pillow, of mode L or RGB."""
  from PIL import Image

  if image.mode.startswith("I"):
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
      raise UnusablePicture(name, "of 32 bits")
    return Image.fromarray(np.rint(values / 257).astype(np.uint8))
  if image.mode not in _KNOWN:
    raise UnusablePicture(name, f"of mode {image.mode}")
  mode = "L" if image.mode in _GREY else "RGB"
  if image.has_transparency_data:
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
  return image if image.mode == mode else image.convert(mode)


def _pixels(image: Any, channels: int, size: tuple[int, int] | None) -> np.ndarray:
  from PIL import Image, ImageOps

  if size and size != (image.height, image.width):
    image = ImageOps.fit(image, size[::-1], Image.Resampling.BICUBIC)
  if channels:
    image = image.convert("L" if channels == 1 else "RGB")
  return np.asarray(image).reshape(image.height, image.width, -1)


def fitted(dataset: Dataset, height: int, width: int, channels: int, *,
           cache_dir: str | os.PathLike | None = None) -> Dataset:
  """`images` of another size or number of channels, each fitted as above and kept in the cache; a 0 is as it is.

  Gray becomes RGB by its value in all channels, RGB gray by the weights of ITU-R 601.
  """
  shape = tuple(size or actual for size, actual in zip((height, width, channels), dataset.items.shape[1:]))
  if shape == dataset.items.shape[1:]:
    return dataset
  fingerprint = digest("fitted", VERSION, dataset.fingerprint, shape)

  def build(path: Path) -> None:
    images = create_npy(path, np.uint8, (len(dataset.items), *shape))
    for i, item in enumerate(dataset.items):
      images[i] = from_pixels(item, i, shape[2], shape[:2])
    images.flush()

  path = cached(cache_root(cache_dir) / f"images-{fingerprint[:32]}.npy", build)
  return dataset._replace(items=np.load(path, mmap_mode="r"), fingerprint=fingerprint)


def decoded(
    name: str,
    fingerprint: str,
    files: Iterable[tuple[str, Any]],
    cache_dir: Path,
    *,
    image_size: int = 0,
    channels: int = 0,
    bad: str = "error",
) -> Dataset:
  """Image files, decoded once by several workers, kept in the cache, and memory-mapped; `names` are theirs.

  Args:
    name: Name of the dataset.
    fingerprint: SHA-256 of what determines the files.
    files: names and bytes, or what has `read_bytes()`, as a path; they are put in the order of the names.
    cache_dir: where the array is kept.
    image_size: N makes each N x N, as the head of this file says; 0: as they are, which must be one size.
    channels: 1 (gray), 3 (RGB), or 0: gray if all files are, else RGB.
    bad: `error` refuses a set with files that are broken, truncated, smaller than 8 pixels, ...; `skip` leaves them
      out and says how many.

  Raises:
    InputError: such files, counted, or files of several sizes. All are looked at before.
  """
  key = digest(VERSION, fingerprint, *([image_size, channels] if image_size or channels else []))
  ordered = lambda: sorted(files, key=operator.itemgetter(0))
  path = cached(cache_dir / f"images-{key[:32]}",
                lambda folder: _decode(folder, name, ordered(), image_size, channels, bad))
  names = np.load(path / "names.npy")
  if (path / "left_out.json").exists():
    left_out = json.loads((path / "left_out.json").read_text())
    message = _told(name, left_out, len(names) + len(left_out))
    if bad == "error":
      raise InputError(f"{message}; bad=skip leaves them out")
    logging.warning("%s; they are left out", message)
  return Dataset(name, "images", np.load(path / "images.npy", mmap_mode="r"), names=names, fingerprint=key)


def _decode(folder: Path, name: str, files: Sequence[tuple[str, Any]], image_size: int, channels: int,
            bad: str) -> None:
  """`images.npy`, `names.npy` and, where some files are left out, `left_out.json` in a folder that is made."""
  from PIL import Image

  Image.init()  # Not in several workers at once.
  size = (image_size, image_size) if image_size else None

  def read(file: tuple[str, Any]) -> np.ndarray | UnusablePicture:
    data = file[1] if isinstance(file[1], bytes) else file[1].read_bytes()
    try:
      return read_picture(data, file[0], channels, size, MIN_SIDE)
    except UnusablePicture as error:
      return error

  folder.mkdir()
  images, kept, left_out, unlike, gray = None, [], [], [], True
  for (file, _), image in zip(files, map_in_order(read, files, ahead=_AT_ONCE, workers=_WORKERS)):
    if isinstance(image, UnusablePicture):
      left_out.append((file, image.why))
      continue
    if images is None:
      images = create_npy(folder / "images.npy", np.uint8, (len(files), *image.shape[:2], channels or 3))
    if image.shape[:2] != images.shape[1:3]:
      unlike.append((file, image.shape))
      continue
    images[len(kept)] = image  # Gray is spread over the channels.
    kept.append(file)
    gray = gray and image.shape[2] == 1
  if left_out and bad == "error":
    raise InputError(f"{_told(name, left_out, len(files))}; bad=skip leaves them out")
  if not kept:
    raise InputError(_told(name, left_out, len(files)))
  if unlike:
    (other, shape), (height, width) = unlike[0], images.shape[1:3]
    raise InputError(f"{name}: the images have several sizes, {kept[0]} {width} x {height} pixels, {other} "
                     f"{shape[1]} x {shape[0]}; image_size=N makes all of them N x N")
  if len(kept) < len(files) or images.shape[3] > 1 and gray:
    whole = images[:len(kept), :, :, :1] if gray else images[:len(kept)]
    images = create_npy(folder / "fewer.npy", np.uint8, whole.shape)
    for first in range(0, len(kept), _AT_ONCE):
      images[first:first + _AT_ONCE] = whole[first:first + _AT_ONCE]
    os.replace(folder / "fewer.npy", folder / "images.npy")
  images.flush()
  np.save(folder / "names.npy", np.array(kept))
  if left_out:
    (folder / "left_out.json").write_text(json.dumps(left_out))


def _told(name: str, left_out: Sequence[tuple[str, str]], total: int) -> str:
  kinds = ", ".join(f"{number} {why}" for why, number in Counter(why for _, why in left_out).most_common())
  return f"{name}: {len(left_out)} of {total} images cannot be used: {kinds}, first {left_out[0][0]}"


def by_folders(dataset: Dataset) -> Dataset:
  """The label `class` and the split from names `[part/]class/.../file`.

  Parts are leading folders named as `PARTS`, if all images lie in such; the class is the folder below, and where
  an image lies in none there are no labels. A set that has `train` alone has no split.

  Raises:
    InputError: folders that are parts stand beside others.
  """
  folders = [str(name).split("/")[:-1] for name in dataset.names]
  in_part = [bool(above) and above[0].lower() in PARTS for above in folders]
  split = {}
  if all(in_part):
    part = np.array([PARTS[above[0].lower()] for above in folders])
    split = {str(value): np.flatnonzero(part == value) for value in np.unique(part)}
    folders = [above[1:] for above in folders]
  elif any(inside and len(above) > 1 for inside, above in zip(in_part, folders)):
    first = next(above[0] for inside, above in zip(in_part, folders) if inside and len(above) > 1)
    raise InputError(f"{dataset.name}: {dataset.names[in_part.index(False)]} stands beside the folder {first}, "
                     "which is a part of the set, and in none; move it, or choose files by a glob")
  labels = {}
  if all(folders):
    labels = {"class": np.array([above[0] for above in folders])}
  elif any(folders):
    at = next(i for i, above in enumerate(folders) if not above)
    logging.warning("%s: %s lies in no folder of a class, so that there are no labels", dataset.name,
                    dataset.names[at])
  if labels and len(set(labels["class"])) < 2:
    labels = {}
  return dataset._replace(labels=labels, split={} if set(split) == {"train"} else split)
