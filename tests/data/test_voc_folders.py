"""Pasted digits, and folders of PASCAL VOC."""
import numpy as np
import pytest
from PIL import Image

from embeddings_jax.data import catalog
from embeddings_jax.data.boxes import areas, overlaps
from embeddings_jax.data.pasted_digits import pasted_digits
from embeddings_jax.errors import InputError
from embeddings_jax.eval.detection import detection

OBJECT = ("<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>"
          "<ymax>{}</ymax></bndbox></object>")
XML = "<annotation><size><width>{}</width><height>{}</height><depth>3</depth></size>{}</annotation>"


def test_pasted_digits_lie_in_their_boxes():
  for index in range(12):
    made, again = pasted_digits(1, index), pasted_digits(1, index)
    np.testing.assert_array_equal(made.image, again.image)
    assert 1 <= len(made.digit) <= 3 and made.corners.min() >= 0 and made.corners.max() <= 32
    shared = overlaps(made.corners, made.corners) - np.eye(len(made.digit))
    assert shared.max() <= 0.1 and (areas(made.corners) > 20).all()
    for (top, left, bottom, right), difficult in zip(made.corners.astype(int), made.difficult):
      part = made.image[top:bottom, left:right].astype(float)
      strong = (part.max(-1) - part.min(-1)).max()  # Digits have bright colors.
      assert difficult or strong > 100
  assert not np.array_equal(pasted_digits(1, 0).image, pasted_digits(1, 0, test=True).image)
  assert all(len(pasted_digits(1, i, most=1).digit) == 1 for i in range(5))


@pytest.fixture
def folder(tmp_path):
  rng = np.random.default_rng(0)
  for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
    (tmp_path / name).mkdir(parents=True)
  sizes = {"000001": (40, 30), "000002": (24, 24), "000003": (30, 40), "000004": (24, 32)}
  for i, (name, size) in enumerate(sizes.items()):
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)).save(
        tmp_path / "JPEGImages" / f"{name}.jpg")
    parts = OBJECT.format("dog", 0, 1, 1, 10, 12) + OBJECT.format("cat", 1, 11, 5, 24, 24) * (i % 2)
    (tmp_path / "Annotations" / f"{name}.xml").write_text(XML.format(*size, parts))
  (tmp_path / "ImageSets/Main/trainval.txt").write_text("000001\n000002\n")
  (tmp_path / "ImageSets/Main/test.txt").write_text("000003 1\n000004 -1\n")
  return tmp_path


def test_a_voc_folder(folder):
  dataset = catalog.load(str(folder))
  assert dataset.kind == "boxes" and list(dataset.boxes.classes) == ["cat", "dog"]
  assert [image.shape for image in dataset.items] == [(30, 40, 3), (24, 24, 3), (40, 30, 3), (32, 24, 3)]
  first = dataset.boxes.of(1)
  # From 1 and inclusive become from 0 and exclusive; width 14, height 20 of the cat.
  assert first.corners.tolist() == [[0, 0, 12, 10], [4, 10, 24, 24]] and first.difficult.tolist() == [False, True]
  assert {name: rows.tolist() for name, rows in dataset.split.items()} == {"train": [0, 1], "test": [2, 3]}
  embed = lambda crops: crops.reshape(len(crops), -1)[:, :6]
  actual = detection(embed, dataset, shape=(8, 8, 3), trials=1)
  assert 0 <= actual["test/voc07_map"] <= 1  # Of the dog alone: cats are difficult.


def test_bad_annotations_are_refused(folder):
  file = folder / "Annotations" / "000003.xml"

  def refused(text, match):
    file.write_text(text)
    with pytest.raises(InputError, match=match) as caught:
      catalog.load(str(folder))
    assert "000003" in str(caught.value) and "\n" not in str(caught.value)

  good = file.read_text()
  entity = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
  refused(entity + good.replace("dog", "&x;"), "declares a document type")
  refused('<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]>' + good, "declares a document type")
  file.write_bytes((entity + good).encode("utf-16"))
  with pytest.raises(InputError, match="declares a document type"):
    catalog.load(str(folder))
  refused(good[:-5], "is no sound XML")
  refused(XML.format(30, 40, OBJECT.format("dog", 0, 1, 1, 31, 12)), "dog: the box .* outside the image of 40")
  refused(XML.format(30, 40, OBJECT.format("dog", 0, 9, 1, 3, 12)), "dog: the box .* is empty")
  refused(XML.format(30, 40, OBJECT.format("", 0, 1, 1, 3, 12)), "an object has no name")
  refused(XML.format(30, "nan", ""), "size/height is nan")
  refused(XML.format(30, 40, OBJECT.format("dog", 0, 1, 1, 3, "x")), "bndbox/ymax is missing or no number")
  file.write_text(good)
  (folder / "JPEGImages" / "000003.jpg").unlink()
  with pytest.raises(InputError, match="000003.jpg: is missing, of which 000003.xml tells"):
    catalog.load(str(folder))
