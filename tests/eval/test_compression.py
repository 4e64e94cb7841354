"""Compression: the rate is the entropy, finer steps cost bits and gain decibels, JPEG's scan is counted alone."""
import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from embeddings_jax.data.sources import array_source
from embeddings_jax.errors import InputError
from embeddings_jax.eval.compression import compression, jpeg, quantized


def test_the_rate_is_the_entropy_of_quantized_codes():
  """Bits of Gaussian units by the normal distribution's bins; for small steps the error is step^2 / 12."""
  rng = np.random.default_rng(0)
  train, test = rng.normal(size=(50_000, 2)) * [1, 7], rng.normal(size=(20_000, 2)) * [1, 7]
  center, spread = train.mean(0), train.std(0)
  for step, bits, back in quantized(train, test, spread):
    half = step * spread / 2
    cell = stats.norm(0, [1, 7])
    expected = -np.log2(cell.cdf(back + half) - cell.cdf(back - half)).sum(1).mean()
    assert bits.mean() == pytest.approx(expected, rel=3e-3)
    assert np.abs((back - center) / (2 * half) - np.rint((back - center) / (2 * half))).max() < 1e-9
    if step <= 0.5:
      np.testing.assert_allclose(np.square(back - test).mean(0), step**2 / 12 * np.array([1, 49]), rtol=0.05)


def test_images_of_a_plane_are_compressed_by_its_components():
  """Two factors: principal components reach any distortion; a decoder of the codes is as good."""
  rng = np.random.default_rng(0)
  factors, basis = rng.random((600, 2)), rng.random((2, 36)) / 2
  items = np.rint(255 * factors @ basis).astype(np.uint8).reshape(600, 6, 6, 1)
  data = SimpleNamespace(name="made", items=items, split={"train": np.arange(500), "test": np.arange(500, 600)})
  rows = lambda images: np.asarray(images).reshape(len(images), -1) / 255
  embed = lambda images: np.linalg.lstsq(basis.T, rows(images).T, rcond=None)[0].T
  actual = compression(embed, data, decode=lambda codes: (codes @ basis).reshape(-1, 6, 6, 1))
  for method in ("test/", "test/pca/"):
    rate, psnr = ([actual[f"{method}step_{step}/{name}"] for step in ("2", "1", "0.5", "0.25")]
                  for name in ("bits_per_pixel", "psnr"))
    assert (np.diff(rate) > 0).all() and (np.diff(psnr) > 3).all() and psnr[-1] > 28 and rate[-1] < 0.3
  rate = [actual[f"test/jpeg/quality_{q}/bits_per_pixel"] for q in (5, 50)]
  assert 0 < rate[0] < rate[1]


  # Without a test split the images that the pipeline held out are compressed, and the others teach.
  held_out = array_source({"image": items[500:]}, 32, order="sequential", remainder="pad")
  again = compression(embed, SimpleNamespace(name="made", items=items, split={}), source=held_out,
                      decode=lambda codes: (codes @ basis).reshape(-1, 6, 6, 1))
  assert again == {key.replace("test/", "validation/"): value for key, value in actual.items()}
  with pytest.raises(InputError, match="made has no splits 'train' and 'test', and none was held out"):
    compression(embed, SimpleNamespace(name="made", items=items, split={}), decode=rows)


def test_the_headers_of_a_jpeg_are_not_counted():
  image = np.random.default_rng(0).integers(0, 256, (28, 28, 1)).astype(np.uint8)
  bits, decoded = jpeg(image, 50)
  file = io.BytesIO()
  Image.fromarray(image[..., 0]).save(file, "JPEG", quality=50)
  assert bits % 8 == 0 and 8 * 300 < 8 * len(file.getvalue()) - bits < 8 * 400  # Tables of 64, 29 and 179 bytes, ...
  np.testing.assert_array_equal(decoded[..., 0], Image.open(file))
  blank, _ = jpeg(np.full((28, 28, 1), 128, np.uint8), 50)
  assert blank < 8 * 20


def test_a_dataset_without_a_test_split_is_one_line():
  with pytest.raises(InputError, match="has no splits"):
    compression(np.asarray, SimpleNamespace(name="made", split={}), decode=np.asarray)
