"""Changes of images: each against Pillow, scipy or Python's own on photographs, and how their numbers are drawn."""
import colorsys
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_images

from embeddings_jax.ops import augment
from embeddings_jax.types import InputError
from tests.hlo import collectives

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@pytest.fixture(scope="module")
def photographs():
  """uint8 [2, 160, 200, 3]: a temple's roofs before the sky, and a flower."""
  china, flower = load_sample_images().images
  return np.stack([china[100:260, 150:350], flower[150:310, 250:450]])


def unit(photograph):
  return jnp.asarray(photograph, jnp.float32) / 255


# The cores.


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@pytest.mark.parametrize("box, size", [
    ((0, 0, 200, 160), 32),  # Shrunk, not by the same factor in both directions,
    ((0, 0, 200, 160), 224),  # enlarged,
    ((37, 11, 101, 75), 64),  # not resized at all,
    ((150, 120, 200, 160), 96),  # at a corner,
    ((10.25, 20.5, 133.75, 47.125), 48),  # broken pixels, shrunk one way and enlarged the other.
])
def test_crops_are_pillows(photographs, method, box, size):
  for photograph in photographs:
    actual = np.asarray(jax.jit(augment.resized_crop, static_argnums=2, static_argnames="method")(
        unit(photograph), jnp.array(box, jnp.float32), size, method=method))
    resize = lambda image: np.asarray(image.resize((size, size), FILTERS[method], box))
    floats = np.stack([resize(Image.fromarray(np.asarray(unit(photograph))[..., c])) for c in range(3)], -1)
    np.testing.assert_allclose(actual, np.clip(floats, 0, 1), atol=2e-5)  # Its places are float64.
    # With bytes Pillow rounds after each of the two axes, and where bicubic overshoots it clips there too.
    error = np.abs(actual * 255 - resize(Image.fromarray(photograph)))
    assert error.max() <= (1.001 if method == "bilinear" else 12)
    assert (error <= 1.001).mean() > (0.9999 if method == "bilinear" else 0.99)


def test_a_crop_of_all_in_its_own_size_is_the_picture(photographs):
  image = unit(photographs[0][:, :160])
  for method in FILTERS:
    np.testing.assert_array_equal(augment.resized_crop(image, jnp.array([0, 0, 160, 160]), 160, method=method), image)


@pytest.mark.parametrize("ours, theirs", [
    (augment.adjust_brightness, ImageEnhance.Brightness),
    (augment.adjust_contrast, ImageEnhance.Contrast),
    (augment.adjust_saturation, ImageEnhance.Color),
])
@pytest.mark.parametrize("factor", [0.0, 0.2, 0.7, 1.0, 1.4, 1.8])
def test_tones_are_pillows(photographs, ours, theirs, factor):
  for photograph in photographs:
    actual = np.asarray(ours(unit(photograph), factor))
    expected = np.asarray(theirs(Image.fromarray(photograph)).enhance(factor))
    # Pillow rounds gray, or its mean, to bytes, which counts |1 - factor|, and cuts the result off.
    assert np.abs(actual * 255 - expected).max() <= 1.001 + 0.5 * abs(1 - factor)
    if factor == 1:
      np.testing.assert_array_equal(actual, unit(photograph))


def test_gray_is_pillows(photographs):
  for photograph in photographs:
    actual = np.asarray(augment.gray(unit(photograph)))[..., 0]
    assert np.abs(actual * 255 - np.asarray(Image.fromarray(photograph).convert("L"))).max() <= 0.51
  one = unit(photographs[0])[..., :1]
  np.testing.assert_array_equal(augment.gray(one), one)


