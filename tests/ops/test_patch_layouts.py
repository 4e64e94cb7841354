"""Patches, tiles and permutations against plain NumPy, Pillow and counts."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from PIL import Image

from embeddings_jax.ops import patch_layouts
from embeddings_jax.ops.tables import read_table
from embeddings_jax.types import InputError


def image(height, width, channels=3, seed=0):
  return jnp.asarray(np.random.default_rng(seed).random((height, width, channels)), jnp.float32)


def chi_square(counts):
  return scipy.stats.chisquare(counts).pvalue


def test_tiles_are_slices_at_frequent_places_of_their_cells():
  """Cells of 10 pixels in the middle of 32 x 33, tiles of 8: each of 3 x 3 places is equally likely."""
  keys = jax.random.split(jax.random.key(0), 1000)
  corners = np.asarray(jax.vmap(lambda key: patch_layouts.tile_corners(key, 32, 33, 3, 8))(keys))
  offsets = corners - (np.array([1, 1]) + 10 * np.stack(np.divmod(np.arange(9), 3), 1))
  assert offsets.min() == 0 and offsets.max() == 2
  for tile in (0, 4, 8):
    assert chi_square(np.bincount(offsets[:, tile] @ [3, 1], minlength=9)) > 1e-3
  picture = image(32, 33)
  actual = patch_layouts.tiles(picture, jnp.asarray(corners[0]), 8)
  for tile, (row, column) in zip(actual, corners[0]):
    np.testing.assert_array_equal(tile, picture[row:row + 8, column:column + 8])
  middle = np.asarray(patch_layouts.tile_corners(None, 32, 33, 3, 8))
  np.testing.assert_array_equal(middle[:2], [[2, 2], [2, 12]])


@pytest.mark.parametrize("num, least", [(100, 6), (1000, 5)])
def test_permutations_are_far_from_each_other(num, least):
  actual = patch_layouts.permutation_set(num)
  assert actual.shape == (num, 9) and (np.sort(actual, 1) == np.arange(9)).all()
  distances = (actual[:, None] != actual).sum(-1)[~np.eye(num, dtype=bool)]
  assert distances.min() >= least
  patch_layouts.permutation_set.cache_clear()
  np.testing.assert_array_equal(patch_layouts.permutation_set(num), actual)


def test_all_permutations_of_few_tiles_can_be_asked_for():
  assert len({tuple(row) for row in patch_layouts.permutation_set(24, 4)}) == 24
  with pytest.raises(InputError, match="num_permutations=25: must be from 2 to 24"):
    patch_layouts.permutation_set(25, 4)


def test_neighbors_are_where_their_names_say():
  """Patches of 8 with gaps of 2 and a jitter of 1 in 40 x 31 pixels, and their frequencies."""
  keys = jax.random.split(jax.random.key(0), 2000)
  corners = np.asarray(jax.vmap(lambda key: patch_layouts.neighbor_corners(key, 40, 31, 8, 2, 1))(keys))
  moved = corners[:, 1:] - corners[:, :1] - 10 * np.array(patch_layouts.NEIGHBORS)
  assert np.abs(moved).max() == 1
  assert chi_square(np.bincount(((moved + 1) @ [3, 1]).ravel(), minlength=9)) > 1e-3
  assert corners.min() == 0 and (corners.max((0, 1)) + 8 == [40, 31]).all()
  assert chi_square(np.bincount(corners[:, 0, 0])[11:]) > 1e-3  # Of 11 rows.


def test_too_small_images_are_told_the_least_size():
  with pytest.raises(InputError, match="need images of at least 30 pixels, these have 28 x 40"):
    patch_layouts.neighbor_corners(jax.random.key(0), 28, 40, 8, 2, 1)
  with pytest.raises(InputError, match="tile=10: .* need images of at least 30 pixels"):
    patch_layouts.check_tiles(28, 40, 3, 10)


def test_colors_are_those_of_numpy():
  patch = image(5, 6)
  expected = np.asarray(patch, np.float64)
  axis = np.array([[-1.0, 2.0, -1.0]])
  matrix = np.eye(3) - axis.T @ axis / (axis @ axis.T)
  np.testing.assert_allclose(patch_layouts.projected_colors(patch), expected @ matrix, atol=1e-6)
  for i in range(3):
    actual = np.asarray(patch_layouts.standardized_patch(patch))[..., i]
    np.testing.assert_allclose([actual.mean(), actual.std()], [0.5, 0.25], atol=1e-5)
  # Neither brightness nor contrast is left.
  np.testing.assert_allclose(patch_layouts.standardized_patch(0.3 + 0.2 * patch),
                             patch_layouts.standardized_patch(patch), atol=1e-4)


def test_one_channel_is_left_and_noise_stands_for_the_others():
  patch = image(16, 16)
  actual = np.asarray(jax.vmap(patch_layouts.dropped_channels, (0, None))(
      jax.random.split(jax.random.key(0), 300), patch))
  same = (actual == np.asarray(patch)).all((1, 2))
  assert (same.sum(1) == 1).all() and chi_square(same.sum(0)) > 1e-3
  noise = actual.transpose(0, 3, 1, 2)[~same].reshape(300, 2, -1)
  assert noise.std(-1).max() < 0.02 * 0.3 and abs(noise.mean() - patch.mean()) < 0.02


@pytest.mark.parametrize("side", [4, 7, 12])
def test_downsampling_is_pillows(side):
  patch = image(12, 12)
  resize = lambda x, size: np.asarray(Image.fromarray(x).resize((size, size), Image.Resampling.BILINEAR))
  expected = np.stack([resize(resize(np.asarray(patch[..., c]), side), 12) for c in range(3)], -1)
  np.testing.assert_allclose(patch_layouts.shrunk_and_enlarged(patch, jnp.int32(side)), expected, atol=1e-5)


@pytest.mark.parametrize("table, message", [
    ([[0, 1, 2, 3]], "at least 2 rows of 4"), ([[0, 1, 2], [0, 2, 1]], "expected at least 2 rows of 4"),
    ([[0, 1, 2, 3], [0, 1, 2, 2]], "row 1 is no permutation"), ([[0, 1, 2, 3]] * 2, "there twice")])
def test_bad_permutations_are_refused(tmp_path, table, message):
  np.save(tmp_path / "p.npy", table)
  with pytest.raises(InputError, match=message):
    patch_layouts.check_permutations(read_table(tmp_path / "p.npy", "permutation_file"), 4, "permutation_file=p.npy")


def test_tables_of_text_and_damaged_ones(tmp_path):
  (tmp_path / "p.txt").write_text("1 2 3 4\n2 1 4 3\n")
  actual = patch_layouts.check_permutations(read_table(tmp_path / "p.txt", "permutation_file"), 4, "p.txt")
  np.testing.assert_array_equal(actual, [[0, 1, 2, 3], [1, 0, 3, 2]])
  np.save(tmp_path / "o.npy", np.array([{}], object), allow_pickle=True)
  (tmp_path / "t.txt").write_text("one two\n")
  for name in ("o.npy", "t.txt", "missing.npy"):
    with pytest.raises(InputError, match=f"permutation_file=.*{name}: cannot be read"):
      read_table(tmp_path / name, "permutation_file")
