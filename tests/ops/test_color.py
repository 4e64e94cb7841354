"""Lab, bins, soft targets and rarity against formulas in double precision and double loops."""
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax.ops import color
from embeddings_jax.types import InputError


def lab_by_the_book(rgb):
  """CIE 15: through the exact constants 216 / 24389 and 24389 / 27, double precision."""
  linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
  matrix = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
  t = linear @ matrix.T / np.array([0.95047, 1.0, 1.08883])
  f = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
  return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def test_lab_and_back_over_the_cube():
  levels = np.arange(0, 256, 5) / 255
  cube = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1)
  actual = np.asarray(color.rgb_to_lab(jnp.asarray(cube, jnp.float32)))
  # The published constants .008856 and 7.787 differ from the exact ones by some 1e-4 in dark colors.
  np.testing.assert_allclose(actual, lab_by_the_book(cube), atol=3e-4)
  np.testing.assert_allclose(color.lab_to_rgb(jnp.asarray(actual)), cube, atol=2e-5)


@pytest.mark.parity
def test_lab_is_scikit_images_over_the_cube():
  from skimage.color import rgb2lab

  levels = np.arange(0, 256, 3) / 255
  cube = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1)
  np.testing.assert_allclose(color.rgb_to_lab(jnp.asarray(cube, jnp.float32)), rgb2lab(cube), atol=1e-4)


def test_lab_of_known_colors():
  """White, red, green and blue, as published for sRGB under D65, to the digits given there."""
  colors = jnp.array([[1.0, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
  expected = [[100, 0, 0], [53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86], [0, 0, 0]]
  np.testing.assert_allclose(color.rgb_to_lab(colors), expected, atol=0.02)


@pytest.mark.parametrize("size, num", [(5, 969), (10, 261), (20, 77)])
def test_bins_are_the_cells_that_colors_fall_into(size, num):
  bins = color.ab_bins(size)
  assert bins.shape == (num, 2) and (bins % size == 0).all()
  rgb = np.random.default_rng(0).random((20_000, 3))
  cells = {tuple(row) for row in np.round(lab_by_the_book(rgb)[:, 1:] / size) * size + 0}
  assert cells <= {tuple(row) for row in bins}


@pytest.mark.long
def test_the_whole_cube_falls_into_the_same_bins_as_its_faces():
  levels, cells = np.arange(256) / 255, set()
  for red in levels:
    rgb = np.stack(np.broadcast_arrays(red, levels[:, None], levels), -1).reshape(-1, 3)
    cells |= {tuple(row) for row in np.unique(np.round(lab_by_the_book(rgb)[:, 1:] / 10), axis=0) * 10 + 0}
  assert cells == {tuple(row) for row in color.ab_bins(10)} and len(cells) == 261


def test_targets_and_weights_are_those_of_a_double_loop():
  rng = np.random.default_rng(0)
  bins, ab, counts = color.ab_bins(20), rng.uniform(-60, 60, (7, 2)).astype(np.float32), rng.integers(0, 50, 77)
  index, weights = (np.asarray(x) for x in color.soft_targets(jnp.asarray(ab), jnp.asarray(bins)))
  for i, point in enumerate(ab):
    distances = [((point - center) ** 2).sum() for center in bins]
    order = np.argsort(distances)[:5]
    expected = np.array([np.exp(-distances[q] / 50) for q in order])
    assert set(index[i]) == set(order) and index[i, 0] == order[0]
    np.testing.assert_allclose(weights[i], expected / expected.sum(), rtol=1e-4)
  share = np.zeros(77)
  for q, center in enumerate(bins):
    column = np.array([np.exp(-((center - other) ** 2).sum() / 50) for other in bins])
    share += counts[q] / counts.sum() * column / column.sum()
  shares = color.smoothed_shares(jnp.asarray(counts, jnp.float32), jnp.asarray(bins))
  np.testing.assert_allclose(shares, share, rtol=1e-4)
  actual = np.asarray(color.rarity_weights(shares, 0.5))
  expected = 1 / (0.5 * share + 0.5 / 77)
  np.testing.assert_allclose(actual, expected / (share * expected).sum(), rtol=1e-4)
  np.testing.assert_allclose((share * actual).sum(), 1, rtol=1e-5)


def test_the_annealed_mean_goes_from_the_mean_to_the_mode():
  bins = jnp.array([[0.0, 0], [10, 0], [0, 40]])
  logits = jnp.log(jnp.array([0.2, 0.5, 0.3]))
  np.testing.assert_allclose(color.annealed_mean(logits, bins, 1.0), [5, 12], rtol=1e-5)
  np.testing.assert_allclose(color.annealed_mean(logits, bins, 0.01), [10, 0], atol=1e-3)
  shares = np.array([0.2, 0.5, 0.3]) ** (1 / 0.38)
  np.testing.assert_allclose(color.annealed_mean(logits, bins), shares / shares.sum() @ np.asarray(bins), rtol=1e-4)


@pytest.mark.parametrize("table, message", [
    (np.zeros((9, 3)), "expected at least 5 rows"), (np.zeros((9, 2)), "differ"),
    (np.arange(12.0).reshape(6, 2) * 100, "lie in")])
def test_bad_bins_are_refused(table, message):
  with pytest.raises(InputError, match=message):
    color.check_bins(table, "bin_file=x.npy")
  with pytest.raises(InputError, match="bin_size=4"):
    color.ab_bins(4)