@pytest.mark.parametrize("shift", [-0.5, -0.2, -0.05, 0.0, 0.1, 0.3, 0.5])
def test_hue_is_that_of_colorsys(photographs, shift):
  pixels = np.concatenate([photographs[:, ::8, ::8].reshape(-1, 3) / 255, [  # And all that ties, or is gray.
      [0, 0, 0], [1, 1, 1], [0.3, 0.3, 0.3], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 0, 1],
      [1, 0.2, 0.2], [0.2, 0.2, 1], [0.5, 0.7, 0.5], [1e-7, 0, 0], [1, 0, 1e-7]]])
  expected = []
  for pixel in pixels:
    hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
    expected.append(colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value))
  actual = np.asarray(augment.adjust_hue(jnp.asarray(pixels[None], jnp.float32), shift))[0]
  np.testing.assert_allclose(actual, expected, atol=2e-6)


@pytest.mark.parametrize("threshold", [0, 100, 128, 255])
def test_solarized_is_pillows(photographs, threshold):
  for photograph in photographs:
    actual = augment.solarized(unit(photograph), threshold / 255)
    expected = ImageOps.solarize(Image.fromarray(photograph), threshold)
    np.testing.assert_allclose(np.asarray(actual) * 255, np.asarray(expected), atol=1e-4)


@pytest.mark.parametrize("kernel_size", [1, 3, 9, 23])
def test_blurred_is_scipys(photographs, kernel_size):
  photograph, radius = photographs[1], kernel_size // 2
  blurred = jax.jit(functools.partial(augment.blurred, kernel_size=kernel_size))
  for sigma in (0.1, 0.5, 1.3, 2.0, 9.0):
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    expected = photograph / 255
    for axis in (0, 1):
      expected = scipy.ndimage.correlate1d(expected, taps / taps.sum(), axis, mode="mirror")
    np.testing.assert_allclose(blurred(unit(photograph), sigma), expected, atol=1e-6)
  np.testing.assert_array_equal(blurred(unit(photograph), 0.0), unit(photograph))


def test_blurred_without_an_end_to_the_kernel_is_scipys_gaussian_filter(photographs):
  image = photographs[0] / 255
  expected = scipy.ndimage.gaussian_filter(image, 2.0, mode="mirror", radius=15, axes=(0, 1))
  np.testing.assert_allclose(augment.blurred(unit(photographs[0]), 2.0, 31), expected, atol=1e-6)


def test_a_kernel_as_wide_as_the_picture_is_mirrored_once():
  image = np.random.default_rng(0).random((5, 6, 1))
  taps = np.exp(-0.5 * (np.arange(-4, 5) / 3) ** 2)
  expected = image
  for axis in (0, 1):
    expected = scipy.ndimage.correlate1d(expected, taps / taps.sum(), axis, mode="mirror")
  np.testing.assert_allclose(augment.blurred(jnp.asarray(image, jnp.float32), 3.0, 9), expected, atol=1e-6)


def test_sobel_is_scipys(photographs):
  for photograph in photographs:
    channels = np.moveaxis(photograph / 255, -1, 0)
    slopes = [np.stack([scipy.ndimage.sobel(channel, axis) for channel in channels], -1) for axis in (0, 1)]
    expected = np.minimum(np.hypot(*slopes) / 4, 1)
    np.testing.assert_allclose(augment.sobel_filtered(unit(photograph)), expected, atol=1e-6)
  edge = jnp.broadcast_to(jnp.where(jnp.arange(6) < 3, 0.0, 1.0)[:, None], (5, 6, 1))
  np.testing.assert_array_equal(augment.sobel_filtered(edge)[2, :, 0], [0, 0, 1, 1, 0, 0])


@pytest.mark.parametrize("quarters", range(4))
def test_rotated_is_numpys(photographs, quarters):
  photograph = photographs[0][:, :160]
  np.testing.assert_array_equal(augment.rotated(unit(photograph), quarters), np.rot90(unit(photograph), quarters))


@pytest.mark.parametrize("padding", ["reflect", "edge"])
@pytest.mark.parametrize("offset", [(0, 0), (4, -4), (-3, 1), (0, 2)])
def test_shifted_is_a_part_of_numpys_padded_picture(photographs, padding, offset):
  image = np.asarray(unit(photographs[0]))
  padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode=padding)
  expected = padded[4 + offset[0]:, 4 + offset[1]:][:160, :200]
  np.testing.assert_array_equal(augment.shifted(jnp.asarray(image), jnp.array(offset), padding=padding), expected)


