"""Clips: frames of video that lie one after another in a memory map, and the files that they are read from.

  file                        clips
  `.npz`                      each array: uint8 [frames, height, width, 3], or [frames, height, width] in gray; an
                              array `NAME.masks`, whole numbers [frames, height, width], holds the masks of `NAME`
  `.npy`                      one clip each
  folder with image files     one clip each, its frames by the numbers in their names
  `JPEGImages`, `Annotations` beside each other, as DAVIS has them: frames and masks
  `.mp4`, `.avi`, ...         one clip each, decoded by PyAV, the extra `video`
  `tfds:NAME`                 a feature `Video`, or a sequence of images

All are decoded once, frame by frame, into one file of the cache: seeking in compressed video is inexact, and a
window of frames is then a slice of the map. Folders above the clips are classes or splits, as of images.
"""
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from embeddings_jax.data import catalog, formats, own
from embeddings_jax.data.cache import cache_root, cached, digest
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.files.arrays import load_npy, load_npz
from embeddings_jax.data.images import by_folders, check_options, from_pixels, read_picture
from embeddings_jax.errors import InputError

VERSION = 1  # Of frames that are cached: raise it when the same files would give others.
SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".gif")
FRAMES, MASKS = "JPEGImages", "Annotations"  # Folders of DAVIS.


class Clips(Sequence):
  """Clips `[frames, height, width, channels]`, views of one array that is perhaps memory-mapped.

  Attributes:
    frames: uint8 `[total, height, width, channels]`, all clips one after another.
    starts: int64 `[clips + 1]`, first frame of each clip, and the end.
    beside: Name -> `[total, ...]`, of each frame: `masks` (0 is the background), `tracks`, `actions`,
      and `kinds` of the objects 1, 2, ... of the masks.
  """

  def __init__(self, frames: np.ndarray, lengths: Sequence[int], beside: Mapping[str, np.ndarray] | None = None):
    self.frames, self.beside = frames, dict(beside or {})
    self.starts = np.concatenate([[0], np.cumsum(np.asarray(lengths, np.int64))]).astype(np.int64)
    for name, values in {"frames": frames, **self.beside}.items():
      if len(values) != self.starts[-1]:
        raise InputError(f"clips: {name} has {len(values)} entries for {self.starts[-1]} frames")

  @property
  def shape(self) -> tuple[int, int, int]:
    """Height, width and channels of a frame."""
    return tuple(self.frames.shape[1:])

  @property
  def lengths(self) -> np.ndarray:
    """Number of frames of each clip."""
    return np.diff(self.starts)

  def __len__(self) -> int:
    return len(self.starts) - 1

  def __getitem__(self, index: Any) -> Any:
    if isinstance(index, slice):
      return [self[i] for i in range(*index.indices(len(self)))]
    return self.of("frames", index)

  def of(self, name: str, index: int) -> np.ndarray:
    """Returns `frames`, or an array beside them, of one clip."""
    if not -len(self) <= index < len(self):
      raise IndexError(index)
    index = int(index) % len(self)
    values = self.frames if name == "frames" else self.beside[name]
    return values[self.starts[index]:self.starts[index + 1]]


class Clip(NamedTuple):
  """A clip to be decoded: its name `[split/][class/]name`, its frames, and perhaps their masks."""

  name: str
  frames: Callable[[], Iterable[np.ndarray]]
  masks: Callable[[], Iterable[np.ndarray]] | None = None


def read(name: str, *, dataset: Dataset | None = None, encoder: Any = None, data_dir: str | None = None,
         cache_dir: str | None = None, allow_code: bool = False, image_size: int = 0, channels: int = 0,
         every: int = 1, max_clips: int = 0) -> Dataset:
  """Reads clips.

  Args:
    name: Name of the catalog, `tfds:NAME[:SPLIT]`, or a path or glob.
    image_size: Height and width of the frames in pixels, resized and cropped; 0: as they are.
    channels: 1 for gray, 3 for color; 0: as they are.
    every: Keeps every so many frames of the user's files.
    max_clips: Keeps the first so many clips of each split; 0: all.
  """
  check_options(image_size, channels)
  if every < 1 or max_clips < 0:
    raise InputError(f"every={every}, max_clips={max_clips}: must be at least 1 and 0")
  options = dict(image_size=image_size, channels=channels, every=every)
  if dataset is None:
    if name in catalog.entries():
      dataset = catalog.load(name, data_dir=data_dir, cache_dir=cache_dir)
    elif name.startswith("tfds:"):
      dataset = load_tfds_clips(name, data_dir=data_dir, cache_dir=cache_dir, **options)
    else:
      dataset = load_clips(name, cache_dir=cache_dir, **options)
  if dataset.kind != "video":
    return dataset
  return first_clips(fitted(dataset, image_size, channels, cache_dir), max_clips)


