"""Folders of PASCAL VOC: images, and annotations in XML.

  JPEGImages/NAME.jpg           images, decoded as they are asked for
  Annotations/NAME.xml          objects: name, difficult, bndbox (xmin, ymin, xmax, ymax, from 1, inclusive)
  ImageSets/Main/SPLIT.txt      names of a split; `trainval` stands for `train` and `val` together

A file of annotations must be plain: one that declares a document type, by which entities could be defined or other
files be read, is refused.
"""
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from embeddings_jax.data.boxes import Boxes, check_boxes
from embeddings_jax.data.cache import digest
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.images import read_picture
from embeddings_jax.types import InputError

FOLDERS = ("JPEGImages", "Annotations")
MAX_BYTES = 1 << 22  # Of a file of annotations.


class Pictures(Sequence):
  """Images of files, uint8 [height, width, 3] each, decoded as they are asked for."""

  def __init__(self, files: Sequence[Path]):
    self.files = list(files)

  def __len__(self) -> int:
    return len(self.files)

  def __getitem__(self, i: Any) -> Any:
    if isinstance(i, slice):
      return Pictures(self.files[i])
    return read_picture(self.files[i].read_bytes(), self.files[i], 3)

  def __iter__(self) -> Iterator[np.ndarray]:
    return (self[i] for i in range(len(self)))


def is_voc(path: str | os.PathLike) -> bool:
  """Returns whether a folder has the form of PASCAL VOC's."""
  return all((Path(path).expanduser() / name).is_dir() for name in FOLDERS)


def load_voc(path: str | os.PathLike) -> Dataset:
  """Loads a folder: the images that have annotations, with their boxes.

  Raises:
    InputError: A file is missing or damaged, or a box reaches outside its image.
  """
  root = Path(path).expanduser()
  annotations = sorted((root / "Annotations").glob("*.xml"))
  if not annotations:
    raise InputError(f"{root / 'Annotations'}: has no .xml files")
  files, corners, names, difficult, image = [], [], [], [], []
  for number, file in enumerate(annotations):
    files.append(_picture(root, file))
    for name, hard, box in objects(file):
      corners.append(box)
      names.append(name)
      difficult.append(hard)
      image.append(number)
  classes, label = np.unique(np.array(names, str), return_inverse=True)
  boxes = Boxes(np.array(corners, np.float32).reshape(-1, 4), np.array(image, np.int32), label.astype(np.int32),
                np.array(difficult, bool), [str(name) for name in classes])
  stems = [file.stem for file in annotations]
  return Dataset(str(path), "boxes", Pictures(files), names=stems, split=_splits(root, stems), boxes=boxes,
                 fingerprint=digest("voc", [file.read_bytes().hex() for file in annotations]))


def objects(file: Path) -> list[tuple[str, bool, tuple[float, float, float, float]]]:
  """Returns the objects of a file of annotations: class, whether it is difficult, top, left, bottom and right."""
  root = _parsed(file)
  size = [_number(file, root, f"size/{side}") for side in ("height", "width")]
  marked = []
  for part in root.findall("object"):
    name = (part.findtext("name") or "").strip()
    if not name:
      raise InputError(f"{file}: an object has no name")
    left, top, right, bottom = (_number(file, part, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax"))
    box = check_boxes(np.array([top - 1, left - 1, bottom, right]), int(size[0]), int(size[1]), f"{file}: {name}")[0]
    marked.append((name, (part.findtext("difficult") or "0").strip() == "1", tuple(map(float, box))))
  return marked


def _parsed(file: Path) -> ElementTree.Element:
  """Parses XML that declares no document type."""
  def refuse(*_: Any) -> None:
    raise InputError(f"{file}: declares a document type, which is refused; annotations of PASCAL VOC have none")

  if file.stat().st_size > MAX_BYTES:
    raise InputError(f"{file}: is larger than {MAX_BYTES} bytes, which annotations are not")
  builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()
  parser.StartDoctypeDeclHandler = refuse
  parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
  parser.CharacterDataHandler = builder.data
  try:
    parser.Parse(file.read_bytes(), True)
    return builder.close()
  except (expat.ExpatError, LookupError, ValueError) as error:
    if isinstance(error, InputError):
      raise
    raise InputError(f"{file}: is no sound XML ({' '.join(str(error).split())[:100]})") from error


def _number(file: Path, part: ElementTree.Element, path: str) -> float:
  try:
    value = float(part.findtext(path) or "")
  except ValueError as error:
    raise InputError(f"{file}: {path} is missing or no number") from error
  if not 0 <= value <= 1 << 20:  # Also refuses NaN.
    raise InputError(f"{file}: {path} is {value}; expected a number of pixels")
  return value


def _picture(root: Path, annotation: Path) -> Path:
  """Returns the image beside a file of annotations."""
  for suffix in (".jpg", ".jpeg", ".png"):
    file = root / "JPEGImages" / f"{annotation.stem}{suffix}"
    if file.is_file():
      return file
  raise InputError(f"{root / 'JPEGImages' / annotation.stem}.jpg: is missing, of which {annotation.name} tells")


def _splits(root: Path, stems: Sequence[str]) -> dict[str, np.ndarray]:
  """Returns `train` (or `trainval`) and `test` (or `val`), where there are lists of both."""
  numbers = {stem: i for i, stem in enumerate(stems)}
  lists = {}
  for name in ("train", "val", "trainval", "test"):
    file = root / "ImageSets" / "Main" / f"{name}.txt"
    if file.is_file():
      words = [line.split()[0] for line in file.read_text("utf-8", "replace").splitlines() if line.split()]
      rows = [numbers[word] for word in words if word in numbers]
      lists[name] = np.array(rows, int)
  test = "test" if len(lists.get("test", ())) else "val"
  names = ("trainval", "train") if test == "test" else ("train",)
  train = next((name for name in names if len(lists.get(name, ()))), "")
  return {"train": lists[train], "test": lists[test]} if train and len(lists.get(test, ())) else {}