@pytest.mark.parametrize("corner", [(0, 0), (-3, 5), (10, 17), (-9, -9)])
def test_cut_out_is_a_square(photographs, corner):
  expected = np.array(unit(photographs[0]))
  low, high = np.maximum(corner, 0), np.maximum(np.array(corner) + 8, 0)
  expected[low[0]:high[0], low[1]:high[1]] = 0.5
  np.testing.assert_array_equal(augment.cut_out(unit(photographs[0]), jnp.array(corner), 8), expected)


# How their numbers are drawn.


def _within_errors(share, expected, num, errors=4):
  assert abs(share - expected) <= errors * math.sqrt(expected * (1 - expected) / num)


def _is_uniform(values, low, high):
  """By Kolmogorov and Smirnov, as unlikely to fail as four standard errors are."""
  assert scipy.stats.kstest(values, "uniform", (low, high - low)).pvalue > 6e-5


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4, 5))
def _boxes(rng, num, height, width, scale, ratio):
  draw = lambda rng: augment.random_box(rng, height, width, scale=scale, ratio=ratio)
  return jax.vmap(draw)(jax.random.split(rng, num))


def test_areas_are_uniform_and_ratios_log_uniform_where_every_box_fits():
  size = 20_000  # So that rounding to pixels does not count.
  left, top, right, bottom = np.asarray(_boxes(jax.random.key(0), 8000, size, size, (0.08, 0.5), (3 / 4, 4 / 3))).T
  width, height = right - left, bottom - top
  _is_uniform(width * height / size**2, 0.08, 0.5)
  _is_uniform(np.log(width / height), math.log(3 / 4), math.log(4 / 3))
  place = left / (size - width), top / (size - height)
  for one in place:
    _is_uniform(one, 0, 1)
  for one, other in ((width * height, width / height), place, (place[0], width), (place[1], height)):
    assert abs(scipy.stats.spearmanr(one, other).statistic) < 4 / math.sqrt(8000)


@pytest.mark.parametrize("height, width", [(32, 32), (427, 640)])
def test_boxes_are_drawn_as_a_loop_draws_them(height, width):
  rng = np.random.default_rng(0)

  def loop():
    while True:
      area, aspect = height * width * rng.uniform(0.08, 1), math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
      box_height, box_width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
      if box_height <= height and box_width <= width:
        left, top = rng.integers(width - box_width + 1), rng.integers(height - box_height + 1)
        return left, top, left + box_width, top + box_height

  expected = np.array([loop() for _ in range(8000)])
  actual = np.asarray(_boxes(jax.random.key(1), 8000, height, width, (0.08, 1.0), (3 / 4, 4 / 3)))
  assert (actual[:, :2] >= 0).all() and (actual[:, 2] <= width).all() and (actual[:, 3] <= height).all()
  assert (actual[:, 2:] > actual[:, :2]).all()
  for sizes in (lambda box: box[:, 2] - box[:, 0], lambda box: box[:, 3] - box[:, 1], lambda box: box[:, 0],
                lambda box: box[:, 1], lambda box: (box[:, 2:] - box[:, :2]).prod(1)):
    assert scipy.stats.ks_2samp(sizes(actual), sizes(expected)).pvalue > 6e-5


def test_where_no_box_fits_it_is_the_largest():
  actual = np.asarray(_boxes(jax.random.key(0), 200, 10, 100, (1.0, 1.0), (3 / 4, 4 / 3)))
  np.testing.assert_array_equal(actual[:, 2] - actual[:, 0], 13)  # 10 pixels times 4 / 3.
  np.testing.assert_array_equal(actual[:, 1::2], np.broadcast_to([0, 10], (200, 2)))
  assert len(set(actual[:, 0])) > 20