def first_clips(dataset: Dataset, number: int) -> Dataset:
  """Returns the first clips of each split; 0: all."""
  parts = dataset.split or {"": np.arange(len(dataset.items))}
  if not number or all(len(rows) <= number for rows in parts.values()):
    return dataset
  parts = {part: np.asarray(rows)[:number] for part, rows in parts.items()}
  kept = np.concatenate(list(parts.values()))
  ends = np.cumsum([len(rows) for rows in parts.values()])
  items = dataset.items
  places = np.concatenate([np.arange(items.starts[i], items.starts[i + 1]) for i in kept])
  beside = {name: values[places] for name, values in items.beside.items()}
  return dataset._replace(
      items=Clips(items.frames[places], items.lengths[kept], beside),
      labels={name: label[kept] for name, label in dataset.labels.items()},
      names=None if dataset.names is None else [dataset.names[i] for i in kept],
      split={} if "" in parts else {part: np.arange(end - len(parts[part]), end) for part, end in zip(parts, ends)},
      fingerprint=f"{dataset.fingerprint}:{number}")


def load_clips(path: str, *, cache_dir: str | None = None, image_size: int = 0, channels: int = 0,
               every: int = 1) -> Dataset:
  """Loads the user's files as clips; see the head of this file."""
  files = own.list_files(path)
  sums = [formats.sha256(file) for file in files]
  root = _root(path)
  key = digest("video", VERSION, [[_name(file, root), value] for file, value in zip(files, sums)],
               [image_size, channels, every])
  return _stored(path, key, lambda: _listed(path, files), cache_dir, image_size, channels, every)


def load_tfds_clips(name: str, *, data_dir: str | None = None, cache_dir: str | None = None, image_size: int = 0,
                    channels: int = 0, every: int = 1) -> Dataset:
  """Loads the videos of a prepared set of TensorFlow Datasets."""
  from embeddings_jax.data import tfds

  match = re.fullmatch(r"tfds:([\w/.-]+)(?::(.+))?", name)
  if not match:
    raise InputError(f"data={name}: should read tfds:<name>[/config][:split]")
  builder = tfds.open_builder(name, match[1], data_dir)
  parts = [match[2]] if match[2] else [part for part in ("train", "test") if part in builder.info.splits]
  kinds = {key: type(value).__name__ for key, value in builder.info.features.items()}
  feature = next((key for key, kind in kinds.items() if kind == "Video" or "video" in key.lower()), None)
  if feature is None or not parts:
    raise InputError(f"data={name}: has no feature of video; it has {', '.join(kinds)}")
  label = next((key for key, kind in kinds.items() if kind == "ClassLabel"), None)
  readers = {part: tfds.open_reader(name, builder, part) for part in parts}

  def clips() -> Iterator[Clip]:
    for part, reader in readers.items():
      for i in range(len(reader)):
        example = reader[i]
        folder = f"{example[label]}/" if label else ""
        prefix = f"{part}/" if len(parts) > 1 else ""
        yield Clip(f"{prefix}{folder}{i}", lambda value=example[feature]: iter(np.asarray(value)))

  key = digest("tfds-video", VERSION, builder.info.full_name, parts, feature, [image_size, channels, every])
  return _stored(name, key, clips, cache_dir, image_size, channels, every)


def fitted(dataset: Dataset, image_size: int, channels: int, cache_dir: str | None = None) -> Dataset:
  """Returns clips with frames of another size or number of channels, kept in the cache; 0: as they are."""
  height, width, depth = dataset.items.shape
  shape = (image_size or height, image_size or width, channels or depth)
  if shape == (height, width, depth):
    return dataset
  items = dataset.items
  masks = items.beside.get("masks")
  clips = [Clip(str(i), lambda i=i: iter(items[i]), None if masks is None else lambda i=i: iter(items.of("masks", i)))
           for i in range(len(items))]
  key = digest("fitted video", VERSION, dataset.fingerprint, shape)
  stored = _stored(dataset.name, key, lambda: clips, cache_dir, image_size, channels, 1).items
  beside = {name: values for name, values in items.beside.items() if name in ("actions", "kinds")} | stored.beside
  if "tracks" in items.beside and height * shape[1] == width * shape[0]:
    beside["tracks"] = (items.beside["tracks"] + 0.5) * np.float32(shape[0] / height) - np.float32(0.5)
  return dataset._replace(items=Clips(stored.frames, items.lengths, beside), fingerprint=key)


