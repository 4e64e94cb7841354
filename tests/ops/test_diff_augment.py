"""Differentiable augmentation: each change is what it says, and gradients pass through."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax.ops import diff_augment
from embeddings_jax.types import InputError

IMAGE = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (16, 16, 3)), jnp.float32)


def test_a_translation_is_a_shift_with_black_beside_it():
  shifts, change = set(), jax.jit(diff_augment.translated)
  for seed in range(12):
    moved = np.asarray(change(jax.random.key(seed), IMAGE))
    framed = np.pad(np.asarray(IMAGE), ((2, 2), (2, 2), (0, 0)), constant_values=-1)
    fitting = [(i, j) for i, j in np.ndindex(5, 5) if np.allclose(framed[i:i + 16, j:j + 16], moved, atol=1e-6)]
    assert len(fitting) == 1
    shifts.update(fitting)
  assert len(shifts) > 5


def test_a_cutout_is_a_gray_rectangle_of_half_the_sides():
  sizes, change = [], jax.jit(diff_augment.cut_out)
  for seed in range(12):
    cut = np.asarray(change(jax.random.key(seed), IMAGE))
    gray = (cut == 0).all(-1)
    np.testing.assert_array_equal(cut[~gray], np.asarray(IMAGE)[~gray])
    rows, columns = gray.any(1).sum(), gray.any(0).sum()
    assert gray.sum() == rows * columns and 4 <= rows <= 8 and 4 <= columns <= 8
    sizes.append(rows * columns)
  assert max(sizes) == 64


def test_colors_keep_their_pattern():
  changed = np.asarray(diff_augment.recolored(jax.random.key(1), IMAGE), np.float64)
  gray, before = changed.mean(-1), np.asarray(IMAGE, np.float64).mean(-1)
  slope, offset = np.polyfit(before.ravel(), gray.ravel(), 1)
  np.testing.assert_allclose(gray, slope * before + offset, atol=1e-5)
  assert 0.5 <= slope <= 1.5 and abs(gray.mean() - before.mean()) <= 0.5


def test_gradients_pass_and_draws_belong_to_rows():
  images = jnp.stack([IMAGE] * 4)
  changed = jax.jit(lambda x: diff_augment.diff_augment(jax.random.key(0), x, ("color", "translation")))
  actual, pull = jax.vjp(changed, images)
  assert (np.abs(np.asarray(pull(jnp.ones_like(images))[0])).sum((1, 2, 3)) > 0).all()
  assert not np.allclose(actual[0], actual[1])
  np.testing.assert_allclose(changed(images[:2]), actual[:2], atol=1e-6)
  assert diff_augment.diff_augment(jax.random.key(0), images, ()) is images
  with pytest.raises(InputError, match="augmentation='colour': must be of color"):
    diff_augment.check_changes(("colour",))
