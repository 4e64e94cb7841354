"""Reconstruction metrics: a perfect and a constant reconstruction, the split, padding, rows that are no images."""
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.sources import array_source
from embeddings_jax.eval.reconstruction import reconstruction

X = np.random.default_rng(0).integers(0, 256, (300, 12, 12, 1)).astype(np.uint8)


def encode(items):
  return {"image": np.asarray(items), "mask": np.ones(len(items), np.float32)}


def evaluate(reconstruct, split, source=None):
  def read(batch):
    x = jnp.asarray(batch["image"]) / 255.0
    return {"original": x, **reconstruct(x)}

  return reconstruction(None, Dataset("x", "images", X, split=split), reconstruct=read, encode=encode, source=source)


def test_a_perfect_and_a_constant_reconstruction():
  test = np.arange(0, 300, 7)
  perfect = evaluate(lambda x: {"reconstructed": x}, {"test": test})
  assert perfect["test/mse"] == 0 and perfect["test/psnr"] == pytest.approx(120)
  assert perfect["test/ssim"] == pytest.approx(1, abs=1e-6)
  constant = evaluate(lambda x: {"reconstructed": jnp.full_like(x, 0.5)}, {"test": test})
  errors = np.square(X[test] / 255.0 - 0.5).mean((1, 2, 3))
  assert constant["test/mse"] == pytest.approx(errors.mean(), rel=1e-5)
  assert constant["test/psnr"] == pytest.approx(-10 * np.log10(errors).mean(), rel=1e-5)
  assert constant["test/checkerboard"] == 0 and abs(constant["test/ssim"]) < 0.1


def test_more_than_a_batch_is_a_mean_over_images_and_values_are_clipped():
  actual = evaluate(lambda x: {"reconstructed": 3 * x - 1, "corrupted": x + 0.1}, {})
  x = X / 255.0
  assert actual["all/mse"] == pytest.approx(np.square(x - np.clip(3 * x - 1, 0, 1)).mean(), rel=1e-5)
  expected = -10 * np.log10(np.square(np.clip(x + 0.1, 0, 1) - x).mean((1, 2, 3))).mean()
  assert actual["all/corrupted_psnr"] == pytest.approx(expected, rel=1e-5)


def test_a_held_out_split_of_the_pipeline_comes_before_all_items():
  source = array_source({"image": X}, 32, chosen=np.arange(40), order="sequential", remainder="pad")
  actual = evaluate(lambda x: {"reconstructed": jnp.zeros_like(x)}, {}, source)
  assert set(key.split("/")[0] for key in actual) == {"validation"}
  assert actual["validation/mse"] == pytest.approx(np.square(X[:40] / 255.0).mean(), rel=1e-5)


def test_rows_have_a_squared_error_alone():
  rows = np.arange(12.0, dtype=np.float32).reshape(4, 3)
  encode = lambda items: {"x": np.asarray(items), "mask": np.ones(len(items), np.float32)}
  actual = reconstruction(None, Dataset("x", "rows", rows), encode=encode, reconstruct=lambda batch: {
      "original": batch["x"], "reconstructed": batch["x"] + 2})
  assert actual == {"all/mse": pytest.approx(4)}
