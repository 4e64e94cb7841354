"""Corruption of images: what it changes, how much, and that it depends on its key alone."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax.ops.corruption import corrupted

X = jnp.full((50, 20, 20, 3), 0.25)


@pytest.mark.parametrize("kind,level,values", [("masking", 0.3, {0, 0.25}), ("salt_and_pepper", 0.4, {0, 0.25, 1})])
def test_whole_pixels_are_changed_at_the_level_s_rate(kind, level, values):
  actual = np.asarray(corrupted(jax.random.key(0), X, kind, level))
  assert set(np.unique(actual)) == values and (np.ptp(actual, axis=3) == 0).all()
  assert (actual != 0.25).mean() == pytest.approx(level, abs=0.02)
  if kind == "salt_and_pepper":
    assert (actual == 1).mean() == pytest.approx(level / 2, abs=0.02)


def test_gaussian_noise_has_the_level_s_deviation_and_none_changes_nothing():
  noise = np.asarray(corrupted(jax.random.key(0), X, "gaussian", 0.3) - X)
  assert noise.std() == pytest.approx(0.3, rel=0.01) and abs(noise.mean()) < 0.01
  assert corrupted(jax.random.key(0), X, "none", 0.3) is X
