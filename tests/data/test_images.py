"""Images: rows and back, files decoded once, what each kind of file becomes, bad ones counted, and the encoder."""
import io
import struct
import threading
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from embeddings_jax.data import images
from embeddings_jax.data.catalog import load
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders import load_encoder
from embeddings_jax.data.encoders.images import ImageEncoder
from embeddings_jax.data.images import as_images, as_rows, by_folders, decoded, fitted, from_pixels, read_picture
from embeddings_jax.types import InputError

PICTURES = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3)).astype(np.uint8)
LARGER = np.random.default_rng(1).integers(0, 256, (6, 12, 9, 3)).astype(np.uint8)


def file_of(picture, kind="PNG", **options):
  data = io.BytesIO()
  image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
  image.save(data, kind, **options)
  return data.getvalue()


def write(folder, files):
  for name, data in files.items():
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
  return str(folder)


@pytest.fixture
def folder(tmp_path, monkeypatch):
  monkeypatch.setenv("EMBEDDINGS_CACHE", str(tmp_path / "cache"))
  return tmp_path / "own"


def test_images_are_rows_and_rows_are_images():
  images = Dataset("x", "images", PICTURES, labels={"class": np.arange(6)}, fingerprint="f")
  rows = as_rows(images)
  assert rows.kind == "rows" and rows.items.shape == (6, 60) and rows.image_shape == (5, 4, 3)
  assert rows.items.max() <= 1
  back = as_images(rows)
  assert back.fingerprint == "f" and back.labels is images.labels
  np.testing.assert_array_equal(back.items, PICTURES, strict=True)
  digits = as_images(load("digits"))
  assert digits.items.shape == (1797, 8, 8, 1)
  np.testing.assert_allclose(as_rows(digits).items, load("digits").items, atol=0.5 / 255 + 1e-6)
  with pytest.raises(InputError, match="wine: holds rows, which are no images"):
    as_images(load("wine"))
  with pytest.raises(InputError, match="must lie in .0, 1., these have values from 0.0 to 2.0"):
    as_images(Dataset("x", "rows", np.array([[0.0, 2.0]]), image_shape=(1, 2)))


def test_files_are_decoded_once_in_the_order_of_their_names(tmp_path):
  names = ["train/cat/1.png", "train/ant/0.png", "test/cat/0.png"]
  reads = []

  def files():
    for name, picture in zip(names, LARGER):
      reads.append(name)
      yield name, file_of(picture)

  for _ in range(2):
    dataset = by_folders(decoded("x", "f", files(), tmp_path))
    assert isinstance(dataset.items, np.memmap) and dataset.names.tolist() == sorted(names)
    np.testing.assert_array_equal(dataset.items, LARGER[[2, 1, 0]])
    assert dataset.labels["class"].tolist() == ["cat", "ant", "cat"]
    assert {part: rows.tolist() for part, rows in dataset.split.items()} == {"test": [0], "train": [1, 2]}
  assert reads == names


def test_workers_keep_the_order(tmp_path, monkeypatch):
  """The first files are decoded last, and pieces of four are written as they come."""
  monkeypatch.setattr(images, "_AT_ONCE", 4)
  monkeypatch.setattr(images, "_WORKERS", 4)
  later, read = threading.Event(), images.read_picture

  def slowly(data, name, *rest):
    if name == "3":
      later.set()
    elif name == "0":
      assert later.wait(20)
    return read(data, name, *rest)

  monkeypatch.setattr(images, "read_picture", slowly)
  dataset = decoded("x", "f", [(str(i), file_of(picture)) for i, picture in enumerate(LARGER)], tmp_path)
  np.testing.assert_array_equal(dataset.items, LARGER)


GREY = np.arange(96, dtype=np.uint8).reshape(8, 12)
RGB = np.stack([GREY, 255 - GREY, 2 * GREY], -1)
ALPHA = np.where(np.arange(12) < 6, 255, 0).astype(np.uint8) * np.ones((8, 1), np.uint8)


def _cmyk():
  """Pillow's formula is R = (255 - C) (255 - K) / 255."""
  return Image.merge("CMYK", [Image.fromarray(value) for value in (*np.moveaxis(255 - RGB, -1, 0), 0 * GREY)])


