"""Tables of numbers, and small images as rows."""
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from embeddings_jax.data import formats, own
from embeddings_jax.data.dataset import Dataset, content_digest, without_gaps
from embeddings_jax.data.datasets.base import NOT_STATED, SKLEARN, Entry, Place
from embeddings_jax.errors import InputError


def _digits(name: str, place: Place) -> Dataset:
  from sklearn import datasets

  digits = datasets.load_digits()
  dataset = _row_dataset(name, digits.data / 16, list(digits.feature_names), {"class": digits.target})
  return dataset._replace(image_shape=(8, 8))


def _translated_digits(name: str, place: Place) -> Dataset:
  """Each digit at a random place of a larger canvas, as in translated MNIST (Jaderberg et al. 2015, section 4.1)."""
  digits, side = _digits("digits", place), 12
  images = np.zeros((len(digits.items), side, side), np.float32)
  for image, digit, (row, column) in zip(images, digits.items.reshape(-1, 8, 8),
                                         np.random.default_rng(0).integers(0, side - 7, (len(images), 2))):
    image[row:row + 8, column:column + 8] = digit
  dataset = _row_dataset(name, images.reshape(len(images), -1), None, digits.labels)
  return dataset._replace(image_shape=(side, side))


def _photographs(name: str, place: Place) -> Dataset:
  from sklearn import datasets

  size = place.image_options.get("image_size") or 8
  images = datasets.load_sample_images()
  if size > (least := min(min(image.shape[:2]) for image in images.images)):
    raise InputError(f"image_size={size}: {name} have {least} pixels at most")
  rows, origin = [], []
  for image, file in zip(images.images, images.filenames):
    height, width = (length // size for length in image.shape[:2])
    patches = image[:height * size, :width * size].reshape(height, size, width, size, 3).swapaxes(1, 2)
    rows.append(patches.reshape(height * width, -1) / 255)
    origin += [Path(file).stem] * (height * width)
  dataset = _row_dataset(name, np.concatenate(rows), None, {"image": np.array(origin)})
  return dataset._replace(image_shape=(size, size, 3))


def _ring(name: str, place: Place, radius: float, sigma: float, modes: int = 8, number: int = 16_384) -> Dataset:
  """Gaussians whose means are evenly spaced on a circle; one half of the rows is the test split."""
  rng = np.random.default_rng(0)
  mode = np.arange(number) % modes
  angle = 2 * np.pi * mode / modes
  rows = radius * np.stack([np.cos(angle), np.sin(angle)], 1) + sigma * rng.normal(size=(number, 2))
  dataset = _row_dataset(name, rows, ["x", "y"], {"mode": mode})
  return dataset._replace(split={"train": np.arange(number // 2), "test": np.arange(number // 2, number)})


def _sklearn_table(name: str, place: Place) -> Dataset:
  from sklearn import datasets

  table = getattr(datasets, f"load_{name}")()
  return _row_dataset(name, table.data, list(table.feature_names), {"class": table.target_names[table.target]})


def _row_dataset(name: str, rows: np.ndarray, columns: Sequence[str] | None, labels: dict) -> Dataset:
  rows = np.asarray(rows, np.float32)
  return Dataset(name, "rows", rows, columns=columns, labels=labels,
                 fingerprint=content_digest([rows, *labels.values()]))


def _small_table(name: str, place: Place, labels: Sequence[str] = (), left_out: Sequence[str] = ()) -> Dataset:
  """A table whose first column names the rows."""
  (path,) = place.files.values()
  header, *lines = (cells for _, cells in formats.csv_rows(path))
  columns = [column for column in header[1:] if column not in (*labels, *left_out)]
  measured = [header.index(column) for column in columns]
  rows = np.array([[line[i] or "nan" for i in measured] for line in lines], np.float32)
  return without_gaps(
      Dataset(name, "rows", rows, names=[line[0] for line in lines], columns=columns, fingerprint=place.fingerprint,
              labels={label: np.array([line[header.index(label)] for line in lines]) for label in labels}),
      place.missing or "drop")


def _fashion_mnist(name: str, place: Place) -> Dataset:
  rows, labels, split, image_shape = own.read_idx_pairs(list(place.files.values()))
  return Dataset(name, "rows", rows, labels=labels, split=split, fingerprint=place.fingerprint,
                 image_shape=image_shape)


DATASETS = {
    "digits": Entry("rows", "1,797 handwritten digits, 8x8, in [0, 1] (UCI)", SKLEARN, _digits, shape=(8, 8, 1)),
    "translated-digits": Entry(
        "rows", "digits, each at a random place of 12x12 pixels", SKLEARN,
        _translated_digits, shape=(12, 12, 1)),
    "photographs": Entry(
        "rows", "RGB patches of two photographs, 8x8 or image_size, in [0, 1]", "CC BY", _photographs,
        shape=(8, 8, 3)),
    "ring": Entry(
        "rows", "8 Gaussians on a circle of radius 1, standard deviation .05", "made by a formula",
        functools.partial(_ring, radius=1.0, sigma=0.05), shape=(2,)),
    "ring-narrow": Entry(
        "rows", "8 Gaussians on a circle of radius 2, standard deviation .02", "made by a formula",
        functools.partial(_ring, radius=2.0, sigma=0.02), shape=(2,)),
    "iris": Entry("rows", "150 flowers of 3 species, 4 measurements (Fisher 1936)", SKLEARN, _sklearn_table,
                  shape=(4,)),
    "wine": Entry("rows", "178 wines of 3 cultivars, 13 measurements (UCI)", SKLEARN, _sklearn_table,
                  shape=(13,)),
    "faithful": Entry(
        "rows", "Old Faithful: 272 eruptions and waiting times (Azzalini & Bowman 1990)", NOT_STATED, _small_table,
        {"small-numeric/faithful.csv": "5043db1e2c51c8e8fd67e0868c768ae589770cc76ad0ac0c5b7afd1fca31fc57"},
        shape=(2,)),
    "galaxies": Entry(
        "rows", "velocities of 82 galaxies, km/s (Roeder 1990)", NOT_STATED, _small_table,
        {"small-numeric/galaxies.csv": "5c094d8beb8ecc980493de62e9fd4d2cf7f891b07aed6b1c55a5b42879f498d0"},
        shape=(1,)),
    "penguins": Entry(
        "rows", "342 penguins of 3 species, 4 measurements; 2 more lack them (Horst et al. 2020)", "CC0",
        functools.partial(_small_table, labels=("species", "island", "sex"), left_out=("year",)),
        {"small-numeric/penguins.csv": "3c4c14fd9d1b3466dff2e046627cc32814ab6226c0e228c55f24e896a93a89b1"},
        shape=(4,)),
    "fashion-mnist": Entry(
        "rows", "70,000 images of clothes, 28x28, in [0, 1] (Xiao et al. 2017)", "MIT", _fashion_mnist,
        {"fashion-mnist/train-images-idx3-ubyte.gz":
             "f46450982819e161325683178a5324fc64e606fb3758c65c6ca7dcc91aa489fd",
         "fashion-mnist/train-labels-idx1-ubyte.gz":
             "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
         "fashion-mnist/t10k-images-idx3-ubyte.gz":
             "55ec2dd7358c56fba81678bf2cd00a44de07bae64c342921600298a2b5eb517d",
         "fashion-mnist/t10k-labels-idx1-ubyte.gz":
             "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"},
        shape=(28, 28, 1)),
}