def _drawn(op, image, num, seed=0):
  return np.asarray(jax.jit(lambda rng, image: augment.augmented(op, rng, jnp.broadcast_to(
      image, (num, *image.shape))))(jax.random.key(seed), jnp.asarray(image, jnp.float32)))


NUM = 4000
PROBED = np.linspace(0.1, 0.9, 48).reshape(4, 4, 3)  # No symmetry: every change shows.
CHANGES = {
    "horizontal_flip": augment.horizontal_flip,
    "color_drop": augment.color_drop,
    "color_jitter": lambda p: augment.color_jitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1,
                                                   probability=p),
    "rotation": augment.rotation,
    "cutout": lambda p: augment.cutout(3, p),
    "gaussian_noise": lambda p: augment.gaussian_noise(0.1, p),
    "gaussian_blur": lambda p: augment.gaussian_blur(3, sigma=(0.5, 2.0), probability=p),
    "sobel": augment.sobel,
    "solarize": lambda p: augment.solarize(0.5, probability=p),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_happens_with_its_probability_and_else_the_picture_stays_bit_for_bit(name):
  image = PROBED.astype(np.float32)
  actual = _drawn(CHANGES[name](0.2), image, NUM)
  _within_errors((actual != image).any((1, 2, 3)).mean(), 0.2, NUM)
  assert actual.min() >= 0 and actual.max() <= 1 and np.isfinite(actual).all()


def test_white_and_black_stay_in_the_interval():
  image = jnp.stack([jnp.ones((24, 23, 3)), jnp.zeros((24, 23, 3))] * 100)
  op = augment.compose(augment.random_resized_crop(20), augment.random_resized_crop(31, method="bicubic"),
                       augment.color_drop(0.5), augment.gaussian_blur(9, probability=0.5), augment.random_shift(3))
  actual = np.asarray(jax.jit(functools.partial(augment.augmented, op))(jax.random.key(0), image))
  assert actual.max() == 1
  np.testing.assert_allclose(actual[::2], 1, atol=2e-6)
  np.testing.assert_array_equal(actual[1::2], 0)


def test_probability_0_is_the_identity_even_outside_the_interval():
  image = jnp.array([[[-2.0, 0.5, 7.0]]])
  for make in CHANGES.values():
    np.testing.assert_array_equal(make(0.0)(jax.random.key(0), image), image)
  for op in (augment.random_shift(0), augment.color_jitter(), augment.compose()):
    np.testing.assert_array_equal(op(jax.random.key(0), image), image)


@pytest.mark.parametrize("probability, shares", [(1.0, [0, 1 / 3, 1 / 3, 1 / 3]), (0.75, [1 / 4] * 4)])
def test_rotations_are_equally_likely(probability, shares):
  image = PROBED.astype(np.float32)
  actual = _drawn(augment.rotation(probability), image, NUM)
  for quarters, share in enumerate(shares):
    _within_errors((actual == np.rot90(image, quarters)).all((1, 2, 3)).mean(), share, NUM)


def test_flips_are_a_half():
  image = PROBED.astype(np.float32)
  actual = _drawn(augment.horizontal_flip(), image, NUM)
  _within_errors((actual == image[:, ::-1]).all((1, 2, 3)).mean(), 0.5, NUM)
  _within_errors((actual == image).all((1, 2, 3)).mean(), 0.5, NUM)


def test_shifts_are_uniform_and_independent():
  image = np.zeros((9, 9, 1), np.float32)
  image[4, 4] = 1
  actual = _drawn(augment.random_shift(2), image, NUM)[..., 0]
  counts = np.zeros((5, 5))
  for row in range(5):
    for column in range(5):
      counts[row, column] = actual[:, 2 + row, 2 + column].sum()
  assert counts.sum() == NUM
  assert scipy.stats.chisquare(counts.ravel()).pvalue > 6e-5