def _exif(orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  return exif


FILES = {
    "gray": (file_of(GREY), GREY[..., None]),
    "rgb": (file_of(RGB), RGB),
    "one bit": (file_of(Image.fromarray(GREY > 50)), np.where(GREY > 50, 255, 0)[..., None]),
    "16 bit": (file_of(GREY.astype(np.uint16) * 257), GREY[..., None]),
    "16 bit, rounded": (file_of(np.full((8, 12), 386, np.uint16)), np.full((8, 12, 1), 2)),
    "16 bit ppm": (b"P5 12 8 65535\n" + (GREY.astype(">u2") * 257).tobytes(), GREY[..., None]),
    "16 bit tiff": (file_of(GREY.astype(np.uint16) * 257, "TIFF"), GREY[..., None]),
    "palette": (file_of(Image.fromarray(RGB).convert("P", palette=Image.Palette.ADAPTIVE, colors=256)), RGB),
    "cmyk": (file_of(_cmyk(), "TIFF"), RGB),
    "gray with alpha": (file_of(Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)])),
                        np.where(ALPHA > 0, GREY, 255)[..., None]),
    "alpha": (file_of(np.concatenate([RGB, ALPHA[..., None]], -1)), np.where(ALPHA[..., None] > 0, RGB, 255)),
    "turned": (file_of(Image.fromarray(RGB), exif=_exif(6)), np.rot90(RGB, -1)),
    "mirrored": (file_of(Image.fromarray(RGB), exif=_exif(2)), RGB[:, ::-1]),
    "bmp": (file_of(RGB, "BMP"), RGB),
    "webp": (file_of(RGB, "WEBP", lossless=True), RGB),
    "two frames": (file_of(Image.fromarray(GREY), "GIF", save_all=True, append_images=[Image.fromarray(GREY.T)]),
                   np.stack([GREY] * 3, -1)),
}


@pytest.mark.parametrize("name", FILES)
def test_what_a_file_becomes(name):
  data, expected = FILES[name]
  np.testing.assert_array_equal(read_picture(data, name), expected)
  both = read_picture(data, name, 3), read_picture(data, name, 1)
  assert [actual.shape[2] for actual in both] == [3, 1] and all(actual.dtype == np.uint8 for actual in both)
  if expected.shape[2] == 1:  # Gray and back is the same.
    np.testing.assert_array_equal(both[0], np.repeat(expected, 3, 2))
    np.testing.assert_array_equal(both[1], expected)


def test_decoded_pixels_become_the_same():
  np.testing.assert_array_equal(from_pixels(RGB, "x"), RGB)
  deep = GREY[..., None].astype(np.uint16) * 257
  np.testing.assert_array_equal(from_pixels(deep, "x", 3), np.stack([GREY] * 3, -1))
  np.testing.assert_array_equal(from_pixels(np.concatenate([RGB, ALPHA[..., None]], -1), "x"), FILES["alpha"][1])


def test_a_jpeg_in_cmyk_has_its_colors():
  """Such files hold the inverse; JPEG itself moves a plain color by less than 3."""
  image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
  assert np.abs(read_picture(file_of(image, "JPEG", quality=95), "x").astype(int) - (255, 0, 0)).max() <= 3


def test_fitting_covers_and_crops_the_center():
  wide = np.zeros((8, 24, 3), np.uint8)
  wide[:, 8:16] = 200  # What a square of the center holds.
  np.testing.assert_array_equal(read_picture(file_of(wide), "x", size=(8, 8)), np.full((8, 8, 3), 200))
  image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8))
  np.testing.assert_array_equal(read_picture(file_of(image), "x", size=(16, 16)),
                                np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC)))
  # Antialiased: a chequered image becomes gray, where taking every fourth pixel would give black or white.
  chequered = (np.indices((32, 32)).sum(0) % 2 * 255).astype(np.uint8)
  actual = read_picture(file_of(chequered), "x", size=(8, 8))
  assert actual.shape == (8, 8, 1) and np.abs(actual[1:-1, 1:-1].astype(int) - 127.5).max() < 2
  # The short side becomes N: of 20 x 40 the middle half of the height, resized as the whole would be.
  tall = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 20)).astype(np.uint8))
  whole = np.asarray(tall.resize((10, 20), Image.Resampling.BICUBIC))
  actual = read_picture(file_of(tall), "x", size=(10, 10))[..., 0]
  np.testing.assert_allclose(actual, whole[5:15].astype(int), atol=1)  # Pillow rounds after each axis, in its order.


