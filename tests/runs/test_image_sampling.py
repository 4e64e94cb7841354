"""Samples of autoencoders: densities of their codes, walks between images, files of images."""
import numpy as np
import pytest
from commands import call
from PIL import Image

import embeddings_jax as ej
from embeddings_jax.runs import sampling


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp("run")
  ej.fit("autoencoder", preset="tiny", steps=40, dim=2, widths=(16,), strides=(), workdir=folder)
  return folder


def two_blobs(number=400):
  rng = np.random.default_rng(0)
  return (np.array([[-5, 2], [5, 2]])[np.arange(number) % 2] + 0.3 * rng.normal(size=(number, 2))).astype(np.float32)


def test_densities_of_codes():
  """A mixture finds both clusters; a Gaussian has their moments, but fills the middle as uniform codes do."""
  codes = two_blobs()
  mixture, gaussian, uniform = (sampling.draw_codes(codes, kind, 2000, num_components=2) for kind in (
      "mixture", "gaussian", "uniform"))
  between = lambda z: (np.abs(z[:, 0]) < 3).mean()
  assert between(mixture) < 0.01 and between(gaussian) > 0.4 and between(uniform) > 0.4
  assert abs((mixture[:, 0] > 0).mean() - 0.5) < 0.1
  np.testing.assert_allclose(np.abs(mixture[:, 0]).mean(), 5, atol=0.1)
  np.testing.assert_allclose(np.cov(gaussian.T), np.cov(codes.T), atol=1.5)
  np.testing.assert_allclose(gaussian.mean(0), codes.mean(0), atol=0.3)
  assert (uniform >= codes.min(0)).all() and (uniform <= codes.max(0)).all()
  assert uniform[:, 0].std() == pytest.approx(np.ptp(codes[:, 0]) / 12**0.5, rel=0.05)
  np.testing.assert_array_equal(sampling.draw_codes(codes, "gaussian", 3, seed=1),
                                sampling.draw_codes(codes, "gaussian", 3, seed=1))


def test_a_walk_begins_and_ends_with_the_reconstructions(workdir):
  run = ej.load(workdir)
  items = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1)).astype(np.uint8)
  walk = sampling.interpolate(run, *items, 5)
  ends = ej.decode(run, run.embed(items))
  np.testing.assert_allclose(walk[[0, -1]], ends, atol=1e-6)
  middle = ej.decode(run, run.embed(items).mean(0, keepdims=True))
  np.testing.assert_allclose(walk[2:3], middle, atol=1e-6)


def test_samples_are_decoded_codes_of_the_training_images(workdir):
  run = ej.load(workdir)
  codes = sampling.training_codes(run)
  assert codes.shape == (1797, 2)
  for kind in ("uniform", "mixture"):
    expected = ej.decode(run, sampling.draw_codes(codes, kind, 6, num_components=3, seed=2))
    np.testing.assert_allclose(ej.sample(run, 6, codes=kind, num_components=3, seed=2), expected, atol=1e-6)
  assert run.sample(3).shape == (3, 8, 8, 1)
  with pytest.raises(ej.InputError, match="autoencoder has no prior; use uniform"):
    ej.sample(run, 2, codes="prior")


def test_grids_and_files(tmp_path):
  images = np.linspace(0, 1, 3).reshape(3, 1, 1, 1) * np.ones((3, 2, 2, 1))
  grid = sampling.image_grid(images, 2)
  assert grid.shape == (5, 5, 1)
  assert grid[0, 0] == 0 and grid[0, 3] == 128 and grid[3, 0] == 255 and grid[2, 0] == 255 and grid[4, 4] == 255
  sampling.write_images(str(tmp_path / "a.npy"), images)
  np.testing.assert_allclose(np.load(tmp_path / "a.npy"), images)
  with pytest.raises(ej.InputError, match="must end in .npy or .png"):
    sampling.write_images(str(tmp_path / "a.jpg"), images)


def test_the_command_writes_samples_and_walks(workdir, tmp_path):
  output = tmp_path / "o.png"
  done = call("sample", f"--workdir={workdir}", "--num=5", "--codes=uniform", f"--output={output}")
  assert done.returncode == 0 and Image.open(output).size == (26, 17), done.stderr
  done = call("sample", f"--workdir={workdir}", "--interpolate=3,17", "--steps=4", f"--output={tmp_path / 'o.npy'}")
  assert done.returncode == 0 and np.load(tmp_path / "o.npy").shape == (4, 8, 8, 1), done.stderr