def test_cutouts_are_centered_on_any_pixel():
  actual = _drawn(augment.cutout(3, 1.0), np.zeros((6, 6, 1), np.float32), NUM)[..., 0]
  for axis in (1, 2):
    center = [np.flatnonzero(hit)[-1] - (not hit[-1] or hit.sum() == 3) for hit in (actual > 0).any(axis)]
    assert scipy.stats.chisquare(np.bincount(center, minlength=6)).pvalue > 6e-5
  np.testing.assert_array_equal(np.unique(actual), [0, 0.5])


@pytest.mark.parametrize("name, strength", [("brightness", 0.4), ("brightness", 1.5), ("contrast", 0.4),
                                            ("saturation", 0.4)])
def test_factors_are_uniform_in_their_ranges(name, strength):
  image = np.array([[[0.2, 0.3, 0.35]], [[0.35, 0.25, 0.3]]], np.float32)  # No factor clips.
  actual = _drawn(augment.color_jitter(**{name: strength}), image, NUM)
  factor = {
      "brightness": lambda x: x[..., 0, 0, 0],
      "contrast": lambda x: (x[..., 1, 0, :] - x[..., 0, 0, :]) @ augment.LUMA,
      "saturation": lambda x: x[..., 0, 0, 2] - x[..., 0, 0, 0],
  }[name]
  _is_uniform(factor(actual) / factor(image), max(0, 1 - strength), 1 + strength)


def test_turns_of_the_hue_are_uniform_in_their_range():
  actual = _drawn(augment.color_jitter(hue=0.2), np.array([[[0.1, 0.7, 0.7]]], np.float32), NUM)
  turns = [(colorsys.rgb_to_hsv(*pixel)[0] - 0.5) for pixel in actual[:, 0, 0]]
  _is_uniform(turns, -0.2, 0.2)


def test_widths_of_the_blur_are_uniform_in_their_range():
  image = np.zeros((9, 9, 1), np.float32)
  image[4, 4] = 1
  actual = _drawn(augment.gaussian_blur(3, sigma=(0.5, 2.0)), image, NUM)[..., 0]
  _is_uniform(np.sqrt(-0.5 / np.log(actual[:, 3, 4] / actual[:, 4, 4])), 0.5, 2.0)


def test_noise_is_normal_of_its_deviation():
  actual = _drawn(augment.gaussian_noise(0.05, 1.0), np.full((10, 10, 1), 0.5, np.float32), 200)
  assert scipy.stats.kstest((actual.ravel() - 0.5) / 0.05, "norm").pvalue > 6e-5


def test_jitter_makes_each_order_equally_often(monkeypatch):
  """With given factors the 24 orders of the four changes make 24 images, all told apart."""
  image = jnp.array([[[0.9, 0.5, 0.1], [0.2, 0.7, 0.4]]], jnp.float32)
  factors, turn = (1.4, 0.6, 1.7), 0.2
  uniform = jax.random.uniform

  def given(key, shape=(), *args, minval=0.0, maxval=1.0, **kwargs):
    if maxval is strength:
      return jnp.float32(turn)
    return jnp.array(factors) - 1 if shape == (3,) and not args else uniform(key, shape, *args, minval=minval,
                                                                             maxval=maxval, **kwargs)

  changes = [lambda x: augment.adjust_brightness(x, factors[0]), lambda x: augment.adjust_contrast(x, factors[1]),
             lambda x: augment.adjust_saturation(x, factors[2]), lambda x: augment.adjust_hue(x, turn)]
  expected = []
  for order in itertools.permutations(changes):
    changed = image
    for change in order:
      changed = change(changed)
    expected.append(np.asarray(changed))
  expected = np.stack(expected)
  apart = np.abs(expected[:, None] - expected).max((2, 3, 4))[~np.eye(24, dtype=bool)].min()
  assert apart > 1e-3
  strength = 0.30000001
  monkeypatch.setattr(jax.random, "uniform", given)
  actual = _drawn(augment.color_jitter(brightness=0.5, contrast=0.5, saturation=0.8, hue=strength), image, NUM)
  distance = np.abs(actual[:, None] - expected).max((2, 3, 4))
  assert distance.min(1).max() < 1e-5
  assert scipy.stats.chisquare(np.bincount(distance.argmin(1), minlength=24)).pvalue > 6e-5


