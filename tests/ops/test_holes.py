"""Holes: their areas, their variety, their borders."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats

from embeddings_jax.ops import holes
from embeddings_jax.types import InputError


def draw(name, num=50, height=16, width=12, **options):
  return np.asarray(jax.vmap(lambda key: holes.hole(key, name, height, width, **options))(
      jax.random.split(jax.random.key(0), num)))


def test_fixed_holes_are_slices():
  expected = np.zeros((3, 16, 12))
  expected[0, 4:12, 3:9] = expected[1, :8] = expected[2, :, :6] = 1
  for name, one in zip(("center", "top", "left"), expected):
    np.testing.assert_array_equal(draw(name, 2), [one, one])


@pytest.mark.parametrize("name", ["blocks", "region"])
def test_random_holes_differ_from_image_to_image(name):
  actual = draw(name)
  assert len({mask.tobytes() for mask in actual}) == 50
  areas = actual.mean((1, 2))
  assert actual.mean(0).min() > 0 and actual.mean(0).max() < 0.6  # Everywhere, nowhere always.
  if name == "region":
    np.testing.assert_allclose(areas, 0.25, atol=0.01)
  else:
    assert 0.03 <= areas.min() and areas.max() < 0.375


def test_a_single_block_is_uniform_in_its_place(monkeypatch):
  monkeypatch.setattr(holes, "NUM_BLOCKS", 1)
  actual = draw("blocks", 2000, 8, 8, area=0.03)  # Of one pixel.
  assert (actual.sum((1, 2)) == 1).all()
  assert scipy.stats.chisquare(actual.sum(0).ravel()).pvalue > 1e-3


def test_erosion_is_scipys_with_nothing_beyond_the_edge():
  masks = draw("region", 5, area=0.6)
  for mask in masks:
    expected = scipy.ndimage.binary_erosion(mask, np.ones((3, 3)), border_value=1)
    np.testing.assert_array_equal(holes.eroded(jnp.asarray(mask), 1), expected)
    np.testing.assert_array_equal(holes.eroded(jnp.asarray(mask), 0), mask)


def test_jumps_are_means_over_pairs_of_pixels():
  rng = np.random.default_rng(0)
  image, mask = rng.random((4, 5, 2)).astype(np.float32), rng.integers(0, 2, (4, 5)).astype(np.float32)
  jumps = [np.abs(image[i, j] - image[k, m]).mean() for i in range(4) for j in range(5)
           for k, m in ((i + 1, j), (i, j + 1)) if k < 4 and m < 5 and mask[i, j] != mask[k, m]]
  actual = holes.border_jump(jnp.asarray(image)[None], jnp.asarray(mask)[None])
  np.testing.assert_allclose(actual, [np.mean(jumps)], rtol=1e-5)


def test_unknown_holes_are_refused():
  with pytest.raises(InputError, match="hole='circle'"):
    holes.hole(jax.random.key(0), "circle", 8, 8)
  with pytest.raises(InputError, match="area=1"):
    holes.hole(jax.random.key(0), "center", 8, 8, 1)