def decoded_frames(path: Path) -> Iterator[np.ndarray]:
  """Yields the frames of a video file, uint8 [height, width, 3]."""
  try:
    import av
  except ImportError as error:
    raise InputError(f"{path}: video files need a decoder, the extra `video`: pip install 'embeddings_jax[video]' "
                     "(PyAV); or give the frames as .npz or as folders of images") from error
  try:
    with av.open(str(path)) as container:
      if not container.streams.video:
        raise InputError(f"{path}: has no video stream")
      for frame in container.decode(video=0):
        yield frame.to_ndarray(format="rgb24")
  except av.error.FFmpegError as error:
    raise InputError(f"{path}: cannot be decoded ({error})") from error


def _root(path: str) -> Path:
  """Returns the folder below which names of clips begin."""
  root = Path(path).expanduser()
  while not root.is_dir():
    root = root.parent
  return root


def _name(file: Path, root: Path) -> str:
  return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.as_posix()


def _listed(path: str, files: Sequence[Path]) -> list[Clip]:
  """Returns the clips of files."""
  root, clips = _root(path), []
  folders: dict[Path, list[Path]] = {}
  for file in files:
    name, suffix = _name(file, root), file.suffix.lower()
    if suffix == ".npz":
      clips += _arrays(file, str(Path(name).parent))
    elif suffix == ".npy":
      values = _checked(load_npy(file), file, "")
      clips.append(Clip(name, lambda values=values: iter(values)))
    elif suffix in SUFFIXES:
      clips.append(Clip(name, lambda file=file: decoded_frames(file)))
    elif own.file_kind(file) == "images":
      folders.setdefault(file.parent, []).append(file)
  for images in folders.values():
    images.sort(key=_in_time)
  masked = {folder: images for folder, images in folders.items() if MASKS in folder.parts}
  for folder, images in folders.items():
    if folder in masked:
      continue
    parts = list(folder.parts)
    masks = None
    if FRAMES in parts:
      parts[parts.index(FRAMES)] = MASKS
      masks = masked.get(Path(*parts))
      if masked and masks is None:
        raise InputError(f"{folder}: has no masks, {Path(*parts)} is missing; give masks of all clips, or of none")
      if masks is not None and len(masks) != len(images):
        raise InputError(f"{Path(*parts)}: has {len(masks)} masks for {len(images)} frames of {folder}")
    name = folder.relative_to(root).as_posix() if folder != root else root.name
    name = "/".join(part for part in name.split("/") if part not in (FRAMES, "480p", "1080p"))
    clips.append(Clip(name, lambda images=images: (read_picture(p.read_bytes(), p) for p in images),
                      masks and (lambda masks=masks: map(_mask, masks))))
  if not clips:
    raise InputError(f"{path}: holds no clips; give .npz or .npy files of frames, folders of images, or video files "
                     f"({', '.join(SUFFIXES)})")
  return sorted(clips, key=lambda clip: clip.name)


def _in_time(file: Path) -> list[Any]:
  """Sorts names by the numbers in them: frame 10 follows frame 9."""
  return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", file.name)]


def _arrays(file: Path, folder: str) -> Iterator[Clip]:
  arrays = load_npz(file)
  for name, values in sorted(arrays.items()):
    if name.endswith(".masks"):
      if name.removesuffix(".masks") not in arrays:
        raise InputError(f"{file}: {name!r} are masks of no clip")
      continue
    values, masks = _checked(values, file, name), arrays.get(f"{name}.masks")
    if masks is not None and (masks.dtype.kind not in "iu" or masks.shape != values.shape[:3]):
      raise InputError(f"{file}: the masks of {name!r} are {masks.dtype} {list(masks.shape)} and do not fit frames "
                       f"{list(values.shape)}; expected whole numbers {list(values.shape[:3])}")
    yield Clip(name if folder == "." else f"{folder}/{name}", lambda values=values: iter(values),
               None if masks is None else lambda masks=masks: iter(masks))


