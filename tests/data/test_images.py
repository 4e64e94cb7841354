"""Pictures: rows and back, files of a folder decoded once, and the encoder."""
import io

import numpy as np
import pytest
from PIL import Image

from embeddings_jax.data.catalog import load
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders import ImageEncoder, load_encoder
from embeddings_jax.data.images import as_images, as_rows, decoded
from embeddings_jax.data.inputs import read_items
from embeddings_jax.types import InputError

PICTURES = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3)).astype(np.uint8)


def file_of(picture, kind="PNG"):
  data = io.BytesIO()
  Image.fromarray(picture).save(data, kind)
  return data.getvalue()


def test_images_are_rows_and_rows_are_images():
  images = Dataset("x", "images", PICTURES, labels={"class": np.arange(6)}, fingerprint="f")
  rows = as_rows(images)
  assert rows.kind == "rows" and rows.items.shape == (6, 60) and rows.picture == (5, 4, 3) and rows.items.max() <= 1
  back = as_images(rows)
  assert back.fingerprint == "f" and back.labels is images.labels
  np.testing.assert_array_equal(back.items, PICTURES, strict=True)
  digits = as_images(load("digits"))
  assert digits.items.shape == (1797, 8, 8, 1)
  np.testing.assert_allclose(as_rows(digits).items, load("digits").items, atol=0.5 / 255 + 1e-6)
  with pytest.raises(InputError, match="wine: holds rows, which are no pictures"):
    as_images(load("wine"))
  with pytest.raises(InputError, match="must lie in .0, 1., these have values from 0.0 to 2.0"):
    as_images(Dataset("x", "rows", np.array([[0.0, 2.0]]), picture=(1, 2)))


def test_files_are_decoded_once_in_the_order_of_their_names(tmp_path):
  names = ["train/cat/1.png", "train/ant/0.png", "test/cat/0.png"]
  reads = []

  def files():
    for name, picture in zip(names, PICTURES):
      reads.append(name)
      yield name, file_of(picture)

  for _ in range(2):
    dataset = decoded("x", "f", files(), tmp_path)
    assert isinstance(dataset.items, np.memmap) and dataset.names.tolist() == sorted(names)
    np.testing.assert_array_equal(dataset.items, PICTURES[[2, 1, 0]])
    assert dataset.labels["class"].tolist() == ["cat", "ant", "cat"]
    assert {part: rows.tolist() for part, rows in dataset.split.items()} == {"test": [0], "train": [1, 2]}
  assert reads == names
  with pytest.raises(InputError, match="a/b/2: has .4, 4. pixels, a/b/1 has .5, 4."):
    decoded("x", "g", [("a/b/1", file_of(PICTURES[0])), ("a/b/2", file_of(PICTURES[0, :4]))], tmp_path)
  with pytest.raises(InputError, match="a/b/1: is no picture that can be read"):
    decoded("x", "h", [("a/b/1", b"no")], tmp_path)


def test_encoder(tmp_path):
  encoder = ImageEncoder(5, 4, 3)
  encoder.save(tmp_path / "encoder")
  assert load_encoder(tmp_path / "encoder").fingerprint == encoder.fingerprint
  files = []
  for i, picture in enumerate(PICTURES):
    files.append(tmp_path / f"{i}.png")
    files[-1].write_bytes(file_of(picture))
  np.save(tmp_path / "x.npy", PICTURES)
  for items in (PICTURES, list(PICTURES), PICTURES.reshape(6, -1) / np.float32(255), files,
                read_items(str(tmp_path / "*.png"), "images"), read_items(str(tmp_path / "x.npy"), "images")):
    batch = encoder.encode(items)
    np.testing.assert_array_equal(batch["image"], PICTURES, strict=True)
    assert batch["mask"].tolist() == [1] * 6
  np.testing.assert_array_equal(ImageEncoder(5, 4, 1).encode(PICTURES[..., 0])["image"], PICTURES[..., :1])
  for item, message in ((PICTURES[0, :4], r"picture 1: is uint8 \[4, 4, 3\], should be uint8 \[5, 4, 3\]"),
                        (PICTURES[0] / 255, "picture 1: is float64"), (np.full(60, 2.0), "must lie in")):
    with pytest.raises(InputError, match=message):
      encoder.encode([PICTURES[0], item])


@pytest.mark.data
@pytest.mark.slow
def test_cifar10():
  dataset = load("cifar10-jpeg")
  assert dataset.items.shape == (60_000, 32, 32, 3) and dataset.items.dtype == np.uint8
  assert {part: len(rows) for part, rows in dataset.split.items()} == {"train": 50_000, "test": 10_000}
  names, counts = np.unique(dataset.labels["class"][dataset.split["test"]], return_counts=True)
  assert names.tolist() == ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
  assert set(counts.tolist()) == {1000}
  # The means of the channels that everybody normalises by.
  np.testing.assert_allclose(dataset.items[dataset.split["train"][::50]].mean((0, 1, 2)) / 255, (0.491, 0.482, 0.447),
                             atol=0.01)