# Composition, batches, pipelines.


def test_the_i_th_op_has_the_i_th_key(photographs):
  rng, image = jax.random.key(3), unit(photographs[0])
  ops = [augment.gaussian_noise(0.1, 1.0), augment.solarize(0.5), augment.gaussian_noise(0.1, 1.0)]
  expected = image
  for i, op in enumerate(ops):
    expected = op(jax.random.fold_in(rng, i), expected)
  np.testing.assert_array_equal(augment.compose(*ops)(rng, image), expected)


def test_rows_differ_and_the_same_key_gives_the_same(photographs):
  op = jax.jit(functools.partial(augment.augmented, augment.random_resized_crop(32)))
  images = np.stack([photographs[0]] * 4)
  actual = op(jax.random.key(0), images)
  assert actual.shape == (4, 32, 32, 3) and actual.dtype == jnp.float32
  np.testing.assert_array_equal(actual, op(jax.random.key(0), images))
  assert (actual != op(jax.random.key(1), images)).any((1, 2, 3)).all()
  assert all((actual[i] != actual[j]).any() for i in range(4) for j in range(i))
  floats = images[:2].astype(np.float32) / 255  # A row's number decides, and bytes are no matter.
  np.testing.assert_allclose(actual[:2], op(jax.random.key(0), floats), atol=2e-6)


def test_eight_devices_make_what_one_makes_and_move_no_picture(photographs, mesh_of):
  images = np.stack([photographs[i % 2][i:i + 64, 2 * i:2 * i + 64] for i in range(32)])
  op = augment.compose(augment.simclr_augmentation(32), augment.random_shift(2), augment.gaussian_noise(0.1, 0.5))
  op = jax.jit(functools.partial(augment.augmented, op))
  expected = op(jax.random.key(0), images)
  mesh = mesh_of("data:2,fsdp:4")
  with jax.set_mesh(mesh):
    placed = jax.device_put(images, NamedSharding(mesh, P(("data", "fsdp"))))
    compiled = op.lower(jax.random.key(0), placed).compile()
    actual = compiled(jax.random.key(0), placed)
  assert actual.sharding.spec == P(("data", "fsdp"))
  np.testing.assert_allclose(actual, expected, atol=1e-6)
  assert not collectives(compiled)


def test_no_gather_of_pixels_and_no_condition_is_compiled():
  image = jax.ShapeDtypeStruct((16, 96, 96, 3), jnp.uint8)
  for op in (augment.random_shift(4), augment.simclr_augmentation(96), augment.byol_augmentation(96, view=1)):
    text = jax.jit(functools.partial(augment.augmented, op)).lower(jax.random.key(0), image).as_text()
    assert not [line for line in text.splitlines() if "stablehlo.gather" in line and "x96x" in line]
    assert "stablehlo.dot_general" in text and "stablehlo.case" not in text and "stablehlo.fft" not in text


def test_pictures_of_one_channel_have_tones_but_no_colors():
  image = PROBED[..., :1].astype(np.float32)
  for op in (augment.color_drop(1.0), augment.color_jitter(saturation=0.5, hue=0.3)):
    np.testing.assert_array_equal(_drawn(op, image, 8), np.broadcast_to(image, (8, *image.shape)))
  actual = _drawn(augment.color_jitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1), image, 8)
  assert (actual != image).any((1, 2, 3)).all()
  for op in (augment.simclr_augmentation(8), augment.byol_augmentation(8, view=1)):
    assert jax.eval_shape(op, jax.random.key(0), image).shape == (8, 8, 1)


CROP = augment.random_resized_crop(40, method="bicubic")
FLIP, GRAY = augment.horizontal_flip(0.5), augment.color_drop(0.2)


def _jitter(brightness, contrast, saturation, hue):
  return augment.color_jitter(brightness=brightness, contrast=contrast, saturation=saturation, hue=hue,
                              probability=0.8)