def test_pictures_of_another_set_are_fitted(tmp_path):
  gray = Dataset("x", "images", LARGER[..., :1], labels={"class": np.arange(6)}, fingerprint="f")
  actual = fitted(gray, 16, 16, 3, cache_dir=tmp_path)
  assert isinstance(actual.items, np.memmap) and actual.items.shape == (6, 16, 16, 3) and actual.fingerprint != "f"
  for item, picture in zip(actual.items, LARGER):
    expected = ImageOps.fit(Image.fromarray(picture[..., 0]), (16, 16), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(item, np.repeat(np.asarray(expected)[..., None], 3, 2))
  assert fitted(gray, 12, 9, 1, cache_dir=tmp_path) is gray and fitted(gray, 0, 0, 0, cache_dir=tmp_path) is gray
  color = Dataset("x", "images", LARGER, fingerprint="f")
  np.testing.assert_allclose(fitted(color, 0, 0, 1, cache_dir=tmp_path).items[..., 0],
                             LARGER @ np.array([0.299, 0.587, 0.114]), atol=0.51)


def test_a_folder_of_pictures(folder):
  names = ["train/cat/b.png", "train/ant/a.JPG", "val/cat/x/c.png", "test/ant/d.png", "test/cat/e.png"]
  path = write(folder, {name: file_of(picture, "JPEG" if name.endswith("G") else "PNG")
                        for name, picture in zip(names, LARGER)} | {"LICENCE": b"free", ".hidden/a.png": b"no"})
  dataset = load(path)
  assert dataset.kind == "images" and dataset.names.tolist() == sorted(names)
  assert dataset.labels["class"].tolist() == ["ant", "cat", "ant", "cat", "cat"]
  assert {part: rows.tolist() for part, rows in dataset.split.items()} == {"dev": [4], "test": [0, 1],
                                                                           "train": [2, 3]}
  np.testing.assert_array_equal(dataset.items[[3, 4, 0, 1]], LARGER[[0, 2, 3, 4]])
  part = load(f"{path}/train/*/*")
  assert part.names.tolist() == ["ant/a.JPG", "cat/b.png"] and not part.split
  assert part.labels["class"].tolist() == ["ant", "cat"]
  one = load(f"{path}/train/cat/b.png")
  assert one.names.tolist() == ["b.png"] and not one.labels and one.fingerprint != dataset.fingerprint
  (folder / "train/cat/b.png").write_bytes(file_of(LARGER[5]))  # The content counts, not the name.
  np.testing.assert_array_equal(load(path).items[3], LARGER[5])


def test_a_class_may_be_called_train_but_parts_stand_alone(folder, caplog):
  picture = file_of(LARGER[0])
  path = write(folder, {"train/a.png": picture, "tram/b.png": picture})
  assert load(path).labels["class"].tolist() == ["train", "tram"] and not load(path).split
  write(folder, {"train/old/c.png": picture})
  with pytest.raises(InputError, match="tram/b.png stands beside the folder train, which is a part"):
    load(path)
  path = write(folder.parent / "loose", {"a.png": picture, "b/c.png": picture})
  assert not load(path).labels and "a.png lies in no folder of a class" in caplog.text


def test_sizes_and_channels(folder):
  path = write(folder, {"a.png": file_of(LARGER[0]), "b.png": file_of(LARGER[1, :, :, 0]),
                        "c.png": file_of(LARGER[2, :10]), "d.png": file_of(LARGER[3, :11])})
  with pytest.raises(InputError, match="several sizes, a.png 9 x 12 pixels, c.png 9 x 10; "
                                       "image_size=N makes all of them N x N"):
    load(path)
  dataset = load(path, image_size=8)
  assert dataset.items.shape == (4, 8, 8, 3)
  np.testing.assert_array_equal(dataset.items[1], read_picture((folder / "b.png").read_bytes(), "b", 3, (8, 8)))
  gray = load(path, image_size=8, channels=1)
  assert gray.items.shape == (4, 8, 8, 1) and gray.fingerprint != dataset.fingerprint
  assert load(str(folder / "b.png")).items.shape == (1, 12, 9, 1)
  assert load(str(folder / "b.png"), channels=3).items.shape == (1, 12, 9, 3)
  for options in ({"image_size": 3}, {"image_size": -1}, {"channels": 2}, {"bad": "ignore"}):
    with pytest.raises(InputError, match=f"{next(iter(options))}={next(iter(options.values()))}: must"):
      load(path, **options)


def test_bad_files_are_counted_before_they_are_refused_or_left_out(folder, caplog, monkeypatch):
  good = {f"good{i}.png": file_of(picture) for i, picture in enumerate(LARGER)}
  large = np.random.default_rng(2).integers(0, 256, (64, 64, 3)).astype(np.uint8)
  float_tiff = file_of(np.ones((9, 12), np.float32), "TIFF")
  bad = {"a.png": file_of(large)[:2000], "b.jpg": file_of(large, "JPEG")[:1000], "c.png": b"no image",
         "d.gif": b"", "e.png": file_of(PICTURES[0]), "f.tif": float_tiff}
  path = write(folder, good | bad)
  told = ("6 of 12 images cannot be used: 2 truncated, 1 broken, 1 empty, 1 tiny, 1 of mode F, first a.png")
  for _ in range(2):
    with pytest.raises(InputError, match=f"own: {told}; bad=skip leaves them out") as error:
      load(path)
    assert "\n" not in str(error.value)
  for _ in range(2):  # Anew and from the cache.
    caplog.clear()
    dataset = load(path, bad="skip")
    np.testing.assert_array_equal(dataset.items, LARGER)
    assert dataset.names.tolist() == sorted(good) and f"{told}; they are left out" in caplog.text
  with pytest.raises(InputError, match=told):  # What was left out once is not forgotten.
    load(path)
  path = write(folder.parent / "none", bad)
  with pytest.raises(InputError, match="6 of 6 images cannot be used"):
    load(path, bad="skip")
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
  with pytest.raises(InputError, match="x: is no image that can be used .too large: over 100 pixels"):
    read_picture(good["good0.png"], "x")


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
                encoder.read(str(tmp_path / "*.png")), encoder.read(str(tmp_path / "x.npy"))):
    batch = encoder.encode(items)
    np.testing.assert_array_equal(batch["image"], PICTURES, strict=True)
    assert batch["mask"].tolist() == [1] * 6
  np.testing.assert_array_equal(ImageEncoder(5, 4, 1).encode(PICTURES[..., 0])["image"], PICTURES[..., :1])
  (tmp_path / "readme.txt").write_text("x")
  (tmp_path / "x.npy").unlink()
  assert encoder.read(str(tmp_path)) == [str(file) for file in files]
  # Files of another size and color are fitted, arrays are not.
  (tmp_path / "gray.png").write_bytes(file_of(LARGER[0, :, :, 0]))
  np.testing.assert_array_equal(encoder.encode([tmp_path / "gray.png"])["image"][0],
                                read_picture(file_of(LARGER[0, :, :, 0]), "x", 3, (5, 4)))
  for item, message in ((PICTURES[0, :4], r"image 1: is uint8 \[4, 4, 3\], expected uint8 \[5, 4, 3\]"),
                        (PICTURES[0] / 255, "image 1: is float64"), (np.full(60, 2.0), "must lie in")):
    with pytest.raises(InputError, match=message):
      encoder.encode([PICTURES[0], item])