def _checked(values: np.ndarray, file: Path, name: str) -> np.ndarray:
  """Returns frames [frames, height, width, channels] of an array."""
  values = values[..., None] if values.ndim == 3 and values.shape[-1] > 4 else values
  if values.dtype != np.uint8 or values.ndim != 4 or values.shape[3] not in (1, 3) or not values.size:
    raise InputError(f"{file}: {name or 'the array'} is {values.dtype} {list(values.shape)}, expected uint8 [frames, "
                     "height, width, channels] with 1 or 3 channels")
  return values


def _mask(file: Path) -> np.ndarray:
  """Returns the object of each pixel; a palette's index, or a gray value."""
  from PIL import Image

  try:
    with Image.open(file) as image:
      values = np.asarray(image)
  except Exception as error:  # What readers of formats raise over damaged files has no common class.
    raise InputError(f"{file}: is no mask that can be read ({' '.join(str(error).split())[:80]})") from error
  if values.ndim != 2:
    raise InputError(f"{file}: is no mask; expected one number a pixel, as in an image with a palette")
  return values


def _stored(name: str, key: str, clips: Callable[[], Iterable[Clip]], cache_dir: str | None, image_size: int,
            channels: int, every: int) -> Dataset:
  """Returns the dataset of clips, decoded into the cache once."""
  path = cached(cache_root(cache_dir) / f"video-{key[:32]}",
                lambda folder: _write(folder, clips(), image_size, channels, every))
  content = json.loads((path / "clips.json").read_text())
  shape = (sum(content["lengths"]), *content["shape"])
  frames = np.memmap(path / "frames", np.uint8, "r", shape=shape)
  beside = {"masks": np.memmap(path / "masks", np.uint8, "r", shape=shape[:3])} if content["masks"] else {}
  dataset = Dataset(name, "video", Clips(frames, content["lengths"], beside), names=content["names"], fingerprint=key)
  return by_folders(dataset)


def _write(folder: Path, clips: Iterable[Clip], image_size: int, channels: int, every: int) -> None:
  """Writes `frames`, `masks` and `clips.json`; one frame is in memory at a time."""
  folder.mkdir()
  size = (image_size, image_size) if image_size else None
  shape, first, lengths, names, has_masks = None, "", [], [], []
  with open(folder / "frames", "wb") as out, open(folder / "masks", "wb") as out_masks:
    for clip in clips:
      number, masks = 0, iter(clip.masks()) if clip.masks else None
      for i, frame in enumerate(clip.frames()):
        mask = next(masks, None) if masks else None
        if i % every:
          continue
        where = f"{clip.name}, frame {i}"
        if masks is not None and (mask is None or mask.shape != frame.shape[:2]):
          raise InputError(f"{where}: the mask is {'missing' if mask is None else list(mask.shape)} and does not fit "
                           f"{frame.shape[0]} x {frame.shape[1]} pixels")
        pixels = from_pixels(frame, where, channels, size) if size or channels else frame
        shape, first = (pixels.shape, where) if shape is None else (shape, first)
        if pixels.shape != shape:
          raise InputError(f"the frames have several sizes, {first} {list(shape)}, {where} {list(pixels.shape)}; "
                           "image_size=N makes all of them N x N, channels=3 RGB")
        out.write(np.ascontiguousarray(pixels).data)
        if mask is not None:
          out_masks.write(_fitted_mask(mask, size).data)
        number += 1
      if not number:
        raise InputError(f"{clip.name}: has no frames")
      lengths.append(number)
      names.append(clip.name)
      has_masks.append(masks is not None)
  if any(has_masks) and not all(has_masks):
    raise InputError(f"{names[has_masks.index(False)]}: has no masks, {names[has_masks.index(True)]} has; give masks "
                     "of all clips, or of none")
  content = {"lengths": lengths, "shape": list(shape), "names": names, "masks": any(has_masks)}
  (folder / "clips.json").write_text(json.dumps(content))


def _fitted_mask(mask: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
  """Returns a mask, uint8, resized and cropped as its frame is, by the nearest pixel."""
  if mask.min() < 0 or mask.max() > 255:
    raise InputError(f"masks: hold numbers from {mask.min()} to {mask.max()}, expected 0 to 255")
  mask = np.ascontiguousarray(mask, np.uint8)
  if not size or size == mask.shape:
    return mask
  from PIL import Image, ImageOps

  return np.ascontiguousarray(ImageOps.fit(Image.fromarray(mask), size[::-1], Image.Resampling.NEAREST))
