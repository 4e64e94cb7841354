"""Distances of generated samples: scipy, a double loop, closed forms, bad input; features name themselves."""
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import linalg

from embeddings_jax.eval import generation as module
from embeddings_jax.eval import image_features
from embeddings_jax.eval.generation import frechet_distance, generation, kernel_distance
from embeddings_jax.types import InputError


def features(number, dim, seed=0, rank=None):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(number, rank or dim)) @ rng.normal(size=(rank or dim, dim)) + rng.normal(size=dim)


def test_frechet_is_scipys_with_the_covariance_of_n_minus_1():
  first, second = features(60, 7), features(50, 7, 1)
  covariances = [np.cov(x.T) for x in (first, second)]
  expected = (np.square(first.mean(0) - second.mean(0)).sum() + np.trace(covariances[0] + covariances[1])
              - 2 * np.trace(linalg.sqrtm(covariances[0] @ covariances[1]).real))
  assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-8)
  assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first), rel=1e-8)


def test_frechet_of_known_moments():
  """Standardized draws have exactly the moments: N(0, I) and N(m, s^2 I) differ by |m|^2 + d (s - 1)^2."""
  x = features(80, 5)
  white = (x - x.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
  shift = np.arange(5.0)
  assert frechet_distance(white, white + shift) == pytest.approx(30, rel=1e-9)
  assert frechet_distance(white, 3 * white) == pytest.approx(20, rel=1e-9)


def test_frechet_is_real_and_not_negative_at_deficient_ranks():
  for seed in range(8):
    first, second = features(30, 20, seed, rank=3), features(30, 20, seed + 10, rank=2)
    for pair in ((first, second), (first, first), (first, first[::-1] * (1 + 1e-12))):
      assert isinstance(frechet_distance(*pair), float) and frechet_distance(*pair) >= 0
    assert frechet_distance(first, first) < 1e-5 * np.trace(np.cov(first.T))
  constant = np.ones((5, 3))
  assert frechet_distance(constant, constant + 2) == pytest.approx(12)


def test_kernel_is_a_double_loop_in_any_blocks(monkeypatch):
  monkeypatch.setattr(module, "BLOCK", 7)
  first, second = features(20, 4), features(17, 4, 1)
  kernel = lambda x, y: (x @ y / 4 + 1) ** 3
  inner = lambda x: np.mean([kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
  expected = inner(first) + inner(second) - 2 * np.mean([kernel(a, b) for a in first for b in second])
  assert kernel_distance(first, second) == pytest.approx(expected, rel=1e-10)


def test_kernel_is_unbiased():
  """Its mean over draws from one distribution is 0 within three standard errors, and it falls below 0."""
  actual = [kernel_distance(*np.random.default_rng(seed).normal(size=(2, 12, 3))) for seed in range(400)]
  assert abs(np.mean(actual)) < 3 * np.std(actual) / 20 and min(actual) < 0


def squares(number=120, side=8):
  """Images of two classes: bright above, or bright below."""
  rng = np.random.default_rng(0)
  label = np.arange(number) % 2
  images = rng.integers(0, 60, (number, side, side, 1))
  for image, half in zip(images, label):
    image[half * side // 2:(half + 1) * side // 2] += 150
  return images.astype(np.uint8), label


def made(labels=True, number=120):
  images, label = squares(number)
  return SimpleNamespace(
      name="made", kind="images", items=images, image_shape=None, fingerprint="f",
      labels={"class": label} if labels else {},
      split={"train": np.arange(number // 3), "test": np.arange(number // 3, number)})


@pytest.fixture
def short(monkeypatch, tmp_path):
  monkeypatch.setattr(image_features, "STEPS", 30)
  return tmp_path


def test_real_images_are_near_and_one_class_shows(short):
  """30 batches of training tell the classes apart; samples of one class are far, and the other's share is 0."""
  data = made()
  images = data.items / 255
  classifier = image_features.trained_classifier(
      data.items, data.labels["class"], data.split["train"], data.split["test"], fingerprint="f", cache_dir=short,
      steps=30)
  assert classifier.accuracy == 1 and classifier.name.startswith("classifier_") and "_8x8_uint8" in classifier.name
  again = image_features.trained_classifier(
      data.items, data.labels["class"], data.split["train"], data.split["test"], fingerprint="f", cache_dir=short,
      steps=30)
  assert again.name == classifier.name and len(list(short.glob("classifier-*.npz"))) == 1
  generators = {"prior": lambda num, seed: images[40:40 + num], "one": lambda num, seed: images[:1].repeat(num, 0)}
  actual = generation(None, data, generators=generators, features=classifier)
  key = f"{classifier.name}_n80"
  assert actual[f"test/floor/{key}/classifier_accuracy"] == 1
  assert actual[f"test/prior/{key}/frechet"] < 1e-3 < actual[f"test/floor/{key}/frechet_floor"]
  assert actual[f"test/one/{key}/frechet"] > 5 * actual[f"test/floor/{key}/frechet_floor"]
  assert actual[f"test/one/{key}/kernel"] > 5 * abs(actual[f"test/floor/{key}/kernel_floor"])
  assert actual[f"test/prior/{key}/smallest_class"] == 0.5 and actual[f"test/one/{key}/smallest_class"] == 0
  assert actual[f"test/one/{key}/class_0"] == 1 and actual[f"test/one/{key}/spread"] == 0


def test_rows_have_their_values_as_features():
  rng = np.random.default_rng(0)
  label = np.arange(400) % 2
  rows = rng.normal(size=(400, 2)) + 6 * label[:, None]
  data = SimpleNamespace(name="r", kind="rows", items=rows, image_shape=None, labels={"side": label}, split={})
  encode = lambda items: {"x": (np.asarray(items) - 3) / 2}
  generators = {"prior": lambda num, seed: (rows[:num] - 3) / 2,
                "one": lambda num, seed: (rows[::2].repeat(2, 0) - 3) / 2}
  actual = generation(None, data, generators=generators, encode=encode)
  assert actual["all/prior/values_n400/frechet"] == pytest.approx(0, abs=1e-9)
  assert actual["all/one/values_n400/frechet"] > 3 and actual["all/one/values_n400/smallest_class"] < 0.02
  assert actual["all/floor/values_n400/classifier_accuracy"] > 0.98


@pytest.mark.parametrize("data, samples, message", [
    (made(labels=False, number=60), np.zeros((60, 8, 8, 1)), r"40 samples of 64 features \(pixels_8x8_uint8\)"),
    (made(labels=False, number=300), np.zeros((300, 4, 4, 1)), "samples have the shape .4, 4, 1., the items of made"),
    (made(labels=False, number=300), np.full((300, 8, 8, 1), np.nan), "a sample of prior is not finite"),
    (SimpleNamespace(name="t", kind="text", image_shape=None), None, "generation: t holds text; name a dataset"),
])
def test_mistakes(data, samples, message):
  with pytest.raises(InputError, match=message):
    generation(None, data, generators={"prior": lambda num, seed: samples[:num]})