@pytest.mark.parametrize("actual, ops", [
    (augment.simclr_augmentation(40), [CROP, FLIP, _jitter(0.8, 0.8, 0.8, 0.2), GRAY,
                                       augment.gaussian_blur(5, sigma=(0.1, 2.0), probability=0.5)]),
    (augment.simclr_augmentation(40, strength=0.5, blur=False), [CROP, FLIP, _jitter(0.4, 0.4, 0.4, 0.1), GRAY]),
    (augment.simclr_augmentation(40, blur=False, color=False, scale=(0.2, 1.0)),
     [augment.random_resized_crop(40, scale=(0.2, 1.0), method="bicubic"), FLIP]),
    (augment.byol_augmentation(40), [CROP, FLIP, _jitter(0.4, 0.4, 0.2, 0.1), GRAY,
                                     augment.gaussian_blur(5, probability=1.0),
                                     augment.solarize(0.5, probability=0.0)]),
    (augment.byol_augmentation(40, view=1), [CROP, FLIP, _jitter(0.4, 0.4, 0.2, 0.1), GRAY,
                                             augment.gaussian_blur(5, probability=0.1),
                                             augment.solarize(0.5, probability=0.2)]),
], ids=["simclr", "simclr on cifar", "simclr crops", "byol", "byol's other view"])
def test_pipelines_are_what_the_papers_say(actual, ops):
  example = jax.random.key(0), jnp.zeros((48, 48, 3))
  assert str(jax.make_jaxpr(actual)(*example)) == str(jax.make_jaxpr(augment.compose(*ops))(*example))


@pytest.mark.parametrize("message, call", [
    ("probability=1.5: must lie", lambda: augment.color_drop(1.5)),
    ("probability=-0.1: must lie", lambda: augment.horizontal_flip(-0.1)),
    ("scale=.0, 1.: must be a range", lambda: augment.random_resized_crop(8, scale=(0, 1))),
    ("scale=.0.1, 1.2.: must be a range", lambda: augment.random_resized_crop(8, scale=(0.1, 1.2))),
    ("ratio=.2, 1.: must be a range", lambda: augment.random_resized_crop(8, ratio=(2, 1))),
    ("method='nearest': must be one of bilinear, bicubic", lambda: augment.random_resized_crop(8, method="nearest")),
    ("padding='zero': must be one of reflect, edge", lambda: augment.random_shift(1, padding="zero")),
    ("size=0: must be at least 1 pixel", lambda: augment.random_resized_crop(0)),
    ("size=0: must be at least 1 pixel", lambda: augment.cutout(0, 1.0)),
    ("pixels=-1: must not be negative", lambda: augment.random_shift(-1)),
    ("pixels=4: a mirror image of 4 x 5 pixels", lambda: augment.random_shift(4)(
        jax.random.key(0), jnp.zeros((4, 5, 1)))),
    ("kernel_size=4: must be an odd number", lambda: augment.gaussian_blur(4)),
    ("kernel_size=9: too large for images of 4 x 5", lambda: augment.blurred(jnp.zeros((4, 5, 1)), 1.0, 9)),
    ("sigma=.0, 1.: must be a range above 0", lambda: augment.gaussian_blur(3, sigma=(0, 1))),
    ("std=-1: must not be negative", lambda: augment.gaussian_noise(-1, 1.0)),
    ("hue=0.6: must not be negative, and hue at most 0.5", lambda: augment.color_jitter(hue=0.6)),
    ("images of 4 x 5 pixels are not square", lambda: augment.rotated(jnp.zeros((4, 5, 1)), 1)),
    ("images of 4 channels: must have 1", lambda: augment.gray(jnp.zeros((4, 4, 4)))),
    ("view=2: BYOL has two", lambda: augment.byol_augmentation(32, view=2)),
])
def test_bad_options_are_refused(message, call):
  with pytest.raises(InputError, match=message):
    call()