@pytest.mark.data
@pytest.mark.long
def test_cifar10():
  dataset = load("cifar10-jpeg")
  assert dataset.items.shape == (60_000, 32, 32, 3) and dataset.items.dtype == np.uint8
  assert {part: len(rows) for part, rows in dataset.split.items()} == {"train": 50_000, "test": 10_000}
  names, counts = np.unique(dataset.labels["class"][dataset.split["test"]], return_counts=True)
  assert names.tolist() == ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
  assert set(counts.tolist()) == {1000}
  # The means of the channels that everybody normalizes by.
  np.testing.assert_allclose(dataset.items[dataset.split["train"][::50]].mean((0, 1, 2)) / 255, (0.491, 0.482, 0.447),
                             atol=0.01)


@pytest.mark.data
def test_imagenet_sample():
  """The short side of all 1,000 is 128 already: only the center is cropped, and gray ones have equal channels."""
  dataset = load("imagenet-sample-128")
  assert dataset.items.shape == (1000, 128, 128, 3) and not dataset.split
  assert dataset.labels["class"][:4].tolist() == ["tench", "goldfish", "great_white_shark", "tiger_shark"]
  gray = sum(np.array_equal(item[..., 0], item[..., 1]) and np.array_equal(item[..., 0], item[..., 2])
             for item in dataset.items)
  assert gray >= 23
  assert load("imagenet-sample-128", image_size=32).items.shape == (1000, 32, 32, 3)


@pytest.mark.parametrize("width, height", [(1 << 14, 1 << 14), (60_000, 60_000), (8, (1 << 31) - 1)])
def test_a_bomb_is_refused_by_its_header(width, height):
  """A file of some hundred bytes that claims millions of pixels is not decoded."""
  chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
  header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
  data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1 << 16))) + chunk(b"IEND", b"")
  tracemalloc.start()
  try:
    with pytest.raises(InputError, match="bomb.png: is no image that can be used .too large"):
      read_picture(data, "bomb.png")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
  finally:
    tracemalloc.stop()
